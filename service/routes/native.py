"""The native dialect: POST /predict, POST /predict/batch, GET /model."""

import re
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request

from service.answers import answers
from service.errors import Malformed, TooLarge
from service.live import Live
from service.routes import problem_responses
from service.routes.post import Answer, PostRoute, computed
from service.schemas import Body, ModelInfo, model_info, one_and_many, one_and_many_answers

ERRORS = problem_responses(400, 408, 413, 415, 422, 429, 500, 503, 504)
MODEL_HEADER = {"X-Model-Sha256": {"description": "the model that answered", "schema": {"type": "string"}}}


def router(live: Live) -> APIRouter:
    """The routes, with request and response models that are the served model's own."""
    One, Many = one_and_many(live.model)  # noqa: N806 - they are classes
    one_answer, many_answer = one_and_many_answers(live.model)
    routes = APIRouter(route_class=PostRoute, tags=["predict"])
    responses: dict[int | str, dict[str, Any]] = {200: {"headers": MODEL_HEADER}, **ERRORS}

    @routes.post("/predict", response_model=one_answer, responses=responses, summary="Answer one sequence")
    async def predict(body: One, request: Request) -> Answer:  # type: ignore[valid-type]
        return await predicted(live, body, request)

    @routes.post("/predict/batch", response_model=many_answer, responses=responses, summary="Answer several sequences")
    async def predict_batch(body: Many, request: Request) -> Answer:  # type: ignore[valid-type]
        return await predicted(live, body, request)

    about = APIRouter(tags=["model"])

    @about.get("/model", summary="What is being served", responses=problem_responses(500))
    async def served_model() -> ModelInfo:
        return model_info(live.model)

    routes.routes.extend(about.routes)
    return routes


async def predicted(live: Live, body: Body, request: Request) -> Answer:
    """Compute a body's sequences, and answer them."""
    model = live.model
    rows = body.rows
    if rows > live.settings.max_rows:
        raise TooLarge(f"the body has {rows} sequences; at most {live.settings.max_rows} are answered at once")
    live.batcher.check_room(rows)
    job = live.submit(model, body.array(model.input_dtype), timeout_of(request))
    found = answers(model, await computed(job, request))
    live.metrics.answered([a["predicted_class"] for a in found if "predicted_class" in a], job.queue_seconds, rows)
    content = {"predictions": found} if body.many else found[0]
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), model)


def timeout_of(request: Request) -> float | None:
    """The header X-Request-Timeout-Ms in seconds, or None where there is none."""
    given = request.scope["state"]["headers"].get(b"x-request-timeout-ms")
    if given is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,9}", given):
        raise Malformed("expected whole milliseconds in the header X-Request-Timeout-Ms")
    return int(given) / 1000
