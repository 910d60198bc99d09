"""A program being written, in whatever language: its lines, and the functions of the library that they call."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.wrappers import TimeDistributed
from lstm_serve.export.formulas import ACTIVATIONS, VECTORS, spelled
from lstm_serve.export.library import add_called, functions
from lstm_serve.export.operation import Support, Value, activation_of, as_taken, class_and_name, write_inside, writer_of


@dataclass
class TextWriter(ABC):
    """The lines as they come, of operations that a table says how to write, and the functions that they call.

    `title` is what the target is called, `library` the file of its functions, `comment` what stands above an operation,
    and `words` are the target's for those of a formula.
    """

    title: ClassVar[str]
    library: ClassVar[str]
    comment: ClassVar[str]
    words: ClassVar[Mapping[str, str]]

    table: Mapping[type, Support]
    lines: list[str] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation, under a comment that says which."""
        self.lines.append(self.comment.format(class_and_name(op)))
        written: Value = writer_of(self.title, self.table, op)(self, op, as_taken(op, xs, self.cast))
        return written

    def inside(self, op: TimeDistributed, step: Value) -> tuple[list[str], Value]:
        """The lines that compute what is done to a time step, set apart, and what comes out of them."""
        outside, self.lines = self.lines, []
        y = write_inside(op, step, self.write)
        lines, self.lines = self.lines, outside
        return lines, y

    def needs(self, code: str) -> None:
        """Write the functions that some code calls."""
        add_called(code, functions(self.library), self.functions)

    def function(self, wanted: str, code: Callable[[str], str]) -> str:
        """The name of a function, the wanted one or one like it that no other has; `code` is what it is by its name."""
        name, number = wanted, 2
        while (made := code(name)) != self.functions.setdefault(name, made):
            name, number = f"{wanted}_{number}", number + 1
        return name

    def activation(self, op: Operation, activation: Activation) -> str:
        """What stands for an activation in a call."""
        formula = activation_of(self.title, ACTIVATIONS, op, activation)
        if formula in VECTORS:
            self.needs(f"{formula}()")
            return formula
        return self.of_each(activation.function, spelled(formula, self.words, activation.parameters, self.number))

    @abstractmethod
    def cast(self, x: Value, limit: int | None) -> Value:
        """A value as integers from 0 to below a limit, or, without one, as numbers."""

    @abstractmethod
    def of_each(self, function: str, code: str) -> str:
        """What stands for a function of each number x, an activation of this name, in a call."""

    @staticmethod
    def number(text: str) -> str:
        """A number of a formula, as it is written there."""
        return text
