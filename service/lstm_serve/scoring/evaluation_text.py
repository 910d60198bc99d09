"""An evaluation, told to a person: the figures, by class, which class was taken for which, how sure it was."""

from collections.abc import Iterator, Sequence
from typing import Any

from lstm_serve.formats.text import shown
from lstm_serve.scoring.columns import aligned

# What the figures are called, in the order in which they are told.
TITLES = {
    "accuracy": "accuracy",
    "within_one": "right or next class",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "ece": "expected calibration error",
    "roc_auc": "ROC AUC",
    "threshold": "at the threshold",
    "precision": "  precision",
    "recall": "  recall",
    "specificity": "  specificity",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
}
# So many rows where two models differ are told; the report has them all.
SHOWN = 20


def of_one(report: dict[str, Any]) -> str:
    """The text for one model."""
    lines = [_head(report), "", *_figures([report]), *_by_class([report]), *_outputs(report)]
    if "confusion" in report:
        lines += ["", "how often each class (a line) was answered as each (a column)"]
        lines += _table([_number(one["class"]) for one in report["classes"]], report["classes"], report["confusion"])
    if "calibration" in report:
        lines += ["", "how often an answer was right, by its probability"]
        rows = [
            [
                f"{one['from']:.1f} to {one['to']:.1f}",
                str(one["rows"]),
                _number(one["probability"]),
                _number(one["accuracy"]),
            ]
            for one in report["calibration"]
            if one["rows"]
        ]
        lines += aligned([["probability", "answers", "mean", "right"], *rows])
    return "\n".join([*lines, ""])


def of_two(report: dict[str, Any]) -> str:
    """The text for two models, side by side."""
    both, found = [report["old"], report["new"]], report["differences"]
    lines = [f"{title}: {_head(one)}" for title, one in zip(("old", "new"), both, strict=True)]
    lines += ["", *_figures(both), *_by_class(both), ""]
    at = found["at"]
    if "largest" in found:
        lines.append(f"they differ by {found['mean']:.6g} on average, and by {found['largest']:.6g} at most")
        return "\n".join([*lines, ""])
    lines.append(
        f"they differ in {found['answers']:,} answers: old is right in {found['old_right']:,}, new in "
        f"{found['new_right']:,}, neither in {found['both_wrong']:,}"
    )
    if found["answers"]:
        rows = [[str(column[k].tolist()) for column in at.values()] for k in range(min(SHOWN, found["answers"]))]
        lines += aligned([[*at], *rows])
    if found["answers"] > SHOWN:
        lines.append(f"  and {found['answers'] - SHOWN:,} more; the report that -o writes has them all")
    return "\n".join([*lines, ""])


def _head(report: dict[str, Any]) -> str:
    left_out = f", {report['left_out']:,} without a label left out" if report["left_out"] else ""
    return f"{report['model']}, version {report['version']}: {report['answers']:,} answers{left_out}"


def _figures(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows = [[title, *(_number(one[key]) for one in reports)] for key, title in TITLES.items() if key in reports[0]]
    yield from aligned([["", "old", "new"], *rows] if len(reports) > 1 else rows)


def _by_class(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For each class its figures; of two models those of both."""
    if "classes" not in reports[0]:
        return
    keys = ("precision", "recall", "f1")
    yield ""
    heads = [f"{title}{key}" for title in (("old ", "new ") if len(reports) > 1 else ("",)) for key in keys]
    rows = [["class", "rows", *heads]]
    rows += [
        [_label(each[0]), str(each[0]["rows"]), *(_number(one[key]) for one in each for key in keys)]
        for each in zip(*(one["classes"] for one in reports), strict=True)
    ]
    yield from aligned(rows)


def _outputs(report: dict[str, Any]) -> Iterator[str]:
    outputs = report.get("outputs", ())
    if len(outputs) < 2:
        return
    yield ""
    keys = [key for key in TITLES if key in outputs[0]]
    rows = [[f"output {k}", *(_number(one[key]) for key in keys)] for k, one in enumerate(outputs)]
    yield from aligned([["", *(TITLES[key] for key in keys)], *rows])


def _table(heads: list[str], classes: Sequence[dict[str, Any]], counts: Sequence[Sequence[int]]) -> Iterator[str]:
    rows = [[_label(one), *map(str, row)] for one, row in zip(classes, counts, strict=True)]
    yield from aligned([["class", *heads], *rows])


def _label(one: dict[str, Any]) -> str:
    return str(one["class"]) if one["label"] is None else f"{one['class']} {shown(one['label'], 40)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"
