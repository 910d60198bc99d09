"""A model's answers held against what is right; and those of two models, with where they differ."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import AnyArray, Floats, Ints
from lstm_serve.errors import SettingsError
from lstm_serve.model.answers import chosen
from lstm_serve.model.model import Model
from lstm_serve.scoring import labelled
from lstm_serve.scoring.figures import counter
from lstm_serve.scoring.inputs import Sequences
from lstm_serve.scoring.predict import predictions


class Judged(NamedTuple):
    """Of each answer that was judged: the number of its sequence and its step, what was right, and what was said.

    That is a class; for each label 0 or 1; or the values. (m,), (m, L), (m, L). The step is 1 where there is but one.
    """

    numbers: Ints
    steps: Ints
    right: AnyArray
    said: AnyArray


def evaluate(model: Model, x: npt.ArrayLike, y: npt.ArrayLike) -> dict[str, Any]:
    """How good the answers to x (n, *input_shape) are, as `lstm-serve evaluate -o` writes it.

    y is what Keras' `model.evaluate(x, y)` takes: indices or one-hot, 0 and 1 for each label, or targets; NaN where it
    is not known, of one-hot in the whole row. Raises InvalidInput.
    """
    return judge(model, labelled.of_arrays(model, x, y), progress=False)


def judge(
    model: Model, sequences: Sequences, *, progress: bool = True, keep: list[Judged] | None = None
) -> dict[str, Any]:
    """All figures of a model on sequences with their truth. `keep` is given each chunk's answers."""
    counted, answers, left_out = counter(model), 0, 0
    for chunk in predictions(model, sequences, progress=progress):
        truth = np.concatenate([_truth(sequences, part)[start:stop] for part, start, stop in chunk.pieces])
        known = ~np.isnan(truth).any(axis=-1)
        answers += int(known.sum())
        left_out += int((~known).sum())
        if not known.any():
            continue
        y, right = chunk.y[known], truth[known]
        counted.add(y, right)
        if keep is not None:
            row, *step = np.nonzero(known)
            steps = step[0] + 1 if step else np.ones_like(row)
            keep.append(Judged(np.asarray(chunk.numbers)[row], steps, *_comparable(model, right, y)))
    if not answers:
        raise SettingsError(f"there is no label for any of the {left_out} answers")
    about = model.about
    head = {"model": about.name, "version": about.version, "digest": model.origin.digest, "kind": model.kind}
    return {**head, "answers": answers, "left_out": left_out, **counted.figures()}


def compare(old: Model, new: Model, of_old: Sequences, of_new: Sequences) -> dict[str, Any]:
    """Both models' figures where both answer, and where they answer differently. Raises SettingsError."""
    names = {model.about.classes for model in (old, new)} - {None}
    if (old.kind, old.output_shape[-1]) != (new.kind, new.output_shape[-1]) or len(names) > 1:
        raise SettingsError(
            f"the models answer different things, {_what(old)} and {_what(new)}: evaluate each by itself"
        )
    both = np.intersect1d(_numbers(of_old), _numbers(of_new))
    kept: tuple[list[Judged], list[Judged]] = ([], [])
    reports = [
        judge(model, _only(sequences, both), keep=keep)
        for model, sequences, keep in zip((old, new), (of_old, of_new), kept, strict=True)
    ]
    first, second = (Judged(*map(np.concatenate, zip(*keep, strict=True))) for keep in kept)
    if not (np.array_equal(first.numbers, second.numbers) and np.array_equal(first.steps, second.steps)):
        raise SettingsError("the models answer different numbers of steps: evaluate each by itself")
    order = np.argsort(first.numbers, kind="stable")  # as the rows come in the file, whichever unit's they are
    first, second = (Judged(*(array[order] for array in one)) for one in (first, second))
    return {"old": reports[0], "new": reports[1], "differences": _differences(old, first, second, of_old.noun)}


def _differences(model: Model, old: Judged, new: Judged, noun: str) -> dict[str, Any]:
    apart = np.abs(old.said - new.said).reshape(len(old.said), -1).max(axis=1)
    differ = np.flatnonzero(apart)
    step = {"step": old.steps[differ]} if model.kind == "steps" else {}
    at = {
        noun: old.numbers[differ],
        **step,
        "right": old.right[differ],
        "old": old.said[differ],
        "new": new.said[differ],
    }
    told: dict[str, Any] = {"answers": len(differ)}
    if model.kind == "values":
        told |= {"mean": float(apart.mean()), "largest": float(apart.max())}
    else:
        wrong = [(one.said != one.right).reshape(len(one.said), -1).any(axis=1)[differ] for one in (old, new)]
        told |= {
            "old_right": int((~wrong[0]).sum()),
            "new_right": int((~wrong[1]).sum()),
            "both_wrong": int((wrong[0] & wrong[1]).sum()),
        }
    return {**told, "at": at}


def _comparable(model: Model, right: Floats, y: AnyArray) -> tuple[Any, Any]:
    """What was right and what was said, in one form."""
    if model.kind == "values":
        return right.astype(np.float32), y
    said = chosen(model, y).astype(np.int32)
    return right.astype(np.int32).reshape(said.shape), said


def _truth(sequences: Sequences, part: int) -> AnyArray:
    truth = sequences.parts[part].truth
    assert truth is not None  # noqa: S101 - `labelled` gives it
    return truth


def _numbers(sequences: Sequences) -> Ints:
    return np.concatenate([np.asarray(part.numbers, np.int64) for part in sequences.parts])


def _only(sequences: Sequences, numbers: Ints) -> Sequences:
    """The sequences of these numbers alone: one model may need more rows than another before it answers."""
    parts = []
    for k, part in enumerate(sequences.parts):
        those = np.isin(np.asarray(part.numbers), numbers)
        if those.any():
            # Windows that are left out come first, of a whole unit or of its first rows.
            start = int(np.argmax(those))
            parts.append(
                part._replace(x=part.x[start:], numbers=part.numbers[start:], truth=_truth(sequences, k)[start:])
            )
    if not parts:
        raise SettingsError("the models have no row of the file that both answer")
    return sequences._replace(parts=tuple(parts))


def _what(model: Model) -> str:
    names = "" if model.about.classes is None else f" ({', '.join(model.about.classes)[:100]})"
    return f"{model.kind} of {model.output_shape[-1]}{names}"
