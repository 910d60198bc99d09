"""The bytes that clients make the service keep, and who gives some up where they become too many.

They are those of bodies that are read or answered, of rows that wait, and of what connections keep: half headers,
requests that wait, answers that are not taken. What is complete is answered. Were whoever comes last refused, a few
clients that send slowly, or stop, would keep all others out for as long as a body may take: so who has kept some for
longest makes room. Who has come with little, and was not looked at yet, does so last: that it waits is not its doing.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from lstm_serve.errors import QueueFull
from lstm_serve.serving.free_memory import trim

TOO_MANY = "too many bytes are being read and answered at once"


class Inflight:
    """The count, and its limit."""

    def __init__(self, limit: int) -> None:
        """Nothing is in flight yet."""
        self.limit = limit
        self.bytes = 0
        self.freed = 0  # since the last trim, in small pieces: of connections that are ended, and of bodies in parts
        self.uploads: dict[Upload | Kept, None] = {}  # what can be given up, the oldest first
        self.newcomers: dict[Upload | Kept, None] = {}  # and where there is nothing else

    def hold(self, size: int, of: "Upload | Kept | None" = None) -> None:
        """Count so many bytes more. Raises QueueFull, and counts none, where there is no room to be made for them.

        Nor does who asks, `of` which they are, have room where it is the one to go: no other goes for it then.
        """
        self.bytes += size
        while self.bytes > self.limit:
            if first := next(iter(self.uploads or self.newcomers), None):
                first.give_up()
            if first is None or first is of:
                self.bytes -= size
                raise QueueFull(TOO_MANY)

    def release(self, size: int) -> None:
        """So many bytes are not held any more."""
        self.bytes -= size

    def trim(self) -> None:
        """Give what is free back to the system: what was freed in small pieces does not go by itself."""
        self.freed = 0
        trim()


class Held:
    """The bytes that are in flight of one request."""

    __slots__ = ("_inflight", "_size")

    def __init__(self, inflight: Inflight, size: int) -> None:
        """So many are counted already."""
        self._inflight, self._size = inflight, size

    def become(self, size: int) -> None:
        """Be so many instead. Raises QueueFull, and changes nothing, where there is no room to be made for them."""
        if size > self._size:
            self._inflight.hold(size - self._size)
        else:
            self._inflight.release(self._size - size)
        self._size = size


class Kept:
    """The bytes that a connection keeps besides its bodies, and with which it goes where it has to make room."""

    __slots__ = ("_among", "_end", "_inflight", "size")

    def __init__(self, inflight: Inflight, end: Callable[[], None]) -> None:
        """None so far; `end` ends the connection."""
        self._inflight, self._end = inflight, end
        self._among = inflight.uploads
        self.size = 0

    def become(self, size: int, *, new: bool = False) -> None:
        """Be so many instead, `new` of a newcomer. It is given up itself where no other makes room."""
        self._inflight.release(self.size)
        self.size = 0
        among = self._inflight.newcomers if new else self._inflight.uploads
        if not size or among is not self._among:
            self._among.pop(self, None)
        self._among = among
        if not size:
            return
        among.setdefault(self)
        try:
            self._inflight.hold(size, self)
            self.size = size
        except QueueFull:
            if self in among:
                self.give_up()  # there was nobody else, or not even this one

    def close(self) -> None:
        """Let go of the bytes, and of the connection: it holds this, and would wait for the garbage collector."""
        self._inflight.freed += self.size
        self.become(0)
        self._end = _nothing

    def renew(self) -> None:
        """Be the last to make room: who asks and takes the answers may keep some for as long as it does."""
        if self.size:
            self._among.pop(self, None)
            self._among[self] = None

    def give_up(self) -> None:
        """Let go of the bytes, and end the connection."""
        self._inflight.freed += self.size
        self.become(0)
        self._end()


def _nothing() -> None:
    pass


class Upload(AbstractAsyncContextManager["Upload"]):
    """A body that comes in parts, while it is read. Raises QueueFull inside its block where it has to make room."""

    def __init__(self, inflight: Inflight) -> None:
        """Not one of the uploads until it is entered."""
        self._inflight = inflight
        self._timeout = asyncio.timeout(None)
        self.size = 0

    async def __aenter__(self) -> Self:
        """Be one of the uploads."""
        await self._timeout.__aenter__()
        self._inflight.uploads[self] = None
        return self

    def hold(self, size: int) -> None:
        """Count bytes that came. Raises QueueFull where none can make room, or this very body has to."""
        if self not in self._inflight.uploads:
            raise QueueFull(TOO_MANY)
        self._inflight.hold(size, self)
        self.size += size

    def give_up(self) -> None:
        """Let go of the bytes, and end the reading of the others."""
        del self._inflight.uploads[self]
        self._inflight.release(self.size)
        self._inflight.freed += self.size
        self.size = 0
        self._timeout.reschedule(0)

    async def __aexit__(
        self, exception: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Be none of the uploads any more; what a complete body holds is its request's from now on."""
        self._inflight.uploads.pop(self, None)
        self._inflight.freed += self.size  # a complete one is joined, and its parts are free too
        if error is not None:
            self._inflight.release(self.size)
        try:
            await self._timeout.__aexit__(exception, error, traceback)
        except TimeoutError:
            raise QueueFull(TOO_MANY) from None
