"""The log's way out, which waits for nobody: what a full pipe or disk does not take is kept for a while, then dropped.

A process that waits for whoever reads its log answers no health check, and no signal.
"""

import asyncio
import contextlib
import errno
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from lstm_serve.formats.polling import NOT_WAITING, PIPE_BUF, writable

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 1 << 20
RETRY_SECONDS = 0.1
# At the end of the process, so long is what waits still tried.
LAST_SECONDS = 1.0
NOBODY_READS = {errno.EPIPE, errno.EIO}  # of a pipe, of a terminal


class LogHandler(logging.Handler):
    """Writes what one iteration of the event loop has logged together, in parts that a pipe takes whole.

    A warning, and what comes from another thread or from no loop, is written on the spot, after what waits. Where other
    processes write there too, `take` gets the turn, if it is free, and `give` passes it on: between lines alone.
    """

    straight: ClassVar["LogHandler | None"] = None  # set where each line is JSON: see `logs.log_request`

    def __init__(self, descriptor: int, encoding: str = "utf-8", count: Callable[[], None] = lambda: None) -> None:
        """Write to this descriptor, and `count` each line that is dropped."""
        super().__init__()
        self.count = count
        self.take: Callable[[], bool] = lambda: True
        self.give: Callable[[], object] = lambda: None
        self._torn = False  # whether the last line is written in part
        self._descriptor = _not_waiting(descriptor)
        self._encoding = encoding
        self._room_within = writable(self._descriptor)
        self._waiting: deque[bytes] = deque()  # the first may be the rest of what was written in part
        self._size = 0
        self._dropped = 0  # since the log has last told of it
        self._failed = False
        self._soon = False
        self._retry: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's line."""
        try:
            self.put(self.format(record), now=record.levelno > logging.INFO)
        except Exception:  # noqa: BLE001 - what every handler does
            self.handleError(record)

    def put(self, line: str, *, now: bool = False) -> None:
        """Write a line `now`, or with the others of this iteration."""
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        self.acquire()
        try:
            if self._dropped or (self._waiting and self._size + len(data) > MAX_WAITING_BYTES):
                self._dropped += 1  # from the first on, all until there is room: one gap, and not many
                self.count()
            else:
                self._waiting.append(data)
                self._size += len(data)
            if not now and (loop := _loop()) is not None:
                if not self._soon:
                    self._soon = True
                    loop.call_soon(self.flush)
                return
            self.flush()
        finally:
            self.release()

    def flush(self) -> None:
        """Write what waits, as far as there is room for it."""
        self.acquire()
        try:
            self._soon = False
            if self._waiting and self.take():
                while self._waiting and self._room_within(0) and self._write():
                    pass
                if not self._torn:
                    self.give()
            if self._waiting:
                self._try_again()
                return
            self._failed = False
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.warning("%d lines of the log were dropped before this one: there was no room for them", dropped)
        finally:
            self.release()

    def close(self) -> None:
        """Try for a moment to write what still waits."""
        end = time.monotonic() + LAST_SECONDS
        while self._waiting and not self._failed and (left := end - time.monotonic()) > 0:
            self._room_within(left)
            self.flush()
        super().close()

    def _write(self) -> bool:
        """Whether some lines, or a part of a long one, could be written."""
        data = self._waiting.popleft()
        while self._waiting and len(data) + len(self._waiting[0]) <= PIPE_BUF:
            data += self._waiting.popleft()
        written = 0
        try:
            written = os.write(self._descriptor, data[:PIPE_BUF])
        except BlockingIOError:
            pass
        except OSError as error:
            self._refused(error)
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        self._size -= written
        if written < len(data):
            self._waiting.appendleft(data[written:])
        return written > 0

    def _refused(self, error: OSError) -> None:
        if error.errno in NOBODY_READS:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._descriptor)
        elif not self._failed:
            self._failed = True
            with contextlib.suppress(OSError, AttributeError):  # there is no standard error, or nobody reads it
                sys.stderr.write(
                    f"lstm-serve: the log cannot be written: {error.strerror}. Its lines are kept, up to "
                    f"{MAX_WAITING_BYTES >> 20} MiB, then dropped, until it can\n"
                )
                sys.stderr.flush()

    def _try_again(self) -> None:
        if self._retry is None and (loop := _loop()) is not None:
            self._retry = loop.call_later(RETRY_SECONDS, self._flush_again)

    def _flush_again(self) -> None:
        self._retry = None
        self.flush()


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _not_waiting(descriptor: int) -> int:
    """One that does not wait, of the same terminal; of anything else, the same.

    A terminal that has room may have too little, unlike a pipe. To change the descriptor itself would change it for the
    shell too.
    """
    try:
        return os.open(os.ttyname(descriptor), os.O_WRONLY | NOT_WAITING)
    except (OSError, AttributeError):  # it is none, or this is Windows
        return descriptor
