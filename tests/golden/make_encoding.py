"""Save models of categories and of other products, and what Keras answers: run once with Keras 3, once with 2.15.

    python make_encoding.py [CASE ...]

writes encoding/<keras>__<case>, as .h5 and .keras, and its golden predictions beside this script.
"""

from pathlib import Path

import keras
import numpy as np
from cases import KERAS_3, case, made, save_answers, save_whole
from keras import layers as L  # noqa: N812

HERE = Path(__file__).parent / "encoding"
IDS = ("ids", "places")


@case
def ids() -> keras.Model:
    """Integers of a vocabulary, and others, each with its row."""
    given = keras.Input((5,), dtype="int64")
    places = L.IntegerLookup(vocabulary=[7, 2, 400, 9], mask_token=0)(given)
    return keras.Model(given, L.Dense(2)(L.GRU(3)(L.Embedding(6, 3, mask_zero=True)(places))))


@case
def places() -> keras.Model:
    """Ids, each in a place of its own, and how many of them there are."""
    given = keras.Input((3,), dtype="int32")
    there = [L.CategoryEncoding(6, output_mode=mode)(given) for mode in ("multi_hot", "count")]
    return keras.Model(given, L.Dense(2)(L.Concatenate()([*there, L.Flatten()(L.Embedding(6, 2)(given))])))


@case
def numbers() -> keras.Model:
    """Numbers by their bins, on the boundaries too."""
    given = keras.Input((4, 3))
    rows = L.Embedding(4, 2)(L.Discretization([-0.5, 0.0, 0.75])(given))
    last = L.Flatten()(L.Cropping1D((3, 0))(given))
    bins = [L.Discretization([-1.0, 0.5], output_mode=mode)(last) for mode in ("multi_hot", "count")]
    return keras.Model(given, L.Dense(2)(L.Concatenate()([L.LSTM(3)(L.Reshape((4, 6))(rows)), *bins])))


@case
def products() -> keras.Model:
    """Products that an equation says, normalized kernels, and targets that were scaled, undone."""
    given = keras.Input((4, 6))
    x = L.EinsumDense("bti,ijk->bjtk", output_shape=(2, None, 3), bias_axes="jk", activation="tanh")(given)
    x = L.EinsumDense("...xk,km->...xm", output_shape=(None, 5))(x)
    x = L.Reshape((4, 10))(L.Permute((2, 1, 3))(x))
    x = L.SpectralNormalization(L.Conv1D(4, 2))(x)
    x = L.Dense(2)(L.LSTM(3)(x))
    return keras.Model(given, L.Normalization(mean=[3.0, -1.0], variance=[4.0, 0.25], invert=True)(x))


if KERAS_3:

    @case
    def gated() -> keras.Model:
        """The one activation that halves its features; Keras lets no layer after it know."""
        given = keras.Input((4, 3))
        return keras.Model(given, L.Dense(6, activation="glu")(L.LSTM(3)(given)))


def main() -> None:
    """Save every case, with its inputs and outputs."""
    for name, model in made():
        generator = np.random.default_rng(11)
        for weight in model.weights:
            if "vector_u" not in weight.name and "sn_u" not in weight.name:
                weight.assign(np.array(weight) + generator.normal(0, 0.3, weight.shape) ** 2)
        x = np.round(generator.normal(0, 1, (6, *model.input_shape[1:])) * 4).astype(np.float32) / 4
        if name in IDS:
            x = generator.choice([0, 2, 5] if name == "places" else [0, 2, 7, 9, 400, 401, -3], x.shape).astype(
                np.int32
            )
        save_answers(model, save_whole(model, HERE, name), x)


if __name__ == "__main__":
    main()
