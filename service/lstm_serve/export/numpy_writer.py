"""The NumPy program being written: its lines, the weights that they use, the functions that they call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.export.artifact import Numbers
from lstm_serve.export.formulas import ACTIVATIONS, VECTORS, spelled
from lstm_serve.export.library import add_called, functions
from lstm_serve.export.operation import Value, activation_of, called

TITLE = "NumPy"
WORDS = {
    **{name: f"np.{name}" for name in ("abs", "exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "sqrt", "where")},
    "max": "np.maximum",
    "min": "np.minimum",
    "clip": "np.clip",
    "inf": "np.inf",
}


@dataclass
class Program:
    """Lines of `predict` as they come, the weights they use, and the functions they call."""

    write_operation: Callable[["Program", Operation, Sequence[Value]], Value]
    lines: list[str] = field(default_factory=list)
    weights: list[Numbers] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation, under a comment that says which."""
        self.lines.append(f"# {called(op)}")
        written: Value = self.write_operation(self, op, xs)
        return written

    def let(self, op: Operation, xs: Sequence[Value], code: str, mask: str | None = None) -> Value:
        """A name for the operation's output, which `code` computes."""
        self.count += 1
        self.lines.append(f"y{self.count} = {code}")
        return Value(f"y{self.count}", op.output_shapes([x.shape for x in xs])[0], mask)

    def let_mask(self, code: str) -> str:
        """A name for a mask."""
        self.count += 1
        self.lines.append(f"m{self.count} = {code}")
        return f"m{self.count}"

    def weight(self, array: Numbers | None) -> str:
        """The place of an array; 0 stands for a bias that is not there."""
        if array is None:
            return "np.float32(0)"
        self.weights.append(array)
        return f"W[{len(self.weights) - 1}]"

    def call(self, function: str) -> str:
        """The name of a function, which is then written."""
        add_called(f"{function}()", functions("functions.py.txt"), self.functions)
        return function

    def activation(self, op: Operation, activation: Activation) -> str:
        """The name of an activation's function."""
        formula = activation_of(TITLE, ACTIVATIONS, op, activation)
        if formula in VECTORS:
            return self.call(formula)
        code = spelled(formula, WORDS, activation.parameters)
        add_called(code, functions("functions.py.txt"), self.functions)
        name = activation.kind
        number = 2
        while (made := f"def {name}(x):\n    return {code}") != self.functions.setdefault(name, made):
            name, number = f"{activation.kind}_{number}", number + 1
        return name
