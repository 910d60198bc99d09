"""The card, `<stem>.card.json`: what a person adds to a model that its file does not tell."""

import contextlib
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.folder import opened
from lstm_serve.formats.text import decode, not_utf8
from lstm_serve.limits import MODEL_NAME
from lstm_serve.loading.sidecars import scaling as scalings
from lstm_serve.loading.sidecars.scaling import ScalingCard
from lstm_serve.model.files import ModelFiles, stem_of
from lstm_serve.model.metadata import THRESHOLD, Feature

MAX_BYTES = 4 << 20


def _printable(text: str) -> str:
    if not text.replace("\n", " ").isprintable():
        raise ValueError("holds control characters")
    return text


PrintableText = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]


def _distinct(texts: list[str]) -> list[str]:
    if len(set(texts)) != len(texts):
        raise ValueError("each name must be given once")
    return texts


def _counted(version: object) -> object:
    return str(version) if type(version) is int else version


def _or_empty(given: object) -> object:
    return {} if given is None else given


def _without_nulls(given: object) -> object:
    if isinstance(given, dict):
        return {key: value for key, value in given.items() if value is not None}
    return _or_empty(given)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class FeatureCard(_Part):
    """An input column."""

    name: PrintableText
    unit: PrintableText | None = None
    description: PrintableText | None = None


class SeriesCard(_Part):
    """What the numbers of a series' rows mean, and what becomes of one with a gap."""

    seq: Literal["counter", "time"] = "counter"
    gap: Literal["refuse", "reset", "last"] = "refuse"

    @model_validator(mode="after")
    def _of_a_counter(self) -> Self:
        if self.seq == "time" and "gap" in self.model_fields_set:
            raise ValueError("of rows that are numbered by time nothing tells a gap: leave gap out")
        return self


VERSION = r"^[1-9][0-9]{0,17}$"

ModelName = Annotated[str, Field(pattern=rf"^{MODEL_NAME}$")]
Features = list[PrintableText | FeatureCard]
ClassNames = Annotated[list[PrintableText], Field(min_length=2), AfterValidator(_distinct)]
Threshold = Annotated[float, Field(gt=0, le=1)]


class _WithFeatures(_Part):
    """What has columns."""

    @property
    def columns(self) -> tuple[Feature, ...] | None:
        """The features as records, whichever way the card writes them."""
        features: Features | None = getattr(self, "features", None)
        if features is None:
            return None
        return tuple(
            Feature(name=feature) if isinstance(feature, str) else Feature(**feature.model_dump())
            for feature in features
        )

    @model_validator(mode="after")
    def _distinct_columns(self) -> Self:
        try:
            _distinct([column.name for column in self.columns or ()])
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
        return self


class InputCard(_WithFeatures):
    """What is said of one input by its name in the file: another name, its columns, how it was scaled."""

    name: ModelName | None = None
    features: Features | None = None
    scaling: ScalingCard | None = None


class OutputCard(_Part):
    """What is said of one output by its name in the file: another name, its classes, how it was scaled."""

    name: ModelName | None = None
    classes: ClassNames | None = None
    threshold: Threshold | None = None
    scaling: ScalingCard | None = None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The classes, as a model has them."""
        return None if self.classes is None else tuple(self.classes)

    @property
    def from_on(self) -> float:
        """The probability from which on a class is predicted that is not one of several."""
        return THRESHOLD if self.threshold is None else self.threshold


class Card(_WithFeatures):
    """The fields of a card; all are optional. An unknown one is an error, so that a slip of the pen is not silence."""

    name: ModelName | None = None
    version: Annotated[str, BeforeValidator(_counted), Field(pattern=VERSION)] | None = None
    description: PrintableText | None = None
    classes: ClassNames | None = None
    features: Features | None = None
    scaling: ScalingCard | None = None
    output_scaling: ScalingCard | None = None
    threshold: Threshold | None = None
    inputs: dict[PrintableText, InputCard] | None = None
    outputs: dict[PrintableText, OutputCard] | None = None
    timesteps: Annotated[int, Field(gt=0, lt=1 << 24)] | None = None
    architecture: Annotated[str, Field(min_length=1)] | dict[str, Any] | list[dict[str, Any]] | None = None
    recurrent_activation: PrintableText | None = None
    output_activation: PrintableText | None = None
    hidden_activation: PrintableText | None = None
    return_sequences: bool | None = None
    mask_zero: bool | None = None
    series: Annotated[SeriesCard, BeforeValidator(_without_nulls)] = SeriesCard()
    metadata: Annotated[dict[str, Any], BeforeValidator(_or_empty)] = {}


def name_and_version(model: Path) -> tuple[str, str]:
    """The name and the version of a model without a card: a numbered folder is a version, as for KServe."""
    folder = model.absolute() if model.is_dir() else model.absolute().parent
    version = folder.name if re.fullmatch(VERSION, folder.name) else None
    name = folder.parent.name if version is not None and model.is_dir() else ""
    return name or stem_of(model), version or "1"


def read(files: ModelFiles) -> Card:
    """The card beside a model; an empty one where there is none. Raises UnreadableFile with what is wrong."""
    return _read(files.card)


def is_card(path: Path) -> bool:
    """Whether a file of another name holds a card, and not an empty one."""
    try:
        return bool(_read(path).model_fields_set)
    except UnreadableFile:
        return False


def _read(path: Path) -> Card:
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Card()
    except OSError as error:
        raise UnreadableFile(f"its card {path.name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"its card {path.name} is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = decode(data)
    except UnicodeDecodeError:
        raise UnreadableFile(f"its card {path.name} {not_utf8(data)}") from None
    _expect_once(text, path.name)
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems: dict[object, str] = {}  # the first of each fault, where the items of a list have it
        for problem in found:
            where, fault = problem["loc"], problem["type"]
            list_of = tuple(part for part in where if not isinstance(part, int))
            problems.setdefault((list_of, fault), _in_words(where, fault, problem["msg"]))
        wrong = list(dict.fromkeys(problems.values()))[:5]
        raise UnreadableFile(f"its card {path.name} is wrong: {'; '.join(wrong)}") from None


def _expect_once(text: str, name: str) -> None:
    """Refuse a field that is there twice, of which Pydantic would take the last."""
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return made

    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON, Pydantic says
        json.loads(text, object_pairs_hook=note)
    if twice:
        raise UnreadableFile(f"its card {name} is wrong: {twice[0][:100]!a} is there twice")


# What is expected of a field.
TEXT = "expected text, of at most 1000 characters"
NAME = 'expected the name of an activation, such as "sigmoid"'
SCALING = f"expected an object with {scalings.FORMS}, each a list of numbers"
ITEMS = {
    "classes": 'expected a text, such as "{}"',
    "scaling": "expected a finite number",
    "output_scaling": "expected a finite number",
}
EXPECTED = {
    "the card": 'expected an object, such as {"classes": ["good", "bad"]}',
    "name": "expected letters, digits, '.', '_' and '-', a letter or a digit first",
    "version": 'expected a whole number from 1 on, such as "3"',
    "description": TEXT,
    "classes": 'expected a list of two or more texts, such as ["good", "bad"]',
    "features": "expected names, or objects with a name and, where there are any, a unit and a description",
    "scaling": SCALING,
    "output_scaling": SCALING,
    "threshold": "expected a number above 0, and at most 1",
    "timesteps": "expected a whole number from 1 on",
    "architecture": "expected the name of a file beside the card, or what model.to_json() gives, or a list of layers",
    "recurrent_activation": NAME,
    "output_activation": NAME,
    "hidden_activation": NAME,
    "return_sequences": "expected true, of a last layer that gives every step, or false",
    "mask_zero": "expected true, of an Embedding that masks the id 0, or false",
    "series": 'expected an object with seq, "counter" or "time", and gap, "refuse", "reset" or "last"',
    "series.seq": 'expected "counter" or "time"',
    "series.gap": 'expected "refuse", "reset" or "last"',
    "metadata": "expected an object",
    "inputs": 'expected an object, such as {"sensors": {"features": ["temperature"]}}',
    "outputs": 'expected an object, such as {"state": {"classes": ["good", "bad"]}}',
}
SYNONYMS = {"labels": "classes", "class_names": "classes", "columns": "features", "normalization": "scaling"}


# What there is of each input and output by its name.
BY_NAME: dict[str, type[_Part]] = {"inputs": InputCard, "outputs": OutputCard}


def _in_words(where: tuple[str | int, ...], fault: str, message: str, of: type[_Part] = Card) -> str:
    """What is wrong at a place of the card: ours where a validator of ours said it, else what was expected there."""
    if len(where) > 2 and where[0] in BY_NAME:  # what is said there is told as the card's own field of that name
        of_part = _in_words(where[2:], fault, message, BY_NAME[str(where[0])])
        return f"{where[0]}.{str(where[1])[:100]}.{of_part}"
    field = str(where[0])[:100] if where else "the card"
    if fault == "json_invalid":
        deep = "recursion" in message
        wrong = "nested too deeply" if deep else f"not valid JSON, {message.removeprefix('Invalid JSON: ')}"
        return f"{field}: is {wrong}"
    if fault == "extra_forbidden":
        return _surplus(field, where, of)
    # Where there are several forms, Pydantic has put the one that it has tried there.
    several = field in {"architecture", "features"}
    parts = [part for part in where[:2] if part == field or isinstance(part, int)] if several else where
    place = ".".join(str(part)[:100] for part in parts) or field
    if fault == "value_error" and not several:
        own = message.removeprefix("Value error, ")
        return f"{place}: {own}" if where else own
    return f"{place}: {_expected(field, where)}"


def _surplus(field: str, where: tuple[str | int, ...], of: type[_Part]) -> str:
    if len(where) == 1:
        return _unknown(field, of.model_fields, SYNONYMS)
    if field == "series":
        return f"series.{_unknown(str(where[1])[:100], SeriesCard.model_fields, {})}"
    if field in {"scaling", "output_scaling"}:
        unknown = _unknown(str(where[1])[:100], ScalingCard.model_fields, scalings.SYNONYMS)
        return f"{field}.{unknown}{'' if unknown.endswith('?') else '.'} It is {scalings.FORMS}"
    return f"{field}: {_expected(field, where)}"


def _expected(field: str, where: tuple[str | int, ...]) -> str:
    last = where[-1] if where else None
    if isinstance(last, int) and field in ITEMS:
        return ITEMS[field].format(last)
    if len(where) > 1 and field in ITEMS:
        return "expected a list of numbers"
    return EXPECTED.get(".".join(map(str, where)), EXPECTED[field])


def _unknown(name: str, fields: Iterable[str], synonyms: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name, [*fields, *synonyms], n=1)
    meant = synonyms.get(near[0], near[0]) if near else None
    return f"{name} is not a field; " + (f"did you mean {meant}?" if meant else f"the fields are {', '.join(fields)}")
