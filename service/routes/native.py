"""The native dialect: POST /predict, POST /predict/batch, GET /model."""

import re
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request

from service.answers import answers
from service.errors import Malformed
from service.live import Live
from service.routes import problem_responses
from service.routes.post import Answer, PostRoute, computed
from service.schemas import Body, ModelInfo, model_info, one_and_many, one_and_many_answers

ERRORS = problem_responses(400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
MODEL_HEADER = {"X-Model-Sha256": {"description": "the model that answered", "schema": {"type": "string"}}}


def router(live: Live) -> APIRouter:
    """The routes, with request and response models that are the served model's own."""
    One, Many = one_and_many(live.model, live.settings.max_rows)  # noqa: N806 - they are classes
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

    @about.head("/model", include_in_schema=False)
    @about.get("/model", summary="What is being served", responses=problem_responses(401, 500))
    async def served_model() -> ModelInfo:
        return model_info(live.model)

    routes.routes.extend(about.routes)
    return routes


async def predicted(live: Live, body: Body, request: Request) -> Answer:
    """Compute a body's sequences, and answer them."""
    model = live.model
    live.batcher.check_room(body.rows)
    deadline = request.scope["state"]["arrived"] + timeout_of(request, live.settings.deadline_seconds)
    jobs = [live.batcher.submit(model, x, deadline) for x in body.arrays(model.input_dtype)]
    body.let_go()
    found = [answer for y in await computed(jobs, request) for answer in answers(model, y)]
    live.metrics.answered(
        [a["predicted_class"] for a in found if "predicted_class" in a], jobs[0].queue_seconds, len(found)
    )
    content = {"predictions": found} if body.many else found[0]
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), model)


def timeout_of(request: Request, longest: float) -> float:
    """The header X-Request-Timeout-Ms in seconds, `longest` at most and where there is none."""
    given = request.scope["state"]["headers"].get(b"x-request-timeout-ms")
    if given is None:
        return longest
    if not re.fullmatch(rb"[0-9]{1,9}", given):
        raise Malformed("expected whole milliseconds in the header X-Request-Timeout-Ms")
    return min(int(given) / 1000, longest)
