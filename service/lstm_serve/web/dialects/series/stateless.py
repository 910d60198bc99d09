"""POST /predict/series: a longer series in one request, an answer for each of its windows. Nothing of it is kept."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from pydantic import Field, create_model

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, Malformed, TooLarge
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.model.windows import last_rows, windows
from lstm_serve.scoring.inputs import Sequences, UnitSequences, read_csv
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.state import ServingState
from lstm_serve.serving.turns import Turn
from lstm_serve.settings import Settings
from lstm_serve.web.body_types import WholeNumber, rows_of_series
from lstm_serve.web.content_type import media_type, preferred
from lstm_serve.web.dialects.model_path import MODEL, Documented, parameters
from lstm_serve.web.dialects.native import CSV, MODEL_HEADER, NPY, NPY_CONTENT, NpyBody, errors_of, npy_answer, npy_of
from lstm_serve.web.dialects.series.request import INPUTS, expect_time_axis, wants_inputs
from lstm_serve.web.errors import JSON
from lstm_serve.web.nested_lists import Body
from lstm_serve.web.predict import (
    Answer,
    Decoded,
    PostRoute,
    PredictRequest,
    computed_classes,
    converted,
    deadline_of,
)
from lstm_serve.web.query import expect_query
from lstm_serve.web.schemas import ANSWERS, AnyAnswer, AnyBody, Schema

LARGEST_STRIDE = 1 << 31
LINE_END = re.compile(rb"[\r\n]")
CSV_CONTENT = {CSV.decode(): {"schema": {"type": "string", "description": "with a header, a line for each row"}}}
STRIDE = {"name": "stride", "in": "query", "schema": {"type": "integer", "minimum": 1}, "description": "as in the body"}
BY = {
    "name": "by",
    "in": "query",
    "schema": {"type": "array", "items": {"type": "string"}},
    "description": "of CSV, the columns that name the unit a row is of: each is a series of its own",
}


@dataclass(eq=False)
class CsvText:
    """A CSV file, not yet looked at: the query says which of its columns are keys."""

    raw: bytes
    size = 1

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:
        """None: `read_csv` reads it."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Forget the text."""
        del self.raw


class SeveralUnits(Schema):
    """A column, left out, that looks as if it told units apart."""

    by: str = Field(description="its name, for the query `by`")
    keys: list[str] = Field(description="of each unit, in the order of the rows")
    last: list[int] = Field(description="the last row of each, from 1")


class SeriesRoute(PostRoute):
    """A POST that takes the rows of a series as JSON, as a .npy file, or as CSV."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The body, as its content type says."""
        expect_time_axis(served)
        sent_as = media_type(headers)
        if sent_as == NPY:
            return NpyBody(npy_of(raw), served.model.checked_rows)
        if sent_as != CSV:
            return super().decode(raw, headers, served, settings)
        if not raw.strip():
            raise Malformed("the body is empty; expected CSV")
        timesteps, *row = served.model.input_shape  # of ids, where a row has no shape, a line is a sequence
        if row and timesteps not in {None, 1} and not LINE_END.search(raw.strip()):
            raise InvalidInput.at(
                "holds one line; expected a header and a line for each row (curl -d leaves a file's line ends out, and "
                "--data-binary @name sends it as it is)"
            )
        return CsvText(raw)

    def body_type(self, served: Served, settings: Settings) -> type[Body]:
        """That of rows."""
        return served.made(_request_type, settings.max_body_bytes)


def router(serving: ServingState, documented: Documented) -> APIRouter:
    """The route; OpenAPI tells it with the documented models' own requests and answers."""
    routes = APIRouter(tags=["series"], route_class=SeriesRoute)
    for prefix in ("", MODEL):
        served = documented.of(prefix)
        if served is None or served.model.has_time_axis:
            _add_route(routes, serving, prefix, served)
    return routes


def _add_route(routes: APIRouter, serving: ServingState, prefix: str, served: Served | None) -> None:
    Series: Any = AnyBody  # noqa: N806 - it is a class
    if served is not None:
        Series = served.made(_request_type, serving.settings.max_body_bytes)  # noqa: N806
    one: Any = AnyAnswer if served is None else ANSWERS[served.model.kind]
    answer = create_model(
        "SeriesAnswer",
        __doc__="An answer for each window, and the number of its last row, from 1.",
        rows=(list[int], Field(description="where each window ends: of CSV with several units, in the file")),
        predictions=(list[one], Field(description="in the order of the rows")),
        keys=(list[dict[str, str]] | None, Field(default=None, description="of CSV with `by`, whose each is")),
        inputs=(list[list[float]] | None, Field(default=None, description="with `inputs`, each row of the series")),
        units=(
            SeveralUnits | None,
            Field(default=None, description="of CSV without `by`, which rows seem to be of which"),
        ),
        notes=(list[str] | None, Field(default=None, description="of CSV, what was done to read it, if anything")),
    )

    of_path = parameters(served, prefix)["parameters"]

    @routes.post(
        f"{prefix}/predict/series",
        summary="Answer each window of a series",
        response_model=answer,
        responses={**errors_of(prefix, served), 200: {"headers": MODEL_HEADER, "content": NPY_CONTENT}},
        openapi_extra={
            "requestBody": {"content": {**NPY_CONTENT, **CSV_CONTENT}},
            "parameters": [*of_path, STRIDE, BY, INPUTS],
        },
    )
    async def predict_series(body: Series, request: PredictRequest) -> Answer:
        decoded = cast("Body | NpyBody | CsvText", body)
        return await _answered(serving, decoded, request)


def _request_type(model: Model, max_bytes: int) -> type[Body]:
    timesteps, *features = model.input_shape
    # A row takes two bytes a number at least.
    most = max_bytes // (2 * max(1, int(np.prod([size or 1 for size in features]))))
    free = timesteps is None
    told = "1: to this model a series is one sequence" if free else "a whole number from 1 on"
    stride = Annotated[WholeNumber, Field(ge=1, le=1 if free else LARGEST_STRIDE)]
    field = Field(default=1, description=f"{told}, rows from one window to the next")
    made = rows_of_series("PredictSeriesRequest", "series", model, most, {"stride": (stride, field)}, timesteps or 1)
    made.__doc__ = "The rows of one series, in the order of time."
    return made


async def _answered(serving: ServingState, body: Body | NpyBody | CsvText, request: PredictRequest) -> Answer:
    """Answer each window: as JSON, or where the client prefers it the model's output as a .npy file."""
    model, most = request.served.model, serving.settings.max_rows
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    stride, by = _asked(body, request)
    telling = _telling(request, stride, by)
    if isinstance(body, CsvText):
        sequences = await _read(body, request, stride, by)
        _expect_few(sum(len(part.x) for part in sequences.parts), request, most)
    else:
        _expect_few(_count(body.size, model, stride), request, most)
        sequences = await _cut(body, request, stride)
    body.let_go()
    arrays = [part.x.astype(model.input_dtype, copy=False) for part in sequences.parts]
    found = await computed_classes(serving, arrays, request, deadline)
    if preferred(request.scope["state"]["headers"], NPY, JSON[1]) == NPY:
        return npy_answer(found)
    content: dict[str, Any] = {
        "rows": [number for part in sequences.parts for number in part.numbers],
        "predictions": [answer for part in found for answer in answers(model, *part)],
    }
    if telling:
        x = sequences.parts[0].x
        content["inputs"] = _rows(x) if sequences.noun == "row" else x
    if by:
        content["keys"] = [
            dict(zip(by, part.key, strict=True)) for part in sequences.parts for _ in range(len(part.numbers))
        ]
    if sequences.units is not None:
        content["units"] = sequences.units._asdict()
    if notes := [*sequences.notes, *([] if sequences.mixed is None else [sequences.mixed])]:
        content["notes"] = notes
    return Answer.of(content)


async def _read(body: CsvText, request: PredictRequest, stride: int, by: tuple[str, ...]) -> Sequences:
    """The windows of a CSV file. Of 2 MB that is 150 ms: in a thread others wait for no more than a switch interval."""
    turn: Turn = request.scope["state"]["turn"]
    read = partial(read_csv, body.raw, request.served.model, stride, by)
    sequences = await asyncio.to_thread(read) if turn.begun else read()
    turn.end()
    return sequences


async def _cut(body: Body | NpyBody, request: PredictRequest, stride: int) -> Sequences:
    """The windows of rows."""
    (rows,) = await converted(body, request)
    timesteps = request.served.model.input_shape[0]
    last = last_rows(len(rows), timesteps, stride)
    return Sequences((UnitSequences(windows(rows, timesteps, stride), [place + 1 for place in last]),), "row")


def _expect_few(count: int, request: PredictRequest, most: int) -> None:
    """Raise TooLarge for more windows than are answered at once, or QueueFull where they have no room."""
    if count > most:
        timesteps = request.served.model.input_shape[0]
        overlap = "" if timesteps is None else f" that overlap by {timesteps - 1} rows"
        raise TooLarge(f"the series has {count} windows; at most {most} are answered at once: send parts{overlap}")
    request.deployment.queue.check_room(count)


def _asked(body: Body | NpyBody | CsvText, request: PredictRequest) -> tuple[int, tuple[str, ...]]:
    """The stride and the key columns that a request asks for."""
    expect_query(request, STRIDE, BY, INPUTS)
    by = tuple(dict.fromkeys(request.query_params.getlist("by")))
    if by and not isinstance(body, CsvText):
        raise InvalidInput.at("the query `by` names columns of a CSV file, and the body is none")
    given = request.query_params.get("stride")
    if isinstance(body, Body) and "stride" in body.model_fields_set:
        if given is not None:
            raise InvalidInput.at("the stride is there twice, in the query and in the body")
        return int(cast("Any", body).stride), by
    if given is None:
        return 1, by
    if not (given.isascii() and given.isdecimal() and 0 < int(given[:15]) <= LARGEST_STRIDE):
        raise InvalidInput.at("expected as the query `stride` a whole number from 1 on")
    return int(given), by


def _telling(request: PredictRequest, stride: int, by: tuple[str, ...]) -> bool:
    """Whether a request asks for the rows as well."""
    telling = wants_inputs(request)
    if telling and (stride != 1 or by):
        raise InvalidInput.at("the query `inputs` goes with a stride of 1, and without `by`")
    return telling


def _rows(x: Array) -> Array:
    """The rows of which x (n, timesteps, ...) are the windows, one row apart: (n + timesteps - 1, features)."""
    rows = np.concatenate([x[0], x[1:, -1]])
    return rows.reshape(len(rows), -1)


def _count(rows: int, model: Model, stride: int) -> int:
    """How many windows so many rows have."""
    timesteps = model.input_shape[0]
    if timesteps is None and stride != 1:
        raise InvalidInput.at("expected a stride of 1, as a series is one sequence to this model")
    if timesteps is not None and rows < timesteps:
        raise InvalidInput.at(f"the series has {rows} rows, and the model needs {timesteps} for an answer")
    return len(last_rows(rows, timesteps, stride))
