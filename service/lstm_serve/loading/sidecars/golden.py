"""The golden predictions, `<stem>.golden.npz`: inputs `x` and what Keras answered, `y`. Replayed at load."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.pointwise import Scaling
from lstm_serve.errors import InvalidInput, UnreadableFile, WrongNumbers
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.folder import opened
from lstm_serve.formats.npy import MAX_BYTES, NPY_MAGIC, AnyArray, member_names, read_npz
from lstm_serve.model import exact as exactly
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.model import Model

# The 0 is of whoever counts a model's inputs and outputs; what else the file holds is not looked at.
NAMES = ("x", "y", "x0", "y0")

SAVEZ = "y = model.predict(x); np.savez(f, x=x, y=y)"

# Where float32 is to blame, Keras is at most so many times as far from the exact answer as this is, and no farther than
# so much.
ALIKE = 4
MOST = 1e-2
# How far float32 is from the exact answer to one row is a matter of luck: the farthest of so many tells it.
NUDGES = 7
# Rows times time steps of a replay: each may cost the time of a step of its own, and some 32 rows are enough.
MAX_STEPS = 1 << 18

Answers = npt.NDArray[np.floating[Any]]


def replay(model: Model, files: ModelFiles) -> Model:
    """The model, with the replay on record in its origin; unchanged where it has no golden predictions.

    They are what Keras answered: what the card does after the last layer is left out. Raises WrongNumbers, saying by
    how much, where the model misses one by more than its tolerance, and it is not float32 that is to blame.
    """
    golden = files.golden
    try:
        x, y = read(golden)
    except FileNotFoundError:
        return model
    except UnreadableFile as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error}") from None
    except OSError as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error.strerror}") from None
    try:
        _check_size(model.as_in_keras, x, y, golden.name)
        came = model.as_in_keras.predict(x)
    except InvalidInput as error:
        raise WrongNumbers(f"the inputs in {golden.name} do not fit the model: {error}") from None
    expected = y.astype(np.float64)
    differences = _rows(_differences(came, expected, expected))
    worst = float(differences.max())
    origin = replace(model.origin, golden_rows=len(x), golden_difference=worst)
    missed = np.flatnonzero(~(differences <= origin.tolerance))
    if not len(missed):
        return replace(model, origin=origin)
    if not worst <= (1 + ALIKE) * MOST:  # no rounding that is let pass explains this row, so the others need no look
        missed = np.array([np.argmax(np.nan_to_num(differences, nan=np.inf))])
    rounding = _rounding(model, x[missed], came[missed], expected[missed], missed, files)
    return replace(model, origin=replace(origin, rounding=rounding, tolerance=max(2 * rounding, worst)))


def read(golden: Path) -> tuple[AnyArray, AnyArray]:
    """Return the inputs and Keras' answers in a file; raises FileNotFoundError, or UnreadableFile and why."""
    with opened(golden) as file:
        if file.peek(len(NPY_MAGIC)).startswith(NPY_MAGIC):
            raise UnreadableFile(f"it is an .npy, of one array, where an .npz of x and y was expected: {SAVEZ}")
        arrays = read_npz(file, only=NAMES, limit=_limit(file))
        x, y = arrays.get("x", arrays.get("x0")), arrays.get("y", arrays.get("y0"))
        if x is None or y is None:
            held = ", ".join(member_names(file))[:200] or "nothing"
            raise UnreadableFile(f"it should hold the arrays x and y, and holds {held}: {SAVEZ}")
    return x, y


def _limit(file: BinaryIO) -> int:
    """What the arrays of a file may take: no more than one of its size ever holds."""
    budget = Budget(MAX_BYTES)
    budget.expect(min(file.seek(0, io.SEEK_END), MAX_BYTES))
    file.seek(0)
    return budget.left


def _check_size(model: Model, x: AnyArray, y: AnyArray, name: str) -> None:
    """Raise, before anything is computed, where x or y are not of the model's shapes, or too many."""
    model.check_shape(x)
    shapes = model.shapes_for(x.shape[1:])
    if (gives := (len(x), *shapes[-1])) != y.shape:
        raise WrongNumbers(
            f"{name} has answers of shape {y.shape}, and the model gives {gives}: give y as model.predict(x) returns it"
        )
    steps = len(x) * max((shape[0] or 1 for shape in shapes if len(shape) > 1), default=1)
    if steps > MAX_STEPS:
        raise UnreadableFile(
            f"its golden predictions {name} are of {len(x)} sequences and {steps} time steps in all; at most "
            f"{MAX_STEPS} are replayed. Some 32 sequences are enough: keep x[:32] and y[:32]"
        )


def _differences(these: Answers, those: Answers, scale: Answers) -> Answers:
    """How far apart two answers are, scaled as in the tolerance."""
    found: Answers = np.abs(these - those) / np.maximum(1, np.abs(scale))
    return found


def _rows(differences: Answers) -> Answers:
    """The largest of each row; NaN where one is."""
    largest: Answers = differences.reshape(len(differences), -1).max(axis=1)
    return largest


def _rounding(  # noqa: PLR0913, PLR0917
    model: Model, x: AnyArray, came: Answers, expected: Answers, numbers: npt.NDArray[np.intp], files: ModelFiles
) -> float:
    """How far Keras' own float32 is from what float64 gives, where that is why the model misses these predictions.

    x are the rows that it misses, `numbers` which they are. A model may be so ill-conditioned that float32 is not
    enough, for Keras as for us. Then Keras is, in each of these rows, about as far from the exact answer as this is,
    or would be with other roundings. Raises WrongNumbers where it is not, or too far to tell.
    """
    plain = model.as_in_keras
    exact = exactly.answers(plain, plain.checked(x))
    keras = _rows(_differences(expected, exact, expected))
    ours = _rows(_differences(came, exact, expected))
    spread = ours
    for seed in range(NUDGES):
        nudged = exactly.nudged(plain, seed).predict(x)
        spread = np.fmax(spread, _rows(_differences(nudged, exact, expected)))
    unexplained = ~(keras <= ALIKE * spread)
    missed = np.nan_to_num(_rows(_differences(came, expected, expected)), nan=np.inf)
    row = int(np.argmax(np.where(unexplained, missed, -1) if unexplained.any() else missed))
    ours_there, keras_there = (ours[row], keras[row]) if unexplained[row] else (ours.max(), keras.max())
    by = _differences(came, expected, expected)[row].max()
    said = (
        f"it misses its golden predictions in {files.golden.name} by up to {by:.2g} (row {numbers[row]}); "
        f"{model.origin.tolerance:g} is allowed. Computed in float64, its answers are up to {ours_there:.2g} from its "
        f"own in float32, and {keras_there:.2g} from Keras'"
    )
    if unexplained[row] or not keras_there <= ALIKE * ours_there:
        raise WrongNumbers(
            f"{said}: more than float32 explains. {_assumed(model)}Model, card and golden "
            f"predictions do not belong together, or the file is damaged{_unscaled(model)}{_no_card(files)}"
        )
    if not (keras.max() <= MOST and ours.max() <= ALIKE * MOST):
        raise WrongNumbers(
            f"{said}: float32 is not enough for this model, which makes small differences large, and over "
            f"{MOST:g} nobody can tell whether it is right"
        )
    return float(keras.max())


def _assumed(model: Model) -> str:
    if not model.origin.assumed:
        return ""
    return f"What was said or assumed ({'; '.join(model.origin.assumed)[:500]}) is wrong. Or: "


def _no_card(files: ModelFiles) -> str:
    if files.card.exists():
        return ""
    return f". No card was found ({files.card.name}): if you scaled the data before training, that goes there"


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
