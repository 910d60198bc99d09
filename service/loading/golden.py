"""The golden predictions, `<stem>.golden.npz`: inputs `x` and what Keras answered, `y`. Replayed at load."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.engine.layers import Scaling
from service.engine.model import Model
from service.errors import InvalidInput, UnreadableFile, WrongNumbers
from service.loading.card import stem_of
from service.loading.numpy_files import read_npz
from service.loading.plain_files import opened

SUFFIX = ".golden.npz"
# The 0 is of whoever counts a model's inputs and outputs; what else the file holds is not looked at.
NAMES = ("x", "y", "x0", "y0")


def path_of(model: Path) -> Path:
    """Where the golden predictions of a model lie: x.h5 has x.golden.npz."""
    return model.with_name(f"{stem_of(model)}{SUFFIX}")


def replay(model: Model, path: Path) -> Model:
    """The model, with the replay on record in its origin; unchanged where it has no golden predictions.

    Raises WrongNumbers, saying by how much, where it misses one by more than its tolerance.
    """
    golden = path_of(path)
    try:
        with opened(golden) as file:
            arrays = read_npz(file, only=NAMES)
    except FileNotFoundError:
        return model
    except UnreadableFile as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error}") from None
    except OSError as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error.strerror}") from None
    x, y = arrays.get("x", arrays.get("x0")), arrays.get("y", arrays.get("y0"))
    if x is None or y is None:
        raise UnreadableFile(f"its golden predictions {golden.name} should hold the arrays x and y, and do not")
    expected = y.astype(np.float64)
    try:
        came = model.predict(x)
    except InvalidInput as error:
        raise WrongNumbers(f"the inputs in {golden.name} do not fit the model: {error}") from None
    if came.shape != expected.shape:
        raise WrongNumbers(f"{golden.name} has answers of shape {expected.shape}, and the model gives {came.shape}")
    differences = np.abs(came - expected) / np.maximum(1, np.abs(expected))
    worst = float(differences.max())
    if not worst <= model.origin.tolerance:
        row = int(np.argmax(np.nan_to_num(differences, nan=np.inf).reshape(len(x), -1).max(axis=1)))
        raise WrongNumbers(
            f"it misses its golden predictions in {golden.name} by up to {worst:.2g} (row {row}); "
            f"{model.origin.tolerance:g} is allowed. {_assumed(model)}Model, card and golden predictions do not belong "
            f"together, or the file is damaged{_unscaled(model)}"
        )
    return replace(model, origin=replace(model.origin, golden_rows=len(x), golden_difference=worst))


def _assumed(model: Model) -> str:
    if not model.origin.assumed:
        return ""
    return f"What was said or assumed ({'; '.join(model.origin.assumed)[:500]}) is wrong. Or: "


def _unscaled(model: Model) -> str:
    if not any(isinstance(node.layer, Scaling) for node in model.nodes):
        return ""
    return ". The card scales the input, so x must be as it is before that, and y what Keras answered to x scaled"
