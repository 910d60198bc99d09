"""GET /models and GET /models/{name}: which models are served, and what each takes and answers."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import get_annotations
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.routing import BaseRoute

from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.registry import Registry
from lstm_serve.web.dialects.model_path import MODEL, Documented, meant, parameters
from lstm_serve.web.making import MadeOnce
from lstm_serve.web.openapi import problem_responses
from lstm_serve.web.predict import PostRoute
from lstm_serve.web.schemas import ModelDetails, ModelList, ModelSummary, PathSchemas, model_info

ELSEWHERE = ("/v1/", "/v2/", "/models/", "/invocations")

RoutesOf = Callable[[Documented], Iterable[BaseRoute]]


def router(registry: Registry, documented: Documented, routes_of: RoutesOf) -> APIRouter:
    """The routes. `routes_of` gives those that tell a model's requests and answers."""
    routes = APIRouter(tags=["model"])

    async def models() -> ModelList:
        """Each model, and why it is not served where it is not."""
        served = [_summary(registry, one) for one in registry.deployments.values()]
        refused = [ModelSummary(name=name, refused=reason) for name, reason in registry.refused.items()]
        return ModelList(models=sorted([*served, *refused], key=lambda each: each.name))

    async def model(request: Request) -> ModelDetails:
        """What a model is, and what each of its paths takes and answers."""
        deployment, served = meant(registry, request)
        made = served.of_model.setdefault((router, ()), MadeOnce(partial(_paths, served, routes_of)))
        return ModelDetails(
            **model_info(served.model).model_dump(), versions=deployment.numbers, paths=await made.get()
        )

    routes.add_api_route("/models", models, summary="Which models are served", responses=problem_responses(401, 500))
    routes.add_api_route(
        MODEL,
        model,
        summary="What a model is, takes and answers",
        responses=problem_responses(401, 404, 500),
        openapi_extra=parameters(documented.only, MODEL),
    )
    return routes


def _summary(registry: Registry, deployment: Deployment) -> ModelSummary:
    model = deployment.current.model
    return ModelSummary(
        name=deployment.name,
        version=model.about.version,
        versions=deployment.numbers,
        default=deployment is registry.default,
        kind=", ".join(dict.fromkeys(output.kind for output in model.outputs)),
        verified=model.origin.verified,
        digest=model.origin.digest,
        refused=deployment.refused,
    )


def _paths(served: Served, routes_of: RoutesOf) -> dict[str, PathSchemas]:
    """The JSON Schemas of what the model's own paths take and answer, by what comes after its name."""
    found = {}
    for route in routes_of(Documented(served, None)):
        if isinstance(route, PostRoute) and not route.path.startswith(ELSEWHERE):
            request = TypeAdapter[Any](get_annotations(route.endpoint)["body"]).json_schema()
            answer = TypeAdapter[Any](route.response_model).json_schema(mode="serialization")
            found[route.path.removeprefix("/")] = PathSchemas(request=request, answer=answer)
    return found
