"""Questions and answers between two processes, over a pair of sockets: each a line of JSON."""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

log = logging.getLogger(__name__)

MAX_LINE = 1 << 26
ANSWER = ""  # in place of the name of a question

Handlers = Mapping[str, Callable[[Any], Awaitable[Any]]]


class Channel:
    """One end. What the other asks is answered by the handler of that name, in a task of its own."""

    def __init__(self, handlers: Handlers) -> None:
        """Nobody is at the other end yet."""
        self._handlers = handlers
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering = set[asyncio.Task[None]]()
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, end: socket.socket) -> None:
        """Speak over this socket."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=end, limit=MAX_LINE)

    async def run(self) -> None:
        """Take what comes until the other end is closed; then nothing is answered any more."""
        try:
            with contextlib.suppress(ConnectionError):  # its process was ended
                while (line := await self._reader.readline()).endswith(b"\n"):  # or in the middle of a line
                    self._take(*orjson.loads(line))
        finally:
            await asyncio.sleep(0)  # what it said last is heard
            if self._writer is not None:
                self._writer.close()
            self._writer = None
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(ConnectionError("the other process has ended"))
            for task in self._answering:
                task.cancel()

    def _take(self, name: str, number: int, content: object) -> None:
        if name != ANSWER:
            self._answering.add(task := asyncio.create_task(self._answer(name, number, content)))
            task.add_done_callback(self._answering.discard)
        elif (asked := self._asked.get(number)) is not None and not asked.done():
            asked.set_result(content)

    async def ask(self, name: str, content: object = None) -> Any:  # noqa: ANN401 - what the handler gives
        """Return the other end's answer, None where it failed. Raises ConnectionError where that end is closed."""
        number = next(self._numbers)
        self._asked[number] = asked = asyncio.get_running_loop().create_future()
        try:
            self._send(name, number, content)
            return await asked
        finally:
            del self._asked[number]

    def tell(self, name: str, content: object) -> None:
        """Ask what needs no answer. Raises ConnectionError where the other end is closed."""
        self._send(name, next(self._numbers), content)

    async def _answer(self, name: str, number: int, content: object) -> None:
        answer = None
        try:
            answer = await self._handlers[name](content)
        except Exception:
            log.exception("%r of another process was not answered", name)
        self._send(ANSWER, number, answer)

    def _send(self, name: str, number: int, content: object) -> None:
        if self._writer is None:
            raise ConnectionError
        self._writer.write(message(name, number, content))


def message(name: str, number: int = -1, content: object = None) -> bytes:
    """Return a question, as it is sent."""
    return orjson.dumps([name, number, content]) + b"\n"
