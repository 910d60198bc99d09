"""The NumPy program being written: its lines, the weights that they use, the functions that they call."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import AnyArray
from lstm_serve.export.operation import Value, passed_mask
from lstm_serve.export.text_writer import TextWriter

TITLE = "NumPy"
WORDS = {
    **{name: f"np.{name}" for name in ("abs", "exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "sqrt", "where")},
    "max": "np.maximum",
    "min": "np.minimum",
    "clip": "np.clip",
    "inf": "np.inf",
}


@dataclass
class NumpyProgram(TextWriter):
    """Lines of `predict` as they come, the weights they use, and the functions they call."""

    title = TITLE
    library = "functions.py.txt"
    comment = "# {}"
    words = WORDS

    weights: list[AnyArray] = field(default_factory=list)

    def let(self, op: Operation, xs: Sequence[Value], code: str, mask: str | None = None) -> Value:
        """A name for the operation's output, which `code` computes."""
        self.count += 1
        self.lines.append(f"y{self.count} = {code}")
        return Value(f"y{self.count}", op.output_shapes([x.shape for x in xs])[0], mask or passed_mask(op, xs))

    def let_mask(self, code: str) -> str:
        """A name for a mask."""
        self.count += 1
        self.lines.append(f"m{self.count} = {code}")
        return f"m{self.count}"

    def weight(self, array: AnyArray | None) -> str:
        """The place of an array; 0 stands for a bias that is not there."""
        if array is None:
            return "np.float32(0)"
        self.weights.append(array)
        return f"W[{len(self.weights) - 1}]"

    def call(self, function: str) -> str:
        """The name of a function, which is then written."""
        self.needs(f"{function}()")
        return function

    def cast(self, x: Value, limit: int | None) -> Value:
        """An array of the other kind."""
        self.count += 1
        self.lines.append(f"y{self.count} = {x.name}.astype(np.{'float32' if limit is None else 'int32'})")
        return x._replace(name=f"y{self.count}", ids=limit is not None)

    def of_each(self, function: str, code: str) -> str:
        """The name of a function of all numbers at once."""
        self.needs(code)
        return self.function(function, lambda name: f"def {name}(x):\n    return {code}")
