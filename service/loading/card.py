"""The card, `<stem>.card.json`: what a person adds to a model that its file does not tell."""

import contextlib
import difflib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.engine.model import Feature
from service.errors import UnreadableFile
from service.loading.plain_files import opened

MAX_BYTES = 4 << 20


def _printable(text: str) -> str:
    if not text.replace("\n", " ").isprintable():
        raise ValueError("holds control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
Numbers = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)]


def _distinct(texts: list[str]) -> list[str]:
    if len(set(texts)) != len(texts):
        raise ValueError("each name must be given once")
    return texts


def _counted(version: object) -> object:
    return str(version) if type(version) is int else version


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class FeatureCard(_Part):
    """An input column."""

    name: Text
    unit: Text | None = None
    description: Text | None = None


class ScalingCard(_Part):
    """What was done to the data before training: (x - mean) / scale, or (x - min) / (max - min)."""

    mean: Numbers | None = None
    scale: Numbers | None = None
    min: Numbers | None = None
    max: Numbers | None = None

    @model_validator(mode="after")
    def _one_pair(self) -> Self:
        given = {name for name in ("mean", "scale", "min", "max") if getattr(self, name) is not None}
        if given not in ({"mean", "scale"}, {"min", "max"}):
            raise ValueError("scaling is either mean and scale, or min and max")
        first, second = (self.mean, self.scale) if self.mean is not None else (self.min, self.max)
        if len(first or []) != len(second or []):
            raise ValueError("the two lists of scaling are of different lengths")
        if 0 in self.divisor or (self.max is not None and min(self.divisor) < 0):
            raise ValueError("no scale may be 0, and each max must be over its min")
        return self

    @property
    def offset(self) -> list[float]:
        """What is subtracted from each feature."""
        return self.mean or self.min or []

    @property
    def divisor(self) -> list[float]:
        """What each feature is then divided by."""
        if self.scale is not None:
            return self.scale
        return [high - low for low, high in zip(self.min or [], self.max or [], strict=True)]


VERSION = r"^[1-9][0-9]{0,17}$"


class Card(_Part):
    """The fields of a card; all are optional. An unknown one is an error, so that a slip of the pen is not silence."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    version: Annotated[str, BeforeValidator(_counted), Field(pattern=VERSION)] | None = None
    description: Text | None = None
    classes: Annotated[list[Text], Field(min_length=2), AfterValidator(_distinct)] | None = None
    features: list[Text | FeatureCard] | None = None
    scaling: ScalingCard | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    timesteps: Annotated[int, Field(gt=0, lt=1 << 24)] | None = None
    architecture: Annotated[str, Field(min_length=1)] | dict[str, Any] | list[dict[str, Any]] | None = None
    recurrent_activation: Text | None = None
    output_activation: Text | None = None
    metadata: dict[str, Any] = {}

    @property
    def columns(self) -> tuple[Feature, ...] | None:
        """The features as records, whichever way the card writes them."""
        if self.features is None:
            return None
        return tuple(
            Feature(name=feature) if isinstance(feature, str) else Feature(**feature.model_dump())
            for feature in self.features
        )

    @model_validator(mode="after")
    def _distinct_columns(self) -> Self:
        try:
            _distinct([column.name for column in self.columns or ()])
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
        return self


def stem_of(model: Path) -> str:
    """What the files beside a model are called by: a file's name without extension; a folder's, which may have dots."""
    return model.name if model.is_dir() else model.stem


def called(model: Path) -> tuple[str, str]:
    """The name and the version of a model without a card: a numbered folder is a version, as for KServe."""
    folder = model.absolute() if model.is_dir() else model.absolute().parent
    version = folder.name if re.fullmatch(VERSION, folder.name) else None
    name = folder.parent.name if version is not None and model.is_dir() else ""
    return name or stem_of(model), version or "1"


def path_of(model: Path) -> Path:
    """Where the card of a model lies: x.h5 has x.card.json."""
    return model.with_name(f"{stem_of(model)}.card.json")


def read(model: Path) -> Card:
    """The card beside a model; an empty one where there is none. Raises UnreadableFile with what is wrong."""
    path = path_of(model)
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Card()
    except OSError as error:
        raise UnreadableFile(f"its card {path.name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"its card {path.name} is larger than {MAX_BYTES >> 20} MiB")
    _expect_once(data, path.name)
    try:
        return Card.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = dict.fromkeys(_in_words(problem["loc"], problem["type"], problem["msg"]) for problem in found)
        raise UnreadableFile(f"its card {path.name} is wrong: {'; '.join(list(problems)[:5])}") from None


def _expect_once(data: bytes, name: str) -> None:
    """Refuse a field that is there twice, of which Pydantic would take the last."""
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return made

    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON, Pydantic says
        json.loads(data, object_pairs_hook=note)
    if twice:
        raise UnreadableFile(f"its card {name} is wrong: {twice[0][:100]!a} is there twice")


# What is expected of a field, where Pydantic's words would not say it.
EXPECTED = {
    "name": "expected letters, digits, '.', '_' and '-', a letter or a digit first",
    "version": 'expected a whole number from 1 on, such as "3"',
    "architecture": "expected the name of a file beside the card, or what model.to_json() gives, or a list of layers",
    "features": "expected names, or objects with a name and, where there are any, a unit and a description",
}


def _in_words(where: tuple[str | int, ...], kind: str, message: str) -> str:
    field = str(where[0])[:100] if where else "the card"
    if kind == "extra_forbidden" and len(where) == 1:
        near = difflib.get_close_matches(field, [*Card.model_fields, *SYNONYMS], n=1)
        meant = SYNONYMS.get(near[0], near[0]) if near else None
        fields = ", ".join(Card.model_fields)
        return f"{field} is not a field; " + (f"did you mean {meant}?" if meant else f"the fields are {fields}")
    if field in EXPECTED:
        # Where there are several forms, Pydantic has put the one that it has tried there.
        index = "".join(f".{part}" for part in where[1:2] if isinstance(part, int))
        return f"{field}{index}: {EXPECTED[field]}"
    place = ".".join(str(part)[:100] for part in where) or "the card"
    return f"{place}: {'is not a field' if kind == 'extra_forbidden' else message.removeprefix('Value error, ')}"


SYNONYMS = {"labels": "classes", "class_names": "classes", "columns": "features", "normalization": "scaling"}
