"""What a graph may call between its layers, by the names that Keras 2 and 3 give it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, SOFTMAX
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.arithmetic import ReduceKind
from lstm_serve.engine.types import Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers import einsum, encoding, lowering
from lstm_serve.loading.layers.steps import Step, Steps
from lstm_serve.loading.refusals import OPERATION


class Function(NamedTuple):
    """What a graph may call: how it is lowered, and what its arguments are called in it and here, in their order."""

    build: Callable[[Steps], None]
    names: Mapping[str, str]


X, AB = {"x": "x"}, {"x1": "a", "x2": "b"}
PLAIN = {
    "Relu": ACTIVATIONS["relu"],
    "Relu6": ACTIVATIONS["relu6"],
    "Sigmoid": ACTIVATIONS["sigmoid"],
    "Tanh": ACTIVATIONS["tanh"],
    "Softplus": ACTIVATIONS["softplus"],
    "Softsign": ACTIVATIONS["softsign"],
    "Silu": ACTIVATIONS["silu"],
    "Exp": ACTIVATIONS["exponential"],
    **{name.capitalize(): function for name, function in FUNCTIONS.items()},
}
JOINS = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "TrueDivide": np.true_divide,
    "Divide": np.true_divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Power": np.power,
}
REDUCTIONS: dict[str, ReduceKind] = {"Mean": "mean", "Sum": "sum", "Max": "max", "Min": "min"}

# By the classes of Keras 3.
KERAS_3 = {
    **{name: Function(lowering.function_of(function), X) for name, function in PLAIN.items()},
    **{name: Function(lowering.binary(function), AB) for name, function in JOINS.items()},
    **{name: Function(lowering.reduced(function), X) for name, function in REDUCTIONS.items()},
    "Var": Function(lowering.variance, X),
    "Logsumexp": Function(lowering.log_sum_exp, X),
    "Softmax": Function(lowering.along(SOFTMAX), X),
    "LogSoftmax": Function(lowering.along(ACTIVATIONS["log_softmax"]), X),
    "LeakyRelu": Function(lowering.leaky, X),
    "Gelu": Function(lowering.gelu, X),
    "Clip": Function(lowering.clip, {"x": "x", "x_min": "low", "x_max": "high"}),
    "GetItem": Function(lowering.item, {"x": "x", "key": "key"}),
    "Reshape": Function(lowering.reshape, {"x": "x", "newshape": "shape"}),
    "ExpandDims": Function(lowering.expand, X),
    "Squeeze": Function(lowering.squeeze, X),
    "Transpose": Function(lowering.transpose, X),
    "Concatenate": Function(lowering.concatenate, {"xs": "x"}),
    "Stack": Function(lowering.stack, X),
    "Matmul": Function(lowering.matmul, AB),
    "Einsum": Function(einsum.product, {"operand_1": "a", "operand_2": "b"}),
    "Threshold": Function(encoding.threshold, X),
    "Normalize": Function(lowering.normalize, X),
    "Tile": Function(lowering.tile, {"x": "x", "repeats": "repeats"}),
    "Pad": Function(lowering.pad, {"x": "x", "pad_width": "pad_width", "mode": "mode", "constant_values": "value"}),
    "Cumsum": Function(lowering.cumsum, X),
}

XY, INPUT, FEATURES = {"x": "a", "y": "b"}, {"input_tensor": "x"}, {"features": "x"}
SOFT = {"logits": "x", "axis": "axis"}
# By the functions of TensorFlow that Keras 2 wraps: which of the above it is, and its arguments' names.
KERAS_2 = {
    **dict.fromkeys(("math.add", "__operators__.add"), ("Add", XY)),
    **dict.fromkeys(("math.subtract", "__operators__.sub"), ("Subtract", XY)),
    **dict.fromkeys(("math.multiply", "__operators__.mul"), ("Multiply", XY)),
    **dict.fromkeys(("math.truediv", "math.divide", "__operators__.truediv"), ("TrueDivide", XY)),
    "math.maximum": ("Maximum", XY),
    "math.minimum": ("Minimum", XY),
    "math.pow": ("Power", XY),
    **{f"math.reduce_{name.lower()}": (name, INPUT) for name in REDUCTIONS},
    "math.reduce_variance": ("Var", INPUT),
    "math.reduce_logsumexp": ("Logsumexp", INPUT),
    **{f"math.{name}": (name.capitalize(), X) for name in FUNCTIONS if name not in {"absolute", "rsqrt"}},
    **dict.fromkeys(("math.abs", "abs"), ("Absolute", X)),
    "math.rsqrt": ("Rsqrt", X),
    "math.exp": ("Exp", X),
    **dict.fromkeys(("math.sigmoid", "nn.sigmoid"), ("Sigmoid", X)),
    **dict.fromkeys(("math.tanh", "nn.tanh"), ("Tanh", X)),
    "nn.relu": ("Relu", FEATURES),
    "nn.relu6": ("Relu6", FEATURES),
    **dict.fromkeys(("math.softplus", "nn.softplus"), ("Softplus", FEATURES)),
    "nn.leaky_relu": ("LeakyRelu", {"features": "x", "alpha": "negative_slope"}),
    "nn.gelu": ("Gelu", FEATURES),
    "nn.softmax": ("Softmax", SOFT),
    "nn.log_softmax": ("LogSoftmax", SOFT),
    "clip_by_value": ("Clip", {"t": "x", "clip_value_min": "low", "clip_value_max": "high"}),
    "__operators__.getitem": ("GetItem", {"tensor": "x", "slice_spec": "key"}),
    "reshape": ("Reshape", {"tensor": "x", "shape": "shape"}),
    "expand_dims": ("ExpandDims", {"input": "x"}),
    **dict.fromkeys(("squeeze", "compat.v1.squeeze"), ("Squeeze", {"input": "x"})),
    **dict.fromkeys(("transpose", "compat.v1.transpose"), ("Transpose", {"a": "x", "perm": "axes"})),
    "concat": ("Concatenate", {"values": "x"}),
    "stack": ("Stack", {"values": "x"}),
    "linalg.matmul": ("Matmul", {"a": "a", "b": "b"}),
    "tile": ("Tile", {"input": "x", "multiples": "repeats"}),
    **dict.fromkeys(
        ("pad", "compat.v1.pad"), ("Pad", {"tensor": "x", "paddings": "pad_width", "constant_values": "value"})
    ),
    "math.cumsum": ("Cumsum", X),
}
TABLE: dict[str, Function] = {
    **KERAS_3,
    **{name: Function(KERAS_3[function].build, names) for name, (function, names) in KERAS_2.items()},
    "math.l2_normalize": Function(lowering.l2_normalize, X),
}


def lower(options: Options, arguments: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Step]:
    """The steps of a call; the last one's value is its output. Raises Unsupported for what is not understood."""
    function = options.class_name.removeprefix(OPERATION)
    found = TABLE[function]
    if arguments["calls"] != 1:
        raise Unsupported(f"the {options} is called {arguments['calls']} times, which is not supported")
    if arguments["other"] is not None:
        raise Unsupported(f"the {options} is called on {arguments['other']} numbers, which is not supported")
    names = list(found.names)
    positional, named = arguments["positional"], arguments["named"]
    if len(positional) > len(names) or named.get("dtype") is not None:
        raise Unsupported(f"the {options} is called with more than {', '.join(names)}, which is not supported")
    bound = dict(zip(names, positional, strict=False))
    if not bound.keys().isdisjoint(named):
        raise UnreadableFile(f"the {options} is given an argument twice")
    bound |= named
    renamed = {found.names.get(key, key): value for key, value in bound.items()}
    steps = Steps(options.with_config({**renamed, "name": options.name}), shapes)
    found.build(steps)
    return steps.finished(function)
