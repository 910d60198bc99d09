"""Save models with operations between their layers, and what Keras answers: run once with Keras 3, once with 2.15.

    python make_between.py [CASE ...]

writes between/<keras>__<case>.h5 and its golden predictions beside this script.
"""

import sys
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
    m, split, cast, where, argmax, argmin, total, anywhere = (
        *(o, o.split, o.cast, o.where, o.argmax, o.argmin, o.sum, o.any),
    )
    unstack, flatten = o.unstack, keras.tree.flatten
else:
    import tensorflow as tf

    mean, largest, exp, absolute, tanh, softmax = tf.reduce_mean, tf.reduce_max, tf.exp, tf.abs, tf.tanh, tf.nn.softmax
    concat, stack, expand, matmul, transpose, reshape = (
        *(tf.concat, tf.stack, tf.expand_dims, tf.matmul, tf.transpose, tf.reshape),
    )
    clip = tf.clip_by_value
    m, split, cast, where, argmax, argmin, total, anywhere = (
        *(tf.math, tf.split, tf.cast, tf.where, tf.argmax, tf.argmin, tf.reduce_sum, tf.reduce_any),
    )
    unstack, flatten = tf.unstack, tf.nest.flatten


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


def chosen(x: Any) -> Any:
    """What is compared, chosen and split, of floats and of numbers."""
    h, g = L.LSTM(4, return_sequences=True)(x), L.Dense(4)(x)
    first, second, last = split(h, [1, 2, 3] if V3 else [1, 1, 1, 1], axis=2)[:3]
    both = m.logical_and(m.greater(h, g), m.logical_not(m.less_equal(g, 0.1)))
    either = m.logical_or(m.less(h, 0.0), m.greater_equal(0.3, g))
    known = expand(anywhere(m.not_equal(x, 0.0), axis=-1), axis=-1)
    y = where(both, h, g) + where(either, g, -1.0) + cast(m.equal(last, first), "float32") * where(known, h, 0.0)
    place = cast(argmax(y, axis=-1), "float32") + cast(argmin(y[:, :, ::-1], axis=2), "float32")
    parts = split(L.Dense(6)(y), 3, axis=-1)
    return L.Dense(2)(concat([parts[2][:, 0], parts[0][:, -1], place, reshape(second, (-1, 6))], axis=-1))


def masked_mean(ids: Any) -> Any:
    """The mean over those steps that are no padding, made by hand of the ids."""
    h = L.LSTM(4, return_sequences=True)(L.Embedding(7, 5, mask_zero=True)(ids))
    kept = expand(cast(m.not_equal(ids, 0), "float32"), axis=-1)
    return L.Dense(2)(concat([total(h * kept, axis=1) / total(kept, axis=1), total(kept, axis=1)], axis=-1))


def shared(x: Any) -> Any:
    """A layer on shorter steps too, with states and without: in Keras 3 a mask is for the one without."""
    layer = L.LSTM(4, return_state=True)
    _, *states = layer(L.Masking()(x))
    y, *states = layer(x[:, 2:], initial_state=states)
    return L.Dense(2)(concat([y, *states], axis=-1))


def begun(x: Any) -> Any:
    """States before a step that is masked: in Keras 2 the output is 0 until one counts, in Keras 3 each counts."""
    states = [L.Dense(4)(x[:, 3]), L.Dense(4)(x[:, 2])]
    h, *ends = L.LSTM(4, return_sequences=True, return_state=True)(L.Masking()(x), initial_state=states)
    return L.Dense(2)(concat([tanh(h)[:, 0], L.GRU(3)(h), *ends], axis=-1))


def cells() -> list[Any]:
    """Cells with one state and with two."""
    return [L.LSTMCell(3), L.GRUCell(2), L.LSTMCell(4)]


def stacked(x: Any) -> Any:
    """Several cells in one layer, whose states, masked and not, another one begins with."""
    y, *states = L.RNN(cells(), return_state=True)(L.Masking()(x))
    z, *ends = L.RNN(cells(), return_sequences=True, return_state=True)(x[:, 2:], initial_state=states)
    begun = L.RNN(cells(), return_sequences=True)(L.Masking()(x), initial_state=ends)
    return L.Dense(2)(concat([y, z[:, -1], L.GRU(3)(begun), *flatten(ends)], axis=-1))


def unmerged(x: Any) -> Any:
    """Both directions by themselves, of each step and of the last one, masked."""
    masked = L.Masking()(x)
    forward, backward = L.Bidirectional(L.LSTM(3, return_sequences=True), merge_mode=None)(masked)
    ends = L.Bidirectional(L.GRU(2), merge_mode=None)(masked)
    return L.Dense(2)(concat([L.GRU(3)(forward), L.GRU(3)(backward), *ends], axis=-1))


def apart(x: Any) -> Any:
    """Steps and features taken apart, some of which nobody needs."""
    first, second, *_, last = unstack(L.LSTM(4, return_sequences=True)(x), axis=1)
    _, feature, _ = unstack(x, 3, axis=-1)
    return L.Dense(2)(concat([first * second, last, feature], axis=-1))


def masks_given(ids: Any) -> Any:
    """Masks as arguments: of ids that no layer masks, and of others than it does, with states and without."""
    plain, marked = L.Embedding(7, 5)(ids), L.Embedding(7, 5, mask_zero=True)(ids)
    known, threes = m.not_equal(ids, 0), m.not_equal(ids, 3)
    h, *states = L.LSTM(4, return_state=True, return_sequences=True)(plain, mask=known)
    g = L.Bidirectional(L.GRU(2, return_sequences=True))(marked, mask=m.logical_or(known, threes))
    y = L.LSTM(4, return_sequences=True)(marked, initial_state=states, mask=threes)
    weights = L.Softmax()(L.Reshape((6,))(L.Dense(1)(h)), mask=known)
    pooled = L.GlobalAveragePooling1D()(tanh(h), mask=threes)
    return L.Dense(2)(concat([L.Dot(axes=1)([weights, h]), L.GRU(3)(g), L.SimpleRNN(3)(y), pooled], axis=-1))


keras.utils.set_random_seed(5)
folder = Path(__file__).parent / "between"
folder.mkdir(exist_ok=True)
for build in (of_all, masked, chosen, masked_mean, shared, begun, stacked, apart, masks_given, unmerged):
    if sys.argv[1:] and build.__name__ not in sys.argv[1:]:
        continue
    of_ids = build in {masked_mean, masks_given}
    inputs = keras.Input((6,), dtype="int32") if of_ids else keras.Input((6, 3))
    model = keras.Model(inputs, build(inputs))
    x = np.random.default_rng(1).normal(0, 1, (4, 6, 3)).astype(np.float32)
    if of_ids:
        x = np.random.default_rng(2).integers(1, 7, (4, 6)).astype(np.int32)
    x[1, 4:] = x[2, :1] = 0
    stem = f"keras{keras.__version__.replace('.', '')}__{build.__name__}"
    model.save(folder / f"{stem}.h5")
    np.savez(folder / f"{stem}.golden.npz", x=x, y=model.predict(x, verbose=0))
