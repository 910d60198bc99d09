"""A stateful model one request further: rows of each of some series, from the states that the rows before left."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.types import Array, State
from lstm_serve.model import records
from lstm_serve.model.model import Model
from lstm_serve.model.stepping import Stepper


class CarriedRows(NamedTuple):
    """Outputs ys (n, k, *output) of n series for k rows each, and the states after the last of them.

    An output is what Keras' stateful model answers to the row where it is fed that one alone: of a model that answers
    each row of a sequence it is a sequence of one.
    """

    ys: Array
    state: State


@dataclass(frozen=True, eq=False)
class Carrying:
    """Computes rows of series, as a queue takes what computes: records in, records out, one a series."""

    model: Model
    stepper: Stepper

    @property
    def digest(self) -> str:
        """Of all that the numbers depend on: whose states may be gone on with."""
        return self.model.origin.digest

    @classmethod
    def of(cls, model: Model) -> "Carrying | None":
        """Of a model whose series carry states."""
        stepper = model.stepper() if model.series_mode == "carry" else None
        return None if stepper is None else cls(model, stepper)

    def packed(self, rows: Array, state: State) -> Array:
        """Rows (n, k, *row) and the states before them as records (n,)."""
        return records.packed(["rows", *map(str, range(len(state)))], [rows, *state])

    def carry_on(self, rows: Array, state: State) -> CarriedRows:
        """Compute rows (n, k, *row) from the states before them. Overflow becomes infinity, no warning."""
        ys = []
        for k in range(rows.shape[1]):
            y, state = self.stepper.step(rows[:, k], state)
            ys.append(y[:, np.newaxis] if self.stepper.answers_each_row else y)
        return CarriedRows(np.stack(ys, axis=1), state)

    def forward(self, x: Array) -> Array:
        """The same of records, as `packed` makes them, to those that `unpacked` takes."""
        rows, *given = records.unpacked(x)
        ys, state = self.carry_on(rows, tuple(given))
        return records.packed(["ys", *map(str, range(len(state)))], [ys, *state])

    def unpacked(self, y: Array) -> CarriedRows:
        """What `forward` gives."""
        ys, *state = records.unpacked(y)
        return CarriedRows(ys, tuple(state))
