"""What devices send: rows of one series, or of many, with their numbers."""

import re
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, Problem
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.series.store import Sent
from lstm_serve.web.body_types import WholeNumber, names_of, rows_of_series, sequence
from lstm_serve.web.json_structure import count_marks, structure
from lstm_serve.web.nested_lists import FEW, Body, expect_few, json_of
from lstm_serve.web.predict import expect_one

# The names of paths are no ids, nor are those that clients and proxies leave out of a path.
ID_PATTERN = r"^(?!(rows|events|\.\.?)$)[A-Za-z0-9._:-]{1,128}$"
ID = re.compile(ID_PATTERN.removesuffix("$"))
ID_IN_WORDS = "an id: 1 to 128 letters, digits, '.', '_', ':' and '-', and none of rows, events, '.' and '..'"
MAX_SEQ = 1 << 53  # up to which each JSON parser has whole numbers
SEQ_IN_WORDS = f"a whole number from 0 to {MAX_SEQ}"
TIME = "in milliseconds or microseconds: nanoseconds are more than that"
ROW_KEYS = {"series", "row"}
NOT_YET = InvalidInput.at("not looked at yet")

IN_PATH = {"name": "series", "in": "path", "required": True, "schema": {"type": "string", "pattern": ID_PATTERN}}
INPUTS = {
    "name": "inputs",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "tell the rows too, as the model takes them",
}

Seq = Annotated[WholeNumber, Field(ge=0, le=MAX_SEQ)]


def expect_time_axis(served: Served) -> None:
    """Raise InvalidInput for several inputs, and HTTPException, as if nothing were here, where none has time."""
    if not served.model.has_time_axis:
        expect_one(served.model, "a series", "input")
        raise HTTPException(404)


def expect_id(name: object, *where: str | int) -> str:
    """Return the id of a series. Raises InvalidInput."""
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise InvalidInput.at(f"expected {ID_IN_WORDS}", *where)
    return name


def wants_inputs(request: Request) -> bool:
    """Whether the rows are to be told as well. Raises InvalidInput."""
    given = request.query_params.get("inputs", "false")
    if given not in {"true", "false"}:
        raise InvalidInput.at("expected as the query `inputs` true or false")
    return given == "true"


def append_type(model: Model, max_rows: int) -> type[Body]:
    """The type of the body of POST /series/{id}/rows."""
    of_time = model.about.series.seq == "time"
    text = f"{SEQ_IN_WORDS}, " + (f"the time of the one row, {TIME}" if of_time else "the last row's")
    fields: dict[str, tuple[Any, Any]] = {"seq": (Seq | None, Field(default=None, description=text))}
    if of_time:
        told = f"whole numbers from 0 to {MAX_SEQ}, ascending, the time of each row, {TIME}"
        fields["seqs"] = (list[Seq] | None, Field(default=None, description=told))
    made = rows_of_series("AppendRequest", "rows", model, max_rows, fields)
    made.__doc__ = "Rows of one series, in the order of time."
    return made


def sent(body: Body, rows: Array, model: Model) -> Sent:
    """The rows with their numbers. Raises InvalidInput where those are not as many, or do not ascend."""
    given: Any = body
    seq, seqs, count = given.seq, body.__dict__.get("seqs"), len(rows)
    if seqs is not None:
        if seq is not None or len(seqs) != count:
            raise InvalidInput.at(f"expected as `seqs` a number for each of the {count} rows, and no `seq`", "seqs")
        if any(later <= earlier for earlier, later in pairwise(seqs)):
            raise InvalidInput.at("expected numbers that ascend", "seqs")
        return Sent(rows, seqs)
    if seq is None:
        return Sent(rows, None)
    if model.about.series.seq == "time" and count > 1:
        raise InvalidInput.at("expected `seqs`, the time of each row, as the model's card numbers rows by time", "seq")
    if seq < count - 1:
        raise InvalidInput.at(f"expected the number of the last of {count} rows, {count - 1} or more", "seq")
    return Sent(rows, range(seq - count + 1, seq + 1))


class ManyRows:
    """Rows of many series: of each its series and what was sent, or why it cannot be taken."""

    def __init__(self, items: list[tuple[str, Sent] | InvalidInput]) -> None:
        """In the order in which they came."""
        self.items = items

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.items)

    def arrays(self, dtype: npt.DTypeLike) -> list[Array]:
        """The good ones, a row each, of the model's dtype already."""
        return [item[1].rows.astype(dtype, copy=False) for item in self.items if isinstance(item, tuple)]

    def let_go(self) -> None:
        """Forget them."""
        self.items = []


class ManyRequest(BaseModel):
    """Rows of many series; of those of one, in the order of time."""

    model_config = ConfigDict(extra="forbid")
    row_type: ClassVar[type[Body]]
    model: ClassVar[Model]

    @classmethod
    def parse(cls, raw: bytes) -> ManyRows:
        """The rows. Raises Malformed, TooLarge, or InvalidInput for what is no list of rows at all."""
        of = cls.row_type
        of.weigh(raw)
        parsed = json_of(raw)
        items = parsed.get("rows") if isinstance(parsed, dict) and parsed.keys() == {"rows"} else None
        if not isinstance(items, list) or not items:
            raise InvalidInput.at('expected {"rows": [{"series": id, "seq": number, "row": [...]}, ...]}')
        expect_few(len(items), of.max_rows, "rows")
        results: list[tuple[str, Sent] | InvalidInput] = []
        named: dict[int, tuple[str, int | None]] = {}
        for at, item in enumerate(items):
            try:
                named[at] = _item(item, at)
            except InvalidInput as error:
                results.append(error)
            else:
                results.append(NOT_YET)
        _expect_once(items, raw, good=len(named) == len(items))
        good = [*named]
        for start, stop in of.slices([items[at]["row"] for at in good]):
            some = good[start:stop]
            for at, row in zip(some, _rows(of, cls.model, items, some), strict=True):
                name, seq = named[at]
                results[at] = (
                    row if isinstance(row, InvalidInput) else (name, Sent(row, None if seq is None else [seq]))
                )
        return ManyRows(results)


def many_type(model: Model, max_rows: int) -> type[ManyRequest]:
    """The type of the body of POST /series/rows."""
    names = names_of(model.takes[0])
    given: dict[str, Any] = {
        "series": (
            Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})],
            Field(description="the id of the series"),
        ),
        "seq": (Seq | None, Field(default=None, description="the row's number or time")),
        "row": (sequence(model.input_shape[1:], model.id_limit, names), Field(description="the features' values")),
    }
    row = create_model("SeriesRow", __config__=ConfigDict(extra="forbid"), **given)
    rows: Any = Annotated[list[row], Field(min_length=1, max_length=max_rows)]  # type: ignore[valid-type]
    made = create_model("SeriesRowsRequest", __base__=ManyRequest, rows=(rows, ...))
    made.model, made.row_type = model, rows_of_series("Rows", "rows", model, max_rows, {})
    made.row_type.most_objects = FEW + max_rows * (2 if names else 1)
    made.row_type.texts = 4 + len(names or ())
    return made


def _item(item: object, at: int) -> tuple[str, int | None]:
    """The series and the number of a row. Raises InvalidInput."""
    where = ("rows", at)
    if not isinstance(item, dict) or not item.keys() >= ROW_KEYS or item.keys() - ROW_KEYS - {"seq"}:
        raise InvalidInput.at('expected an object with "series", "row", and "seq" or none', *where)
    seq = item.get("seq")
    seq = int(seq) if isinstance(seq, float) and seq.is_integer() else seq
    if seq is not None and (type(seq) is not int or not 0 <= seq <= MAX_SEQ):
        raise InvalidInput.at(f"expected {SEQ_IN_WORDS}", *where, "seq")
    return expect_id(item["series"], *where, "series"), seq


def _expect_once(items: list[Any], raw: bytes, *, good: bool) -> None:
    """Raise InvalidInput where a key or a name is there twice, of which a parser takes the last.

    In `good` items a row is numbers, with names or without; where it is not, or they are not good, all are searched.
    """
    (texts,) = count_marks(structure(raw), '"')
    if good and texts == 1 + sum(
        len(item) + 1 + (len(item["row"]) if isinstance(item["row"], dict) else 0) for item in items
    ):
        return
    if texts != 1 + _texts(items):
        raise InvalidInput.at("expected each key once", "rows")


def _texts(parsed: object) -> int:
    """How many keys and other texts there are in parsed JSON."""
    texts, left = 0, [parsed]
    while left:
        each = left.pop()
        if isinstance(each, str):
            texts += 1
        elif isinstance(each, list):
            left += each
        elif isinstance(each, dict):
            texts += len(each)
            left += each.values()
    return texts


def _rows(of: type[Body], model: Model, items: list[dict[str, Any]], some: list[int]) -> list[Array | InvalidInput]:
    """Each of some rows as an array (1, *features), or what is wrong with it."""
    try:
        x = np.concatenate(list(of.of({"rows": [items[at]["row"] for at in some]}).arrays(model.input_dtype)))
        return [x[k : k + 1] for k in range(len(some))]
    except InvalidInput as error:
        if len(some) > 1:
            return [_rows(of, model, items, [at])[0] for at in some]
        at = some[0]
        return [InvalidInput([Problem(("rows", at, "row", *where[2:]), told) for where, told in error.problems])]
