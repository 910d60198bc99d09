"""How good answers are, counted chunk by chunk: memory does not grow with them, but for the ranks of ROC AUC.

The judge of each figure that it has is scikit-learn, from the same float64 numbers.
"""

from typing import Any, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.types import AnyArray, Array, Floats, Ints
from lstm_serve.model.answers import chosen
from lstm_serve.model.model import Model

# Equal bins of the probability of the answer, each without its lower edge: what the calibration is told in.
BINS = 10
EPSILON = float(np.finfo(np.float64).eps)


class Counter(Protocol):
    """Counts answers y (m, width) against what is right, truth (m, L)."""

    def add(self, y: Array, truth: Floats) -> None:
        """Count some."""

    def figures(self) -> dict[str, Any]:
        """All figures; what is not defined, such as the recall of a class that does not occur, is None."""


def counter(model: Model) -> Counter:
    """What counts the answers of a model of this kind."""
    match model.kind:
        case "classes" | "steps":
            return ClassCounter(model)
        case "binary":
            return BinaryCounter(model)
        case "labels":
            return LabelCounter(model)
        case "values":
            return ValueCounter(model)
        case _:
            assert_never(model.kind)


class ClassCounter:
    """One class of several: a confusion matrix, a row for each right class and a column for each answer."""

    def __init__(self, model: Model) -> None:
        """Nothing is counted yet."""
        count = model.output_shape[-1] or 0
        self._model = model
        self._names = model.about.classes
        self._confusion = np.zeros((max(2, count),) * 2, np.int64)
        self._loss = 0.0
        self._bins = np.zeros((3, BINS))  # how many, the sum of their probabilities, how many of them right

    def add(self, y: Array, truth: Floats) -> None:
        """Count probabilities y (m, classes) against indices, truth (m, 1)."""
        right, answer = truth[:, 0].astype(np.int64), chosen(self._model, y)
        probabilities, each = self._probabilities(y.astype(np.float64)), np.arange(len(y))
        np.add.at(self._confusion, (right, answer), 1)
        self._loss -= np.log(probabilities[each, right].clip(EPSILON, 1)).sum()
        sure = probabilities[each, answer]
        at = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], sure)
        self._bins += [np.bincount(at, weights, BINS) for weights in (None, sure, answer == right)]

    def _probabilities(self, y: Floats) -> Floats:
        return y

    def figures(self) -> dict[str, Any]:
        """Accuracy, macro F1, log loss, calibration; by class and by pair of classes."""
        matrix, total = self._confusion, int(self._confusion.sum())
        index = np.arange(len(matrix))
        near = np.abs(index[:, np.newaxis] - index) <= 1
        classes = by_class(matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix), self._names)
        rows, sure, right = self._bins
        return {
            "accuracy": _share(np.trace(matrix), total),
            **({"within_one": _share(matrix[near].sum(), total)} if len(matrix) > 2 else {}),
            "macro_f1": _mean([one["f1"] for one in classes]),
            "log_loss": _share(self._loss, total),
            "ece": _share(np.abs(right - sure).sum(), total),
            "classes": classes,
            "confusion": matrix.tolist(),
            "calibration": [
                {
                    "from": k / BINS,
                    "to": (k + 1) / BINS,
                    "rows": int(rows[k]),
                    "probability": _share(sure[k], rows[k]),
                    "accuracy": _share(right[k], rows[k]),
                }
                for k in range(BINS)
            ],
        }


class BinaryCounter(ClassCounter):
    """One class of two, by its probability and a threshold."""

    def __init__(self, model: Model) -> None:
        """Nothing is counted yet."""
        super().__init__(model)
        self._scores: list[tuple[Array, npt.NDArray[np.bool_]]] = []

    def add(self, y: Array, truth: Floats) -> None:
        """Count probabilities of class 1, y (m, 1)."""
        super().add(y, truth)
        self._scores.append((y[:, 0].copy(), truth[:, 0] == 1))

    def _probabilities(self, y: Floats) -> Floats:
        return np.concatenate([1 - y, y], axis=1)

    def figures(self) -> dict[str, Any]:
        """And ROC AUC, and what the threshold makes of it."""
        (true_negative, false_positive), (false_negative, true_positive) = self._confusion.tolist()
        scores, positive = (
            (np.concatenate(part) for part in zip(*self._scores, strict=True)) if self._scores else ([], [])
        )
        return {
            **super().figures(),
            "roc_auc": roc_auc(np.asarray(scores), np.asarray(positive, np.bool_)),
            "threshold": self._model.about.threshold,
            "precision": _share(true_positive, true_positive + false_positive),
            "recall": _share(true_positive, true_positive + false_negative),
            "specificity": _share(true_negative, true_negative + false_positive),
        }


class LabelCounter:
    """Several classes, each true or not by itself."""

    def __init__(self, model: Model) -> None:
        """Nothing is counted yet."""
        self._model = model
        self._right, self._answered, self._both = np.zeros((3, model.output_shape[-1] or 0), np.int64)
        self._loss = np.zeros(len(self._right))
        self._total = self._exact = 0

    def add(self, y: Array, truth: Floats) -> None:
        """Count probabilities y (m, classes) against 0 and 1, truth (m, classes)."""
        right, answer, p = truth == 1, chosen(self._model, y) == 1, y.astype(np.float64)
        self._right += right.sum(axis=0)
        self._answered += answer.sum(axis=0)
        self._both += (right & answer).sum(axis=0)
        self._loss -= np.log(np.where(right, p, 1 - p).clip(EPSILON, 1)).sum(axis=0)
        self._total += len(y)
        self._exact += int((right == answer).all(axis=1).sum())

    def figures(self) -> dict[str, Any]:
        """The share of rows with all labels right, macro F1, the mean log loss of a label; by class."""
        classes = by_class(self._right, self._answered, self._both, self._model.about.classes)
        for one, loss in zip(classes, self._loss, strict=True):
            one["log_loss"] = _share(loss, self._total)
        return {
            "accuracy": _share(self._exact, self._total),
            "macro_f1": _mean([one["f1"] for one in classes]),
            "log_loss": _mean([one["log_loss"] for one in classes]),
            "threshold": self._model.about.threshold,
            "classes": classes,
        }


class ValueCounter:
    """Numbers, in the target's own units."""

    def __init__(self, model: Model) -> None:
        """Nothing is counted yet."""
        width = model.output_shape[-1] or 0
        self._total = 0
        self._absolute, self._square, self._mean, self._spread = np.zeros((4, width))

    def add(self, y: Array, truth: Floats) -> None:
        """Count values y (m, width) against targets of the same shape."""
        off, count = y.astype(np.float64) - truth, len(y)
        self._absolute += np.abs(off).sum(axis=0)
        self._square += np.square(off).sum(axis=0)
        # The sum of squares around the mean, of two parts: Chan, Golub, LeVeque, Updating Formulae (1979).
        mean, total = truth.mean(axis=0), self._total + count
        apart = mean - self._mean
        self._spread += np.square(truth - mean).sum(axis=0) + np.square(apart) * (self._total * count / total)
        self._mean += apart * (count / total)
        self._total = total

    def figures(self) -> dict[str, Any]:
        """MAE, RMSE and R2: of each output, and their mean."""
        outputs = [
            {
                "mae": _share(absolute, self._total),
                "rmse": None if not self._total else float(np.sqrt(square / self._total)),
                "r2": None if spread == 0 else float(1 - square / spread),
            }
            for absolute, square, spread in zip(self._absolute, self._square, self._spread, strict=True)
        ]
        return {**{name: _mean([one[name] for one in outputs]) for name in ("mae", "rmse", "r2")}, "outputs": outputs}


def by_class(right: Ints, answered: Ints, both: Ints, names: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """For each class how often it is right, answered, and both; with precision, recall and F1.

    F1 is 0 where the class occurs and is never answered rightly, None where it neither occurs nor is answered.
    """
    return [
        {
            "class": k,
            "label": names and names[k],
            "rows": int(n),
            "answered": int(said),
            "precision": _share(hits, said),
            "recall": _share(hits, n),
            "f1": _share(2 * hits, n + said),
        }
        for k, (n, said, hits) in enumerate(zip(right, answered, both, strict=True))
    ]


def roc_auc(scores: AnyArray, positive: npt.NDArray[np.bool_]) -> float | None:
    """How often a positive has the higher score than a negative, a tie being half; None where there are not both.

    By the sum of ranks: Mann and Whitney (1947).
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _mean(given: list[float | None]) -> float | None:
    known = [one for one in given if one is not None]
    return sum(known) / len(known) if known else None
