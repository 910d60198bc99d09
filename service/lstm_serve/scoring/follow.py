"""Rows answered as they come: the last rows of each unit are kept, and each row is answered once they are a window."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.operations.wiring import ROWS_AT_ONCE
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, SettingsError
from lstm_serve.formats.text import shown
from lstm_serve.model.model import Model
from lstm_serve.scoring.row_lines import Line, RowReader, Unreadable

# As many units are kept; with one more, the one without a row for longest is forgotten.
MOST_UNITS = 10_000

Say = Callable[[str], None]


class Answered(NamedTuple):
    """The answer y (*output_shape) to the row of this number, of the unit with this key."""

    key: tuple[str, ...]
    number: int
    y: Array


class _Unit:
    """The last rows of a unit, (timesteps, *features), and how many there are, up to as many."""

    __slots__ = ("count", "rows")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rows, self.count = np.zeros(shape), 0

    def append(self, row: AnyArray) -> None:
        if self.count < len(self.rows):
            self.rows[self.count] = row
            self.count += 1
        else:
            self.rows[:-1] = self.rows[1:]
            self.rows[-1] = row


class Follower:
    """Answers rows as they come. A line that is no row is told and left out: the series goes on without it.

    `faults` counts what had no answer though it should have had one, and an input without rows.
    """

    def __init__(self, model: Model, by: Sequence[str], say: Say, most: int = MOST_UNITS) -> None:
        """Units are told apart by the columns `by`; `say` tells a person. Raises SettingsError if nothing is a row."""
        model.expect_one("lstm-serve follow")
        if not model.has_time_axis or model.input_shape[0] is None or len(model.input_shape) > 2:
            raise SettingsError(
                f"the model takes {model.expects}, and rows are followed where a sequence is of a fixed number of "
                "time steps, each a list of numbers; `timesteps` in the card fixes it"
            )
        self._model, self._say, self._most = model, say, most
        self._shape = tuple(size for size in model.input_shape if size is not None)
        self._reader = RowReader(model, by, say)
        self._units: OrderedDict[tuple[str, ...], _Unit] = OrderedDict()
        self._count = self._longest = 0
        self.faults = 0

    def answers(self, lines: Sequence[Line]) -> Iterator[Answered]:
        """The answers to some lines, in their order.

        Raises InvalidInput where nothing that follows could be read either.
        """
        for start in range(0, len(lines), ROWS_AT_ONCE):
            yield from self._of_some(lines[start : start + ROWS_AT_ONCE])

    def end(self) -> None:
        """Say that there was no answer at all, where a header or rows came, and too few of any series."""
        needed = self._shape[0]
        if self._reader.begun and not self._count:
            self._fault("no answer: a header came, and no row after it")
        if 0 < self._longest < needed:
            self._say(f"no answer: {needed} rows of a series are needed for one, and {self._longest} came")

    def _of_some(self, lines: Sequence[Line]) -> Iterator[Answered]:
        due: list[tuple[tuple[str, ...], int]] = []
        windows: list[AnyArray] = []
        for line in lines:
            try:
                row = self._reader.row(line)
            except Unreadable:
                raise
            except InvalidInput as error:
                self._count += 1
                self._fault(f"{error}: left out")
                continue
            if row is None:
                continue
            self._count += 1
            unit = self._unit(row.key)
            unit.append(row.values)
            self._longest = max(self._longest, unit.count)
            if unit.count == len(unit.rows):
                due.append((row.key, self._count))
                windows.append(unit.rows.copy())
        if not due:
            return
        for (key, number), y in zip(due, self._model.predict(np.array(windows)), strict=True):
            if np.isfinite(y).all():
                yield Answered(key, number, y)
            else:
                self._fault(f"the answer for row {number} is not finite: the model overflows on that input")

    def _unit(self, key: tuple[str, ...]) -> _Unit:
        unit = self._units.get(key)
        if unit is None:
            if len(self._units) >= self._most:
                oldest, _ = self._units.popitem(last=False)
                self._say(
                    f"{self._most} units are kept: forgot {shown(', '.join(oldest))}, without a row for longest, "
                    "which begins anew with its next row"
                )
            unit = self._units[key] = _Unit(self._shape)
        self._units.move_to_end(key)
        return unit

    def _fault(self, detail: str) -> None:
        self.faults += 1
        self._say(detail)
