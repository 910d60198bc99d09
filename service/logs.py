"""Logs on standard output: one JSON object a line, or plain text where a person reads along."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, ClassVar, TextIO

import orjson

access = logging.getLogger("service.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
MAX_PATH = 200
_PREFIX = secrets.token_hex(6)
_COUNT = itertools.count(1)
NOBODY_READS = {errno.EPIPE, errno.EIO}  # of a pipe, of a terminal


def request_id(given: bytes | None = None) -> str:
    """The id that a client gave, if it may stand in a log; else a new one.

    That is a random prefix and a count: as unique as a UUID, in a quarter of the time.
    """
    if given is not None and REQUEST_ID.fullmatch(given := given.strip()):
        return given.decode()
    return f"{_PREFIX}-{next(_COUNT):x}"


def log_request(request_id: str, method: str, path: str, status: int, seconds: float, **more: object) -> None:
    """A line of the access log; `more` is what else is known of the request."""
    path = path[:MAX_PATH]
    record = {
        "request_id": request_id,
        "method": method,
        # A terminal would act on a control character, and a blank would look like the end of the path.
        "path": path if path.isprintable() and " " not in path else ascii(path),
        "status": status,
        "ms": round(seconds * 1000, 3),
        **more,
    }
    if Lines.straight is None:
        access.info("%s %s %d", method, record["path"], status, extra={"request": record})
    else:  # a record of `logging` costs 12 us more
        Lines.straight.put(_json(time.time(), "info", access.name, f"{method} {record['path']} {status}", record))


class JsonLines(logging.Formatter):
    """A record as one JSON object; what a request's record carries comes beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        more: dict[str, Any] = getattr(record, "request", {})
        if record.exc_info:
            more = {**more, "exception": self.formatException(record.exc_info)}
        return _json(record.created, record.levelname.lower(), record.name, record.getMessage(), more)


def _json(seconds: float, level: str, logger: str, message: str, more: Mapping[str, Any]) -> str:
    clock = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    content = {"time": clock, "level": level, "logger": logger, "message": message, **more}
    try:
        return orjson.dumps(content, default=str).decode()
    except TypeError:
        # A file's name that is not UTF-8 is half a surrogate pair to Python, and no text to JSON.
        plain = {key: ascii(value) if isinstance(value, str) else value for key, value in content.items()}
        return orjson.dumps(plain, default=ascii).decode()


class Text(logging.Formatter):
    """A record as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        request: dict[str, Any] = getattr(record, "request", {})
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006 - the reader's own clock
        parts = [clock, f"{record.levelname.lower():7}", record.getMessage()]
        parts += [f"{key}={request[key]}" for key in ("ms", "rows", "request_id") if key in request]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Lines(logging.StreamHandler[TextIO]):
    """Writes what one turn of the event loop has logged together, as many lines as a pipe takes whole.

    A warning, and what comes from another thread or from no loop, is written on the spot, after what waits.
    """

    straight: ClassVar["Lines | None"] = None  # set where each line is JSON: see `log_request`

    def __init__(self, stream: TextIO) -> None:
        """Write to this stream."""
        super().__init__(stream)
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's line."""
        try:
            self.put(self.format(record), now=record.levelno > logging.INFO)
        except Exception:  # noqa: BLE001 - what every handler does
            self.handleError(record)

    def put(self, line: str, *, now: bool = False) -> None:
        """Write a line `now`, or with the others of this turn."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            now = True
        self.acquire()
        try:
            self._waiting.append(line)
            if now:
                self.flush()
            elif len(self._waiting) == 1:
                loop.call_soon(self.flush)
        finally:
            self.release()

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            waiting, self._waiting = self._waiting, []
            for lines in _whole(waiting):
                self._write(lines)
        finally:
            self.release()

    def _write(self, lines: str) -> None:
        try:
            self.stream.write(lines)
            self.stream.flush()
        except Exception as error:  # noqa: BLE001 - what every handler does
            if isinstance(error, OSError) and error.errno in NOBODY_READS:
                # A traceback for each line would be more than the lines.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            else:
                self.handleError(logging.makeLogRecord({"msg": lines}))


def _whole(lines: list[str]) -> Iterator[str]:
    """The lines, joined to texts of at most PIPE_BUF bytes: of more, a pipe that is full may take a part alone.

    https://man7.org/linux/man-pages/man7/pipe.7.html
    """
    text, size = "", 0
    for line in lines:
        length = 1 + (len(line) if line.isascii() else len(line.encode(errors="replace")))
        if text and size + length > PIPE_BUF:
            yield text
            text, size = "", 0
        text, size = f"{text}{line}\n", size + length
    if text:
        yield text


def configure() -> None:
    """Send every logger's records to standard output, uvicorn's in the same form; its access log is ours.

    What no line shows is not looked up for each: https://docs.python.org/3/howto/logging.html#optimization
    """
    logging._srcfile = None  # noqa: SLF001 - the documented switch
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    with contextlib.suppress(OSError):  # what has no file behind it
        # Whoever made a pipe may have made it so that a full one takes a part of a line, or none.
        os.set_blocking(sys.stdout.fileno(), True)
    handler = Lines(sys.stdout)
    Lines.straight = None if sys.stdout.isatty() else handler
    handler.setFormatter(Text() if Lines.straight is None else JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
