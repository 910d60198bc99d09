"""Train the default model and write the files that go with it.

The model reads the last 20 cycles of one turbofan engine, 15 sensor readings a
cycle, and says in which of five bands the number of cycles left lies.

Needs keras (3 or later) with a backend such as tensorflow, h5py (keras brings it)
and numpy. Run it with the folder that holds train_FD001.txt, test_FD001.txt and
RUL_FD001.txt::

    python models/train_turbofan.py --data FOLDER

It writes, next to itself:

- turbofan.h5: the whole model, without the optimizer
- turbofan.card.json: what the model is, its classes, its features, its figures
- turbofan.golden.npz: 32 test windows and what Keras answers for them
- turbofan.example.csv: the whole history of one test engine
- turbofan.example.json: the last 20 cycles of that history

The data: A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for
Aircraft Engine Run-to-Failure Simulation", PHM08, Denver, October 2008; NASA
Prognostics Data Repository, "Turbofan Engine Degradation Simulation", set FD001.
"""

import argparse
import itertools
import json
from pathlib import Path

import keras
import numpy as np

SOURCE = (
    "A. Saxena, K. Goebel, D. Simon, N. Eklund, "
    '"Damage Propagation Modeling for Aircraft Engine Run-to-Failure Simulation", '
    "PHM08, Denver, October 2008; NASA Prognostics Data Repository, "
    '"Turbofan Engine Degradation Simulation", set FD001'
)

# Sensor number in the data, name, unit, description. These 15 of the 21 sensors
# vary in FD001; the other six are constant and say nothing.
SENSORS = (
    (2, "T24", "degR", "total temperature at LPC outlet"),
    (3, "T30", "degR", "total temperature at HPC outlet"),
    (4, "T50", "degR", "total temperature at LPT outlet"),
    (6, "P15", "psia", "total pressure in bypass duct"),
    (7, "P30", "psia", "total pressure at HPC outlet"),
    (8, "Nf", "rpm", "fan speed"),
    (9, "Nc", "rpm", "core speed"),
    (11, "Ps30", "psia", "static pressure at HPC outlet"),
    (12, "phi", "pps/psi", "ratio of fuel flow to Ps30"),
    (13, "NRf", "rpm", "corrected fan speed"),
    (14, "NRc", "rpm", "corrected core speed"),
    (15, "BPR", None, "bypass ratio"),
    (17, "htBleed", None, "bleed enthalpy"),
    (20, "W31", "lbm/s", "HPT coolant bleed"),
    (21, "W32", "lbm/s", "LPT coolant bleed"),
)
# Engine, cycle and three settings come before sensor 1 in a row.
SENSOR_OFFSET = 4

# The first number of cycles left of every band but the first.
BAND_STARTS = (30, 60, 90, 125)
CLASSES = (
    "0-29 cycles left",
    "30-59 cycles left",
    "60-89 cycles left",
    "90-124 cycles left",
    "125 or more cycles left",
)

STEPS = 20
LAST_TRAIN_ENGINE = 80
SEED = 1
BATCH = 64
MAX_EPOCHS = 80
PATIENCE = 10
GOLDEN_WINDOWS = 32

# Of the seven test engines with at least 180 cycles that end with fewer than 20
# left, 76 (205 cycles, 10 left) is the one where the answers go through the bands
# with the fewest steps back. It shows the model at its best, not as it is on average.
EXAMPLE_ENGINE = 76

History = list[list[str]]
Split = tuple[np.ndarray, np.ndarray]


def read_engines(path: Path) -> dict[int, History]:
    """Read the 15 sensors of every engine as the text in the file.

    Text is kept so that the example files show the numbers unchanged.

    Args:
        path: A train or test file of the data, one row a cycle.

    Returns:
        For each engine number its rows from cycle 1 on, 15 values a row, in the
        units that SENSORS names.

    Raises:
        ValueError: If an engine's cycles do not count up from 1 without a gap.
    """
    columns = [SENSOR_OFFSET + sensor[0] for sensor in SENSORS]
    engines: dict[int, History] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        fields = line.split()
        history = engines.setdefault(int(fields[0]), [])
        history.append([fields[column] for column in columns])
        if int(fields[1]) != len(history):
            message = f"{path.name}: engine {fields[0]} has a gap before {fields[1]}"
            raise ValueError(message)
    return engines


def to_array(history: History) -> np.ndarray:
    """Turn one engine's rows into numbers.

    Args:
        history: The engine's rows of text, 15 values each.

    Returns:
        Readings, float64, shape (cycles, 15).
    """
    return np.array(history).astype(np.float64)


def cut_windows(history: History, left_at_end: int) -> Split:
    """Cut every window of 20 cycles out of one engine's history.

    Args:
        history: The engine's rows of text, 15 values each.
        left_at_end: Cycles the engine had left after its last row.

    Returns:
        Windows, float32, shape (windows, 20, 15), and their bands, integers from
        0 to 4, shape (windows,).
    """
    readings = to_array(history).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(readings, STEPS, axis=0)
    left = left_at_end + np.arange(len(windows))[::-1]
    return windows.transpose(0, 2, 1), np.digitize(left, BAND_STARTS)


def join_windows(engines: dict[int, History], left_at_end: dict[int, int]) -> Split:
    """Put the windows of several engines together, engine after engine.

    Args:
        engines: Each engine's rows.
        left_at_end: For each engine, the cycles left after its last row.

    Returns:
        Windows, float32, shape (windows, 20, 15), and their bands, shape (windows,).
    """
    cut = [cut_windows(rows, left_at_end[engine]) for engine, rows in engines.items()]
    windows, bands = zip(*cut, strict=True)
    return np.concatenate(windows), np.concatenate(bands)


def split_engines(
    known: dict[int, History],
    unknown: dict[int, History],
    left: dict[int, int],
) -> tuple[np.ndarray, dict[str, Split]]:
    """Split by engine, so that no engine is both learned from and judged on.

    Args:
        known: The engines of the train file.
        unknown: The engines of the test file.
        left: For each engine of the test file, the cycles left after its last row.

    Returns:
        The raw rows of the training engines, float64, shape (rows, 15), and the
        windows and bands of "train", "validation" and "test".
    """
    training = {n: rows for n, rows in known.items() if n <= LAST_TRAIN_ENGINE}
    validation = {n: rows for n, rows in known.items() if n > LAST_TRAIN_ENGINE}
    # The engines of the train file run until they fail: none has a cycle left.
    run_out = dict.fromkeys(known, 0)
    splits = {
        "train": join_windows(training, run_out),
        "validation": join_windows(validation, run_out),
        "test": join_windows(unknown, left),
    }
    return np.concatenate([to_array(rows) for rows in training.values()]), splits


def build_model(rows: np.ndarray) -> keras.Model:
    """Build the model, ready to train.

    Args:
        rows: Raw readings of the training engines, shape (rows, 15); the
            normalization takes its mean and variance from them.

    Returns:
        A compiled model from (batch, 20, 15) raw readings to (batch, 5)
        probabilities.
    """
    normalization = keras.layers.Normalization(name="normalization")
    lstm = keras.layers.LSTM(101, dropout=0.5, recurrent_dropout=0.5, name="lstm")
    dense = keras.layers.Dense(len(CLASSES), activation="softmax", name="dense")
    inputs = keras.Input((STEPS, len(SENSORS)), name="sequence")
    model = keras.Sequential([inputs, normalization, lstm, dense], name="turbofan")
    # Adapted after the model is built, so that the saved input shape is the
    # model's own. Rows, not windows: a window would count a row up to 20 times.
    normalization.adapt(rows[np.newaxis])
    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=0.001, rho=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def train(model: keras.Model, training: Split, validation: Split) -> None:
    """Train until validation stops getting better, and keep the best weights.

    Args:
        model: The compiled model; its weights change.
        training: Windows (windows, 20, 15) and bands (windows,) to learn from.
        validation: The same, of other engines, to decide when to stop.
    """
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        patience=PATIENCE,
        restore_best_weights=True,
        verbose=1,
    )
    model.fit(
        *training,
        validation_data=validation,
        batch_size=BATCH,
        epochs=MAX_EPOCHS,
        callbacks=[stop],
        verbose=2,
    )


def predict(model: keras.Model, windows: np.ndarray) -> np.ndarray:
    """Ask the model.

    Args:
        model: A trained model.
        windows: Raw readings, shape (windows, 20, 15).

    Returns:
        Probabilities, float32, shape (windows, 5).
    """
    answers: np.ndarray = model.predict(windows, batch_size=512, verbose=0)
    return answers


def count_confusion(bands: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Count how often each band was answered with each band.

    Args:
        bands: The right bands, shape (windows,).
        answers: The model's bands, shape (windows,).

    Returns:
        Counts, shape (5, 5): a row for each right band, a column for each answer.
    """
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    np.add.at(confusion, (bands, answers), 1)
    return confusion


def score(confusion: np.ndarray) -> dict[str, float]:
    """Work out the figures of one split.

    Args:
        confusion: Counts, shape (5, 5), rows the right bands.

    Returns:
        The number of windows, and shares from 0 to 1 rounded to 4 digits.
    """
    total = confusion.sum()
    right = np.diag(confusion)
    next_to = np.diag(confusion, 1).sum() + np.diag(confusion, -1).sum()
    f1 = 2 * right / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    return {
        "windows": int(total),
        "accuracy": round(float(right.sum() / total), 4),
        "within_one_band": round(float((right.sum() + next_to) / total), 4),
        "macro_f1": round(float(f1.mean()), 4),
        "largest_band_share": round(float(confusion.sum(axis=1).max() / total), 4),
    }


def report(name: str, model: keras.Model, split: Split) -> dict[str, float]:
    """Print the figures of one split.

    Args:
        name: What to call the split.
        model: A trained model.
        split: Windows (windows, 20, 15) and bands (windows,).

    Returns:
        The figures, as score gives them.
    """
    windows, bands = split
    confusion = count_confusion(bands, predict(model, windows).argmax(axis=1))
    figures = score(confusion)
    print(f"\n{name}: {figures['windows']} windows")
    print(f"  right band          {figures['accuracy']:.4f}")
    print(f"  right or next band  {figures['within_one_band']:.4f}")
    print(f"  macro F1            {figures['macro_f1']:.4f}")
    print(f"  to beat (always the largest band) {figures['largest_band_share']:.4f}")
    print("  confusion, a row for each right band, a column for each answer:")
    for label, counts in zip(CLASSES, confusion, strict=True):
        print(f"    {label:24}" + "".join(f"{count:7d}" for count in counts))
    return figures


def describe_features() -> list[dict[str, str]]:
    """List the model's features for the card.

    Returns:
        Name, unit (where there is one) and description of each, in input order.
    """
    features = []
    for _, name, unit, description in SENSORS:
        with_unit = {"unit": unit} if unit else {}
        features.append({"name": name, **with_unit, "description": description})
    return features


def write_card(path: Path, figures: dict[str, dict[str, float]]) -> None:
    """Write what the model is and how well it does.

    Args:
        path: The file to write.
        figures: The figures of each split.
    """
    card = {
        "name": "turbofan",
        "version": "1",
        "description": (
            "Tells about how many cycles a simulated turbofan engine has left before"
            " it fails, from 15 sensor readings over its last 20 cycles."
            " A demonstration: it knows one kind of wear in one operating condition."
        ),
        "classes": CLASSES,
        "features": describe_features(),
        "metadata": {
            "source": SOURCE,
            "trained_on": "engines 1 to 80 of train_FD001.txt",
            "split": (
                "by engine: 1 to 80 of train_FD001.txt to train, 81 to 100 to validate"
                " and to stop early, the 100 engines of test_FD001.txt to test"
            ),
            "seed": SEED,
            "keras": keras.__version__,
            "figures": figures,
        },
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def pick_golden(bands: np.ndarray) -> np.ndarray:
    """Pick windows evenly over the bands and, in each band, over the engines.

    Args:
        bands: The right bands of all test windows, engine after engine.

    Returns:
        Where the picked windows are, shape (32,).
    """
    shares = np.array_split(np.arange(GOLDEN_WINDOWS), len(CLASSES))
    picked = []
    for band, share in enumerate(shares):
        places = np.flatnonzero(bands == band)
        spread = np.linspace(0, len(places) - 1, len(share)).round().astype(int)
        picked.append(places[spread])
    return np.concatenate(picked)


def write_golden(path: Path, model: keras.Model, test: Split) -> None:
    """Write some test windows and the model's answers.

    Args:
        path: The file to write: x (32, 20, 15) and y (32, 5), both float32.
        model: The model as read back from its file.
        test: Windows (windows, 20, 15) and bands (windows,).
    """
    windows, bands = test
    x = windows[pick_golden(bands)]
    np.savez_compressed(path, x=x, y=predict(model, x))


def write_engine(path: Path, history: History) -> None:
    """Write one engine's whole history as CSV, the cycle first.

    Args:
        path: The file to write.
        history: The engine's rows, 15 values each, written as they are.
    """
    lines = [",".join(["cycle", *(sensor[1] for sensor in SENSORS)])]
    lines += [",".join([str(i), *row]) for i, row in enumerate(history, start=1)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_example(path: Path, history: History) -> None:
    """Write the last 20 cycles of an engine as a request, one cycle a line.

    Args:
        path: The file to write.
        history: The engine's rows, 15 values each, written as they are.
    """
    rows = ",\n".join(f"  [{', '.join(row)}]" for row in history[-STEPS:])
    path.write_text(f'{{"sequence": [\n{rows}\n]}}\n', encoding="ascii")


def print_walk(model: keras.Model, history: History, left_at_end: int) -> None:
    """Print through which bands the model's answers walk in one engine's life.

    Args:
        model: A trained model.
        history: The engine's rows, 15 values each.
        left_at_end: Cycles the engine had left after its last row.
    """
    windows, _ = cut_windows(history, left_at_end)
    answers = predict(model, windows).argmax(axis=1)
    starts = [0, *(np.flatnonzero(np.diff(answers)) + 1), len(answers)]
    print(f"\nEngine {EXAMPLE_ENGINE}, {len(history)} cycles, answers at each cycle:")
    for first, after in itertools.pairwise(starts):
        cycles = f"{first + STEPS}-{after + STEPS - 1}"
        left = left_at_end + len(windows) - after
        print(f"  cycles {cycles:9}{CLASSES[answers[first]]:24} ({left} left after)")


def main() -> None:
    """Read the data, train, print the figures and write the files."""
    parser = argparse.ArgumentParser(description="Train the turbofan model.")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with the FD001 files",
    )
    folder = parser.parse_args().data
    here = Path(__file__).resolve().parent
    keras.utils.set_random_seed(SEED)

    known = read_engines(folder / "train_FD001.txt")
    unknown = read_engines(folder / "test_FD001.txt")
    left_text = (folder / "RUL_FD001.txt").read_text(encoding="ascii").split()
    left = dict(zip(unknown, map(int, left_text), strict=True))
    rows, splits = split_engines(known, unknown, left)

    model = build_model(rows)
    train(model, splits["train"], splits["validation"])

    # All that follows is asked of the saved file, which is what gets served.
    saved = here / "turbofan.h5"
    model.save(saved, include_optimizer=False)
    model = keras.models.load_model(saved, compile=False)
    figures = {name: report(name, model, split) for name, split in splits.items()}
    write_card(here / "turbofan.card.json", figures)
    write_golden(here / "turbofan.golden.npz", model, splits["test"])
    history = unknown[EXAMPLE_ENGINE]
    write_engine(here / "turbofan.example.csv", history)
    write_example(here / "turbofan.example.json", history)
    print_walk(model, history, left[EXAMPLE_ENGINE])


if __name__ == "__main__":
    main()
