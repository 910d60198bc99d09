"""The C source being written: its constants, the functions that it calls, the lines of the function at hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Shape
from lstm_serve.export.formulas import JOINS, spelled
from lstm_serve.export.operation import Value, passed_mask
from lstm_serve.export.text_writer import TextWriter

TITLE = "C99"
WORDS = {
    **{name: f"{name}f" for name in ("exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "sqrt", "pow", "erf")},
    "abs": "fabsf",
    "max": "larger",
    "min": "smaller",
    "inf": "INFINITY",
}


@dataclass
class CProgram(TextWriter):
    """What is written: constants and functions of the file, and the lines of the function being written.

    `state` is what `m_step` keeps, a size by its name; None in a function that keeps nothing. `ram` counts the bytes
    that a function has on the stack, `adds` the multiplications with an addition.
    """

    title = TITLE
    library = "functions.c"
    comment = "/* {} */"
    words = WORDS

    constants: list[str] = field(default_factory=list)
    state: dict[str, int] | None = None
    lengths: dict[str, int] = field(default_factory=dict)  # of the masks
    flash: int = 0
    ram: int = 0
    adds: int = 0

    def name(self, prefix: str) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"{prefix}{self.count}"

    def array(self, size: int, c_type: str = "float") -> str:
        """An array on the stack."""
        name = self.name("y")
        self.lines.append(f"{c_type} {name}[{size}];")
        self.ram += size * 4
        return name

    def mask(self, size: int) -> str:
        """An array of a byte a step on the stack, 1 where the step counts."""
        name = self.name("m")
        self.lines.append(f"unsigned char {name}[{size}];")
        self.lengths[name] = size
        self.ram += size
        return name

    def cast(self, x: Value, limit: int | None) -> Value:
        """An array of the other kind."""
        size = math.prod(known(x.shape))
        name = self.array(size, "float" if limit is None else "int")
        self.call(*(("to_numbers",) if limit is None else ("to_ids", limit)), size, x.name, name)
        return x._replace(name=name, ids=limit is not None)

    def constant(self, array: npt.ArrayLike | None, c_type: str = "float") -> str:
        """An array in flash, or NULL."""
        if array is None:
            return "NULL"
        name = self.name("w")
        suffix = "f" if c_type == "float" else ""
        numbers = [f"{number!s}{suffix}" for number in np.asarray(array).ravel()]
        lines = [", ".join(numbers[k : k + 8]) for k in range(0, len(numbers), 8)]
        body = ",\n    ".join(lines)
        self.constants.append(f"static const {c_type} {name}[{len(numbers)}] = {{\n    {body}}};\n")
        self.flash += len(numbers) * (8 if c_type == "double" else 4)
        return name

    def call(self, function: str, *arguments: object) -> None:
        """A line that calls a function, which is then written."""
        self.line(f"{function}({', '.join(map(str, arguments))});")

    def line(self, code: str) -> None:
        """A line, and the functions that it calls."""
        self.needs(code)
        self.lines.append(code)

    def of_each(self, function: str, code: str) -> str:
        """The name of a function that overwrites n numbers."""
        self.needs(code)
        body = f"const float x = v[k];\n        v[k] = {code};"
        return self.function(
            f"{function}_of",
            lambda name: (
                f"static void {name}(int n, float *v)\n{{\n    for (int k = 0; k < n; ++k) {{\n"
                f"        {body}\n    }}\n}}"
            ),
        )

    @staticmethod
    def number(text: str) -> str:
        """As a float."""
        return f"{np.float32(text)!s}f"

    def joined(self, function: np.ufunc, a: str, b: str) -> str:
        """An expression of two."""
        code = spelled(JOINS[function], {**WORDS, "a": a, "b": b})
        self.needs(code)
        return code


def known(shape: Shape) -> tuple[int, ...]:
    """The sizes of a shape; a free one is that of the one time step at hand."""
    return tuple(size or 1 for size in shape)


def sizes(x: Value) -> tuple[int, int]:
    """The sizes of a value before the last one, multiplied, and the last."""
    shape = known(x.shape)
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def result(source: CProgram, op: Operation, xs: Sequence[Value], mask: str | None = None) -> Value:
    """An array for the output."""
    (output, *_) = op.output_shapes([x.shape for x in xs])
    return Value(source.array(math.prod(known(output))), output, mask or passed_mask(op, xs))
