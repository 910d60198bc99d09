"""The routes of TF-Serving's REST API, and of KServe's v1, which has the same paths.

Source: tensorflow_serving/g3doc/api_rest.md of tensorflow/serving.
"""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.requests import Request

from lstm_serve.errors import UnknownModel
from lstm_serve.model.records import unpacked
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.health import is_ready
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.content_type import preferred
from lstm_serve.web.dialects.model_path import MODEL, VERSION, Documented, example_name, meant, model_of, parameters
from lstm_serve.web.dialects.v1.codec import FORMS, V1Request, V1Rows, of_named, request_type
from lstm_serve.web.dialects.v1.schemas import Alive, ModelStatus, Outputs, Predictions, model_signature, model_status
from lstm_serve.web.errors import JSON
from lstm_serve.web.named_inputs import NamedInputs
from lstm_serve.web.openapi import not_so, plain_responses
from lstm_serve.web.predict import Answer, Decoded, PostRoute, PredictRequest, predicted
from lstm_serve.web.schemas import AnyBody, ModelNames
from lstm_serve.web.ui import routes as page

HTML = b"text/html"

ERRORS = plain_responses(400, 404, 408, 413, 415, 429, 500, 503, 504)
NOT_FOUND = plain_responses(404, 500)
TO_BROWSERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string", "description": "the page, where it is accepted"}}}},
    307: {"description": "To the docs, where text/html is accepted and there is no page"},
}

PREFIXES = (f"/v1{MODEL}", f"/v1{VERSION}")


class PredictRoute(PostRoute):
    """A POST that takes v1's requests, whatever their content type."""

    def decode(
        self,
        raw: bytes,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - others need it
        served: Served,
        settings: Settings,
    ) -> Decoded:
        """The request."""
        if len(served.model.inputs) > 1:
            named = served.made(NamedInputs, *settings.sizes)
            return of_named(named, named.parsed(raw))
        return self.body_type(served, settings).parse(raw)

    def body_type(self, served: Served, settings: Settings) -> type[V1Request]:
        """That of rows."""
        return served.made(request_type, *settings.sizes)


def router(serving: ServingState, registry: Registry, documented: Documented) -> APIRouter:
    """The routes. Those of a model are there with a version and without, and one more as the settings say."""
    served, settings = documented.only, serving.settings
    V1PredictRequest: Any = AnyBody if served is None else served.made(request_type, *settings.sizes)  # noqa: N806 - it is a class
    routes = APIRouter(route_class=PredictRoute, tags=["v1"])
    about = APIRouter(tags=["v1"])

    async def predict(body: V1PredictRequest, request: PredictRequest) -> Answer:
        return await predict_form(serving, cast("V1Rows", body), request)

    async def status(request: Request) -> JSONResponse:
        """Whether the model answers, for the clients of TF-Serving and of KServe."""
        (deployment, served), ready = meant(registry, request), is_ready(serving, registry)
        versions = deployment.numbers[::-1]
        if "model_version" in request.path_params:
            versions = [served.model.about.version]
        return JSONResponse(model_status(deployment.name, versions, ready=ready).model_dump(), 200 if ready else 503)

    async def metadata(request: Request) -> dict[str, Any]:
        """The model's signature, in the words of TF-Serving."""
        return model_signature(model_of(registry, request))

    stopping = not_so(model_status(example_name(served), ["1"], ready=False))
    for prefix in PREFIXES:
        of_path = parameters(served, prefix)
        about.add_api_route(
            prefix, status, response_model=ModelStatus, responses={**NOT_FOUND, **stopping}, openapi_extra=of_path
        )
        about.add_api_route(f"{prefix}/metadata", metadata, responses=NOT_FOUND, openapi_extra=of_path)
    more = settings.predict_route
    for path in (*(f"{prefix}:predict" for prefix in PREFIXES), *([] if more is None else [more])):
        routes.add_api_route(
            path,
            predict,
            methods=["POST"],
            summary="Answer rows, or an array of them",
            response_model=Predictions | Outputs,
            responses=ERRORS,
            openapi_extra=parameters(served, path),
        )

    @about.get("/v1/models")
    async def models() -> ModelNames:
        """The models that are served."""
        return ModelNames(models=sorted(registry.deployments))

    @about.get("/", response_model=Alive, responses=TO_BROWSERS)
    async def alive(request: Request) -> Response:
        """That the process works; a browser gets the page, or without one goes to the docs."""
        headers = {"vary": "accept"}
        if preferred(request.scope["state"]["headers"], HTML, JSON[1]) == HTML:
            return page.shell() if serving.settings.page else RedirectResponse("docs", headers=headers)
        return JSONResponse(Alive(status="alive", docs="docs").model_dump(), headers=headers)

    routes.routes.extend([*about.routes, *_labels(registry).routes])
    return routes


def _labels(registry: Registry) -> APIRouter:
    """The paths of TF-Serving's labels of versions, of which there are none: each says what is there instead."""
    routes = APIRouter()

    async def labelled(request: Request) -> NoReturn:
        about = model_of(registry, request).about
        paths = f"/v1/models/{about.name} or /v1/models/{about.name}/versions/{about.version}"
        raise UnknownModel(f"versions have no labels here: the path goes on from {paths}")

    # A label is whatever stands before the next slash: a verb after its colon is in it.
    for path in (of_label := f"/v1{MODEL}/labels/{{label}}", f"{of_label}/metadata"):
        routes.add_api_route(path, labelled, methods=["GET", "POST"], include_in_schema=False, response_model=None)
    return routes


async def predict_form(serving: ServingState, form: V1Rows, request: PredictRequest) -> Answer:
    """Answer the model's output for each row, under the key that goes with the request's; several by their names."""
    if len(names := request.served.model.output_names) > 1:
        parts = [unpacked(y) for y, _ in await predicted(serving, form, request)]
        columns = {str(name): [row for part in parts for row in part[k]] for k, name in enumerate(names)}
        by_row = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        content: Any = by_row if form.key == "instances" else columns
        return Answer.of({FORMS[form.key]: content})
    rows = [row for y, _ in await predicted(serving, form, request) for row in np.ascontiguousarray(y)]
    return Answer.of({FORMS[form.key]: rows})
