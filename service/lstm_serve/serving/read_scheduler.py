"""Which connections are read in an iteration of the event loop: a few of those that have sent something, by turns.

Connections that ask one model wait behind one another, and the models take turns: one that is flooded keeps nobody from
another. So do those that have asked nothing yet: who knocks does not wait behind all that are in.

Between two iterations the loop answers what is asked of it, and shows that it lives. However many connections have sent
however much, in one a few requests are read, each of which may take up to a millisecond or two until it waits. They
are fewer after one that was long, and where only those that ask one model wait while others are asked too: who asks
another, which nobody waits for, is read at the end of the iteration and answered in the next. Such a flood is read in
rounds, a batch each: first read, then computed and answered before any more of it is read, so that no iteration does
all of it.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Protocol

from lstm_serve.serving.pauses import UNTIL_ANSWERED

MOST = 16  # requests in an iteration, or parts of larger ones
SECONDS = 0.01  # of reading, after which no other is begun
LONG = 0.02  # seconds of an iteration, after which fewer are read in the next
FEW = 4  # requests in an iteration, of a model that waits alone, while others are asked
READING = 2  # iterations in which so many are, at the beginning of a round
# Iterations of a round. When its first are queued, the queue's pause after the last batch is over: it waits for them.
ROUND = READING + UNTIL_ANSWERED + 1
LATELY = 0.1  # seconds for which it counts that another model was asked


class ReadableConnection(Protocol):
    """A connection that has something to read."""

    @property
    def asks(self) -> str | None:
        """The model that its last request was for; empty where it was for none, None where there was none yet."""

    def take(self) -> bool:
        """Read a request, or a part of it; whether there is more to be read now."""


class ReadScheduler:
    """Who waits to be read: of each model the one that has waited longest first."""

    def __init__(self) -> None:
        """Nobody waits."""
        # By what they ask.
        self._waiting = OrderedDict[str | None, OrderedDict[ReadableConnection, None]]()
        self._asks: dict[ReadableConnection, str | None] = {}  # of each what it asked when it began to wait
        self._most, self._reads, self._began = MOST, 0, 0.0
        self._counting = False  # whether the end of this iteration is to be told
        self._model, self._several_until = "", 0.0
        self._iteration = 0  # of a round

    def note(self, model: str) -> None:
        """A request for this model has come."""
        if model != self._model:
            self._several_until = time.monotonic() + LATELY if self._model else 0.0
            self._model = model

    def ask(self, reader: ReadableConnection) -> None:
        """Let it read now where nobody waits to ask the same and the iteration has reads left, else by turns.

        Who has asked nothing yet waits for the next one: of a flood many have left by then, and cost nothing.
        """
        if not self._counting:
            self._begin()
        asks = reader.asks
        if asks is not None and asks not in self._waiting and self._is_left(asks) and not reader.take():
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

    def _begin(self, took: float = 0.0) -> None:
        """Let the reads of an iteration be counted, after one that took so many seconds."""
        self._counting = True
        self._iteration = (self._iteration + 1) % ROUND
        self._most = min(MOST, self._most + 1) if took < LONG else max(1, self._most // 2)
        self._began = time.monotonic()
        self._reads = 0
        asyncio.get_running_loop().call_soon(self._next_iteration)

    def _is_left(self, asks: str | None) -> bool:
        """Count a read of this iteration for one that asks this; whether there is one left."""
        most = self._most
        if self._began < self._several_until and self._waiting.keys() <= {asks}:
            rests = self._waiting and self._iteration >= READING
            most = 0 if rests else min(FEW, most)
        if self._reads >= most:
            return False
        self._reads += 1
        return time.monotonic() < self._began + SECONDS

    def _next_iteration(self) -> None:
        self._counting = False
        if self._waiting:
            self._begin(time.monotonic() - self._began)
        while self._waiting and self._is_left(asks := next(iter(self._waiting))):
            self._waiting.move_to_end(asks)
            reader = next(iter(self._waiting[asks]))
            self.leave(reader)
            if reader.take():
                self._wait(reader, reader.asks)
