"""The graph being written, and the activations, as operators and as the recurrent operators call them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import AnyArray
from lstm_serve.export.operation import Support, Value, as_taken, passed_mask, writer_of

TITLE = "ONNX"


@dataclass
class OnnxGraph:
    """The operators and constants as they come, of operations that a table says how to write."""

    table: Mapping[type, Support]
    helper: Any
    from_array: Callable[[AnyArray, str], Any]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    count: int = 0
    names: set[str] = field(default_factory=set)  # of inputs and outputs

    def write(self, op: Operation, xs: Sequence[Value]) -> Value:
        """An operation's operators."""
        written: Value = writer_of(TITLE, self.table, op)(self, op, as_taken(op, xs, self.cast))
        return written

    def cast(self, x: Value, limit: int | None) -> Value:
        """A tensor of int32, or, without a limit, of float."""
        return x._replace(name=self.add("Cast", x.name, to=1 if limit is None else 6), ids=limit is not None)

    def named(self, wanted: str) -> str:
        """This name for an input or an output of the model, or one like it that nothing else has."""
        name, number = wanted or "unnamed", 2
        while name in self.names:
            name, number = f"{wanted}_{number}", number + 1
        self.names.add(name)
        return name

    def name(self) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"v{self.count}" if f"v{self.count}" not in self.names else self.name()

    def constant(self, array: AnyArray | float, dtype: type = np.float32) -> str:
        """A tensor that is always the same."""
        name = self.name()
        self.constants.append(self.from_array(np.array(array, dtype, order="C"), name))
        return name

    def integers(self, *numbers: int) -> str:
        """A tensor of these."""
        return self.constant(np.array(numbers), np.int64)

    def node(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> None:
        """An operator, from these inputs to outputs of these names."""
        self.nodes.append(self.helper.make_node(operator, inputs, outputs, **attributes))

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """An operator, and the name of its one output."""
        name = self.name()
        self.node(operator, inputs, [name], **attributes)
        return name

    def result(self, op: Operation, xs: Sequence[Value], name: str, mask: str | None = None) -> Value:
        """An operation's output."""
        return Value(name, op.output_shapes([x.shape for x in xs])[0], mask or passed_mask(op, xs))


WriteActivation = Callable[[OnnxGraph, str, dict[str, float]], str]


def _plain(operator: str, **attributes: float) -> WriteActivation:
    return lambda g, x, _: g.add(operator, x, **attributes)


def _clip(low: float, high: float) -> WriteActivation:
    return lambda g, x, _: g.add("Clip", x, g.constant(low), g.constant(high))


def times(g: OnnxGraph, x: str, y: str) -> str:
    """The product, element by element."""
    return g.add("Mul", x, y)


def _general_relu(g: OnnxGraph, x: str, p: dict[str, float]) -> str:
    leak = times(g, g.add("Sub", x, g.constant(p["threshold"])), g.constant(p["negative_slope"]))
    top = x if math.isinf(p["max_value"]) else g.add("Min", x, g.constant(p["max_value"]))
    return g.add("Where", g.add("Less", x, g.constant(p["threshold"])), leak, top)


def _gelu(g: OnnxGraph, x: str, _: dict[str, float]) -> str:
    erf = g.add("Erf", times(g, x, g.constant(math.sqrt(0.5))))
    return times(g, times(g, x, g.add("Add", erf, g.constant(1))), g.constant(0.5))


def _log_sigmoid(g: OnnxGraph, x: str, _: dict[str, float]) -> str:
    return g.add("Neg", g.add("Softplus", g.add("Neg", x)))


def _sparse_plus(g: OnnxGraph, x: str, _: dict[str, float]) -> str:
    clipped = g.add("Clip", g.add("Add", x, g.constant(1)), g.constant(0), g.constant(2))
    above = g.add("Relu", g.add("Sub", x, g.constant(1)))
    return g.add("Add", times(g, times(g, clipped, clipped), g.constant(0.25)), above)


def _squareplus(g: OnnxGraph, x: str, _: dict[str, float]) -> str:
    root = g.add("Sqrt", g.add("Add", times(g, x, x), g.constant(4)))
    return times(g, g.add("Add", x, root), g.constant(0.5))


def _sparsemax(g: OnnxGraph, x: str, _: dict[str, float]) -> str:
    count = g.add("Slice", g.add("Shape", x), g.integers(-1), g.integers(np.iinfo(np.int64).max))
    falling, last = g.name(), g.integers(-1)
    g.node("TopK", [x, count], [falling, g.name()], axis=-1)
    numbers = g.add("CumSum", g.add("Expand", g.constant(1), count), g.constant(0, np.int64))
    sums = g.add("CumSum", falling, g.constant(-1, np.int64))
    means = g.add("Div", g.add("Sub", sums, g.constant(1)), numbers)
    large = g.add("Cast", g.add("Greater", falling, means), to=1)
    taken = g.add("Sub", g.add("ReduceSum", times(g, sums, large), last, keepdims=1), g.constant(1))
    return g.add("Relu", g.add("Sub", x, g.add("Div", taken, g.add("ReduceSum", large, last, keepdims=1))))


ACTIVATIONS: dict[str, WriteActivation] = {
    "linear": lambda g, x, _: x,
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "relu": _plain("Relu"),
    "softmax": _plain("Softmax", axis=-1),
    "silu": lambda g, x, _: times(g, x, g.add("Sigmoid", x)),
    "hard_silu": lambda g, x, _: times(g, x, g.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "elu": lambda g, x, p: g.add("Elu", x, alpha=p["alpha"]),
    "celu": lambda g, x, p: g.add("Celu", x, alpha=p["alpha"]),
    "leaky_relu": lambda g, x, p: g.add("LeakyRelu", x, alpha=p["negative_slope"]),
    "general_relu": _general_relu,
    "relu6": _clip(0, 6),
    "selu": _plain("Selu", alpha=1.67326324, gamma=1.05070098),
    "softplus": _plain("Softplus"),
    "softsign": _plain("Softsign"),
    "exponential": _plain("Exp"),
    "gelu": _gelu,
    "mish": lambda g, x, _: times(g, x, g.add("Tanh", g.add("Softplus", x))),
    "hard_tanh": _clip(-1, 1),
    "tanh_shrink": lambda g, x, _: g.add("Sub", x, g.add("Tanh", x)),
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _plain("LogSoftmax", axis=-1),
    "soft_shrink": _plain("Shrink", lambd=0.5, bias=0.5),
    "hard_shrink": _plain("Shrink", lambd=0.5, bias=0.0),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _plain("HardSigmoid", alpha=0.5, beta=0.5),
    "squareplus": _squareplus,
    "sparsemax": _sparsemax,
    "hard_sigmoid_keras_2": _plain("HardSigmoid", alpha=0.2, beta=0.5),
    "hard_sigmoid_keras_3": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "absolute": _plain("Abs"),
    "square": lambda g, x, _: times(g, x, x),
    "sqrt": _plain("Sqrt"),
    "rsqrt": lambda g, x, _: g.add("Reciprocal", g.add("Sqrt", x)),
    "log": _plain("Log"),
    "log1p": lambda g, x, _: g.add("Log", g.add("Add", x, g.constant(1))),
    "negative": _plain("Neg"),
    "reciprocal": _plain("Reciprocal"),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
}

# What the recurrent operators call an activation, with its alpha and beta.
FUSED: dict[str, Callable[[dict[str, float]], tuple[str, float, float]]] = {
    "linear": lambda p: ("Affine", 1, 0),
    "tanh": lambda p: ("Tanh", 0, 0),
    "sigmoid": lambda p: ("Sigmoid", 0, 0),
    "relu": lambda p: ("Relu", 0, 0),
    "softsign": lambda p: ("Softsign", 0, 0),
    "softplus": lambda p: ("Softplus", 0, 0),
    "elu": lambda p: ("Elu", p["alpha"], 0),
    "leaky_relu": lambda p: ("LeakyRelu", p["negative_slope"], 0),
    "sparse_sigmoid": lambda p: ("HardSigmoid", 0.5, 0.5),
    "hard_sigmoid_keras_2": lambda p: ("HardSigmoid", 0.2, 0.5),
    "hard_sigmoid_keras_3": lambda p: ("HardSigmoid", 1 / 6, 0.5),
}
TAKES = {"Affine": 2, "Elu": 1, "LeakyRelu": 1, "HardSigmoid": 2}  # of alpha and beta
