"""The golden predictions, `<stem>.golden.npz`: inputs `x` and what Keras answered, `y`. Replayed at load."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.pointwise import Scaling
from lstm_serve.errors import InvalidInput, UnreadableFile, WrongNumbers
from lstm_serve.formats.folder import opened
from lstm_serve.formats.npy import AnyArray, read_npz
from lstm_serve.loading.sidecars.card import stem_of
from lstm_serve.model import exact as exactly
from lstm_serve.model.model import Model

SUFFIX = ".golden.npz"
# The 0 is of whoever counts a model's inputs and outputs; what else the file holds is not looked at.
NAMES = ("x", "y", "x0", "y0")

# Where float32 is to blame, Keras is at most so many times as far from the exact answer as this is, and no farther than
# so much.
ALIKE = 4
MOST = 1e-2

Answers = npt.NDArray[np.floating[Any]]


def path_of(model: Path) -> Path:
    """Where the golden predictions of a model lie: x.h5 has x.golden.npz."""
    return model.with_name(f"{stem_of(model)}{SUFFIX}")


def replay(model: Model, path: Path) -> Model:
    """The model, with the replay on record in its origin; unchanged where it has no golden predictions.

    They are what Keras answered: what the card does after the last layer is left out. Raises WrongNumbers, saying by
    how much, where the model misses one by more than its tolerance, and it is not float32 that is to blame.
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
        came = model.as_in_keras.predict(x)
    except InvalidInput as error:
        raise WrongNumbers(f"the inputs in {golden.name} do not fit the model: {error}") from None
    if came.shape != expected.shape:
        raise WrongNumbers(f"{golden.name} has answers of shape {expected.shape}, and the model gives {came.shape}")
    differences = _differences(came, expected, expected)
    worst = float(differences.max())
    origin = replace(model.origin, golden_rows=len(x), golden_difference=worst)
    if worst <= origin.tolerance:
        return replace(model, origin=origin)
    row = int(np.argmax(np.nan_to_num(differences, nan=np.inf).reshape(len(x), -1).max(axis=1)))
    missed = (
        f"it misses its golden predictions in {golden.name} by up to {worst:.2g} (row {row}); "
        f"{model.origin.tolerance:g} is allowed"
    )
    rounding = _rounding(model, x, came, expected, missed)
    return replace(model, origin=replace(origin, rounding=rounding, tolerance=max(2 * rounding, worst)))


def _differences(these: Answers, those: Answers, scale: Answers) -> Answers:
    """How far apart two answers are, scaled as in the tolerance."""
    found: Answers = np.abs(these - those) / np.maximum(1, np.abs(scale))
    return found


def _rounding(model: Model, x: AnyArray, came: Answers, expected: Answers, missed: str) -> float:
    """How far Keras' own float32 is from what float64 gives, where that is why the model misses its predictions.

    A model may be so ill-conditioned that float32 is not enough, for Keras as for us. Then Keras is about as far from
    the exact answer as this is. Raises WrongNumbers, which begins with `missed`, where it is not, or too far to tell.
    """
    exact = exactly.answers(model.as_in_keras, model.checked(x))
    keras = float(_differences(expected, exact, expected).max())
    ours = float(_differences(came, exact, expected).max())
    apart = (
        f"Computed in float64, its answers are up to {ours:.2g} from its own in float32, and {keras:.2g} from Keras'"
    )
    if not keras <= ALIKE * ours:
        raise WrongNumbers(
            f"{missed}. {apart}: more than float32 explains. {_assumed(model)}Model, card and golden "
            f"predictions do not belong together, or the file is damaged{_unscaled(model)}"
        )
    if not (keras <= MOST and ours <= ALIKE * MOST):
        raise WrongNumbers(
            f"{missed}. {apart}: float32 is not enough for this model, which makes small differences large, and over "
            f"{MOST:g} nobody can tell whether it is right"
        )
    return keras


def _assumed(model: Model) -> str:
    if not model.origin.assumed:
        return ""
    return f"What was said or assumed ({'; '.join(model.origin.assumed)[:500]}) is wrong. Or: "


def _unscaled(model: Model) -> str:
    """What x and y have to be, where the card does something before the first layer or after the last."""
    scaled = any(isinstance(node.operation, Scaling) for node in model.nodes)
    if not scaled and not model.added:
        return ""
    after = " and ".join(node.operation.name for node in model.nodes[len(model.nodes) - model.added :])
    return "".join(
        [
            ". The card scales the input, so x must be as it is before that, and y what Keras answered to x scaled"
            * scaled,
            f". y must be what Keras answered, before the card's {after}" if after else "",
        ]
    )
