"""Where masks go, as the operations have it: known before anything is computed."""

from collections.abc import Sequence

from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Normalization, Rescaling
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent

# Those whose outputs have none, whatever their inputs have.
WITHOUT = (
    *(Convolution, Pooling, ConvLSTM, GlobalPooling1D, RepeatVector, Reshape, Permute),
    *(Slice, Binary, Reduce, MatMul),
)


def begins_mask(operation: object) -> bool:
    """Whether an operation makes a mask of its own, of what it is given."""
    return isinstance(operation, Masking) or (isinstance(operation, Embedding) and operation.mask_zero)


def gives_mask(operation: Operation, masked: Sequence[bool]) -> bool:
    """Whether an operation's first output has a mask, where these of its inputs have one."""
    if begins_mask(operation):
        return True
    if isinstance(operation, MaskedBy):
        return masked[1]
    if isinstance(operation, Merge | Concatenate):
        every = isinstance(operation, Merge) and operation.mask_rule is MaskRule.ANY
        return all(masked) if every else any(masked)
    if isinstance(operation, Bidirectional):
        operation = operation.forward
    keeps = not isinstance(operation, (*WITHOUT, Embedding))
    if isinstance(operation, Recurrent | Stacked):
        keeps = operation.return_sequences
    elif isinstance(operation, Normalization | Rescaling):
        keeps = operation.keeps_mask
    return keeps and masked[0]
