"""Save small models with real Keras 3, and what it answers, for the tests to replay.

    python tests/golden/make_small.py [SECTION ...]

Needs keras and tensorflow, which the tests do not. Each section writes into a folder of its own; with none named, all
are written anew.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

HERE = Path(__file__).parent


def save(section: str, stem: str, model: keras.Model, x: np.ndarray) -> None:
    """Write <section>/<stem>.h5 and, beside it, the inputs x and Keras' answers y."""
    folder = HERE / section
    folder.mkdir(exist_ok=True)
    model.save(folder / f"{stem}.h5", include_optimizer=False)
    np.savez(folder / f"{stem}.golden.npz", x=x, y=model.predict(x, verbose=0))


def small() -> None:
    """One model of each kind, with LSTM(4) on (6, 3), and two whose time axis is free."""
    keras.utils.set_random_seed(7)
    x = np.random.default_rng(7).normal(size=(8, 6, 3)).astype(np.float32)
    for stem, timesteps, last in (
        ("binary", 6, [keras.layers.LSTM(4), keras.layers.Dense(1, activation="sigmoid")]),
        ("values", 6, [keras.layers.LSTM(4), keras.layers.Dense(2)]),
        ("free", None, [keras.layers.LSTM(4), keras.layers.Dense(3, activation="softmax")]),
        ("steps", None, [keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(2)]),
    ):
        save("small", stem, keras.Sequential([keras.Input((timesteps, 3)), *last]), x)


SECTIONS: dict[str, Callable[[], None]] = {"small": small}

if __name__ == "__main__":
    for section in sys.argv[1:] or SECTIONS:
        SECTIONS[section]()
