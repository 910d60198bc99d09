"""Health and metrics: what orchestration and Prometheus ask."""

import asyncio
from importlib import import_module
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.requests import Request

from lstm_serve.serving.health import READY, content, details, liveness, readiness
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.web.api_keys import may_know
from lstm_serve.web.openapi import problem_responses
from lstm_serve.web.schemas import Schema

# What orchestration asks, v2's own too: it has no key, and is no news.
PATHS = frozenset({"/livez", *READY, "/v2/health/live", "/v2/health/ready"})

# Not a parameter of the functions: FastAPI would then say that they answer 422 too.
VERBOSE = {"name": "verbose", "in": "query", "schema": {"type": "string"}, "allowEmptyValue": True}


class Health(Schema):
    """The status code says it all; `?verbose` lists the checks."""

    status: str
    checks: dict[str, bool] | None = Field(default=None, description="each check, with ?verbose")
    series_store: bool | None = Field(
        default=None, description="whether the store of series answers; what needs none of it is answered without"
    )
    refused: str | dict[str, str] | None = Field(
        default=None, description="why the model's newest files are not what is served; of several by their names"
    )
    missing: dict[str, str] | None = Field(default=None, description="why a worker is missing, by its number")


def router(serving: ServingState, registry: Registry) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["health"])
    more = serving.settings.health_route
    failing: dict[str, Any] = {
        "description": "Not so",
        "model": Health,
        "content": {"application/json": {"example": {"status": "failing"}}},
    }

    def answer(
        checks: dict[str, bool], request: Request, failed: int, missing: dict[str, str] | None = None
    ) -> JSONResponse:
        more = None
        if "verbose" in request.query_params:
            more = details(serving, registry)
            # What is wrong with a file is for those alone who may call, where that is restricted.
            more |= {"missing": missing} if missing else {}
            if not may_know(request):
                more.pop("refused", None)
                more.pop("missing", None)
        status = 200 if all(checks.values()) else failed
        return JSONResponse(content(checks, more), status, {"cache-control": "no-store"})

    async def livez(request: Request) -> JSONResponse:
        """Whether the process works: looks at nothing outside it."""
        return answer(liveness(registry), request, 500)

    async def readyz(request: Request) -> JSONResponse:
        """Whether to send requests here: 503 as soon as the service is stopping."""
        checks, missing = readiness(serving, registry), dict[str, str]()
        if serving.workers is not None:
            of_all, missing = await serving.workers.readiness()
            checks |= of_all
        return answer(checks, request, 503, missing)

    telling = asyncio.Lock()

    async def metrics() -> Response:
        """Everything Prometheus scrapes."""
        # In a thread, where others are answered meanwhile: the first time it takes 20 ms.
        exposition = await asyncio.to_thread(import_module, "lstm_serve.telemetry.prometheus")
        async with telling:
            await asyncio.sleep(0)  # it takes some milliseconds: once in an iteration of the loop, whoever asks
            if serving.workers is not None:
                content_type, of_all = await serving.workers.metrics()
                return Response(of_all, media_type=content_type)
            return Response(exposition.text(serving.metrics), media_type=exposition.CONTENT_TYPE)

    ready = READY if more is None or more in PATHS else (*READY, more)
    for path, endpoint, failed in (("/livez", livez, 500), *((path, readyz, 503) for path in ready)):
        routes.add_api_route(
            path,
            endpoint,
            response_model=Health,
            responses={failed: failing},
            methods=["GET"],
            openapi_extra={"parameters": [VERBOSE]},
        )
    responses: dict[int | str, dict[str, Any]] = {
        **problem_responses(401),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"},
    }
    routes.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response, responses=responses)
    return routes
