"""What connections may take of one turn of the event loop, all of them together, each in its turn.

Connections that ask one model wait behind one another, and the models take turns: one that is flooded keeps nobody from
another. So do those that have asked nothing yet: who knocks does not wait behind all that are in.

Between two turns the loop answers what is asked of it, and shows that it lives. However many connections have sent
however much, a turn reads a few requests, each of which may take up to a millisecond or two until it waits.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Protocol

MOST = 16  # requests in a turn, or parts of larger ones
SECONDS = 0.01  # of reading, after which no other is begun


class ReadableConnection(Protocol):
    """A connection that has something to read."""

    @property
    def asks(self) -> str | None:
        """The model that its last request was for; empty where it was for none, None where there was none yet."""

    def take(self) -> bool:
        """Read a request, or a part of it; whether there is more to be read now."""


class ReadingShares:
    """Who waits for a share: of each model the one that has waited longest first."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: OrderedDict[str | None, OrderedDict[ReadableConnection, None]] = (
            OrderedDict()
        )  # by what they ask
        self._asks: dict[ReadableConnection, str | None] = {}  # of each what it asked when it began to wait
        self._left, self._end = 0, 0.0
        self._counting = False  # whether the end of this turn is to be told

    def ask(self, reader: ReadableConnection) -> None:
        """Let it read now where nobody waits and some of the turn is left, else when it is its turn.

        Who has asked nothing yet waits for the next one: of a flood many have left by then, and cost nothing.
        """
        if not self._counting:
            self._begin()
        asks = reader.asks
        if asks is not None and not self._waiting and self._is_left() and not reader.take():
            return
        self._wait(reader, asks)

    def leave(self, reader: ReadableConnection) -> None:
        """It waits no more."""
        if reader in self._asks:
            asks = self._asks.pop(reader)
            readers = self._waiting[asks]
            del readers[reader]
            if not readers:
                del self._waiting[asks]

    def _wait(self, reader: ReadableConnection, asks: str | None) -> None:
        if reader not in self._asks:
            self._asks[reader] = asks
            self._waiting.setdefault(asks, OrderedDict())[reader] = None

    def _begin(self) -> None:
        """Let the turn be counted."""
        self._counting = True
        self._left, self._end = MOST, time.monotonic() + SECONDS
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _is_left(self) -> bool:
        """Take a share of the turn; whether there is one."""
        self._left -= 1
        return self._left >= 0 and time.monotonic() < self._end

    def _next_turn(self) -> None:
        self._counting = False
        if self._waiting:
            self._begin()
        while self._waiting and self._is_left():
            asks, readers = next(iter(self._waiting.items()))
            self._waiting.move_to_end(asks)
            reader = next(iter(readers))
            self.leave(reader)
            if reader.take():
                self._wait(reader, reader.asks)
