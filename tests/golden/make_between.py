"""Save models with operations between their layers, and what Keras answers: run once with Keras 3, once with 2.15.

    python make_between.py

writes between/<keras>__<case>.h5 and its golden predictions beside this script.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

V3 = keras.__version__.startswith("3")
L = keras.layers
if V3:
    o = keras.ops
    mean, largest, exp, absolute, tanh, softmax, concat = o.mean, o.max, o.exp, o.abs, o.tanh, o.softmax, o.concatenate
    stack, expand, matmul, transpose, reshape, clip = o.stack, o.expand_dims, o.matmul, o.transpose, o.reshape, o.clip
else:
    import tensorflow as tf

    mean, largest, exp, absolute, tanh, softmax = tf.reduce_mean, tf.reduce_max, tf.exp, tf.abs, tf.tanh, tf.nn.softmax
    concat, stack, expand, matmul, transpose, reshape = (
        *(tf.concat, tf.stack, tf.expand_dims, tf.matmul, tf.transpose, tf.reshape),
    )
    clip = tf.clip_by_value


def of_all(x: Any) -> Any:
    """Slices, arithmetic with numbers in both places, reductions, products, other shapes."""
    h = L.LSTM(4, return_sequences=True)((x[:, ::-1, :2] - 0.5) / 2.0)
    g = L.Dense(4)(h)
    weights = softmax(matmul(h, transpose(g, [0, 2, 1])) / 2.0, axis=1)
    y = matmul(weights, g) * expand(mean(h, axis=1), axis=1) + 1.0 / (exp(g) + 1.0)
    rows = stack([y[:, -1], largest(g, axis=1), (2.0 - h)[:, 0]], axis=1)
    return L.Dense(2)(concat([reshape(rows, (-1, 12)), clip(y[:, 1], -0.2, 0.3) ** 2], axis=-1))


def masked(x: Any) -> Any:
    """The mask ends at the first operation."""
    h = L.LSTM(4, return_sequences=True)(L.Masking()(x))
    return L.Dense(2)(concat([L.GRU(3)(tanh(h)), L.GRU(3)(h), L.GRU(2)(absolute(-h))], axis=1))


keras.utils.set_random_seed(5)
folder = Path(__file__).parent / "between"
folder.mkdir(exist_ok=True)
for build in (of_all, masked):
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, build(inputs))
    x = np.random.default_rng(1).normal(0, 1, (4, 6, 3)).astype(np.float32)
    x[1, 4:] = x[2, :1] = 0
    stem = f"keras{keras.__version__.replace('.', '')}__{build.__name__}"
    model.save(folder / f"{stem}.h5")
    np.savez(folder / f"{stem}.golden.npz", x=x, y=model.predict(x, verbose=0))
