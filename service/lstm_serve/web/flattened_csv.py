"""Several sequences as CSV, each flattened into a line of its own, as SageMaker's batch transform sends them."""

import math
import re
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import orjson

from lstm_serve.engine.types import Array, Floats
from lstm_serve.errors import InvalidInput, Malformed, TooLarge
from lstm_serve.formats.text import without_mark
from lstm_serve.model.inputs import fits, wanted
from lstm_serve.model.model import Model

QUOTED = re.compile(rb'(?<![^,])"([^",]*)"(?=,|\s*\Z)')  # a cell, all of it
# So many lines are made into an array at once; others are answered between two.
LINES_AT_ONCE = 64


@dataclass(eq=False)
class Flattened:
    """The lines, not yet looked at."""

    lines: list[bytes]
    model: Model
    many: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return len(self.lines)

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:
        """The sequences, in order, as arrays (n, *input_shape). Raises InvalidInput, which says which line."""
        for start in range(0, len(self.lines), LINES_AT_ONCE):
            made = [self._sequence(start + k, line) for k, line in enumerate(self.lines[start : start + LINES_AT_ONCE])]
            if None in self.model.input_shape:
                yield from (x[np.newaxis].astype(dtype) for x in made)
            else:
                yield np.array(made, dtype)

    def let_go(self) -> None:
        """Forget the lines."""
        del self.lines

    def _sequence(self, index: int, line: bytes) -> Floats:
        """The numbers of a line, float64 (*input_shape)."""
        shape = self.model.input_shape
        step, count = math.prod(size for size in shape if size is not None), line.count(b",") + 1
        if count % step if None in shape else count != step:
            sizes = " x ".join("any" if size is None else str(size) for size in shape)
            raise InvalidInput.at(f"line {index + 1}: expected {sizes} values, a flattened sequence, got {count}")
        if b'"' in line:  # to look for a whole cell takes as long as to read the numbers
            line = QUOTED.sub(rb"\1", line)
        cells, values = line.split(b","), array("d")
        with suppress(ValueError):
            # Python's own 1_000 is nobody's number in a CSV file.
            values.extend(map(float, cells[: 0 if b"_" in line else None]))
        if len(values) < count:
            number = 1 + next(k for k, cell in enumerate(cells) if b"_" in cell or not _is_number(cell))
            header = ", and no header" if index == 0 else ""
            raise InvalidInput.at(f"line {index + 1}, value {number}: expected a number{header}")
        x = np.frombuffer(values)
        good = fits(x, self.model.id_limit)
        if not good.all():
            expected = f"expected {wanted(self.model.id_limit)}"
            raise InvalidInput.at(f"line {index + 1}, value {int(np.argmin(good)) + 1}: {expected}")
        return x.reshape([-1 if size is None else size for size in shape])


def read_flattened(raw: bytes, model: Model, max_rows: int) -> Flattened:
    """The lines of a body. Raises Malformed where it is empty, TooLarge, or InvalidInput where none tells its shape."""
    if model.input_shape.count(None) > 1:
        raise InvalidInput.at(
            f"expected JSON or an array in .npy format, not CSV: the model takes {model.expects}, and the values of a "
            "flattened sequence do not tell its sizes"
        )
    text = without_mark(raw).rstrip()
    if not text:
        raise Malformed("the body is empty; expected CSV, a flattened sequence a line")
    rows = text.count(b"\n") + 1
    if rows > max_rows:
        raise TooLarge(f"the body has {rows} sequences; at most {max_rows} are answered at once")
    return Flattened(text.split(b"\n"), model)


def written(y: Array) -> bytes:
    """Outputs y (n, *output_shape) as CSV: a line for each, with the fewest digits that read back as the same float32.

    It is what orjson writes of the two axes, with a line's end in place of its brackets.
    """
    listed = orjson.dumps(np.ascontiguousarray(y.reshape(len(y), -1)), option=orjson.OPT_SERIALIZE_NUMPY)
    return listed[2:-2].replace(b"],[", b"\n") + b"\n"


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
