"""Paths with a model's name in them, and perhaps a version, as v1 and v2 have them."""

from typing import Any

from starlette.requests import Request

from lstm_serve.errors import UnknownModel
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment
from lstm_serve.serving.registry import Registry
from lstm_serve.web.api_keys import may_know

UNKNOWN = "no such model is served here"


def model_of(registry: Registry, request: Request) -> Model:
    """Return the model that the path means, as it is served now. Raises UnknownModel."""
    return deployment_of(registry, request).current.model


def deployment_of(registry: Registry, request: Request) -> Deployment:
    """Return the deployment that the path means. Raises UnknownModel."""
    asked = request.path_params
    try:
        return registry.get(asked.get("model_name"), asked.get("model_version"))
    except UnknownModel:
        if may_know(request):
            raise
        raise UnknownModel(UNKNOWN) from None  # what it is called is for callers alone


def parameters(model: Model, path: str) -> dict[str, Any]:
    """For OpenAPI: what stands in the path."""
    # The name stays as long as the process does, the version may change with the model.
    name = {"name": "model_name", "schema": {"type": "string", "enum": [model.about.name]}}
    version = {"name": "model_version", "schema": {"type": "string"}, "example": model.about.version}
    given = [of for of in (name, version) if f"{{{of['name']}}}" in path]
    return {"parameters": [{**of, "in": "path", "required": True} for of in given]}
