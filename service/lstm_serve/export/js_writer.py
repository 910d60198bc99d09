"""The JavaScript module being written: the lines of `predict`, the weights, the functions that are called."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.export.formulas import JOINS, spelled
from lstm_serve.export.operation import Value, passed_mask
from lstm_serve.export.text_writer import TextWriter

TITLE = "JavaScript"
WORDS = {
    **{name: f"Math.{name}" for name in ("abs", "cos", "exp", "expm1", "log", "log1p", "max", "min", "pow", "sin")},
    "sqrt": "Math.sqrt",
    "tanh": "Math.tanh",
    "inf": "Infinity",
}


@dataclass
class JsProgram(TextWriter):
    """Lines of `predict` as they come, the weights one after the other, and the functions that are called."""

    title = TITLE
    library = "functions.mjs"
    comment = "// {}"
    words = WORDS

    weights: list[Array] = field(default_factory=list)

    def let(
        self, op: Operation, xs: Sequence[Value], function: str, *arguments: object, mask: str | None = None
    ) -> Value:
        """A name for the operation's output, which a function computes of these arguments."""
        shape, *_ = op.output_shapes([x.shape for x in xs])
        return Value(self.call(function, *arguments), shape, mask or passed_mask(op, xs))

    def call(self, function: str, *arguments: object) -> str:
        """A name for what a function gives, of code and of what JSON has; the function is then written."""
        written = (each if isinstance(each, str) else json.dumps(each) for each in arguments)
        code = f"{function}({', '.join(written)})"
        self.needs(code)
        self.count += 1
        self.lines.append(f"const v{self.count} = {code};")
        return f"v{self.count}"

    def weight(self, array: AnyArray | None) -> str:
        """The place of an array among the weights, or null."""
        if array is None:
            return "null"
        start = sum(each.size for each in self.weights)
        self.weights.append(np.asarray(array, np.float32))
        return f"W.subarray({start}, {start + array.size})"

    def cast(self, x: Value, limit: int | None) -> Value:
        """The same: it has numbers of one kind."""
        return x._replace(ids=limit is not None)

    def of_each(self, function: str, code: str) -> str:
        """An expression: a function that overwrites n numbers from a place on."""
        del function  # it needs no name
        written = f"each((x) => {code})"
        self.needs(written)
        return written


def joining(function: np.ufunc) -> str:
    """A function of two numbers."""
    return f"(a, b) => {spelled(JOINS[function], WORDS)}"
