"""Save models with attention, and what Keras answers: run once with Keras 3, once with 2.15.

    python make_attention.py

writes attention/<keras>__<case>.h5 and its golden predictions beside this script.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

V3 = keras.__version__.startswith("3")
L = keras.layers


def scores(x: Any) -> Any:
    """Both score modes, scaled, masked and causal."""
    h = L.LSTM(4, return_sequences=True)(L.Masking()(x))
    q = L.Dense(4, activation="tanh")(h)
    dot = L.Attention(use_scale=True)([q, h], use_causal_mask=True)
    concat = L.Attention(use_scale=True, score_mode="concat")([q, h, L.Dense(4)(h)])
    added = L.AdditiveAttention()([h, q])
    return L.Dense(2)(L.Concatenate()([L.GRU(3)(each) for each in (dot, concat, added)]))


def heads(x: Any) -> Any:
    """Several heads, masked, with other widths, and in Keras 3 heads that share keys."""
    h = L.LSTM(6, return_sequences=True)(L.Masking()(x))
    y = L.MultiHeadAttention(2, 3, value_dim=4, output_shape=5)(h, L.Dense(4)(h), use_causal_mask=True)
    z = L.MultiHeadAttention(3, 2, use_bias=False)(h, h, h)
    parts = [L.GRU(3)(y), L.GlobalAveragePooling1D()(z)]
    if V3:
        parts.append(L.GRU(2)(L.GroupQueryAttention(3, 4, 2)(h, h)))
    return L.Dense(2)(L.Concatenate()(parts))


def by_hand(x: Any) -> Any:
    """A softmax over time, and products of two layers."""
    h = L.LSTM(4, return_sequences=True)(x)
    w = L.Softmax(axis=1)(L.Dense(1)(h))
    pairs = L.Dot(axes=[2, 1])([L.Softmax(axis=[1, 2])(L.Dot(axes=2, normalize=True)([h, L.Dense(4)(h)])), h])
    return L.Dense(2)(L.Concatenate()([L.Flatten()(L.Dot(axes=1)([w, h])), L.GRU(2)(pairs)]))


keras.utils.set_random_seed(5)
folder = Path(__file__).parent / "attention"
folder.mkdir(exist_ok=True)
for build in (scores, heads, by_hand):
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, build(inputs))
    for weight in model.weights:
        weight.assign(np.array(weight) + 0.3 * np.random.default_rng(2).normal(size=weight.shape))
    x = np.random.default_rng(1).normal(0, 1, (4, 6, 3)).astype(np.float32)
    x[1, 4:] = x[2, :1] = 0
    stem = f"keras{keras.__version__.replace('.', '')}__{build.__name__}"
    model.save(folder / f"{stem}.h5")
    np.savez(folder / f"{stem}.golden.npz", x=x, y=model.predict(x, verbose=0))
