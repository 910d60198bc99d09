"""POST /series/{id}/rows and POST /series/rows: a device sends rows, and gets the answer to the window each ends."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import orjson
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field, create_model
from starlette.requests import Request

from lstm_serve.errors import (
    ComputeFailed,
    InvalidInput,
    LstmServeError,
    NoCarry,
    NoWindow,
    SeriesBusy,
    SeriesConflict,
    SeriesFull,
    SeveralWorkers,
    UnknownSeries,
)
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.series.lines import expect_time
from lstm_serve.serving.series.store import Appended, Key, Sent, Store
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.api_keys import Keys
from lstm_serve.web.dialects.model_path import MODEL, Documented, meant, parameters
from lstm_serve.web.dialects.native import MODEL_HEADER, errors_of
from lstm_serve.web.dialects.series.carried import (
    append_carried,
    append_many_carried,
    expect_carried,
    last_known,
    told,
)
from lstm_serve.web.dialects.series.computed import answers_or_errors, output_first, window_of
from lstm_serve.web.dialects.series.request import (
    ID_PATTERN,
    ManyRequest,
    ManyRows,
    append_type,
    expect_id,
    expect_query,
    expect_time_axis,
    many_type,
    sent,
)
from lstm_serve.web.errors import TABLE, problem, row_of
from lstm_serve.web.nested_lists import Body
from lstm_serve.web.openapi import problem_response, problem_responses
from lstm_serve.web.predict import (
    Answer,
    PostRoute,
    Predicted,
    PredictRequest,
    converted,
    deadline_of,
)
from lstm_serve.web.schemas import ANSWERS, AnyAnswer, AnyBody, ProblemDetails

log = logging.getLogger(__name__)

ID = {"name": "series", "in": "path", "required": True, "schema": {"type": "string", "pattern": ID_PATTERN}}
ALL = {
    "name": "answers",
    "in": "query",
    "schema": {"type": "string", "enum": ["last", "all"]},
    "description": "all: `answers` in place of `answer`, one for each row of the request",
}
AGAIN = "without `seq` a row that is sent again is appended again"
REFUSALS = (SeriesConflict, SeriesFull, SeriesBusy, NoWindow, NoCarry, SeveralWorkers)


class AppendRoute(PostRoute):
    """A POST that takes rows of one series."""

    def body_type(self, served: Served, settings: Settings) -> type[Body]:
        """That of rows."""
        expect_time_axis(served)
        return served.made(append_type, settings.max_rows)


class ManyRoute(PostRoute):
    """A POST that takes rows of many series."""

    def body_type(self, served: Served, settings: Settings) -> type[ManyRequest]:
        """That of rows with their series."""
        expect_time_axis(served)
        return served.made(many_type, settings.max_rows)


def router(serving: ServingState, registry: Registry, documented: Documented) -> APIRouter:
    """The routes; OpenAPI tells them with the documented models' own requests and answers."""
    routes = APIRouter(tags=["series"])
    for prefix in ("", MODEL):
        served = documented.of(prefix)
        if served is None or served.model.has_time_axis:
            _add_routes(routes, serving, registry, prefix, served)
    return routes


def _add_routes(
    routes: APIRouter, serving: ServingState, registry: Registry, prefix: str, served: Served | None
) -> None:
    """Add those of the paths that begin so."""
    most = serving.settings.max_rows
    Rows: Any = AnyBody  # noqa: N806 - they are classes
    Many: Any = AnyBody  # noqa: N806
    if served is not None:
        Rows, Many = served.made(append_type, most), served.made(many_type, most)  # noqa: N806
    state, appended, results = _answer_types(AnyAnswer if served is None else ANSWERS[served.model.kind])
    json: dict[int | str, dict[str, Any]] = {
        **errors_of(prefix, served),
        404: problem_response(TABLE[UnknownSeries]),
        409: problem_response(TABLE[SeriesConflict]),
        **problem_responses(501),
        200: {"headers": MODEL_HEADER},
    }

    async def append_rows(body: Rows, request: PredictRequest) -> Answer:
        with refusals_counted(request):
            return await _append(serving, cast("Body", body), request)

    async def append_rows_of_many(body: Many, request: PredictRequest) -> Answer:
        with refusals_counted(request):
            return await _append_many(serving, cast("ManyRows", body), request)

    async def series_state(request: Request) -> Response:
        """What is known of a series: its last number, and the answer to its last row."""
        return await _state(serving, *meant(registry, request), request)

    async def forget_series(request: Request) -> Response:
        """Forget a series, whether it is there or not."""
        (deployment, served), key = meant(registry, request), key_of(request)
        await store_of(deployment, served).forget(key)
        deployment.forgotten(key)
        return Response(status_code=204)

    named = parameters(served, prefix)["parameters"]
    for path, endpoint, route, response, extra, summary in (
        ("/series/rows", append_rows_of_many, ManyRoute, results, [], "Append rows of many series"),
        (
            "/series/{series}/rows",
            append_rows,
            AppendRoute,
            appended,
            [ID, ALL],
            "Append rows of a series",
        ),
    ):
        routes.add_api_route(
            prefix + path,
            endpoint,
            methods=["POST"],
            route_class_override=route,
            response_model=response,
            responses=json,
            openapi_extra={"parameters": [*named, *extra]},
            summary=summary,
        )
    of_path = {"parameters": [*named, ID]}
    refused = {404: json[404], 409: json[409], **problem_responses(401, 422, 429, 500, 501, 503, 504)}
    routes.add_api_route(
        f"{prefix}/series/{{series}}", series_state, response_model=state, responses=refused, openapi_extra=of_path
    )
    routes.add_api_route(
        f"{prefix}/series/{{series}}",
        forget_series,
        methods=["DELETE"],
        status_code=204,
        response_class=Response,
        responses={404: json[404], 409: json[409], **problem_responses(401, 422, 500, 501, 503)},
        openapi_extra=of_path,
    )


def _answer_types(one: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - a type
    """The answers of GET, of POST for one series, and of POST for many, with `one` of the model in each."""
    fields: dict[str, Any] = {
        "seq": (int | None, Field(description="the last row's number; null where rows have none")),
        "rows": (
            int,
            Field(description="of the window, how many are there; where states are carried, of how many rows"),
        ),
        "ready": (bool, Field(description="whether they make a window; always where states are carried")),
        "missing": (int | None, Field(default=None, description="how many are missing for that")),
        "answer": (one | None, Field(default=None, description="to the window that ends with the last row")),
    }
    age = (float, Field(description="seconds since the last row came"))
    state = create_model("SeriesState", __doc__="A series.", **fields, age_seconds=age)
    more: dict[str, Any] = {
        "answers": (
            list[one | ProblemDetails | None] | None,
            Field(default=None, description="with ?answers=all, for each row; where the model has none, what is wrong"),
        ),
        "duplicate": (bool | None, Field(default=None, description="true where all the rows were there already")),
        "reset": (str | None, Field(default=None, description="why the series began anew with these rows")),
        "filled": (int | None, Field(default=None, description="how many missing rows the last one stands for")),
        "note": (str | None, Field(default=None, description="what a series without numbers means")),
    }
    appended = create_model("AppendAnswer", __doc__="A series, once the rows are appended.", **fields, **more)
    each = (list[appended | ProblemDetails], Field(description="in the order of the rows"))  # type: ignore[valid-type]
    return state, appended, create_model("SeriesRowsAnswer", __doc__="Of each row, as of one.", results=each)


def store_of(deployment: Deployment, served: Served) -> Store:
    """The series of a deployment. Raises NoWindow, NoCarry, SeveralWorkers, or HTTPException: none without time."""
    expect_time_axis(served)
    if not deployment.has_all_series:
        raise SeveralWorkers(TABLE[SeveralWorkers].example)
    if served.model.is_stateful:
        expect_carried(deployment, served.carrying, served.model.not_carried)
    if deployment.series is None or (served.model.series_mode is None):
        raise NoWindow(TABLE[NoWindow].example)
    return deployment.series


def owner_of(request: Request) -> bytes:
    """Whose series a request sees: those that began with its API key."""
    keys: Keys | None = request.app.state.keys
    return b"" if keys is None else keys.owner(request.scope["state"]["headers"].get(b"authorization"))


def key_of(request: Request) -> Key:
    """What the series of a request's path is known by. Raises InvalidInput."""
    return Key(owner_of(request), expect_id(request.path_params["series"]))


@contextmanager
def refusals_counted(request: PredictRequest) -> Iterator[None]:
    """Count why a series does not take what came."""
    try:
        yield
    except REFUSALS as error:
        request.deployment.metrics.series_refused(row_of(error).slug)
        raise


async def _append(serving: ServingState, body: Body, request: PredictRequest) -> Answer:
    """Append rows to one series, and answer the last of them, or each."""
    deployment, model = request.deployment, request.served.model
    store, key = store_of(deployment, request.served), key_of(request)
    each = _wants_all(request)
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    (rows,) = await converted(body, request)
    given = sent(body, rows, model)
    body.let_go()
    carrying, after = request.served.carrying, None
    async with deployment.lines.of((key,), deadline):
        if carrying is not None:
            _expect_room(request, 1)
            done, ys = await append_carried(serving, carrying, store, key, given, request, deadline)
            fresh = [k >= len(ys) - done.fresh for k in range(len(ys))]
            found = told(ys, request, fresh) if each else told(ys[-1:], request, fresh[-1:])
        elif each and len(rows) > 1:
            _expect_room(request, len(rows))
            done = await deployment.append(store, key, given, model, request.drift)
            cut = [window_of(done, end, model) for end in done.ends]
            found = await answers_or_errors(serving, cut, request, deadline)
        else:
            done, part, after = await append_one(serving, key, given, request, deadline)
            found = [None] if part is None else answers(model, *part)
    result = _result(done, model)
    if each:
        result["answers"] = [_problem(each, request) if isinstance(each, ComputeFailed) else each for each in found]
    else:
        result["answer"] = found[0]
    return Answer(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY), after=after)


async def append_one(
    serving: ServingState, key: Key, given: Sent, request: PredictRequest, deadline: float
) -> tuple[Appended, Predicted | None, Callable[[], None] | None]:
    """Append rows to a series whose turn it is, and compute its last window, if there is one; see `output_first`."""
    _expect_room(request, 1)
    deployment, served = request.deployment, request.served
    done = await deployment.append(store_of(deployment, served), key, given, served.model, request.drift)
    return done, *await output_first(serving, key, done, request, deadline)


async def _append_many(serving: ServingState, body: ManyRows, request: PredictRequest) -> Answer:
    """Append a row to each of many series; of each the answer, or what is wrong with it."""
    expect_query(request)
    deployment, model = request.deployment, request.served.model
    store, owner, items = store_of(deployment, request.served), owner_of(request), body.items
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    request.scope["state"]["turn"].end()
    body.let_go()
    done: list[Appended | LstmServeError] = []
    async with deployment.lines.of({Key(owner, item[0]) for item in items if isinstance(item, tuple)}, deadline):
        _expect_room(request, len(items))
        if request.served.carrying is not None:
            done, found = await append_many_carried(
                serving, request.served.carrying, store, owner, items, request, deadline
            )
        else:
            for item in items:
                if isinstance(item, InvalidInput):
                    done.append(item)
                    continue
                name, given = item
                expect_time(deadline)
                try:
                    done.append(await deployment.append(store, Key(owner, name), given, model, request.drift))
                except REFUSALS as error:
                    done.append(error)
            cut = [window_of(each, each.ends[0], model) if isinstance(each, Appended) else None for each in done]
            found = await answers_or_errors(serving, cut, request, deadline)
    for each in done:
        if isinstance(each, REFUSALS):
            deployment.metrics.series_refused(row_of(each).slug)
    results: list[Any] = []
    for each, answer in zip(done, found, strict=True):
        told = answer if isinstance(answer, ComputeFailed) else each
        if isinstance(told, Appended):
            results.append({**_result(told, model), "answer": answer})
        else:
            results.append(_problem(told, request))
    return Answer(orjson.dumps({"results": results}, option=orjson.OPT_SERIALIZE_NUMPY))


def _problem(error: LstmServeError, request: PredictRequest) -> orjson.Fragment:
    """The error of one of several rows, as that of a request of its own."""
    request_id = request.scope["state"]["request_id"]
    if isinstance(error, ComputeFailed):
        log.error("request %s, of one of its rows: %s", request_id, error)
    return orjson.Fragment(problem(row_of(error), str(error), error, request_id))


def _expect_room(request: PredictRequest, count: int) -> None:
    """Raise QueueFull before anything is appended: what is appended is answered."""
    model = request.served.model
    request.deployment.queue.check_room(count)
    numbers = math.prod(size or 1 for size in model.input_shape)
    request.scope["state"]["held"].become(count * numbers * np.dtype(model.input_dtype).itemsize)


def _wants_all(request: Request) -> bool:
    expect_query(request, ALL)
    asked = request.query_params.get("answers", "last") if request.scope["query_string"] else "last"
    if asked not in {"last", "all"}:
        raise InvalidInput.at("expected as the query `answers` last or all")
    return asked == "all"


def _result(done: Appended, model: Model) -> dict[str, Any]:
    """What is said of a series besides the answer."""
    result = known_of(done.seq, done.kept, model)
    if not done.fresh:
        result["duplicate"] = True
    if done.begun is not None:
        result["reset"] = done.begun
    if done.filled:
        result["filled"] = done.filled
    if done.seq is None:
        result["note"] = AGAIN
    return result


def known_of(seq: int | None, kept: int, model: Model) -> dict[str, Any]:
    """What is said of a series whose last row has this number, with so many rows that are kept."""
    if model.series_mode == "carry":
        return {"seq": seq, "rows": kept, "ready": True}
    timesteps = model.input_shape[0] or 0
    result = {"seq": seq, "rows": min(kept, timesteps), "ready": kept >= timesteps}
    if kept < timesteps:
        result["missing"] = timesteps - kept
    return result


async def _state(serving: ServingState, deployment: Deployment, served: Served, request: Request) -> Response:
    """What is known of a series, and the answer to its last row, computed anew but where states are carried."""
    model = served.model
    known = await store_of(deployment, served).look(key_of(request))
    timesteps, count, answer = model.input_shape[0] or 0, len(known.rows), None
    if served.carrying is not None:
        count, answer = last_known(known, served.carrying)
    elif count >= timesteps:
        deadline = time.monotonic() + serving.settings.deadline_seconds
        answer = answers(
            model, await deployment.queue.submit(model, known.rows[np.newaxis, -timesteps:], deadline).future
        )[0]
    content = {**known_of(known.seq, count, model), "age_seconds": round(known.age, 3), "answer": answer}
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
