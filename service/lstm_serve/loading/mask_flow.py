"""What depends on a mask where nobody knows what Keras does is refused."""

from collections.abc import Sequence

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.masks import gives_mask
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, Merge
from lstm_serve.engine.operations.temporal import GlobalPooling1D
from lstm_serve.engine.operations.wiring import Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.refusals import REBUILD

# Those that do something else because of a mask.
LOOKING = (
    *(ConvLSTM, Recurrent, Stacked, Bidirectional, TimeDistributed),
    *(GlobalPooling1D, Merge, Concatenate, MaskedBy),
)


def check_masks(nodes: Sequence[Node], keras: KerasVersion) -> None:
    """Refuse a mask that comes to what is computed for each time step, where something in that looks at masks."""
    masked = _masked(nodes)
    for operation, inputs in nodes:
        if isinstance(operation, ConvLSTM) and any(source in masked for source in inputs):
            raise Unsupported(f"the layer {operation.name[:100]!r} is given a mask, which is not supported of pictures")
        if any(source in masked for source in inputs) and _zeroes_others(operation):
            raise Unsupported(
                f"the layer {operation.name[:100]!r} goes backwards through a masked sequence with unroll=True, and "
                "Keras then gives 0 at other steps than the masked ones: build it with unroll=False, "
                f"{REBUILD}"
            )
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


def _zeroes_others(operation: Operation) -> bool:
    """Whether it counts masked steps from the wrong end: rnn() of Keras turns no mask round once it has unrolled."""
    directions = (operation.forward, operation.backward) if isinstance(operation, Bidirectional) else (operation,)
    ends = [each.layers[-1] if isinstance(each, Stacked) else each for each in directions]
    return any(
        isinstance(end, Recurrent) and end.unrolled and end.return_sequences and end.zero_output_for_mask
        for end in ends
    )


def _masked(nodes: Sequence[Node]) -> set[Source]:
    """The outputs that have a mask."""
    found: set[Source] = set()
    for k, (operation, inputs) in enumerate(nodes):
        if gives_mask(operation, [source in found for source in inputs]):
            found.add(Source(k))
    return found
