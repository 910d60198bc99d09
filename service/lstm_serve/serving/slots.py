"""The connections, and which goes where slots run out: the one that has waited longest in the least useful state.

Half requests, however many, must not keep all others out; who is being answered stays.
"""

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol


class ConnectionState(IntEnum):
    """What a connection waits for; the least useful goes first."""

    refused = 0  # to be closed, once its client has read why
    handshake = 1
    headers = 2
    body = 3
    unread = 4  # an answer that its client does not take
    idle = 5


class Connection(Protocol):
    """A connection. Its state is None while it is answered."""

    @property
    def state(self) -> ConnectionState | None:
        """What it waits for."""

    @property
    def since(self) -> float:
        """Since when, in the time of `time.monotonic`."""

    def end(self) -> None:
        """Close it, at once."""


# Who has waited for less goes only where nobody else does: it may just be on its way.
SHORT = 1.0
# While nobody can go, the search takes at most so much of the time: a flood would have all looked over for each.
SHARE = 0.05


class Slots:
    """One for each connection, a bounded number. Handshakes take one, and who was refused, until it is closed."""

    def __init__(self, limit: int, count: Callable[[str], None]) -> None:
        """`count` is told what who goes has waited for; `busy`, where requests on it are answered."""
        self.limit, self._count = limit, count
        self.connections: set[Connection] = set()
        self._order: list[tuple[bool, int, float, Connection]] = []  # who goes, the first one last
        self._not_before = 0.0

    def enter(self, connection: Connection) -> bool:
        """Give it a slot, for which others may have to go; whether there is one."""
        self.connections.add(connection)
        while len(self.connections) > self.limit:
            if not self._end_one(connection):
                return False
        return True

    def leave(self, connection: Connection) -> None:
        """Its slot is free."""
        self.connections.discard(connection)

    def end(self, connection: Connection) -> None:
        """Close it, and count what it waited for, unless that is done already."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.count(connection)
            connection.end()

    def count(self, connection: Connection) -> None:
        """Count what one that goes for others has waited for."""
        state = connection.state
        self._count("busy" if state is None else ConnectionState(state).name)

    def _end_one(self, newcomer: Connection) -> bool:
        for _ in range(2):
            while self._order:
                _, state, since, connection = self._order.pop()
                # What it does now may be something else.
                if connection in self.connections and connection.state == state and connection.since == since:
                    self.end(connection)
                    return True
            if not self._look(newcomer):
                return False
        return False

    def _look(self, newcomer: Connection) -> bool:
        start = time.monotonic()
        if start < self._not_before:
            return False
        for connection in self.connections:
            if connection is not newcomer and (state := connection.state) is not None:
                self._order.append((start - connection.since < SHORT, state, connection.since, connection))
        self._order.sort(key=lambda entry: entry[:3], reverse=True)
        if not self._order:
            now = time.monotonic()
            self._not_before = now + (now - start) / SHARE
        return bool(self._order)
