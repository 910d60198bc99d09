"""Where masks come by, as far as the operations tell: what depends on them where nobody knows what Keras does."""

from collections.abc import Sequence

from lstm_serve.engine.operations import arithmetic, pointwise, temporal, windows
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, Merge
from lstm_serve.engine.operations.wiring import Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.keras_version import KerasVersion

WITHOUT = (
    *(
        ConvLSTM,
        windows.Convolution,
        windows.Pooling,
        temporal.Embedding,
        temporal.GlobalPooling1D,
        temporal.RepeatVector,
        temporal.Reshape,
    ),
    *(temporal.Permute, arithmetic.Slice, arithmetic.Binary, arithmetic.Reduce, arithmetic.MatMul),
)
LOOKING = (
    ConvLSTM,
    Recurrent,
    Stacked,
    Bidirectional,
    temporal.GlobalPooling1D,
    Merge,
    Concatenate,
    MaskedBy,
    TimeDistributed,
)


def check_masks(nodes: Sequence[Node], keras: KerasVersion) -> None:
    """Refuse a mask that comes to what is computed for each time step, where something in that looks at masks."""
    masked = _masked(nodes)
    for operation, inputs in nodes:
        if isinstance(operation, ConvLSTM) and any(source in masked for source in inputs):
            raise Unsupported(f"the layer {operation.name[:100]!r} is given a mask, which is not supported of pictures")
        if not isinstance(operation, TimeDistributed):
            continue
        looking = [op for op, _ in operation.nodes if isinstance(op, LOOKING)]
        if looking and any(source in masked for source in inputs):
            raise Unsupported(
                f"the layer {operation.name[:100]!r} computes a {looking[0].keras_class} for each time step of a "
                "masked sequence, which is not supported"
            )
        check_masks(operation.nodes, keras)
        if keras.major < 3 and operation.end in _masked(operation.nodes):
            raise Unsupported(
                f"the layer {operation.name[:100]!r} gives a mask for each time step, which is not supported"
            )


def _masked(nodes: Sequence[Node]) -> set[Source]:
    """The outputs that have a mask."""
    found: set[Source] = set()
    for k, (operation, inputs) in enumerate(nodes):
        if _gives_mask(operation, [source in found for source in inputs]):
            found.add(Source(k))
    return found


def _gives_mask(operation: Operation, masked: Sequence[bool]) -> bool:
    if temporal.begins_mask(operation):
        return True
    if isinstance(operation, MaskedBy):
        return masked[1]
    keeps = not isinstance(operation, WITHOUT)
    if isinstance(operation, Bidirectional):
        keeps = operation.forward.return_sequences
    elif isinstance(operation, Recurrent | Stacked):
        keeps = operation.return_sequences
    elif isinstance(operation, pointwise.Normalization | pointwise.Rescaling):
        keeps = operation.keeps_mask
    return keeps and any(masked)
