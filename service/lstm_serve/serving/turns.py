"""The turn of a large body: one is decoded at a time, in pieces, between which the event loop does everything else.

On the loop, for a thread would hold Python's lock for as long, and take it at each of the engine's NumPy calls.
"""

import asyncio

from lstm_serve.errors import DeadlinePassed, QueueFull
from lstm_serve.serving.pauses import UNTIL_ANSWERED, pause

MOST_WAITING = 100


class Turns:
    """Whose turn it is, and how many wait."""

    def __init__(self) -> None:
        """It is nobody's."""
        self.lock = asyncio.Lock()
        self.waiting = 0

    def check_room(self) -> None:
        """Raise QueueFull where no compressed one more may wait: what those hold is not in the bytes in flight."""
        if self.waiting >= MOST_WAITING:
            raise QueueFull(f"{self.waiting} large bodies wait to be decoded")


class Turn:
    """A request's: to be begun where its body is large, and ended, begun or not."""

    __slots__ = ("_seconds", "_turns", "begun")

    def __init__(self, turns: Turns, seconds: float) -> None:
        """It is waited for so many seconds."""
        self._turns, self._seconds = turns, seconds
        self.begun = False

    async def begin(self) -> None:
        """Wait for it. Raises DeadlinePassed."""
        turns = self._turns
        turns.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await turns.lock.acquire()
        except TimeoutError:
            raise DeadlinePassed("the deadline passed while the body waited to be decoded") from None
        finally:
            turns.waiting -= 1
        self.begun = True
        await self.pause()

    async def pause(self) -> None:
        """Let small requests be answered between two pieces: of a turn that was begun."""
        await pause(UNTIL_ANSWERED)

    def end(self) -> None:
        """Let the next one have it."""
        if self.begun:
            self.begun = False
            self._turns.lock.release()
