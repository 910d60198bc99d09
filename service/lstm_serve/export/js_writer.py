"""The JavaScript module being written: the lines of `predict`, the weights, the functions that are called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array
from lstm_serve.export.artifact import Numbers
from lstm_serve.export.formulas import ACTIVATIONS, JOINS, VECTORS, spelled
from lstm_serve.export.library import add_called, functions
from lstm_serve.export.operation import Value, activation_of, called

TITLE = "JavaScript"
WORDS = {
    **{name: f"Math.{name}" for name in ("abs", "cos", "exp", "expm1", "log", "log1p", "max", "min", "pow", "sin")},
    "sqrt": "Math.sqrt",
    "tanh": "Math.tanh",
    "inf": "Infinity",
}


@dataclass
class Program:
    """Lines of `predict` as they come, the weights one after the other, and the functions that are called."""

    write_operation: Callable[["Program", Operation, Sequence[Value]], Value]
    lines: list[str] = field(default_factory=list)
    weights: list[Array] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation, under a comment that says which."""
        self.lines.append(f"// {called(op)}")
        written: Value = self.write_operation(self, op, xs)
        return written

    def let(
        self, op: Operation, xs: Sequence[Value], function: str, *arguments: object, mask: str | None = None
    ) -> Value:
        """A name for the operation's output, which a function computes of these arguments."""
        shape, *_ = op.output_shapes([x.shape for x in xs])
        return Value(self.call(function, *arguments), shape, mask)

    def call(self, function: str, *arguments: object) -> str:
        """A name for what a function gives; the function is then written."""
        code = f"{function}({', '.join(map(str, arguments))})"
        add_called(code, functions("functions.mjs"), self.functions)
        self.count += 1
        self.lines.append(f"const v{self.count} = {code};")
        return f"v{self.count}"

    def weight(self, array: Numbers | None) -> str:
        """The place of an array among the weights, or null."""
        if array is None:
            return "null"
        start = sum(each.size for each in self.weights)
        self.weights.append(np.asarray(array, np.float32))
        return f"W.subarray({start}, {start + array.size})"

    def activation(self, op: Operation, activation: Activation) -> str:
        """An activation as an expression: a function that overwrites n numbers from a place on."""
        formula = activation_of(TITLE, ACTIVATIONS, op, activation)
        if formula in VECTORS:
            add_called(f"{formula}()", functions("functions.mjs"), self.functions)
            return formula
        written = f"each((x) => {spelled(formula, WORDS, activation.parameters)})"
        add_called(written, functions("functions.mjs"), self.functions)
        return written


def joining(function: np.ufunc) -> str:
    """A function of two numbers."""
    return f"(a, b) => {spelled(JOINS[function], WORDS)}"
