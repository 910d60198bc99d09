"""Columns that tell apart the units of a table: several engines, patients or machines, one below the other."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

# Rows with one value of a column: fewer in a run, on average, are no unit's.
LONG_RUN = 5


class Units(NamedTuple):
    """The column that names the units of a table's rows; of each unit, in their order, the key and its last row."""

    by: str
    keys: list[str]
    last: list[int]


class LeftOutColumn:
    """Looks, row by row, at a column that is left out: does it name units, or count their steps?"""

    def __init__(self, name: str) -> None:
        """No row has been seen yet."""
        self.name = name
        self._rows = 0
        self._values: dict[str, int] = {}  # and the first row of each, from 1
        self._last: str | None = None
        self._in_one_run = True  # each value so far
        self._counts = True  # up, but where it starts anew
        self._number = 0.0
        self._restarts = 0

    def see(self, cell: str) -> None:
        """Take the next row's cell."""
        self._rows += 1
        if self._counts:
            self._count(cell)
        if cell == self._last or not self._in_one_run:
            return
        # A column of values that are all different is not kept.
        few = len(self._values) * LONG_RUN <= self._rows + 1000
        self._in_one_run = cell != "" and cell not in self._values and few
        self._values[cell] = self._rows
        self._last = cell

    def _count(self, cell: str) -> None:
        try:
            number = float(cell)
        except ValueError:
            self._counts = False
            return
        if self._rows > 1 and number < self._number:
            self._restarts += 1
        elif self._rows > 1 and not number > self._number:
            self._counts = False
        self._number = number

    @property
    def names_units(self) -> bool:
        """Whether it has few values, each in one long run of rows."""
        count = len(self._values)
        return self._in_one_run and count > 1 and count * LONG_RUN <= self._rows

    @property
    def units(self) -> Units:
        """Those that it names, where it does."""
        _, *begun = self._values.values()
        return Units(self.name, [*self._values], [row - 1 for row in (*begun, self._rows + 1)])

    @property
    def restarts(self) -> int:
        """How often it starts anew, where it counts up for long in between; else 0."""
        return self._restarts if self._counts and (self._restarts + 1) * LONG_RUN <= self._rows else 0


def told_apart(watches: Sequence[LeftOutColumn]) -> Units | None:
    """The units that the first column which seems to name some does name."""
    return next((watch.units for watch in watches if watch.names_units), None)


def mixed(watches: Sequence[LeftOutColumn]) -> str | None:
    """What to say to a person whose windows slide over rows that seem to be of several units; None if they do not."""
    naming = [watch.name for watch in watches if watch.names_units]
    if naming:
        one = len(naming) == 1
        return (
            f"the column{'' if one else 's'} {', '.join(map(_shown, naming))}, left out, look{'s' * one} as if "
            f"{'it' if one else 'they'} told units apart, and a window here may hold rows of two. "
            f"With the key {_shown(naming[0])} each is a series of its own: "
            f"on the command line --by {_quoted(naming[0])}, over HTTP ?by={quote(naming[0][:60])}"
        )
    for watch in watches:
        if watch.restarts:
            times = "once" if watch.restarts == 1 else f"{watch.restarts} times"
            return (
                f"the column {_shown(watch.name)}, left out, counts up and starts anew {times}, as if units came one "
                "after the other, and a window here may hold rows of two. With a column that names the unit each is a "
                "series of its own: on the command line --by COLUMN, over HTTP ?by=COLUMN"
            )
    return None


def _shown(name: str) -> str:
    name = name[:60]
    return name if name and name.isprintable() else repr(name)


def _quoted(name: str) -> str:
    """As a shell takes it."""
    return _shown(name) if name.isidentifier() else f"'{_shown(name)}'"
