"""What is to be said of each operation: its arrays, its formulas, its lines of NumPy.

Formulas and NumPy lines are filled with the layer's own sizes. To add a class: a function, and a line in `TABLE`.
"""

from collections.abc import Callable
from typing import Any

from lstm_serve.engine.operations import wiring
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe import arithmetic, pointwise, recurrent, temporal, windows
from lstm_serve.explain.describe.description import LayerDescription
from lstm_serve.formats.text import shown


def describe(layer: Operation, shape: Shape) -> LayerDescription:
    """The description of a layer whose first input has this shape, the batch axis left out."""
    return TABLE.get(type(layer), _unknown)(layer, shape)


def _time_distributed(layer: TimeDistributed, shape: Shape) -> LayerDescription:
    if layer.layer is None:
        return _several_for_each_step(layer, shape)
    described = describe(layer.layer, shape[1:])
    return described._replace(
        equations=[
            f"For each step by itself, {layer.layer.keras_class}:",
            *(f"  {line}" for line in described.equations),
            "and the y of the steps one after the other.",
        ],
        # The mask that the layer would make goes no further, nor does one reach it.
        numpy=None
        if described.numpy is None or any("mask" in line for line in described.numpy)
        else [
            "ys = []",
            "for y in y:",
            *(f"    {line}" for line in described.numpy),
            "    ys.append(y)",
            "y = np.array(ys)",
        ],
        masked=None,
    )


def _several_for_each_step(layer: TimeDistributed, shape: Shape) -> LayerDescription:
    shapes = wiring.shapes_of(layer.nodes, [shape[1:]])
    said = [describe(op, shapes[inputs[0].node + 1][inputs[0].output]) for op, inputs in layer.nodes]
    names = ["x", *(shown(op.name) for op, _ in layer.nodes)]
    return LayerDescription(
        roles={
            f"{op.name}/{name}": role
            for (op, _), described in zip(layer.nodes, said, strict=True)
            for name, role in described.roles.items()
        },
        equations=[
            "For each step x by itself:",
            *(
                line
                for (op, inputs), described, name in zip(layer.nodes, said, names[1:], strict=True)
                for line in (
                    f"  {name} ({op.keras_class}) of {' and '.join(names[source.node + 1] for source in inputs)}:",
                    *(f"    {line}" for line in described.equations),
                )
            ),
            f"y = what {names[layer.end.node + 1]} gives, the steps one after the other",
        ],
        pitfalls=[*dict.fromkeys(pitfall for described in said for pitfall in described.pitfalls)],
    )


def _unknown(layer: Operation, _: Shape) -> LayerDescription:
    return LayerDescription(roles={}, equations=[f"y = {layer.keras_class}(x), as Keras computes it"])


TABLE: dict[type, Callable[[Any, Shape], LayerDescription]] = {
    LSTM: recurrent.recurrent,
    GRU: recurrent.recurrent,
    SimpleRNN: recurrent.recurrent,
    ConvLSTM: windows.conv_lstm,
    Stacked: recurrent.stacked,
    Bidirectional: recurrent.bidirectional,
    TimeDistributed: _time_distributed,
    Dense: pointwise.dense,
    Identity: pointwise.identity,
    Activate: pointwise.activate,
    PReLU: pointwise.prelu,
    Normalization: pointwise.normalization,
    Rescaling: pointwise.rescaling,
    BatchNormalization: pointwise.batch_normalization,
    LayerNormalization: pointwise.layer_normalization,
    Merge: pointwise.merge,
    Concatenate: pointwise.concatenate,
    Scaling: pointwise.scaling,
    Unscaling: pointwise.unscaling,
    Embedding: temporal.embedding,
    Masking: temporal.masking,
    Convolution: windows.convolution,
    Pooling: windows.pooling,
    GlobalPooling1D: temporal.global_pooling,
    RepeatVector: temporal.repeat_vector,
    Reshape: temporal.reshape,
    Permute: temporal.permute,
    MaskedBy: arithmetic.masked_by,
    Slice: arithmetic.part,
    Binary: arithmetic.binary,
    Reduce: arithmetic.reduce,
    MatMul: arithmetic.matmul,
}
