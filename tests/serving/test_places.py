"""The places: which connection goes where there are too many."""

import time
from dataclasses import dataclass, field

import pytest

from lstm_serve.serving.places import SHORT, ConnectionState, Places


@dataclass(eq=False)
class Guest:
    """A connection that has waited for so many seconds; without a state it is answered."""

    state: ConnectionState | None
    waited: float = 2 * SHORT
    ended: bool = False
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = time.monotonic() - self.waited

    def end(self) -> None:
        self.ended = True


def full(*guests: Guest) -> tuple[Places, list[str]]:
    """Places that these guests have taken, and what is counted as they go."""
    counted: list[str] = []
    places = Places(len(guests), counted.append)
    assert all(map(places.enter, guests))
    return places, counted


def test_the_least_useful_goes_first_and_of_those_who_has_waited_longest() -> None:
    states = [ConnectionState.idle, ConnectionState.body, ConnectionState.handshake, ConnectionState.headers]
    guests = [Guest(state, SHORT + waited) for state in states for waited in (1, 3, 2)]
    places, counted = full(*guests, Guest(None))
    gone: list[tuple[ConnectionState | None, float]] = []
    for _ in guests:
        before = {guest for guest in guests if guest.ended}
        assert places.enter(Guest(None))
        gone += [(guest.state, guest.waited) for guest in guests if guest.ended and guest not in before]
    assert gone == sorted(gone, key=lambda each: (each[0] or 0, -each[1]))
    assert counted == [state.name for state in sorted(states) for _ in range(3)]
    assert not places.enter(Guest(None))  # all that are left are answered


def test_who_has_just_come_goes_only_where_nobody_else_does() -> None:
    just, idle = Guest(ConnectionState.handshake, 0), Guest(ConnectionState.idle)
    places, _ = full(just, idle)
    for expected in ((False, True), (True, True)):
        assert places.enter(Guest(None))
        assert (just.ended, idle.ended) == expected


@pytest.mark.parametrize("state", [ConnectionState.idle, ConnectionState.headers, None])
def test_who_does_something_else_since_it_was_looked_at_stays(state: ConnectionState | None) -> None:
    """One is idle again after another request, one has begun to send, one is answered."""
    gone, waking, other = (Guest(ConnectionState.idle, SHORT + waited) for waited in (3, 2, 1))
    places, _ = full(gone, waking, other)
    assert places.enter(Guest(None))
    waking.state, waking.since = state, time.monotonic()
    assert places.enter(Guest(None))
    assert (gone.ended, waking.ended, other.ended) == (True, False, True)
