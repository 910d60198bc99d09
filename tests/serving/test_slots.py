"""The slots of connections: which one goes where there are too many."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from lstm_serve.serving.slots import SHARE, SHORT, ConnectionState, Slots


@dataclass(eq=False)
class Connection:
    """A connection that has waited for so many seconds; without a state it is answered."""

    state: ConnectionState | None
    waited: float = 2 * SHORT
    ended: bool = False
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = time.monotonic() - self.waited

    def end(self) -> None:
        self.ended = True


def full(*connections: Connection) -> tuple[Slots, list[str]]:
    """Slots that these connections have taken, and what is counted as they go."""
    counted: list[str] = []
    slots = Slots(len(connections), counted.append)
    assert all(map(slots.enter, connections))
    return slots, counted


def test_the_least_useful_goes_first_and_of_those_who_has_waited_longest() -> None:
    states = [ConnectionState.idle, ConnectionState.body, ConnectionState.handshake, ConnectionState.headers]
    connections = [Connection(state, SHORT + waited) for state in states for waited in (1, 3, 2)]
    slots, counted = full(*connections, Connection(None))
    gone: list[tuple[ConnectionState | None, float]] = []
    for _ in connections:
        before = {connection for connection in connections if connection.ended}
        assert slots.enter(Connection(None))
        gone += [
            (connection.state, connection.waited)
            for connection in connections
            if connection.ended and connection not in before
        ]
    assert gone == sorted(gone, key=lambda each: (each[0] or 0, -each[1]))
    assert counted == [state.name for state in sorted(states) for _ in range(3)]
    assert not slots.enter(Connection(None))  # all that are left are answered


def test_who_has_just_come_goes_only_where_nobody_else_does() -> None:
    just, idle = Connection(ConnectionState.handshake, 0), Connection(ConnectionState.idle)
    slots, _ = full(just, idle)
    for expected in ((False, True), (True, True)):
        assert slots.enter(Connection(None))
        assert (just.ended, idle.ended) == expected


@pytest.mark.parametrize("state", [ConnectionState.idle, ConnectionState.headers, None])
def test_who_does_something_else_since_it_was_looked_at_stays(state: ConnectionState | None) -> None:
    """One is idle again after another request, one has begun to send, one is answered."""
    gone, waking, other = (Connection(ConnectionState.idle, SHORT + waited) for waited in (3, 2, 1))
    slots, _ = full(gone, waking, other)
    assert slots.enter(Connection(None))
    waking.state, waking.since = state, time.monotonic()
    assert slots.enter(Connection(None))
    assert (gone.ended, waking.ended, other.ended) == (True, False, True)


def test_who_is_answered_since_it_was_looked_at_stays() -> None:
    """Once the last of its body has come, it waits no more; the time since when it did is left as it was."""
    gone, whole, other = (Connection(ConnectionState.body, SHORT + waited) for waited in (3, 2, 1))
    slots, _ = full(gone, whole, other)
    assert slots.enter(Connection(None))
    whole.state = None
    assert slots.enter(Connection(None))
    assert (gone.ended, whole.ended, other.ended) == (True, False, True)


def test_after_a_search_in_vain_all_are_looked_over_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, looked=0)
    monkeypatch.setattr("lstm_serve.serving.slots.time", SimpleNamespace(monotonic=lambda: clock.now))

    class Answered(Connection):
        """Of whom it takes a second to see that it is answered."""

        @property
        def state(self) -> ConnectionState | None:
            clock.now += 1
            clock.looked += 1
            return None

        @state.setter
        def state(self, state: ConnectionState | None) -> None:
            pass

    slots, _ = full(*(Answered(None) for _ in range(10)))

    def looks() -> int:
        before, newcomer = clock.looked, Connection(None)
        assert not slots.enter(newcomer)
        slots.leave(newcomer)
        return int(clock.looked - before)

    assert looks() == 10
    over = clock.now + 10 / SHARE
    assert looks() == 0
    clock.now = over - 1
    assert looks() == 0
    clock.now = over
    assert looks() == 10
    # Of one that finds somebody the next begins when it is needed.
    slots, _ = full(Answered(None), Connection(ConnectionState.idle))
    newcomer = Connection(None)
    assert slots.enter(newcomer)
    newcomer.state = ConnectionState.idle
    assert slots.enter(Connection(None))
    assert newcomer.ended
