"""Save models whose layers carry their states, and what Keras answers call by call: Keras 3, and 2.15.

    python tests/golden/make_stateful.py [CASE ...]

Needs Keras, which the tests do not. What it writes is checked in. `<stem>.calls.npz` has x (calls, batch, timesteps,
features) and y: what each call was given and answered, after those before it.
"""

from pathlib import Path

import keras
import numpy as np
from cases import KERAS_3, case, made, stem_of
from keras import layers as L  # noqa: N812

HERE = Path(__file__).parent / "stateful"
CALLS, BATCH, TIMESTEPS, FEATURES = 3, 2, 4, 3


def of(*layers: keras.layers.Layer) -> keras.Model:
    """A model of these layers on a batch of a fixed size."""
    return keras.Sequential([keras.Input(batch_shape=(BATCH, TIMESTEPS, FEATURES)), *layers])


@case
def last() -> keras.Model:
    """Cells of each kind, and an answer to the last step."""
    return of(
        L.LSTM(4, stateful=True, return_sequences=True, unit_forget_bias=False, bias_initializer="random_normal"),
        L.SimpleRNN(4, stateful=True, return_sequences=True),
        L.GRU(3, stateful=True, bias_initializer="random_normal"),
        L.Dense(3, activation="softmax"),
    )


@case
def each() -> keras.Model:
    """An answer to each step."""
    return of(L.LSTM(3, stateful=True, return_sequences=True), L.TimeDistributed(L.Dense(2, activation="tanh")))


@case
def mixed() -> keras.Model:
    """A layer that starts anew at each call, beside one that does not."""
    return of(L.LSTM(3, return_sequences=True), L.GRU(3, stateful=True), L.Dense(1, activation="sigmoid"))


def main() -> None:
    """Save every case, as .keras by Keras 3 and as .h5 by 2.15."""
    for name, model in made():
        stem = stem_of(HERE, name)
        model.save(stem.with_suffix(".keras" if KERAS_3 else ".h5"))
        x = np.random.default_rng(7).normal(size=(CALLS, BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
        y = np.stack([model.predict_on_batch(call) for call in x])
        np.savez_compressed(stem.with_suffix(".calls.npz"), x=x, y=y)


if __name__ == "__main__":
    main()
