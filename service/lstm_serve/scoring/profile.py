"""A profile made of training data: what `lstm-serve profile` writes beside the model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import orjson

from lstm_serve.engine.types import AnyArray, Floats, Ints
from lstm_serve.errors import SettingsError
from lstm_serve.formats.csv_layout import NamedColumns
from lstm_serve.formats.text import shown
from lstm_serve.model.model import Model
from lstm_serve.model.profile import Chunks, Column, Profile, Spoken, Spread, column, psi, single
from lstm_serve.model.watched import names, rows, spoken, why_not
from lstm_serve.scoring import inputs
from lstm_serve.scoring.columns import aligned
from lstm_serve.scoring.inputs import Sequences
from lstm_serve.scoring.predict import predictions

# Windows of the service may have any size: its chunks are the largest of these that are no larger.
CHUNKS = (1000, 2000, 5000, 10_000, 20_000)
LEAST_CHUNKS = 2
LEAST_ROWS = 1000


def read(source: str, model: Model, by: Sequence[str] = ()) -> tuple[Profile, tuple[str, ...]]:
    """The profile of a file of training data, and what to tell of the reading. Raises InvalidInput, SettingsError."""
    model.expect_one("a profile")
    if reason := why_not(model):
        raise SettingsError(f"{model.origin.file}: the model cannot be profiled, nor watched for drift: {reason}")
    by = tuple(dict.fromkeys(by))
    with inputs.naming_source(source):
        table = inputs.decoded(inputs.content(source), model, NamedColumns(by))
        sequences = inputs.sequences(table, model, by=by)
    x = single(rows(table.values if sequences.noun == "row" else sequences.parts[0].x))
    notes = sequences.told
    if (model.input_shape[-1] or 0) > x.shape[1]:
        notes += (f"the first {x.shape[1]} of {model.input_shape[-1]} features are watched",)
    if len(x) < LEAST_CHUNKS * LEAST_ROWS:
        few = (
            f"{len(x)} rows say little of how far chunks of them differ, so the limits of drift stay at their least; "
            f"{LEAST_CHUNKS * LEAST_ROWS} rows and more can raise them"
        )
        notes += (few,)
    return replace(of_rows(names(model), x), spoken=_answers(model, sequences)), notes


def of_rows(called: Sequence[str], x: AnyArray) -> Profile:
    """The profile of rows x (N, F) in the order of time; without its answers."""
    alone = Profile(len(x), tuple(column(name, x[:, k]) for k, name in enumerate(called)))
    chunks = []
    for size in (size for size in CHUNKS if size * LEAST_CHUNKS <= len(x)):
        parts = [x[start : start + size] for start in range(0, len(x) - size + 1, size)]
        spread = [_spread(of, parts) for of in (lambda part: psi(alone.counts(part), alone.shares), alone.wasserstein)]
        chunks.append(Chunks(size, *spread))
    return replace(alone, chunks=tuple(chunks))


def _spread(of: Callable[[AnyArray], Floats], parts: Iterable[AnyArray]) -> Spread:
    found = np.array([of(part) for part in parts])
    return Spread(found.mean(axis=0), found.std(axis=0, ddof=1))


def _answers(model: Model, sequences: Sequences) -> Spoken | None:
    """The shares of classes, and of the tenths of the entropy, among the answers to the training data."""
    counts = [spoken(model, chunk.y) for chunk in predictions(model, sequences, progress=True)]
    known = [each for each in counts if each is not None]
    if not known:
        return None
    return Spoken(*(_shares(np.sum(each, axis=0)) for each in zip(*known, strict=True)))


def _shares(counts: Ints) -> Floats:
    shares: Floats = counts / counts.sum()
    return shares


def written(profile: Profile) -> bytes:
    """The profile as JSON, as `loading.sidecars.profile` reads it."""
    features = [_dumped(_feature(column)) for column in profile.columns]
    chunks = [
        _dumped({"rows": each.rows, "psi": _of(each.psi), "wasserstein_sd": _of(each.wasserstein)})
        for each in profile.chunks
    ]
    answers = profile.spoken and {"classes": _short(profile.spoken.classes), "entropy": _short(profile.spoken.entropy)}
    lines = [f'"rows": {profile.rows}', _lines("features", features), _lines("chunks", chunks)]
    return "{{\n{}\n}}\n".format(",\n".join([*lines, f'"answers": {_dumped(answers)}'])).encode()


def _feature(column: Column) -> dict[str, object]:
    # As few digits as float32 needs: 642.06, not 642.0599975585938.
    least, greatest = np.array([column.least, column.greatest], np.float32)
    return {
        "name": column.name,
        "min": least,
        "max": greatest,
        "low": np.array(column.low, np.float32),
        "high": np.array(column.high, np.float32),
        "mean": _digits(column.mean, 9),
        "sd": _digits(column.sd, 9),
        "edges": np.array(column.edges, np.float32),
        "shares": _short(column.shares),
    }


def _of(spread: Spread) -> dict[str, list[float]]:
    return {"mean": [_digits(number, 4) for number in spread.mean], "sd": [_digits(number, 4) for number in spread.sd]}


def _short(shares: Iterable[float]) -> list[float]:
    return [round(float(share), 6) for share in shares]


def _digits(number: float, count: int) -> float:
    return float(f"{number:.{count}g}")


def _dumped(content: object) -> str:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _lines(name: str, parts: Sequence[str]) -> str:
    return f'"{name}": [\n' + ",\n".join(parts) + "\n]"


def summary(profile: Profile, name: str) -> str:
    """What was written, for a person."""
    sizes = ", ".join(f"{each.rows:,}" for each in profile.chunks)
    chunks = f", chunks of {sizes}" if sizes else ""
    head = f"{name}: {profile.rows:,} rows, {len(profile.columns)} features{chunks}\n"
    lines = [["feature", "min", "mean", "max", "sd", "bins"]]
    for of in profile.columns:
        numbers = (f"{number:.6g}" for number in (of.least, of.mean, of.greatest, of.sd))
        lines.append([shown(of.name, 24), *numbers, str(sum(share > 0 for share in of.shares))])
    return head + "".join(f"{line}\n" for line in aligned(lines, indent=""))
