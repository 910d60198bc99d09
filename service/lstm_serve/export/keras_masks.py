"""Masks in Keras 3: which tensors have one, who sees what is under it, and what differs from the Keras of the model."""

from collections.abc import Iterator, Sequence

from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.masks import begins_mask
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Activate, Normalization, Rescaling
from lstm_serve.engine.operations.temporal import GlobalPooling1D
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.export.keras_config import TITLE
from lstm_serve.export.operation import Value, passed_mask, passes_mask, refuse
from lstm_serve.model.graph import INPUT
from lstm_serve.model.model import Model

THROUGH_TIME = (Recurrent, Stacked, Bidirectional)


def mask_of(op: Operation, xs: Sequence[Value], name: str) -> str | None:
    """The name of the output's mask: that of the layer that made it."""
    if begins_mask(op):
        return name
    if isinstance(op, Merge | Concatenate):
        masks = {x.mask for x in xs}
        return xs[0].mask if len(masks) == 1 else None if op.mask_rule is MaskRule.ANY and None in masks else name
    return passed_mask(op, xs)


def check_mask(model: Model, op: Operation, xs: Sequence[Value]) -> None:
    """Refuse an operation that Keras 3 would compute otherwise because its input is masked."""
    if all(x.mask is None for x in xs):
        return
    if isinstance(op, Normalization | Rescaling) and not op.keeps_mask:
        refuse(TITLE, op, "the Keras that saved it dropped the mask here, and Keras 3 passes it on")
    if isinstance(op, Activate) and op.activation.function in FUNCTIONS:
        refuse(TITLE, op, "it passes a mask on, and Keras 3 has no layer for it")
    if isinstance(op, Recurrent | Bidirectional) and len(xs) > 1:
        first = op.forward if isinstance(op, Bidirectional) else op
        if isinstance(first, Recurrent) and not first.ignores_mask:
            refuse(TITLE, op, "it is given states and a masked sequence, and Keras 3 then leaves no step out")
        return
    if not isinstance(op, Bidirectional):
        return
    zeroed = {last_layer(part).zero_output_for_mask for part in (op.forward, op.backward)}
    if op.forward.return_sequences and zeroed != {True} and is_seen(model, op):
        refuse(
            TITLE,
            op,
            "at masked steps its Keras held the last output, Keras 3 gives 0, and a later layer sees that",
        )
    if not op.forward.return_sequences and zeroed != {False}:
        refuse(TITLE, op, "its Keras gave 0 where the last step is masked, and Keras 3 gives the last output")


def last_layer(direction: Recurrent | Stacked) -> Recurrent:
    """The layer whose output is that of a direction."""
    return direction.layers[-1] if isinstance(direction, Stacked) else direction


def is_end(model: Model, op: Operation) -> bool:
    """Whether what an operation gives is an output of the model."""
    return any(end.node != INPUT and model.nodes[end.node].operation is op for end in model.results)


def _users(model: Model, op: Operation) -> Iterator[tuple[Operation, int]]:
    """Which operations take what it gives, and as which of their inputs."""
    places = {k for k, node in enumerate(model.nodes) if node.operation is op}
    for node in model.nodes:
        yield from ((node.operation, place) for place, source in enumerate(node.inputs) if source.node in places)


def is_seen(model: Model, op: Operation) -> bool:
    """Whether what an operation gives at masked steps reaches an output of the model."""
    if is_end(model, op):
        return True
    for user, _ in _users(model, op):
        skips = isinstance(user, THROUGH_TIME) or (isinstance(user, GlobalPooling1D) and user.average)
        if not skips and (not passes_mask(user) or is_seen(model, user)):
            return True
    return False


def is_looked_at(model: Model, op: Operation) -> bool:
    """Whether a later layer does something else because of the mask of what an operation gives."""
    for user, place in _users(model, op):
        if isinstance(user, MaskedBy) and place == 0:
            continue
        looks = isinstance(user, (*THROUGH_TIME, Merge, Concatenate)) or getattr(user, "zeroed", False)
        if looks or (isinstance(user, GlobalPooling1D) and user.average):
            return True
        if (passes_mask(user) or isinstance(user, MaskedBy)) and is_looked_at(model, user):
            return True
    return False
