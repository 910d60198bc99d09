"""Which models in C can take a row at a time: those that only look back, up to their last recurrent layer."""

from lstm_serve.engine.operations import temporal, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.model import Model


def _is_causal(op: Operation) -> bool:
    """Whether an operation on a sequence gives each step's output at that step, or is a state after the last.

    Beside those that have a step in the engine that is what makes a mask, which here is known of each row.
    """
    if isinstance(op, Recurrent):
        return op.not_causal is None and (op.return_sequences or not op.zero_output_for_mask)
    if isinstance(op, wrappers.Stacked):
        return all(map(_is_causal, op.layers))
    if isinstance(op, temporal.Masking | temporal.Embedding):
        return True
    return op.not_causal is None and not op.start(0)  # of others nothing is kept here


def streamed(model: Model) -> list[int] | None:
    """The nodes that a step computes, or None where an operation looks ahead or at the whole sequence.

    The others follow the last step; it may be one of them that answers, or a step.
    """
    id_rows = isinstance(model.nodes[0].operation, temporal.Embedding)
    last = len(model.nodes) - 1
    if not model.is_single or model.results != (Source(last),) or len(model.input_shape) != (1 if id_rows else 2):
        return None
    sequences, steps = {INPUT}, []
    for k, (op, inputs) in enumerate(model.nodes):
        from_steps = {source.node in sequences for source in inputs}
        if from_steps == {False}:
            continue
        rows = len(model.shapes[k]) > 1 or isinstance(op, Recurrent | wrappers.Stacked)
        if from_steps != {True} or not _is_causal(op) or not rows:
            return None
        steps.append(k)
        if not isinstance(op, Recurrent | wrappers.Stacked) or op.return_sequences:
            sequences.add(k)
    return steps
