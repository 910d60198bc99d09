"""Save models whose output is a model, in every form, with real Keras 2.15 or 3, and what it answers.

    python tests/golden/make_nested.py [CASE ...]

Needs Keras, which the tests do not. Run it once with TensorFlow 2.15, and once with Keras 3: the two number the calls
of a model inside a model each in its own way. What it writes is checked in.
"""

from pathlib import Path

import keras
import numpy as np
from cases import case, made, save, save_answers
from keras import layers

HERE = Path(__file__).parent / "nested"


def trained() -> keras.Model:
    """A model with statistics in its middle, whose place in a list of weights differs from form to form."""
    given = keras.Input((5, 3))
    sequence = layers.BatchNormalization()(layers.LSTM(4, return_sequences=True)(given))
    return keras.Model(given, layers.Dense(3, activation="softmax")(layers.GRU(3)(sequence)), name="trained")


def step() -> keras.Model:
    """A model that can be called on what it gave."""
    given = keras.Input((4,))
    return keras.Model(given, layers.Dense(4, activation="tanh")(given), name="step")


@case
def encoder_and_head() -> keras.Model:
    """Two functional models, the second on the first."""
    given, between = keras.Input((5, 3)), keras.Input((4,))
    encoder = keras.Model(given, layers.LSTM(4)(given), name="encoder")
    joined = layers.Add()([between, layers.Dense(4)(between)])
    head = keras.Model(between, layers.Dense(3, activation="softmax")(joined), name="head")
    given = keras.Input((5, 3))
    return keras.Model(given, head(encoder(given)))


@case
def sequential_head() -> keras.Model:
    """A Sequential that was told its input."""
    given = keras.Input((5, 3))
    head = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")], name="head")
    return keras.Model(given, head(layers.LSTM(4)(given)))


@case
def late_head() -> keras.Model:
    """A Sequential that learnt its input when it was called."""
    given = keras.Input((5, 3))
    head = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3, activation="softmax")], name="head")
    return keras.Model(given, head(layers.LSTM(4)(given)))


@case
def preprocessing() -> keras.Model:
    """A trained model behind a layer that scales, and both in a third: two deep."""
    given, outer = keras.Input((5, 3)), keras.Input((5, 3))
    scaled = keras.Model(given, trained()(layers.Rescaling(0.5, offset=0.1)(given)), name="scaled")
    return keras.Model(outer, scaled(outer))


@case
def twice() -> keras.Model:
    """A model called on what it gave."""
    given, model = keras.Input((5, 3)), step()
    return keras.Model(given, model(model(layers.LSTM(4)(given))))


@case
def thrice() -> keras.Model:
    """A model called thrice, with layers between, and once more in what is no part of this one."""
    given, model = keras.Input((5, 3)), step()
    first = layers.LSTM(4)(given)
    model(first)
    first = model(layers.Dense(4)(first))
    second = model(layers.Dense(4)(first))
    return keras.Model(given, model(layers.Add()([first, second])))


def main() -> None:
    """Save every case in every form that this Keras has."""
    for name, model in made():
        generator = np.random.default_rng(11)
        # Biases and statistics must show.
        model.set_weights([w + generator.normal(0, 0.3, w.shape).astype(w.dtype) ** 2 for w in model.get_weights()])
        x = generator.normal(0, 1, (4, 5, 3)).astype(np.float32)
        stem = save(model, HERE, name)
        np.savez(f"{stem}.npz", *model.get_weights())
        save_answers(model, stem, x)


if __name__ == "__main__":
    main()
