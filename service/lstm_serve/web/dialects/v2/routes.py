"""The Open Inference Protocol v2, which KServe, Triton, MLServer and OpenVINO speak, and what tritonclient asks beside.

Protocol: inference_rest.md of kserve/open-inference-protocol; extension_model_configuration.md,
extension_statistics.md and extension_model_repository.md of triton-inference-server/server.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.requests import Request

from lstm_serve import __version__
from lstm_serve.engine.types import Shape
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.health import is_ready, liveness
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.web.dialects.model_path import model_of, parameters
from lstm_serve.web.dialects.v2.codec import (
    HEADER_LENGTH,
    INPUT,
    Infer,
    InferAnswer,
    InferRequest,
    decode,
    encode,
    input_datatype,
    output_names,
)
from lstm_serve.web.openapi import not_so, plain_responses
from lstm_serve.web.predict import Answer, Decoded, PostRoute, PredictRequest, predicted
from lstm_serve.web.schemas import ModelNames, Schema

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"]
TAGS: list[str | Enum] = ["open inference v2"]
PREFIXES = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}")
OCTETS = b"application/octet-stream"

ERRORS = plain_responses(400, 404, 408, 413, 429, 500, 503, 504)
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


class ServerLive(Schema):
    """Whether the process works."""

    live: bool


class ServerReady(Schema):
    """Whether to send requests here."""

    ready: bool


class ServerMetadata(Schema):
    """What this is."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(Schema):
    """Whether the model answers."""

    name: str
    ready: bool


class TensorMetadata(Schema):
    """An input or an output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="the number of sequences first; -1 is any size")


class ModelMetadata(Schema):
    """What the model takes and answers."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(Schema):
    """A model of the repository, as Triton has it."""

    name: str
    version: str
    state: str
    reason: str


class InferRoute(PostRoute):
    """A POST that takes v2's requests, with binary tensors or without, whatever their content type."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, max_rows: int) -> Decoded:
        """The request."""
        return decode(served.model, raw, headers, max_rows)


def router(serving: ServingState, registry: Registry) -> APIRouter:
    """The routes; literal paths go before those that take any name."""
    routes = _infer_routes(serving, registry)
    routes.routes.extend([*_server_routes(serving, registry).routes, *_model_routes(serving, registry).routes])
    return routes


def _infer_routes(serving: ServingState, registry: Registry) -> APIRouter:
    routes, model = APIRouter(route_class=InferRoute, tags=TAGS), registry.get().current.model

    async def infer(body: InferRequest, request: PredictRequest) -> Answer:
        asked = cast("Infer", body)
        (part,) = await predicted(serving, asked, request, asked.head.timeout)
        content, length = encode(request.served.model, *part, asked.head)
        if length is None:
            return Answer(content)
        return Answer(content, [(b"content-type", OCTETS), (HEADER_LENGTH, b"%d" % length)])

    for prefix in PREFIXES:
        named = parameters(model, prefix)["parameters"]
        routes.add_api_route(
            f"{prefix}/infer",
            infer,
            methods=["POST"],
            summary="Answer a tensor of sequences",
            response_model=InferAnswer,
            responses={**ERRORS, 200: {"content": BINARY, "headers": {LENGTH_HEADER["name"]: LENGTH_HEADER}}},
            openapi_extra={
                "parameters": [*named, {"in": "header", **LENGTH_HEADER}],
                "requestBody": {"content": {"application/json": {"example": example(model)}, **BINARY}},
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
        """The models that are served: one."""
        return ModelNames(models=[registry.get().name])

    @routes.get("/v2/models/stats")
    async def all_stats(request: Request) -> dict[str, Any]:
        """The statistics of each model that is served."""
        return statistics(serving, registry.get().current.model, request)

    @routes.post("/v2/repository/index")
    async def index() -> list[IndexEntry]:
        """The models of the repository, as Triton has them; whatever the request's body asks, there is one."""
        about = registry.get().current.model.about
        state = "READY" if is_ready(serving, registry) else "UNAVAILABLE"
        return [IndexEntry(name=about.name, version=about.version, state=state, reason="")]

    return routes


def _model_routes(serving: ServingState, registry: Registry) -> APIRouter:
    routes, model = APIRouter(tags=TAGS), registry.get().current.model

    async def metadata(request: Request) -> ModelMetadata:
        """What the model takes and answers."""
        return model_metadata(model_of(registry, request))

    async def ready(request: Request) -> JSONResponse:
        """Whether the model answers."""
        name, good = model_of(registry, request).about.name, is_ready(serving, registry)
        return JSONResponse({"name": name, "ready": good}, 200 if good else 503)

    async def config(request: Request) -> dict[str, Any]:
        """The model, in the words of Triton's model configuration."""
        return model_config(model_of(registry, request), serving.settings.max_rows)

    async def stats(request: Request) -> dict[str, Any]:
        """Counts and times since the start, in the words of Triton's statistics."""
        return statistics(serving, model_of(registry, request), request)

    not_ready = {**NOT_FOUND, **not_so(ModelReady(name=model.about.name, ready=False))}
    for prefix in PREFIXES:
        named = parameters(model, prefix)
        routes.add_api_route(prefix, metadata, responses=NOT_FOUND, openapi_extra=named)
        routes.add_api_route(
            f"{prefix}/ready", ready, response_model=ModelReady, responses=not_ready, openapi_extra=named
        )
        routes.add_api_route(f"{prefix}/config", config, responses=NOT_FOUND, openapi_extra=named)
        routes.add_api_route(f"{prefix}/stats", stats, responses=NOT_FOUND, openapi_extra=named)
    return routes


def model_metadata(model: Model) -> ModelMetadata:
    """What GET /v2/models/{name} answers."""
    rows: Shape = (None,)
    return ModelMetadata(
        name=model.about.name,
        versions=[model.about.version],
        platform="keras",
        inputs=[TensorMetadata(name=INPUT, datatype=input_datatype(model), shape=_sizes(rows + model.input_shape))],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=_sizes(rows + shape))
            for name, datatype, shape in _outputs(model)
        ],
    )


def model_config(model: Model, max_rows: int) -> dict[str, Any]:
    """What GET /v2/models/{name}/config answers: dims are without the batch axis there."""
    return {
        "name": model.about.name,
        "platform": "keras",
        "backend": "lstm-serve",
        "version_policy": {"specific": {"versions": [int(model.about.version)]}},
        "max_batch_size": max_rows,
        "input": [{"name": INPUT, "data_type": f"TYPE_{input_datatype(model)}", "dims": _sizes(model.input_shape)}],
        "output": [
            {"name": name, "data_type": f"TYPE_{datatype}", "dims": _sizes(shape)}
            for name, datatype, shape in _outputs(model)
        ],
        "dynamic_batching": {},
    }


def statistics(serving: ServingState, model: Model, request: Request) -> dict[str, Any]:
    """What GET /v2/models/{name}/stats answers. What is not measured by itself, such as decoding, is 0."""
    answering = {route.path for route in request.app.routes if isinstance(route, PostRoute)}
    metrics = serving.metrics
    batches = metrics.batch_rows
    measured = {
        "success": metrics.requests.total(lambda route, status: route in answering and status == 200),
        "fail": metrics.requests.total(lambda route, status: route in answering and status != 200),
        "queue": (metrics.queue.count, metrics.queue.total),
        "compute_infer": (metrics.compute.count, metrics.compute.total),
        **dict.fromkeys(("compute_input", "compute_output", "cache_hit", "cache_miss"), (0, 0.0)),
    }
    stats = {
        "name": model.about.name,
        "version": model.about.version,
        "inference_count": round(batches.total),
        "execution_count": batches.count,
        "inference_stats": {
            name: {"count": count, "ns": round(seconds * 1e9)} for name, (count, seconds) in measured.items()
        },
        "batch_stats": [],
    }
    return {"model_stats": [stats]}


def example(model: Model) -> dict[str, Any]:
    """For OpenAPI: a request of one sequence of zeros."""
    shape = [1, *(1 if size is None else size for size in model.input_shape)]
    data = [0] * math.prod(shape)
    return {"inputs": [{"name": INPUT, "shape": shape, "datatype": input_datatype(model), "data": data}]}


def _outputs(model: Model) -> list[tuple[str, str, Shape]]:
    """Name, datatype, and shape without the batch axis."""
    class_shape = model.output_shape[:-1]  # a class for each step, or one
    return [
        (name, "INT64" if is_class else "FP32", class_shape if is_class else model.output_shape)
        for name, is_class in output_names(model).items()
    ]


def _sizes(shape: Shape) -> list[int]:
    return [-1 if size is None else size for size in shape]
