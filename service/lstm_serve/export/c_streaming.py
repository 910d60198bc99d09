"""Which models in C can take a row at a time: those that only look back, up to their last recurrent layer."""

import math
from dataclasses import dataclass

from lstm_serve.engine.operations import merging, pointwise, temporal, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.model.graph import INPUT
from lstm_serve.model.model import Model

EACH_ROW = (
    pointwise.Identity,
    pointwise.Dense,
    pointwise.Activate,
    pointwise.LayerNormalization,
    pointwise.Scaling,
    pointwise.Unscaling,
    temporal.Masking,
    temporal.Embedding,
    wrappers.TimeDistributed,
)


def _is_causal(op: Operation) -> bool:
    """Whether an operation on a sequence gives each step's output at that step, or is a state after the last."""
    if isinstance(op, Recurrent):
        return not op.go_backwards and (op.return_sequences or not op.zero_output_for_mask)
    if isinstance(op, wrappers.Stacked):
        return all(map(_is_causal, op.layers))
    if isinstance(op, merging.Concatenate):
        return op.axis > 1
    arrays: list[Array] = []
    if isinstance(op, pointwise.PReLU):
        arrays = [op.alpha]
    elif isinstance(op, pointwise.Normalization | pointwise.BatchNormalization):
        arrays = [op.mean]
    elif not isinstance(op, (*EACH_ROW, merging.Merge, pointwise.Rescaling)):
        return False
    return all(array.ndim < 2 or math.prod(array.shape[:-1]) == 1 for array in arrays)


@dataclass
class Streamed:
    """A model taken apart: the nodes that a step computes, by number, and where the rest begins."""

    steps: list[int]
    rest: list[int]


def streamed(model: Model) -> Streamed | None:
    """The model as steps and what follows them; None where an operation looks ahead or at the whole sequence."""
    id_rows = isinstance(model.nodes[0].operation, temporal.Embedding)
    if len(model.input_shape) != (1 if id_rows else 2):
        return None
    sequences, steps, rest = {INPUT}, [], []
    for k, node in enumerate(model.nodes):
        from_steps = {source.node in sequences for source in node.inputs}
        if from_steps == {False}:
            rest.append(k)
            continue
        if from_steps != {True} or not _is_causal(node.operation):
            return None
        steps.append(k)
        if not isinstance(node.operation, Recurrent | wrappers.Stacked) or node.operation.return_sequences:
            sequences.add(k)
    last = len(model.nodes) - 1
    # A sequence is seen by the steps alone; the last one may be the answer, a step's at a time.
    return Streamed(steps, rest) if last in rest or last in steps else None
