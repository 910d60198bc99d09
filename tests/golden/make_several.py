"""Save models of several inputs and outputs, in every form, with real Keras 2.15 or 3, and what they answer.

    python tests/golden/make_several.py [CASE ...]

Needs Keras, which the tests do not. Run it once with TensorFlow 2.15, and once with Keras 3: the two write structures
and count calls each in its own way. What it writes is checked in. x0, x1, ... and y0, y1, ... are in the order of
model.inputs and of model.outputs, and `names` is how a client feeds and finds them.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from cases import case, made, save
from keras import layers

HERE = Path(__file__).parent / "several"


@case
def state_and_rul() -> keras.Model:
    """A sequence, ids and a vector, in an order other than that of their layers; a class and a number."""
    sensors, words = keras.Input((6, 4), name="sensors"), keras.Input((5,), name="words", dtype="int32")
    static = keras.Input((3,), name="static")
    read = layers.GRU(3)(layers.Embedding(9, 4, mask_zero=True)(words))
    joined = layers.Concatenate()([layers.LSTM(4)(sensors), read, layers.Dense(2, activation="relu")(static)])
    state = layers.Dense(3, activation="softmax", name="state")(joined)
    return keras.Model([words, static, sensors], [state, layers.Dense(1, name="rul")(joined)])


@case
def by_keys() -> keras.Model:
    """Objects of inputs and outputs, by keys that are not in the order of the layers."""
    b, a = keras.Input((4, 2), name="wind"), keras.Input((3,), name="site")
    joined = layers.Concatenate()([layers.LSTM(3)(b), a])
    power = layers.Dense(2, name="power")(joined)
    return keras.Model({"wind": b, "site": a}, {"power": power, "alarm": layers.Dense(1, activation="sigmoid")(joined)})


@case
def shared_layers() -> keras.Model:
    """Layers called on inputs of other lengths; outputs: of an inner layer, one twice, and an input itself."""
    left, right = keras.Input((4, 2), name="left"), keras.Input((6, 2), name="right")
    unused = keras.Input((2,), name="unused")
    steps, last = layers.LSTM(3, return_sequences=True), layers.GRU(3)
    inner, other = steps(left), steps(right)
    judge = layers.Dense(2, activation="softmax", name="judge")
    first, second = judge(last(inner)), judge(last(other))
    return keras.Model([left, right, unused], [second, first, inner, second, left])


@case
def models_inside() -> keras.Model:
    """A model of two inputs and two outputs, called twice, the second time by name and for one of its outputs."""
    sequence, vector = keras.Input((4, 2), name="sequence"), keras.Input((2,), name="vector")
    joined = layers.Concatenate()([layers.LSTM(3)(sequence), vector])
    inner = keras.Model(
        [sequence, vector], [layers.Dense(2, name="two")(joined), layers.Dense(4)(joined)], name="inner"
    )
    a, b = keras.Input((4, 2), name="a"), keras.Input((2,), name="b")
    two, four = inner([a, b])
    again, _ = inner({"vector": two, "sequence": a})
    return keras.Model([b, a], [four, again, layers.Add()([two, again])])


@case
def free_lengths() -> keras.Model:
    """Two sequences of any length, which must be the same, as they are added."""
    a, b = keras.Input((None, 2), name="a"), keras.Input((None, 3), name="b")
    added = layers.Add()([layers.LSTM(3, return_sequences=True)(a), layers.GRU(3, return_sequences=True)(b)])
    return keras.Model([a, b], [layers.Dense(2, activation="softmax")(layers.LSTM(2)(added)), added])


def _given(spec: Any, generator: np.random.Generator) -> np.ndarray:
    shape = [4, *(5 if size is None else size for size in spec.shape[1:])]
    if "int" in str(spec.dtype):
        return generator.integers(0, 9, shape).astype(np.int32)
    return generator.normal(0, 1, shape).astype(np.float32)


def _flat(structure: Any) -> list[tuple[str | None, Any]]:
    """In the order of Keras, by key where they have one."""
    if isinstance(structure, dict):
        return sorted(structure.items())
    return [(None, item) for item in (structure if isinstance(structure, list | tuple) else [structure])]


def main() -> None:
    """Make the named cases, or all."""
    for name, model in made():
        generator = np.random.default_rng(11)
        # Biases and statistics must show.
        model.set_weights([w + generator.normal(0, 0.3, w.shape).astype(w.dtype) for w in model.get_weights()])
        given = _flat(model.input)
        xs = [_given(tensor, generator) for _, tensor in given]
        keys = [key or tensor._keras_history[0].name for key, tensor in given]
        by_key = isinstance(model.input, dict)
        answered = _flat(model.predict(dict(zip(keys, xs, strict=True)) if by_key else xs, verbose=0))
        stem = save(model, HERE, name)
        arrays: dict[str, Any] = {f"x{k}": x for k, x in enumerate(xs)}
        arrays |= {f"y{k}": np.asarray(y) for k, (_, y) in enumerate(answered)} | {"names": np.array(keys)}
        np.savez(f"{stem}.golden.npz", **arrays)


if __name__ == "__main__":
    main()
