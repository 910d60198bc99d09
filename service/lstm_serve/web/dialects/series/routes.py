"""POST /series/{id}/rows and POST /series/rows: a device sends rows, and gets the answer to the window each ends."""

import logging
import time
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
    SeriesConflict,
    UnknownSeries,
)
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.series.store import Appended, SeriesKey
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.dialects.model_path import MODEL, Documented, meant, parameters
from lstm_serve.web.dialects.native import MODEL_HEADER, errors_of
from lstm_serve.web.dialects.series.appending import (
    REFUSALS,
    Appending,
    count_refusal,
    key_of,
    known_of,
    owner_of,
    refusals_counted,
    store_of,
)
from lstm_serve.web.dialects.series.carried import kept_answers
from lstm_serve.web.dialects.series.request import (
    IN_PATH,
    ManyRequest,
    ManyRows,
    append_type,
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
    PredictRequest,
    converted,
    deadline_of,
)
from lstm_serve.web.query import expect_query
from lstm_serve.web.schemas import ANSWERS, AnyAnswer, AnyBody, ProblemDetails

log = logging.getLogger(__name__)

ALL = {
    "name": "answers",
    "in": "query",
    "schema": {"type": "string", "enum": ["last", "all"]},
    "description": "all: `answers` in place of `answer`, one for each row of the request",
}
AGAIN = "without `seq` a row that is sent again is appended again"


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
        await deployment.forget(store_of(deployment, served), key)
        return Response(status_code=204)

    named = parameters(served, prefix)["parameters"]
    for path, endpoint, route, response, extra, summary in (
        ("/series/rows", append_rows_of_many, ManyRoute, results, [], "Append rows of many series"),
        ("/series/{series}/rows", append_rows, AppendRoute, appended, [IN_PATH, ALL], "Append rows of a series"),
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
    of_path = {"parameters": [*named, IN_PATH]}
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


async def _append(serving: ServingState, body: Body, request: PredictRequest) -> Answer:
    """Append rows to one series, and answer the last of them, or each."""
    deployment, model = request.deployment, request.served.model
    store, key = store_of(deployment, request.served), key_of(request)
    each = _wants_all(request)
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    (rows,) = await converted(body, request)
    given = sent(body, rows, model)
    body.let_go()
    appending = Appending(serving, request, store, deadline)
    async with deployment.locks.hold((key,), deadline):
        if each and len(rows) > 1:
            done, found, after = *await appending.each(key, given), None
        else:
            done, answer, after = await appending.last(key, given)
            found = [answer]
    result = _result(done, model)
    if each:
        result["answers"] = [_problem(each, request) if isinstance(each, ComputeFailed) else each for each in found]
    else:
        result["answer"] = found[0]
    return Answer.of(result, after)


async def _append_many(serving: ServingState, body: ManyRows, request: PredictRequest) -> Answer:
    """Append a row to each of many series; of each the answer, or what is wrong with it."""
    expect_query(request)
    deployment, model = request.deployment, request.served.model
    store, owner, items = store_of(deployment, request.served), owner_of(request), body.items
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    request.scope["state"]["turn"].end()
    body.let_go()
    async with deployment.locks.hold(
        {SeriesKey(owner, item[0]) for item in items if isinstance(item, tuple)}, deadline
    ):
        done, found = await Appending(serving, request, store, deadline).many(owner, items)
    for each in done:
        if isinstance(each, REFUSALS):
            count_refusal(each, request)
    results: list[Any] = []
    for each, answer in zip(done, found, strict=True):
        told = answer if isinstance(answer, ComputeFailed) else each
        if isinstance(told, Appended):
            results.append({**_result(told, model), "answer": answer})
        else:
            results.append(_problem(told, request))
    return Answer.of({"results": results})


def _problem(error: LstmServeError, request: PredictRequest) -> orjson.Fragment:
    """The error of one of several rows, as that of a request of its own."""
    request_id = request.scope["state"]["request_id"]
    if isinstance(error, ComputeFailed):
        log.error("request %s, of one of its rows: %s", request_id, error)
    return orjson.Fragment(problem(row_of(error), str(error), error, request_id))


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


async def _state(serving: ServingState, deployment: Deployment, served: Served, request: Request) -> Response:
    """What is known of a series, and the answer to its last row, computed anew but where states are carried."""
    model = served.model
    known = await store_of(deployment, served).look(key_of(request))
    timesteps, count, answer = model.input_shape[0] or 0, len(known.rows), None
    if served.carrying is not None:
        count, (answer,) = kept_answers(known, served.carrying, count - 1, count)
    elif count >= timesteps:
        deadline = time.monotonic() + serving.settings.deadline_seconds
        answer = answers(
            model, await deployment.queue.submit(model, known.rows[np.newaxis, -timesteps:], deadline).future
        )[0]
    content = {**known_of(known.seq, count, model), "age_seconds": round(known.age, 3), "answer": answer}
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
