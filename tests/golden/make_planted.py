"""Train models in which only one column matters, and in it only a range of steps: what an explanation has to find.

Needs keras 3 with a backend, and numpy. Run it from anywhere::

    python tests/golden/make_planted.py

It writes into planted/, next to itself, for each model <name>.h5, and <name>.npz with what is planted: `column`, the
steps from `start` to before `stop`, and 20 sequences `x` that none was trained on, in which the signal is there. The
targets are probabilities, so that the models are no surer than the signal is strong: of an answer that is sure anyway,
no single part takes anything away.
"""

from pathlib import Path

import keras
import numpy as np

FOLDER = Path(__file__).parent / "planted"
STEPS, FEATURES, ROWS, SEQUENCES = 12, 5, 8000, 20
# Name, column, first step, the step after the last, and the model's end.
PLANTED = (
    ("lstm_classes", 3, 2, 5, (2, "softmax", "categorical_crossentropy")),
    ("gru_binary", 0, 7, 10, (1, "sigmoid", "binary_crossentropy")),
    ("bidirectional_classes", 2, 5, 7, (2, "softmax", "categorical_crossentropy")),
    ("lstm_values", 4, 9, 12, (1, "linear", "mse")),
)
LAYERS = {
    "lstm": lambda: keras.layers.LSTM(16),
    "gru": lambda: keras.layers.GRU(16),
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.LSTM(16)),
}


def draw(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Noise, float32 (rows, STEPS, FEATURES)."""
    return rng.normal(0, 1, (rows, STEPS, FEATURES)).astype(np.float32)


def targets(signal: np.ndarray, activation: str) -> np.ndarray:
    """What is right where the planted cells have this mean, (rows,) -> (rows, units)."""
    if activation == "linear":
        return signal[:, np.newaxis]
    p = 1 / (1 + np.exp(-3 * signal))
    return np.stack([1 - p, p], axis=1) if activation == "softmax" else p[:, np.newaxis]


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, column, start, stop, (units, activation, loss)) in enumerate(PLANTED):
        keras.utils.set_random_seed(seed)
        rng = np.random.default_rng(seed)
        x = draw(rng, ROWS)
        y = targets(x[:, start:stop, column].mean(axis=1), activation)
        dense = keras.layers.Dense(units, activation=activation)
        model = keras.Sequential([keras.Input((STEPS, FEATURES)), LAYERS[name.partition("_")[0]](), dense])
        model.compile(keras.optimizers.Adam(0.005), loss)
        model.fit(x, y, batch_size=64, epochs=15, verbose=0)
        found = draw(rng, SEQUENCES)
        found[:, start:stop, column] = rng.uniform(0.5, 1, (SEQUENCES, stop - start))
        model.save(FOLDER / f"{name}.h5", include_optimizer=False)
        np.savez(FOLDER / f"{name}.npz", x=found, column=column, start=start, stop=stop)


if __name__ == "__main__":
    main()
