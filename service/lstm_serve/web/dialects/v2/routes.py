"""The routes of v2, and what tritonclient asks beside.

Protocol: inference_rest.md of kserve/open-inference-protocol; extension_model_configuration.md,
extension_statistics.md and extension_model_repository.md of triton-inference-server/server.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import Request

from lstm_serve import __version__
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.health import is_ready, liveness
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.dialects.model_path import MODEL, VERSION, Documented, example_name, meant, model_of, parameters
from lstm_serve.web.dialects.v2.codec import HEADER_LENGTH, Infer, decode, encode
from lstm_serve.web.dialects.v2.metadata import example, model_config, model_metadata, statistics
from lstm_serve.web.dialects.v2.schemas import (
    IndexEntry,
    InferAnswer,
    InferRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from lstm_serve.web.dialects.v2.sequences import in_sequence
from lstm_serve.web.openapi import not_so, plain_responses
from lstm_serve.web.predict import Answer, Decoded, PostRoute, Predicted, PredictRequest, predicted
from lstm_serve.web.schemas import ModelNames

EXTENSIONS = [
    *("binary_tensor_data", "model_configuration", "model_repository", "parameters"),
    *("sequence", "sequence(string_id)", "statistics"),
]

TAGS: list[str | Enum] = ["open inference v2"]

PREFIXES = (f"/v2{MODEL}", f"/v2{VERSION}")

OCTETS = b"application/octet-stream"

ERRORS = plain_responses(400, 404, 408, 409, 413, 415, 429, 500, 501, 503, 504)

NOT_FOUND = plain_responses(404, 500)

BINARY = {
    OCTETS.decode(): {
        "schema": {"type": "string", "format": "binary", "description": "the JSON, and the binary tensors after it"}
    }
}

LENGTH_HEADER = {
    "name": "Inference-Header-Content-Length",
    "description": "the length of the JSON, where binary tensors follow it",
    "schema": {"type": "integer", "minimum": 0},
}


class InferRoute(PostRoute):
    """A POST that takes v2's requests, with binary tensors or without, whatever their content type."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The request."""
        return decode(served.model, raw, headers, *settings.sizes)


def router(serving: ServingState, registry: Registry, documented: Documented) -> APIRouter:
    """The routes; literal paths go before those that take any name."""
    routes, served = _infer_routes(serving, documented.only), documented.only
    routes.routes.extend([*_server_routes(serving, registry).routes, *_model_routes(serving, registry, served).routes])
    return routes


def _infer_routes(serving: ServingState, served: Served | None) -> APIRouter:
    routes = APIRouter(route_class=InferRoute, tags=TAGS)
    examples = {} if served is None else {"application/json": {"example": example(served.model)}}

    async def infer(body: InferRequest, request: PredictRequest) -> Answer:
        asked = cast("Infer", body)
        part: Predicted | None
        after = None
        if asked.head.sequence is None:
            (part,) = await predicted(serving, asked, request, asked.head.timeout)
        else:
            part, after = await in_sequence(serving, asked, asked.head.sequence, request)
        content, length = encode(request.served.model, part, asked.head)
        if length is None:
            return Answer(content, after=after)
        return Answer(content, [(b"content-type", OCTETS), (HEADER_LENGTH, b"%d" % length)], after)

    for prefix in PREFIXES:
        named = parameters(served, prefix)["parameters"]
        routes.add_api_route(
            f"{prefix}/infer",
            infer,
            methods=["POST"],
            summary="Answer a tensor of sequences",
            response_model=InferAnswer,
            responses={**ERRORS, 200: {"content": BINARY, "headers": {LENGTH_HEADER["name"]: LENGTH_HEADER}}},
            openapi_extra={
                "parameters": [*named, {"in": "header", **LENGTH_HEADER}],
                "requestBody": {"content": {**examples, **BINARY}},
            },
        )
    return routes


def _server_routes(serving: ServingState, registry: Registry) -> APIRouter:
    routes = APIRouter(tags=TAGS)

    @routes.get("/v2/health/live", response_model=ServerLive, responses=not_so(ServerLive(live=False)))
    async def server_live() -> JSONResponse:
        """Whether the process works."""
        alive = all(liveness(registry).values())
        return JSONResponse({"live": alive}, 200 if alive else 503)

    @routes.get("/v2/health/ready", response_model=ServerReady, responses=not_so(ServerReady(ready=False)))
    async def server_ready() -> JSONResponse:
        """Whether to send requests here."""
        good = is_ready(serving, registry)
        return JSONResponse({"ready": good}, 200 if good else 503)

    @routes.get("/v2")
    @routes.get("/v2/", include_in_schema=False)
    async def server() -> ServerMetadata:
        """What this is."""
        return ServerMetadata(name="lstm-serve", version=__version__, extensions=EXTENSIONS)

    @routes.get("/v2/models")
    async def models() -> ModelNames:
        """The models that are served."""
        return ModelNames(models=sorted(registry.deployments))

    @routes.get("/v2/models/stats")
    async def all_stats(request: Request) -> dict[str, Any]:
        """The statistics of each model that is served."""
        each = [statistics(serving, one, one.current, request) for _, one in sorted(registry.deployments.items())]
        return {"model_stats": each}

    @routes.post("/v2/repository/index")
    async def index() -> list[IndexEntry]:
        """The models of the repository, as Triton has them: all, whatever the request's body asks."""
        state = "READY" if is_ready(serving, registry) else "UNAVAILABLE"
        served = [
            IndexEntry(name=name, version=version, state=state, reason="")
            for name, one in sorted(registry.deployments.items())
            for version in one.numbers
        ]
        refused = sorted(registry.refused.items())
        return [
            *served,
            *(IndexEntry(name=name, version="", state="UNAVAILABLE", reason=reason) for name, reason in refused),
        ]

    return routes


def _model_routes(serving: ServingState, registry: Registry, served: Served | None) -> APIRouter:
    routes = APIRouter(tags=TAGS)

    async def metadata(request: Request) -> ModelMetadata:
        """What the model takes and answers."""
        deployment, found = meant(registry, request)
        return model_metadata(found.model, deployment.numbers)

    async def ready(request: Request) -> JSONResponse:
        """Whether the model answers."""
        name, good = model_of(registry, request).about.name, is_ready(serving, registry)
        return JSONResponse({"name": name, "ready": good}, 200 if good else 503)

    async def config(request: Request) -> dict[str, Any]:
        """The model, in the words of Triton's model configuration."""
        return model_config(model_of(registry, request), serving.settings.max_rows)

    async def stats(request: Request) -> dict[str, Any]:
        """Counts and times since the start, in the words of Triton's statistics."""
        return {"model_stats": [statistics(serving, *meant(registry, request), request)]}

    not_ready = {**NOT_FOUND, **not_so(ModelReady(name=example_name(served), ready=False))}
    for prefix in PREFIXES:
        named = parameters(served, prefix)
        routes.add_api_route(prefix, metadata, responses=NOT_FOUND, openapi_extra=named)
        routes.add_api_route(
            f"{prefix}/ready", ready, response_model=ModelReady, responses=not_ready, openapi_extra=named
        )
        routes.add_api_route(f"{prefix}/config", config, responses=NOT_FOUND, openapi_extra=named)
        routes.add_api_route(f"{prefix}/stats", stats, responses=NOT_FOUND, openapi_extra=named)
    return routes
