"""What is to be said of each class of layers: its arrays, its formulas, its lines of NumPy.

Formulas and NumPy lines are filled with the layer's own sizes. To add a class: a function, and a line in `TABLE`.
"""

from collections.abc import Callable
from typing import Any

from lstm_serve.engine.layers import (
    Activate,
    BatchNormalization,
    Concatenate,
    Dense,
    Identity,
    Layer,
    LayerNormalization,
    Merge,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.scan import Shape
from lstm_serve.engine.sequences import (
    Conv1D,
    Embedding,
    GlobalPooling1D,
    Masking,
    Permute,
    Pooling1D,
    RepeatVector,
    Reshape,
)
from lstm_serve.engine.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.words import layers, recurrent, sequences
from lstm_serve.words.text import Words


def of(layer: Layer, shape: Shape) -> Words:
    """The words for a layer whose first input has this shape, the batch axis left out."""
    return TABLE.get(type(layer), _unknown)(layer, shape)


def _time_distributed(layer: TimeDistributed, shape: Shape) -> Words:
    words = of(layer.layer, shape[1:])
    return words._replace(
        way=[
            f"For each step by itself, {layer.layer.keras_class}:",
            *(f"  {line}" for line in words.way),
            "and the y of the steps one after the other.",
        ],
        # The mask that the layer would make goes no further, nor does one reach it.
        numpy=None
        if words.numpy is None or any("mask" in line for line in words.numpy)
        else [
            "ys = []",
            "for y in y:",
            *(f"    {line}" for line in words.numpy),
            "    ys.append(y)",
            "y = np.array(ys)",
        ],
        masked=None,
    )


def _unknown(layer: Layer, _: Shape) -> Words:
    return Words(roles={}, way=[f"y = {layer.keras_class}(x), as Keras computes it"])


TABLE: dict[type, Callable[[Any, Shape], Words]] = {
    LSTM: recurrent.recurrent,
    GRU: recurrent.recurrent,
    SimpleRNN: recurrent.recurrent,
    Stacked: recurrent.stacked,
    Bidirectional: recurrent.bidirectional,
    TimeDistributed: _time_distributed,
    Dense: layers.dense,
    Identity: layers.identity,
    Activate: layers.activate,
    PReLU: layers.prelu,
    Normalization: layers.normalization,
    Rescaling: layers.rescaling,
    BatchNormalization: layers.batch_normalization,
    LayerNormalization: layers.layer_normalization,
    Merge: layers.merge,
    Concatenate: layers.concatenate,
    Scaling: layers.scaling,
    Unscaling: layers.unscaling,
    Embedding: sequences.embedding,
    Masking: sequences.masking,
    Conv1D: sequences.conv1d,
    Pooling1D: sequences.pooling,
    GlobalPooling1D: sequences.global_pooling,
    RepeatVector: sequences.repeat_vector,
    Reshape: sequences.reshape,
    Permute: sequences.permute,
}
