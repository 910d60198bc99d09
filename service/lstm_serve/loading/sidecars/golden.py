"""The golden predictions, `<stem>.golden.npz`: inputs `x` and what Keras answered, `y`. Replayed at load."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.operations.pointwise import Scaling
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, UnreadableFile, WrongNumbers
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.folder import opened
from lstm_serve.formats.npy import MAX_BYTES, NPY_MAGIC, HoldsObjects, HoldsText, member_names, read_npz
from lstm_serve.model import exact as exactly
from lstm_serve.model.carry import Carrying
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.inputs import expect_rows, naming_input
from lstm_serve.model.model import Model
from lstm_serve.model.records import unpacked

# Where float32 is to blame, Keras is at most so many times as far from the exact answer as this is, and no farther than
# so much.
ALIKE = 4
MOST = 1e-2
# How far float32 is from the exact answer to one row is a matter of luck: the farthest of so many tells it.
NUDGES = 7
# Rows times time steps of a replay: each may cost the time of a step of its own, and some 32 rows are enough.
MAX_STEPS = 1 << 18

# Keras answers a stateful model's batches from where the one before has ended, unless it is told otherwise.
FROM_ZERO = (
    "reset = lambda: [one.reset_states() for one in model.layers if getattr(one, 'stateful', False)]",
    "b = int(model.inputs[0].shape[0]); x = x[:len(x) // b * b]",
    "y = np.concatenate([(reset(), model.predict_on_batch(x[k:k + b]))[1] for k in range(0, len(x), b)])",
)

# Of each output, (n, *output_shape).
OutputArrays = Sequence[npt.NDArray[np.floating[Any]]]


def replay(model: Model, files: ModelFiles) -> Model:
    """The model, with the replay on record in its origin; unchanged where it has no golden predictions.

    They are what Keras answered: what the card does after the last layer is left out. Raises WrongNumbers, saying by
    how much, where the model misses one by more than its tolerance, and it is not float32 that is to blame.
    """
    golden = files.golden
    try:
        xs, ys = read(golden, model)
    except FileNotFoundError:
        return model
    except UnreadableFile as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error}") from None
    except OSError as error:
        raise UnreadableFile(f"its golden predictions {golden.name} cannot be read: {error.strerror}") from None
    plain = model.as_in_keras
    try:
        _check_size(plain, xs, ys, golden.name)
        x = plain.checked(xs if len(xs) > 1 else xs[0])
    except InvalidInput as error:
        raise WrongNumbers(f"the inputs in {golden.name} do not fit the model: {error}") from None
    with one_thread():
        came = unpacked(plain.forward(x))
    expected = [y.astype(np.float64) for y in ys]
    differences = _differences(came, expected, expected)
    worst = float(differences.max())
    origin = replace(model.origin, golden_rows=len(x), golden_difference=worst)
    missed = np.flatnonzero(~(differences <= origin.tolerance))
    if not len(missed):
        return replace(model, origin=origin)
    if not worst <= (1 + ALIKE) * MOST:  # no rounding that is let pass explains this row, so the others need no look
        missed = np.array([np.argmax(np.nan_to_num(differences, nan=np.inf))])
    if _carries_on(plain, x, expected):
        raise WrongNumbers(
            f"its golden predictions in {golden.name} are of a stateful model whose states were not reset between the "
            "sequences: each goes on where the one before ended, and here each starts from states of 0. Make them "
            f"anew, with a reset before each: {savez(model)}"
        )
    these, those = ([y[missed] for y in each] for each in (came, expected))
    rounding = _rounding(model, x[missed], these, those, missed, files)
    return replace(model, origin=replace(origin, rounding=rounding, tolerance=max(2 * rounding, worst)))


def read(golden: Path, model: Model) -> tuple[list[AnyArray], list[AnyArray]]:
    """Return the inputs and Keras' answers in a file; raises FileNotFoundError, or UnreadableFile and why.

    They are x and y, or x_<name> and y_<name>, by the file's names or the card's, or x0, x1, ... in their order. What
    else the file holds is not looked at.
    """
    takes, gives = array_names(model)
    with opened(golden) as file:
        if file.peek(len(NPY_MAGIC)).startswith(NPY_MAGIC):
            raise UnreadableFile(f"it is an .npy, of one array, where an .npz of x and y was expected: {savez(model)}")
        known = {name for names in (*takes, *gives) for name in names}
        try:
            arrays = read_npz(file, only=[*known], limit=_limit(file))
        except (HoldsObjects, HoldsText) as error:
            dicts = " A dict taken apart gives its keys, and Keras' answers here are one." * model.origin.answers_dict
            raise UnreadableFile(f"{error}.{dicts} Make it anew: {savez(model)}") from None
        found = [next((arrays[name] for name in names if name in arrays), None) for names in (*takes, *gives)]
        if any(array is None for array in found):
            wanted = " and ".join(names[0] for names in (*takes, *gives))
            held = ", ".join(member_names(file))[:200] or "nothing"
            raise UnreadableFile(f"it should hold the arrays {wanted}, and holds {held}: {savez(model)}")
    arrived = [array for array in found if array is not None]
    return arrived[: len(takes)], arrived[len(takes) :]


def array_names(model: Model) -> tuple[list[list[str]], list[list[str]]]:
    """By which names the array of each input is looked for in a file, and of each output; the first is preferred."""
    takes = _names("x", [(spec.name, spec.in_file) for spec in model.inputs])
    gives = _names("y", [*zip(model.output_names, model.names_in_file or model.output_names, strict=True)])
    return takes, gives


def _names(letter: str, names: Sequence[tuple[str | None, str | None]]) -> list[list[str]]:
    """By which names each of the inputs, or of the outputs, is looked for."""
    found = [
        [*(f"{letter}_{name}" for name in called if name is not None), f"{letter}{k}"] for k, called in enumerate(names)
    ]
    return found if len(found) > 1 else [[letter, *reversed(found[0])]]


def savez(model: Model, file: str = "f") -> str:
    """The Python that makes golden predictions, where Keras is."""
    return "; ".join(savez_lines(model, file))


def savez_lines(model: Model, file: str = "f") -> tuple[str, ...]:
    """The same, line by line."""
    if model.is_stateful and len(model.inputs) == len(model.output_names) == 1:
        return (*FROM_ZERO, f"np.savez({file}, x=x, y=y)")
    xs, ys = (
        [letter] if count == 1 else [f"{letter}{k}" for k in range(count)]
        for letter, count in (("x", len(model.inputs)), ("y", len(model.output_names)))
    )
    given = xs[0] if len(xs) == 1 else f"[{', '.join(xs)}]"
    values, taken = ys, ", ".join(ys)
    if model.origin.answers_dict:
        values, taken = [f"y[{json.dumps(name)}]" for name in model.names_in_file], "y"
        ys = [
            y if len(ys) == 1 or not f"y_{name}".isidentifier() else f"y_{name}"
            for y, name in zip(ys, model.names_in_file, strict=True)
        ]
    saved = ", ".join(f"{name}={value}" for name, value in zip((*xs, *ys), (*xs, *values), strict=True))
    return f"{taken} = model.predict({given})", f"np.savez({file}, {saved})"


def _limit(file: BinaryIO) -> int:
    """What the arrays of a file may take: no more than one of its size ever holds."""
    budget = Budget(MAX_BYTES)
    budget.expect(min(file.seek(0, io.SEEK_END), MAX_BYTES))
    file.seek(0)
    return budget.left


def _check_size(model: Model, xs: Sequence[AnyArray], ys: Sequence[AnyArray], name: str) -> None:
    """Raise, before anything is computed, where inputs or answers are not of the model's shapes, or too many."""
    for each, x in zip(model.takes, xs, strict=True):
        try:
            each.check_shape(x)
        except InvalidInput as error:
            if len(xs) == 1:
                raise
            raise naming_input(error, each) from None
    expect_rows(model.takes, [*map(len, xs)])
    given = [x.shape[1:] for x in xs]
    model.check_free(*given)
    for output, shape, y in zip(model.outputs, model.output_shapes_for(*given), ys, strict=True):
        if (gives := (len(xs[0]), *shape)) != y.shape:
            which = "" if len(ys) == 1 else f" for {output.name}"
            raise WrongNumbers(
                f"{name} has answers of shape {y.shape}{which}, and the model gives {gives}: give y as "
                "model.predict(x) returns it"
            )
    shapes = [*given, *model.shapes_for(*given)]
    steps = len(xs[0]) * max((shape[0] or 1 for shape in shapes if len(shape) > 1), default=1)
    if steps > MAX_STEPS:
        raise UnreadableFile(
            f"its golden predictions {name} are of {len(xs[0])} sequences and {steps} time steps in all; at most "
            f"{MAX_STEPS} are replayed. Some 32 sequences are enough: keep x[:32] and y[:32]"
        )


def _differences(these: OutputArrays, those: OutputArrays, scale: OutputArrays) -> npt.NDArray[np.floating[Any]]:
    """How far apart two answers are, scaled as in the tolerance: of each row the largest; NaN where one is."""
    apart = [
        (np.abs(this - that) / np.maximum(1, np.abs(of))).reshape(len(this), -1).max(axis=1)
        for this, that, of in zip(these, those, scale, strict=True)
    ]
    return np.asarray(np.max(apart, axis=0))


def _carries_on(model: Model, x: Array, expected: OutputArrays) -> bool:
    """Whether these are answers of a stateful Keras to one sequence after the other, with no reset between them."""
    carrying = Carrying.of(model)
    if carrying is None or carrying.stepper.answers_each_row:
        return False
    rows = x.reshape(1, -1, *x.shape[2:])
    with one_thread():
        found = carrying.carry_on(rows, carrying.stepper.start(1)).ys[0]
    ends = found[x.shape[1] - 1 :: x.shape[1]]
    return bool((_differences([ends], expected, expected) <= model.origin.tolerance).all())


def _rounding(  # noqa: PLR0913, PLR0917
    model: Model, x: Array, came: OutputArrays, expected: OutputArrays, numbers: npt.NDArray[np.intp], files: ModelFiles
) -> float:
    """How far Keras' own float32 is from what float64 gives, where that is why the model misses these predictions.

    x are the rows that it misses, `numbers` which they are. A model may be so ill-conditioned that float32 is not
    enough, for Keras as for us. Then Keras is, in each of these rows, about as far from the exact answer as this is,
    or would be with other roundings. Raises WrongNumbers where it is not, or too far to tell.
    """
    plain = model.as_in_keras
    exact = unpacked(exactly.answers(plain, x))
    keras = _differences(expected, exact, expected)
    ours = _differences(came, exact, expected)
    spread = ours
    for seed in range(NUDGES):
        with one_thread():
            nudged = unpacked(exactly.nudged(plain, seed).forward(x))
        spread = np.fmax(spread, _differences(nudged, exact, expected))
    unexplained = ~(keras <= ALIKE * spread)
    missed = np.nan_to_num(_differences(came, expected, expected), nan=np.inf)
    row = int(np.argmax(np.where(unexplained, missed, -1) if unexplained.any() else missed))
    ours_there, keras_there = (ours[row], keras[row]) if unexplained[row] else (ours.max(), keras.max())
    by = _differences(came, expected, expected)[row]
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
