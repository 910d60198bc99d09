"""What the scripts that save models of many kinds have in common: their cases, and the forms of a file."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

KERAS_3 = keras.__version__.startswith("3.")
CASES: dict[str, Callable[[], keras.Model]] = {}


def case(make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Put a model into the list under its function's name."""
    CASES[make.__name__] = make
    return make


def made() -> Iterator[tuple[str, keras.Model]]:
    """The cases that the command line names, or all, each made from the same seed."""
    for name, make in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        keras.backend.clear_session()
        keras.utils.set_random_seed(7)
        yield name, make()


def stem_of(folder: Path, name: str) -> Path:
    """What the names of a case's files begin with, in a folder that is there then."""
    folder.mkdir(exist_ok=True)
    return folder / f"{'k3' if KERAS_3 else 'tf215'}__{name}"


def save_whole(model: keras.Model, folder: Path, name: str) -> str:
    """Save a model as .h5 and .keras; what the names of its files begin with."""
    stem = stem_of(folder, name)
    model.save(f"{stem}.h5")
    model.save(f"{stem}.keras")
    return str(stem)


def save(model: keras.Model, folder: Path, name: str) -> str:
    """Save a model in every form that this Keras has; what the names of its files begin with."""
    stem = save_whole(model, folder, name)
    model.save_weights(f"{stem}.weights.h5")
    Path(f"{stem}.json").write_text(model.to_json() + "\n")
    if not KERAS_3:
        model.save(stem, save_traces=False)
    return stem


def save_answers(model: keras.Model, stem: str, x: npt.NDArray[Any]) -> None:
    """Save x, and what a model answers to it, beside the model."""
    np.savez(f"{stem}.golden.npz", x=x, y=np.asarray(model.predict(x, verbose=0)))
