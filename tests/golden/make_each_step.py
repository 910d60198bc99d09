"""Save models with models and recurrent layers for each time step, and what Keras answers: Keras 3, and 2.15.

    python tests/golden/make_each_step.py [CASE ...]

Needs Keras, which the tests do not. What it writes is checked in.
"""

from pathlib import Path

import keras
import numpy as np
from cases import KERAS_3, case, made, save, save_answers, save_whole
from keras import layers as L  # noqa: N812

HERE = Path(__file__).parent / "each_step"


@case
def words() -> keras.Model:
    """Sentences of words, masked where they end, and then the sentences; the model's own layers are two."""
    word = keras.Input((4,), dtype="int32")
    read = L.Bidirectional(L.GRU(3))(L.Embedding(9, 4, mask_zero=True)(word))
    sentence = keras.Model(word, L.Concatenate()([read, L.Dense(2, activation="tanh")(read)]), name="sentence")
    given = keras.Input((3, 4), dtype="int32")
    return keras.Model(given, L.Dense(2, activation="softmax")(L.LSTM(3)(L.TimeDistributed(sentence)(given))))


@case
def pictures() -> keras.Model:
    """Pictures, with statistics in the middle of the model, and a step of the steps in it."""
    step = keras.Sequential([L.Dense(4, activation="relu"), L.BatchNormalization(), L.Dense(3)])
    picture = keras.Sequential(
        [
            keras.Input((5, 4, 2)),
            L.Conv2D(3, 2, activation="relu"),
            L.BatchNormalization(),
            L.MaxPooling2D((2, 1)),
            L.Reshape((2, 9)),
            L.TimeDistributed(step),
            L.LSTM(3),
        ]
    )
    return keras.Sequential([keras.Input((3, 5, 4, 2)), L.TimeDistributed(picture), L.Dense(2), L.GRU(2)])


@case
def layers() -> keras.Model:
    """Layers of each kind, and layers for each step of each step."""
    given = keras.Input((3, 4, 5, 2))
    x = L.TimeDistributed(L.TimeDistributed(L.GRU(3, return_sequences=True)))(given)
    x = L.TimeDistributed(L.TimeDistributed(L.Bidirectional(L.LSTM(2), merge_mode="sum")))(x)
    x = L.TimeDistributed(L.LayerNormalization(axis=1))(x)
    x = L.TimeDistributed(L.SimpleRNN(3, go_backwards=True, return_sequences=True))(x)
    x = L.TimeDistributed(L.GlobalAveragePooling1D())(L.TimeDistributed(L.UpSampling1D(2))(x))
    return keras.Model(given, L.Dense(2)(L.LSTM(3)(x)))


def main() -> None:
    """Save every case, in every form that this Keras has where models are in it."""
    for name, model in made():
        generator = np.random.default_rng(11)
        model.set_weights([w + generator.normal(0, 0.3, w.shape).astype(w.dtype) ** 2 for w in model.get_weights()])
        x = generator.normal(0, 1, (3, *model.input_shape[1:])).astype(np.float32)
        if name == "words":
            x = generator.integers(1, 9, x.shape).astype(np.int32)
            x[0, 1, 2:] = x[1, :, 3:] = x[2, 2] = 0
        stem = (save_whole if name == "layers" else save)(model, HERE, name)
        # No list of Keras 2 tells where the statistics stand.
        if name == "words" or (KERAS_3 and name != "layers"):
            np.savez(f"{stem}.npz", *model.get_weights())
        save_answers(model, stem, x)


if __name__ == "__main__":
    main()
