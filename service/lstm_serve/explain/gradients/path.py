"""Back through a whole model: from its answers to its input. Who asks for it silences NumPy's warnings."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lstm_serve.engine.operations.temporal import Masking
from lstm_serve.engine.operations.wiring import Node, run, shapes_of
from lstm_serve.engine.operations.wrappers import TimeDistributed
from lstm_serve.engine.types import Array, Mask, Shape
from lstm_serve.explain.gradients import table
from lstm_serve.explain.gradients.tape import Pieces, TapeEntry
from lstm_serve.model.model import Model

# What one row may keep, in numbers: 128 MB. Beyond that a gradient would need too much memory at once.
MOST_FLOATS = 1 << 25


def why_not(model: Model, shape: tuple[int, ...]) -> str | None:
    """Why there is no gradient by an input of this shape, as a sentence without its end; None where there is one."""
    for op, _ in model.nodes:
        why = table.why_not(op)
        if why is not None:
            return f"the layer {op.name} ({op.keras_class or type(op).__name__}) has no gradient: {why}"
    if kept_floats(model, shape) > MOST_FLOATS:
        return "the sequence is too long for what the way back would keep of it"
    return None


def kept_floats(model: Model, shape: tuple[int, ...]) -> int:
    """About how many numbers of one row are kept for the way back, and made on it."""
    return _kept_floats(model.nodes, shape)


def _kept_floats(nodes: Sequence[Node], shape: Shape) -> int:
    found = shapes_of(nodes, [shape])
    kept = 3 * sum(math.prod(n or 1 for n in each) for outputs in found for each in outputs)
    for op, inputs in nodes:
        given = found[inputs[0].node + 1][inputs[0].output]
        if isinstance(op, TimeDistributed):
            kept += (given[0] or 1) * _kept_floats(op.nodes, given[1:])
            continue
        units = sum(len(array) for name, array in op.weights.items() if name.endswith("recurrent_kernel"))
        kept += 20 * units * math.prod(n or 1 for n in given[:-1])  # the gates, and their slopes
    return kept


def masks_of(model: Model, x: Array) -> dict[int, Mask]:
    """The mask that each Masking makes of one sequence x (1, ...), by its node's number."""
    at = [k for k, (op, _) in enumerate(model.nodes) if isinstance(op, Masking)]
    if not at:
        return {}
    with np.errstate(all="ignore"):
        _, masks = run(model.nodes, [x], model.results, model.last_uses)
    return {k: masks[k + 1][0] for k in at}


def recorded(model: Model, x: Array, held: Mapping[int, Mask]) -> Pieces[tuple[Array, list[TapeEntry]]]:
    """The answers to rows x (n, ...), and what is kept of each node for the way back.

    `held` are masks (1, T) by their nodes' numbers that stay as they are, whatever x is.
    """
    of_rows = {node: np.repeat(mask, len(x), axis=0) for node, mask in held.items() if mask is not None}
    tape = yield from table.forward_through(model.nodes, x, of_rows)
    (end,) = model.results
    return tape[end.node].ys[end.output], tape


def back(model: Model, tape: list[TapeEntry], by_y: Array) -> Pieces[Array]:
    """The gradient by the rows from that by their answers; the tape is used up on the way."""
    (end,) = model.results
    x = tape[0].xs[0]
    found = yield from table.back_through(model.nodes, tape, {end: by_y})
    return np.zeros_like(x) if found is None else found
