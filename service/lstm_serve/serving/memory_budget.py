"""The bytes that clients make the service keep, who waits for room, and who gives some up where they become too many.

They are those of bodies that are read or answered, of rows that wait, and of what connections keep: half headers,
requests that wait, answers that are not taken. What is complete is answered.

Half of the limit is for bodies. One that is large is read on once there is room for it, one after the other: were all
read at once, none would be complete before there are too many bytes. The other half is for what has come anyhow.

Were whoever comes last refused, a few clients that send slowly, or stop, would keep all others out for as long as a
body may take: so who has been waited for longest makes room, at once for who brings little. Who waits for the service
does so last: it is not its doing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import islice
from types import TracebackType
from typing import Self

from lstm_serve.errors import QueueFull
from lstm_serve.serving.free_memory import trim

TOO_MANY = "too many bytes are being read and answered at once"
SLOW = 1.0  # seconds for which a client is waited for, after which it makes room for everybody
STOPPED = SLOW / 4  # and seconds in which nothing of a body came, after which it makes room for another
# Bytes of a body that are read without waiting for room; where there are no more, who was waited for longest makes room
# for them, however short that was.
AT_ONCE = 1 << 16
# After how many seconds a refusal is told: many come again at once, each with as many bytes, and take all the time.
TOLD_SECONDS = 0.5
AHEAD = 4  # times the bytes of a body that have come: more is not counted before it comes, for it might never


class Inflight:
    """The count, and its limit."""

    def __init__(self, limit: int) -> None:
        """Nothing is in flight yet."""
        self.limit = limit
        self.bytes = 0
        self.besides = 0  # those of them that connections keep, and of bodies that are not let in yet
        self.freed = 0  # since the last trim, in small pieces: of connections that are ended, and of bodies in parts
        # What can be given up, the oldest first; and where there is nothing else, what waits for the service.
        self.uploads: dict[Upload, None] = {}
        self.kept: dict[Kept, None] = {}
        self.queued: dict[Kept, None] = {}
        self._waiting = deque[tuple[Upload, int, asyncio.Future[None]]]()  # who waits for how much, in order
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, size: int, of: "Upload | Kept | None" = None, whole: int = 0) -> None:
        """Count so many bytes more. Raises QueueFull, and counts none, where there is no room to be made for them.

        Nor does who asks, `of` which they are, have room where it is the one to go: no other goes for it then. Others
        make room more easily for few bytes, which are not a part of a larger `whole`.
        """
        little = max(size, whole) <= AT_ONCE
        self.bytes += size
        while self.bytes > self.limit:
            if first := self._first_to_go(of, little=little):
                first.give_up()
            if first is None or first is of:
                self.bytes -= size
                raise QueueFull(TOO_MANY)

    def release(self, size: int) -> None:
        """So many bytes are not held any more."""
        self.bytes -= size
        if self._waiting:
            self._let_in()

    async def wait_for_room(self, upload: "Upload", size: int) -> None:
        """Wait until there is room for a body: for what has come of it, and so many bytes more, which it holds then."""
        let_in = asyncio.get_running_loop().create_future()
        self._waiting.append((upload, size, let_in))
        if self._timer is None:
            self._end_slow()
        await let_in

    def trim(self) -> None:
        """Give what is free back to the system: what was freed in small pieces does not go by itself."""
        self.freed = 0
        trim()

    def _first_to_go(self, of: "Upload | Kept | None", *, little: bool) -> "Upload | Kept | None":
        oldest: list[Upload | Kept] = [*islice(self.uploads, 1), *islice(self.kept, 1)]
        first = min(oldest, key=lambda one: one.since, default=None)
        if little:
            return first or next(iter(self.queued), None)
        return first if first is not None and time.monotonic() - first.since > SLOW else of

    def _let_in(self) -> None:
        """Let in who waits, as far as there is room; where nobody is in, whatever it needs."""
        while self._waiting:
            upload, size, let_in = self._waiting[0]
            inside = self.bytes - self.besides
            if not let_in.done():
                if inside and inside + upload.held + size > self.limit // 2:
                    return
                self.bytes += size
                self.besides -= upload.held
                upload.held += size
                upload.let_in = True
                let_in.set_result(None)
            self._waiting.popleft()

    def _end_slow(self) -> None:
        """While a body waits for room, those make some that were let in, and are not complete a while later."""
        self._timer = None
        self._let_in()
        now = time.monotonic()
        for upload in [*self.uploads]:
            if self._waiting and upload.let_in and (now - upload.since > SLOW or now - upload.heard > STOPPED):
                upload.give_up()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(SLOW / 10, self._end_slow)


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

    __slots__ = ("_among", "_end", "_inflight", "since", "size")

    def __init__(self, inflight: Inflight, end: Callable[[], None]) -> None:
        """None so far; `end` ends the connection."""
        self._inflight, self._end = inflight, end
        self._among = inflight.kept
        self.size = 0
        self.since = 0.0

    def become(self, size: int, *, queued: bool = False) -> None:
        """Be so many instead, `queued` where they wait for the service. Given up itself where no other makes room."""
        inflight = self._inflight
        inflight.besides -= self.size
        inflight.release(self.size)
        self.size = 0
        among = inflight.queued if queued else inflight.kept
        if not size or among is not self._among:
            self._among.pop(self, None)
        self._among = among
        if not size:
            return
        if self not in among:
            among[self] = None
            self.since = time.monotonic()
        try:
            inflight.hold(size, self)
        except QueueFull:
            if self in among:
                self.give_up()  # there was nobody else, or not even this one
        else:
            self.size = size
            inflight.besides += size

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
            self.since = time.monotonic()

    def give_up(self) -> None:
        """Let go of the bytes, and end the connection."""
        self._inflight.freed += self.size
        self.become(0)
        self._end()


def _nothing() -> None:
    pass


class Upload(AbstractAsyncContextManager["Upload"]):
    """A body that comes in parts, while it is read. Raises QueueFull inside its block where it has to make room."""

    def __init__(self, inflight: Inflight, seconds: float) -> None:
        """Not one of the uploads until it is entered; it waits for room for so many seconds."""
        self._inflight, self._seconds = inflight, seconds
        self._timeout = asyncio.timeout(None)
        self._came = 0
        self.held = 0
        self.let_in = False
        self.since = self.heard = time.monotonic()

    async def __aenter__(self) -> Self:
        """Be one of the uploads."""
        await self._timeout.__aenter__()
        self._inflight.uploads[self] = None
        return self

    async def hold(self, size: int, expected: int) -> None:
        """Count bytes that came, of as many as are `expected` in all. A large body waits for room, once.

        Raises QueueFull where none can make room, or this very body has to.
        """
        inflight = self._inflight
        if self not in inflight.uploads:
            raise QueueFull(TOO_MANY)
        self._came += size
        self.heard = time.monotonic()
        if (more := self._came - self.held) > 0:
            inflight.hold(more, self, expected)
            self.held += more
            inflight.besides += 0 if self.let_in else more
        if self._came > AT_ONCE and not self.let_in:
            await self._wait(max(0, min(AHEAD * self._came, expected) - self.held))

    async def _wait(self, size: int) -> None:
        """Wait for room, and be no upload meanwhile: it is not its client that is waited for."""
        del self._inflight.uploads[self]
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)
        await self._inflight.wait_for_room(self, size)
        self._timeout.reschedule(None)
        self.since = self.heard = time.monotonic()
        self._inflight.uploads[self] = None

    def give_up(self) -> None:
        """Let go of the bytes, and end the reading of the others."""
        self._leave(0)
        self._timeout.reschedule(0)

    def _leave(self, keep: int) -> None:
        """Be none of the uploads any more, and hold no more bytes than these."""
        inflight, held = self._inflight, self.held
        inflight.uploads.pop(self, None)
        inflight.besides -= 0 if self.let_in else held
        inflight.freed += self._came  # a complete one is joined, and its parts are free too
        self._came = self.held = 0
        inflight.release(held - keep)

    async def __aexit__(
        self, exception: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Be none of the uploads any more; what a complete body holds is its request's from now on."""
        self._leave(self._came if error is None else 0)
        try:
            await self._timeout.__aexit__(exception, error, traceback)
        except TimeoutError:
            raise QueueFull(TOO_MANY) from None
