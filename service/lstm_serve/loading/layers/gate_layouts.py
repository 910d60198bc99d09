"""Arrays of recurrent layers in the layouts of Keras 1 and of CuDNN, made into the one layout of Keras 2 and 3.

Sources: preprocess_weights_for_loading and _convert_rnn_weights in keras/engine/saving.py of Keras 2.2.4.
"""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.types import Array


def lstm(arrays: Sequence[Array], units: int) -> Sequence[Array]:
    """An LSTM's arrays as [kernel, recurrent_kernel, bias], their column blocks i, f, c, o.

    Keras 1 keeps W, U and b of each gate, in the order i, c, f, o; CuDNN keeps two biases and transposed blocks.
    """
    if len(arrays) == 12:
        i, c, f, o = (arrays[k : k + 3] for k in (0, 3, 6, 9))
        return _joined([i, f, c, o], arrays)
    if len(arrays) == 3 and arrays[2].shape == (8 * units,):
        return [*_from_cudnn(arrays, 4), arrays[2][: 4 * units] + arrays[2][4 * units :]]
    return arrays


def gru(arrays: Sequence[Array], units: int) -> Sequence[Array]:
    """A GRU's arrays as [kernel, recurrent_kernel, bias], their column blocks z, r, h.

    Keras 1 keeps W, U and b of each gate, in that order; CuDNN keeps the two biases in one row.
    """
    if len(arrays) == 9:
        return _joined([arrays[k : k + 3] for k in (0, 3, 6)], arrays)
    if len(arrays) == 3 and arrays[2].shape == (6 * units,):
        return [*_from_cudnn(arrays, 3), arrays[2].reshape(2, -1)]
    return arrays


def _joined(gates: Sequence[Sequence[Array]], arrays: Sequence[Array]) -> Sequence[Array]:
    # Arrays that do not fit together are left to the check that follows.
    if any(
        len({(array.ndim, array.shape[:-1]) for array in arrays[k::3]}) != 1 or not arrays[k].ndim for k in range(3)
    ):
        return arrays
    return [np.concatenate(blocks, axis=-1) for blocks in zip(*gates, strict=True)]


def _from_cudnn(arrays: Sequence[Array], gates: int) -> list[Array]:
    kernel, recurrent_kernel, _ = arrays
    if kernel.ndim != 2 or recurrent_kernel.ndim != 2 or kernel.shape[1] % gates or recurrent_kernel.shape[1] % gates:
        return [kernel, recurrent_kernel]
    return [
        np.hstack([block.T.reshape(block.shape, order="F") for block in np.hsplit(kernel, gates)]),
        np.hstack([block.T for block in np.hsplit(recurrent_kernel, gates)]),
    ]
