"""The profile, `<stem>.profile.json`: what the training data were like, as `lstm-serve profile` writes it."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.folder import opened
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.model import Model
from lstm_serve.model.profile import BINS, HIGH, LOW, MOST_FEATURES, Chunks, Column, Profile, Spoken, Spread
from lstm_serve.model.watched import class_count, names, why_not

MAX_BYTES = 1 << 20
AGAIN = "Make it again with lstm-serve profile --force, or take it away"

# The greatest float32 as it is written, with as few digits as tell it apart: that is more than it is.
GREATEST = float(str(np.finfo(np.float32).max))

Float32 = Annotated[float, Field(ge=-GREATEST, le=GREATEST)]
Size = Annotated[Float32, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
RowCount = Annotated[int, Field(gt=0, lt=1 << 53)]
ListedShares = Annotated[list[Share], Field(min_length=1, max_length=100_000)]
ListedSizes = Annotated[list[Size], Field(max_length=MOST_FEATURES)]

# What rounding leaves of a sum of shares.
ROUNDED = 1e-4


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class FeaturePart(_Part):
    """A feature."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    min: Float32
    max: Float32
    low: Annotated[list[Float32], Field(min_length=len(LOW), max_length=len(LOW))]
    high: Annotated[list[Float32], Field(min_length=len(HIGH), max_length=len(HIGH))]
    mean: Float32
    sd: Size
    edges: Annotated[list[Float32], Field(min_length=1, max_length=BINS - 1)]
    shares: ListedShares

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(first >= second for first, second in pairwise(self.edges)):
            raise ValueError("edges: expected numbers that ascend")
        if any(first > second for first, second in pairwise([self.min, *self.low, *self.high, self.max])):
            raise ValueError("expected min, low, high and max in ascending order")
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"shares: expected {len(self.edges) + 1}, one more than edges")
        _expect_whole(self.shares, "shares")
        return self


class SpreadPart(_Part):
    """Mean and standard deviation of a statistic, of each feature."""

    mean: ListedSizes
    sd: ListedSizes


class ChunksPart(_Part):
    """Chunks of one size."""

    rows: RowCount
    psi: SpreadPart
    wasserstein_sd: SpreadPart


class AnswersPart(_Part):
    """What was answered."""

    classes: ListedShares
    entropy: Annotated[ListedShares, Field(min_length=BINS, max_length=BINS)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _expect_whole(self.classes, "classes")
        _expect_whole(self.entropy, "entropy")
        return self


class ProfilePart(_Part):
    """The whole of it."""

    rows: RowCount
    features: Annotated[list[FeaturePart], Field(min_length=1, max_length=MOST_FEATURES)]
    chunks: Annotated[list[ChunksPart], Field(max_length=20)]
    answers: AnswersPart | None

    @model_validator(mode="after")
    def _of_each_feature(self) -> Self:
        if any(first.rows >= second.rows for first, second in pairwise(self.chunks)):
            raise ValueError("chunks: expected sizes that ascend")
        for chunks in self.chunks:
            spreads = (chunks.psi, chunks.wasserstein_sd)
            if any(len(of) != len(self.features) for spread in spreads for of in (spread.mean, spread.sd)):
                raise ValueError(f"chunks: expected {len(self.features)} numbers of each, one a feature")
        return self


def _expect_whole(shares: list[float], name: str) -> None:
    if abs(sum(shares) - 1) > ROUNDED:
        raise ValueError(f"{name}: expected shares whose sum is 1")


def added(model: Model, files: ModelFiles) -> Model:
    """The model with its profile; unchanged where it has none. Raises UnreadableFile with what is wrong."""
    name = files.profile.name
    try:
        with opened(files.profile) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return model
    except OSError as error:
        raise UnreadableFile(f"its profile {name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"its profile {name} is larger than {MAX_BYTES >> 20} MiB. {AGAIN}")
    try:
        read = ProfilePart.model_validate_json(data)
    except ValidationError as error:
        (problem, *_) = error.errors(include_url=False, include_input=False, include_context=False)
        where = ".".join(str(part)[:100] for part in problem["loc"]) or "the profile"
        said = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise UnreadableFile(f"its profile {name} is wrong: {where}: {said}. {AGAIN}") from None
    if wrong := _misfit(read, model):
        raise UnreadableFile(f"its profile {name} is of other data: {wrong}. {AGAIN}")
    return replace(model, profile=_record(read))


def _misfit(read: ProfilePart, model: Model) -> str | None:
    """Why a profile is not this model's."""
    if reason := why_not(model):
        return reason
    expected, came = names(model), [feature.name for feature in read.features]
    if len(came) != len(expected):
        return f"it has {len(came)} features, and the model takes {len(expected)}"
    for k, (one, other) in enumerate(zip(came, expected, strict=True), start=1):
        if one != other:
            return f"its feature {k} is {one[:60]!r}, and the model's is {other[:60]!r}"
    classes = None if read.answers is None else len(read.answers.classes)
    if classes not in {None, class_count(model)}:
        return f"it has {classes} classes, and the model {class_count(model)}"
    return None


def _record(read: ProfilePart) -> Profile:
    def exact(numbers: Iterable[float]) -> tuple[float, ...]:
        """The numbers of float32 that were written with as few digits as tell them apart."""
        return tuple(float(np.float32(number)) for number in numbers)

    columns = []
    for of in read.features:
        (least, greatest), low, high = exact((of.min, of.max)), exact(of.low), exact(of.high)
        edges, shares = _bins(of)
        columns.append(Column(of.name, least, greatest, low, high, of.mean, of.sd, edges, shares))
    chunks = tuple(Chunks(each.rows, _spread(each.psi), _spread(each.wasserstein_sd)) for each in read.chunks)
    spoken = None if read.answers is None else Spoken(np.array(read.answers.classes), np.array(read.answers.entropy))
    return Profile(read.rows, tuple(columns), chunks, spoken)


def _bins(of: FeaturePart) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges, and the shares of the bins between.

    A profile may have edges of float64: of a value and the next one the second is the next one of float32 then, and
    bins that float32 cannot tell apart are one.
    """
    edges, shares, before = list[float](), [of.shares[0]], -np.inf
    for edge, share in zip(of.edges, of.shares[1:], strict=True):
        at = np.nextafter(np.float32(before), np.float32(np.inf)) if edge == np.nextafter(before, np.inf) else edge
        before = edge
        if (here := float(np.float32(at))) > (edges[-1] if edges else -np.inf):
            edges.append(here)
            shares.append(share)
        else:
            shares[-1] += share
    return tuple(edges), tuple(shares)


def _spread(of: SpreadPart) -> Spread:
    return Spread(np.array(of.mean), np.array(of.sd))
