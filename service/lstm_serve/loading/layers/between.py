"""What a graph may call between its layers, by the names that Keras 2 and 3 give it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, SOFTMAX
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.arithmetic import ReduceKind
from lstm_serve.engine.types import Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.graph_operations import FLOATS, LOWERED, MASKED, TensorArgument
from lstm_serve.loading.config.options import MAX_LAYERS, Options
from lstm_serve.loading.layers import comparing, einsum, encoding, lowering
from lstm_serve.loading.layers.subgraph import Part, Subgraph
from lstm_serve.loading.refusals import OPERATION

FLOAT, BOOL, INT = "float32", "bool", "int"
INTEGERS = frozenset({"int32", "int64"})
NUMBERS, TRUTHS, ANY = frozenset({FLOAT}), frozenset({BOOL}), frozenset({FLOAT, BOOL, INT})


class Function(NamedTuple):
    """What a graph may call: how it is lowered, and what its arguments are called in it and here, in their order.

    `takes` and `gives` are types of numbers. None is the one that it takes; bool becomes a float beside one. `as_used`
    says that its outputs are as many as the graph refers to.
    """

    build: Callable[[Subgraph], None]
    names: Mapping[str, str]
    takes: frozenset[str] = NUMBERS
    gives: str | None = FLOAT
    as_used: bool = False


X, AB = {"x": "x"}, {"x1": "a", "x2": "b"}


def _kept(build: Callable[[Subgraph], None], names: Mapping[str, str] = X) -> Function:
    """What moves numbers, whatever they are."""
    return Function(build, names, ANY, None)


def _true(build: Callable[[Subgraph], None], names: Mapping[str, str] = AB) -> Function:
    """What gives truths of truths."""
    return Function(build, names, TRUTHS, BOOL)


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
    **{name: Function(lowering.binary(function), AB, NUMBERS | TRUTHS) for name, function in JOINS.items()},
    **{
        name: Function(comparing.compared(each), AB, NUMBERS | {INT}, BOOL)
        for name, each in comparing.COMPARISONS.items()
    },
    "LogicalAnd": _true(comparing.logical(np.multiply)),
    "LogicalOr": _true(comparing.logical(np.maximum)),
    "LogicalXor": _true(comparing.compared(comparing.COMPARISONS["NotEqual"])),
    "LogicalNot": _true(comparing.logical_not, X),
    "All": _true(lowering.reduced("min"), X),
    "Any": _true(lowering.reduced("max"), X),
    "Where": Function(comparing.where, {"condition": "condition", "x1": "a", "x2": "b"}, NUMBERS | TRUTHS),
    "Cast": Function(comparing.cast, {"x": "x", "dtype": "to"}, ANY),
    "Argmax": Function(comparing.place_of(largest=True), X, gives=INT),
    "Argmin": Function(comparing.place_of(largest=False), X, gives=INT),
    "Split": _kept(lowering.split, {"x": "x", "indices_or_sections": "places", "axis": "axis"}),
    **{name: Function(lowering.reduced(function), X) for name, function in REDUCTIONS.items()},
    "Var": Function(lowering.variance, X),
    "Logsumexp": Function(lowering.log_sum_exp, X),
    "Softmax": Function(lowering.along(SOFTMAX), X),
    "LogSoftmax": Function(lowering.along(ACTIVATIONS["log_softmax"]), X),
    "LeakyRelu": Function(lowering.leaky, X),
    "Gelu": Function(lowering.gelu, X),
    "Clip": Function(lowering.clip, {"x": "x", "x_min": "low", "x_max": "high"}),
    "GetItem": _kept(lowering.item, {"x": "x", "key": "key"}),
    "Reshape": _kept(lowering.reshape, {"x": "x", "newshape": "shape"}),
    "ExpandDims": _kept(lowering.expand),
    "Squeeze": _kept(lowering.squeeze),
    "Transpose": _kept(lowering.transpose),
    "Concatenate": _kept(lowering.concatenate, {"xs": "x"}),
    "Stack": _kept(lowering.stack),
    "Unstack": _kept(lowering.unstack)._replace(as_used=True),
    "Matmul": Function(lowering.matmul, AB),
    "Einsum": Function(einsum.product, {"operand_1": "a", "operand_2": "b"}),
    "Threshold": Function(encoding.threshold, X),
    "Normalize": Function(lowering.normalize, X),
    "Tile": _kept(lowering.tile, {"x": "x", "repeats": "repeats"}),
    "Pad": Function(lowering.pad, {"x": "x", "pad_width": "pad_width", "mode": "mode", "constant_values": "value"}),
    "Cumsum": Function(lowering.cumsum, X),
}

XY, INPUT, FEATURES = {"x": "a", "y": "b"}, {"input_tensor": "x"}, {"features": "x"}
SOFT = {"logits": "x", "axis": "axis"}
# By the names of TensorFlow.
RELATIONS = {
    "greater": "Greater",
    "greater_equal": "GreaterEqual",
    "less": "Less",
    "less_equal": "LessEqual",
    "equal": "Equal",
    "not_equal": "NotEqual",
    "logical_and": "LogicalAnd",
    "logical_or": "LogicalOr",
    "logical_xor": "LogicalXor",
}
# By the functions of TensorFlow that Keras 2 wraps: which of the above it is, and its arguments' names.
KERAS_2 = {
    **dict.fromkeys(("math.add", "__operators__.add"), ("Add", XY)),
    **dict.fromkeys(("math.subtract", "__operators__.sub"), ("Subtract", XY)),
    **dict.fromkeys(("math.multiply", "__operators__.mul"), ("Multiply", XY)),
    **dict.fromkeys(("math.truediv", "math.divide", "__operators__.truediv"), ("TrueDivide", XY)),
    "math.maximum": ("Maximum", XY),
    "math.minimum": ("Minimum", XY),
    "math.pow": ("Power", XY),
    **{f"math.{name}": (function, XY) for name, function in RELATIONS.items()},
    "__operators__.eq": ("Equal", XY),
    "__operators__.ne": ("NotEqual", XY),
    "math.logical_not": ("LogicalNot", X),
    "math.reduce_all": ("All", INPUT),
    "math.reduce_any": ("Any", INPUT),
    "where": ("Where", {"condition": "condition", **XY}),
    "cast": ("Cast", {"x": "x", "dtype": "to"}),
    **dict.fromkeys(("math.argmax", "argmax"), ("Argmax", {"input": "x"})),
    **dict.fromkeys(("math.argmin", "argmin"), ("Argmin", {"input": "x"})),
    "split": ("Split", {"value": "x", "num_or_size_splits": "sizes", "axis": "axis"}),
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
    "unstack": ("Unstack", {"value": "x"}),
    "linalg.matmul": ("Matmul", {"a": "a", "b": "b"}),
    "tile": ("Tile", {"input": "x", "multiples": "repeats"}),
    **dict.fromkeys(
        ("pad", "compat.v1.pad"), ("Pad", {"tensor": "x", "paddings": "pad_width", "constant_values": "value"})
    ),
    "math.cumsum": ("Cumsum", X),
}
TABLE: dict[str, Function] = {
    **KERAS_3,
    **{name: KERAS_3[function]._replace(names=names) for name, (function, names) in KERAS_2.items()},
    "math.l2_normalize": Function(lowering.l2_normalize, X),
    MASKED: Function(lowering.masked, {"x": "x", "mask": "mask"}, NUMBERS | TRUTHS),
    LOWERED: Function(lowering.lowered, {"x": "x", "mask": "mask"}, NUMBERS | TRUTHS),
}
# What may be called on integers that a client sends.
OF_INTEGERS = frozenset(name for name in TABLE if KERAS_2.get(name, (name,))[0] in {*comparing.COMPARISONS, "Cast"})


def count_outputs(function: str, arguments: Mapping[str, Any]) -> int:
    """How many outputs a call has, as far as anybody needs them: more than one where it takes an array apart."""
    found = TABLE.get(function)
    key = next((key for key in lowering.SPLIT if found and key in found.names.values()), None)
    if found is not None and found.as_used:
        count = arguments["used"]
    elif key is not None:
        told = _bound(function, arguments).get(key)
        count = len(told) + lowering.SPLIT[key] if isinstance(told, list) else told
    else:
        return 1
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LAYERS:
        raise Unsupported(
            f"the operation {function} gives {str(count)[:40]} parts, where 1 to {MAX_LAYERS} are supported"
        )
    return count


def lower(
    options: Options, arguments: Mapping[str, Any], shapes: Sequence[Shape], types: Sequence[str], ids: int | None
) -> tuple[list[Part], str]:
    """The operations of a call on numbers of these types, of which the last give its outputs, and those outputs' type.

    `ids` is how many ids the one input has, where it is what a client sends and is looked up.
    Raises Unsupported for what is not understood.
    """
    name = options.class_name.removeprefix(OPERATION)
    function, bound = TABLE[name], _bound(name, arguments)
    if arguments["calls"] != 1:
        raise Unsupported(f"the {options} is called {arguments['calls']} times, which is not supported")
    if bound.get("dtype") is not None:
        raise Unsupported(f"the {options} is called with a dtype, which is not supported")
    comparison = comparing.COMPARISONS.get(KERAS_2.get(name, (name,))[0])
    if ids is not None and comparison is not None:
        function = function._replace(build=comparing.ids_compared(comparison, ids))
    else:
        _check_types(options, function, bound, arguments["types"], types)
    graph = Subgraph(options.with_config({**bound, "name": options.name}), shapes, arguments["used"])
    function.build(graph)
    return graph.finished(name), bound.get("to") or function.gives or types[0]


def _check_types(
    options: Options, function: Function, bound: Mapping[str, Any], told: Sequence[str | None], known: Sequence[str]
) -> None:
    """Refuse types of numbers that a function does not take, or that a file tells and nobody knows of."""
    for said, type_ in zip(told, known, strict=True):
        of_input = type_ == FLOAT and said is not None
        other = INT if of_input and str(said) in INTEGERS else said if of_input else type_
        if other not in function.takes | FLOATS:
            raise Unsupported(f"the {options} is called on {other} numbers, which is not supported")
    if "condition" in function.names.values():
        condition = bound.get("condition")
        others = [type_ for k, type_ in enumerate(known) if condition != TensorArgument(k)]
        number = isinstance(bound.get("a"), float) and isinstance(bound.get("b"), float)
        fit = len(others) < len(known) and BOOL not in others and (bool(others) or number)
        fit = fit and isinstance(condition, TensorArgument) and known[condition.number] == BOOL
    elif function.gives is None:
        fit = len({*known}) == 1
    else:
        fit = function.gives != FLOAT or FLOAT in known or "to" in bound
    if not fit:
        wanted = "what is compared, and floats to choose from" if "condition" in function.names.values() else "floats"
        raise Unsupported(f"the {options} is called on {', '.join(known)[:100]}, where {wanted} are supported")


def _bound(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names that they have here."""
    names, positional, named = TABLE[name].names, arguments["positional"], arguments["named"]
    if len(positional) > len(names):
        raise Unsupported(f"the operation {name} is called with more than {', '.join(names)}, which is not supported")
    bound = dict(zip(names, positional, strict=False))
    if not bound.keys().isdisjoint(named):
        raise UnreadableFile(f"the operation {name} is given an argument twice")
    return {names.get(key, key): value for key, value in {**bound, **named}.items()}
