"""What a target says of each operation, and how a model is walked: the same for all targets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.arithmetic import Binary, ReduceKind
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.masks import begins_mask, gives_mask
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import (
    BatchNormalization,
    Normalization,
    Rescaling,
)
from lstm_serve.engine.operations.recurrent import GRU, LSTM
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed, tables
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import AnyArray, Array, Shape
from lstm_serve.errors import Unsupported
from lstm_serve.export.artifact import Golden, plain
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.model import Model

T = TypeVar("T")

# What joins two numbers in each Reduce; a mean is a sum, divided.
REDUCTIONS: dict[ReduceKind, np.ufunc] = {"mean": np.add, "sum": np.add, "max": np.maximum, "min": np.minimum}

NO_CONV_LSTM = "not exported: an LSTM of pictures"
TIME_ALONE = "along time, not along the axes of a picture"


class Value(NamedTuple):
    """An array in what is being written: what it is called there, its shape without the batch, its mask's name.

    `states` are the outputs of its operation beside it. It is `ids` where its numbers are written as integers.
    """

    name: str
    shape: Shape
    mask: str | None = None
    states: "tuple[Value, ...]" = ()
    ids: bool = False

    @classmethod
    def given(cls, name: str, spec: TensorSpec) -> "Value":
        """An input of the model."""
        return cls(name, spec.shape, ids=spec.dtype.kind == "i")


class Support(NamedTuple):
    """How a target writes an operation: a function, None where it cannot, and what is to be said of that."""

    write: Callable[..., Any] | None
    note: str = "yes"


class Target(NamedTuple):
    """A target: what it is called, what is written, and how.

    `build` gives the files by their names, in the folder or as `artifact.write` has them. `run` answers
    x with what `build` wrote at a path, or says why it cannot be run here.
    """

    title: str
    is_folder: bool
    suffix: str
    table: Mapping[type, Support]
    activations: Mapping[str, object]
    build: Callable[[Model, Golden], dict[str, bytes]]
    run: Callable[[Path, Sequence[AnyArray]], list[Array] | str]


def class_and_name(operation: Operation) -> str:
    """The class of an operation and its name, fit for a comment."""
    return f"{plain(operation.keras_class or type(operation).__name__)} {plain(operation.name)}"


def refuse(title: str, operation: Operation, why: str) -> NoReturn:
    """Raise Unsupported for an operation that the target cannot do, by its name and class."""
    keras_class = operation.keras_class or type(operation).__name__
    raise Unsupported(
        f"{title} cannot do the {plain(keras_class)} layer {plain(operation.name)!r} as it is in this model: {why}"
    )


def window_of(title: str, operation: Convolution | Pooling) -> Window:
    """The window along time. Refuses those along several axes."""
    if len(operation.windows) > 1:
        refuse(title, operation, f"it works along {len(operation.windows)} axes")
    return operation.windows[0]


def kernel_in_one_group(operation: Convolution) -> Array:
    """The kernel (..., features, filters) that is 0 where a feature and a filter are of different groups."""
    parts, groups = np.split(operation.kernel, operation.groups, axis=-1), range(operation.groups)
    return np.concatenate(
        [
            np.concatenate([part if k == group else np.zeros_like(part) for k in groups], axis=-2)
            for group, part in enumerate(parts)
        ],
        axis=-1,
    )


def activation_of(title: str, table: Mapping[str, T], operation: Operation, activation: Activation) -> T:
    """What a target's table of activations has for this one; refused where it has nothing."""
    found = table.get(activation.function)
    if found is None:
        refuse(title, operation, f"its activation {activation.function} is not there")
    return found


def writer_of(title: str, table: Mapping[type, Support], operation: Operation) -> Callable[..., Any]:
    """The target's function for an operation; refused where it has none."""
    support = table[type(operation)]
    if support.write is None:
        refuse(title, operation, support.note)
    return support.write


Cast = Callable[[Value, int | None], Value]


def as_taken(op: Operation, xs: Sequence[Value], cast: Cast) -> list[Value]:
    """The inputs as an operation takes them: integers to look up in its table, numbers for all else.

    `cast` writes a value as integers, from 0 to below those in the table, or as numbers where it is given None.
    """
    limit = min((len(table.embeddings) for table in tables(op)), default=None)
    return [x if x.ids == (limit is not None) else cast(x, limit) for x in xs]


Write = Callable[[Operation, Sequence[Value]], Value]


def walk(nodes: Sequence[Node], given: Sequence[Value], ends: Sequence[Source], write: Write) -> list[Value]:
    """Write each node after those that it takes from, and give what comes out at the ends."""
    values = {INPUT: tuple(given)}
    write_nodes(nodes, range(len(nodes)), values, write)
    return [values[node][output] for node, output in ends]


def write_nodes(
    nodes: Sequence[Node], which: Iterable[int], values: dict[int, tuple[Value, ...]], write: Write
) -> None:
    """Write some of the nodes; `values` has what they take from, and then what they give."""
    for k in which:
        operation, inputs = nodes[k]
        y = write(operation, [values[node][output] for node, output in inputs])
        values[k] = (y, *y.states)


def write_inside(op: TimeDistributed, x: Value, write: Write) -> Value:
    """Write the operations for each time step, of the value that is one, and give what comes out of them."""
    (y,) = walk(op.nodes, [x], [op.end], write)
    return y


def write_nothing(_: object, op: Operation, xs: Sequence[Value]) -> Value:
    """What an operation gives that is its input."""
    del op
    return xs[0]


def passes_mask(op: Operation) -> bool:
    """Whether an operation gives the mask of its first input, as it is."""
    makes = begins_mask(op) or isinstance(op, Merge | Concatenate | MaskedBy)
    return not makes and gives_mask(op, [True])


def passed_mask(op: Operation, xs: Sequence[Value]) -> str | None:
    """The mask that an operation passes on as it is."""
    return xs[0].mask if passes_mask(op) else None


def write_directions(
    write: Write, turn: Callable[[Value], str], op: Bidirectional, xs: Sequence[Value]
) -> tuple[Value, Value]:
    """Both directions: each is given the sequence, and its own states. `turn` turns what the backward one gives."""
    half = 1 + len(xs) // 2
    forward, backward = write(op.forward, xs[:half]), write(op.backward, [xs[0], *xs[half:]])
    return forward, backward._replace(name=turn(backward)) if op.forward.return_sequences else backward


def join_directions(write: Write, op: Bidirectional, forward: Value, backward: Value) -> Value:
    """What a Bidirectional makes of its two directions."""
    join: Operation
    if op.merge_mode == "concat":
        join = Concatenate(name=op.name, axis=len(forward.shape), mask_rule=MaskRule.ALL)
    else:
        function = np.multiply if op.merge_mode == "mul" else np.add
        join = Merge(name=op.name, join=function, mean=op.merge_mode == "ave", mask_rule=MaskRule.ALL)
    y = write(join, [direction._replace(mask=None) for direction in (forward, backward)])
    return y._replace(mask=forward.mask, states=forward.states + backward.states)


# What several targets say of an operation.
NOTHING_LEFT_OUT = "no product, maximum or minimum of masked inputs of Keras 3.4 on"

# What several targets compute of an operation before they write it.

Affine = Normalization | Rescaling | BatchNormalization


def affine_of(op: Affine) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """What is subtracted from x, what then divides, multiplies and is added; None for what is not done."""
    if isinstance(op, Normalization):
        return op.mean, op.deviation, None, None
    if isinstance(op, Rescaling):
        return None, None, op.scale, op.offset
    factor = 1 / np.sqrt(op.variance + np.float32(op.epsilon)) * (1 if op.gamma is None else op.gamma)
    return None, None, factor, -op.mean * factor + (0 if op.beta is None else op.beta)


def functions_of(op: Recurrent) -> list[Activation]:
    """Its activation, and that of its gates where it has any."""
    return [op.activation, *([op.recurrent_activation] if isinstance(op, LSTM | GRU) else [])]


def both_biases(op: Recurrent) -> Array:
    """The bias of the input's product and that of the recurrent one, (2, columns), 0 where there is none."""
    biases = np.zeros((2, op.kernel.shape[1]), np.float32)
    if op.bias is not None:
        biases[: op.bias.ndim] = op.bias
    return biases


def mask_for(op: Recurrent, x: Value) -> str | None:
    """The mask by which a layer leaves steps out; it may pass one on all the same."""
    return None if op.ignores_mask else x.mask


def operands(op: Binary, xs: Sequence[Value], constant: Callable[[Array], str]) -> tuple[str, str]:
    """What the function of a Binary is of, in its order; `constant` writes the numbers of one that has any."""
    a, b = xs[0].name, xs[1].name if op.constant is None else constant(op.constant)
    return (b, a) if op.constant_first else (a, b)


def joined_mask(op: Merge | Concatenate, xs: Sequence[Value], join: Callable[[str, str], str]) -> str | None:
    """The mask of what joins several inputs; `join` writes one of two. None also where each step counts."""
    masks = [x.mask for x in xs if x.mask is not None]
    if not masks or (len(masks) < len(xs) and op.mask_rule is MaskRule.ANY):
        return None
    return reduce(join, dict.fromkeys(masks))


def joins_in_time(op: Concatenate, xs: Sequence[Value]) -> bool:
    """Whether sequences that are masked are put one after the other."""
    return op.axis == 1 and len(xs[0].shape) > 1 and any(x.mask is not None for x in xs)


def leaves_steps_out(op: Merge, xs: Sequence[Value]) -> bool:
    """Whether what is masked in an input is left out of the result, as Keras does from 3.4 on."""
    masked = op.mask_rule is MaskRule.ANY and any(x.mask is not None for x in xs)
    return masked and op.join in {np.multiply, np.maximum, np.minimum}


def refuse_left_out(title: str, op: Merge, xs: Sequence[Value]) -> None:
    """Refuse a Merge that leaves masked steps out."""
    if leaves_steps_out(op, xs):
        refuse(title, op, "its inputs are masked, and this Keras leaves masked steps out of it")


def write_stacked(write: Write, turn: Callable[[str], str], op: Stacked, xs: Sequence[Value]) -> Value:
    """Write recurrent layers one above the other; `turn` turns a mask round."""
    x = xs[0]
    for layer in op.layers:
        y = write(layer, [x])
        x = y._replace(mask=turn(x.mask) if layer.go_backwards and x.mask is not None else x.mask)
    return x._replace(mask=xs[0].mask if op.return_sequences else None)


def table_of(targets: Mapping[str, Target], operations: Sequence[type]) -> str:
    """The table operation x target as Markdown, with the notes under it."""
    notes: dict[str, int] = {}
    rows = [["operation", *targets], ["---"] * (len(targets) + 1)]
    for operation in operations:
        cells = []
        for aim in targets.values():
            write, note = aim.table[operation]
            number = "" if note == "yes" else f" ({notes.setdefault(note, len(notes) + 1)})"
            cells.append(("no" if write is None else "yes") + number)
        rows.append([f"`{operation.__name__}`", *cells])
    return "\n".join(
        [*(f"| {' | '.join(row)} |" for row in rows), "", *(f"{n}. {note}" for note, n in notes.items()), ""]
    )
