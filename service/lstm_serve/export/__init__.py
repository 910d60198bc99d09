"""A model, taken to another world: a file for Keras 3, NumPy, C99, ONNX or JavaScript, with the same numbers.

Knows how each target says an operation, and what it cannot say; knows no server. Each target is one module with one
function an operation. Nothing is written unless all of it can be, and what the target cannot do is refused first.
"""

import tempfile
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_serve.errors import WrongNumbers
from lstm_serve.export.artifact import Golden, already_beside, check_card, check_name, made_golden, write
from lstm_serve.export.operation import Target
from lstm_serve.model.files import GOLDEN, MODELS
from lstm_serve.model.model import Model

__all__ = ["TARGETS", "Checked", "Golden", "export", "to_c", "to_js", "to_keras", "to_numpy", "to_onnx"]

TARGETS = {
    "keras": "keras_v3",
    "numpy": "numpy_source",
    "c": "c_source",
    "onnx": "onnx",
    "js": "js_source",
}


class Checked(NamedTuple):
    """What running the result gave: the largest difference of so many answers, or why it was not run."""

    rows: int
    difference: float
    not_run: str | None = None


def target(name: str) -> Target:
    """The target of that name, one of TARGETS; its module is imported here."""
    found: Target = import_module(f"lstm_serve.export.{TARGETS[name]}").TARGET
    return found


def export(  # noqa: PLR0913 - each by its name
    model: Model,
    to: str,
    path: str | PathLike[str],
    *,
    golden: Golden | None = None,
    force: bool = False,
    check: bool = False,
) -> Checked | None:
    """Write the model for a target of TARGETS to a file (keras, onnx) or a folder (c, numpy, js).

    `golden` goes along; without it, inputs made for the model do, with this engine's answers. With `check` the result
    is run first, where the tool for it is at hand, and nothing is written where it misses.
    Raises Unsupported, by name, for what the target cannot do; SettingsError where it cannot be written.
    """
    aim = target(to)
    path = Path(path)
    if not aim.is_folder:
        check_name(path, aim.suffix)
    if aim.suffix in MODELS:
        check_card(path, model)
    golden = golden or made_golden(model)
    files = aim.build(model, golden)
    checked = _checked(aim, files, model, golden) if check else None
    if already_beside(path, model, golden):
        files.pop(f"{{stem}}{GOLDEN}", None)
    write(path, files, folder=aim.is_folder, force=force)
    return checked


def _checked(aim: Target, files: dict[str, bytes], model: Model, golden: Golden) -> Checked:
    """Run the result, in a folder of its own, on the golden inputs."""
    with tempfile.TemporaryDirectory(prefix="lstm-serve-") as folder:
        path = Path(folder, f"m{aim.suffix}")
        write(path, files, folder=aim.is_folder, force=False)
        y = aim.run(path, golden.xs)
    if isinstance(y, str):
        return Checked(0, np.nan, y)
    worst = golden.worst(y)
    if not worst <= model.origin.tolerance:
        raise WrongNumbers(
            f"{aim.title} gives other answers than expected, by up to {worst:.2g}, where "
            f"{model.origin.tolerance:g} is allowed; nothing was written. Please report this model"
        )
    return Checked(len(y[0]), worst)


def to_keras(model: Model, path: str | PathLike[str], *, golden: Golden | None = None, force: bool = False) -> None:
    """Write a `.keras` file that Keras 3 opens, computes exactly and trains on."""
    export(model, "keras", path, golden=golden, force=force)


def to_numpy(model: Model, path: str | PathLike[str], *, golden: Golden | None = None, force: bool = False) -> None:
    """Write a folder with a Python program that needs NumPy alone."""
    export(model, "numpy", path, golden=golden, force=force)


def to_c(model: Model, path: str | PathLike[str], *, golden: Golden | None = None, force: bool = False) -> None:
    """Write a folder with the model in C99, its weights constant, and a Makefile."""
    export(model, "c", path, golden=golden, force=force)


def to_onnx(model: Model, path: str | PathLike[str], *, golden: Golden | None = None, force: bool = False) -> None:
    """Write an ONNX file with the fused recurrent operators; needs the extra `onnx`."""
    export(model, "onnx", path, golden=golden, force=force)


def to_js(model: Model, path: str | PathLike[str], *, golden: Golden | None = None, force: bool = False) -> None:
    """Write a folder with the model as one JavaScript module without dependencies."""
    export(model, "js", path, golden=golden, force=force)
