"""What a model is made of: a closed set of operations, to which the loaders lower Keras' layers.

Whatever walks a model (its description, its gradients, an exporter) has one function for each of them.
"""

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

OPERATIONS: tuple[type[Operation], ...] = (
    # Each time step, or each row, by itself.
    Identity,
    Dense,
    Activate,
    PReLU,
    Normalization,
    Rescaling,
    BatchNormalization,
    LayerNormalization,
    Scaling,
    Unscaling,
    # Several inputs.
    Merge,
    Concatenate,
    # A sequence, or a row, as a whole.
    Embedding,
    Masking,
    Convolution,
    Pooling,
    GlobalPooling1D,
    RepeatVector,
    Reshape,
    Permute,
    # Between layers.
    Slice,
    Binary,
    Reduce,
    MatMul,
    MaskedBy,
    # Through time.
    LSTM,
    GRU,
    SimpleRNN,
    ConvLSTM,
    # Operations that hold operations.
    Stacked,
    Bidirectional,
    TimeDistributed,
)
