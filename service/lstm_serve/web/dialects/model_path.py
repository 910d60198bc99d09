"""Paths with a model's name in them, and perhaps a version, as v1 and v2 have them."""

from typing import Any

from starlette.requests import Request

from lstm_serve.errors import UnknownModel
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Live
from lstm_serve.web.api_keys import may_know

UNKNOWN = "no such model is served here"


def served(live: Live, request: Request) -> Model:
    """The model that is served, once the path is known to mean it. Raises UnknownModel."""
    about, asked = live.model.about, request.path_params
    if asked.get("model_name", about.name) != about.name:
        raise UnknownModel(f'the model served here is "{about.name}"' if may_know(request) else UNKNOWN)
    if asked.get("model_version", about.version) != about.version:
        told = f'the version of "{about.name}" served here is {about.version}'
        raise UnknownModel(told if may_know(request) else UNKNOWN)
    return live.model


def parameters(model: Model, path: str) -> dict[str, Any]:
    """For OpenAPI: what stands in the path."""
    # The name stays as long as the process does, the version may change with the model.
    name = {"name": "model_name", "schema": {"type": "string", "enum": [model.about.name]}}
    version = {"name": "model_version", "schema": {"type": "string"}, "example": model.about.version}
    given = [of for of in (name, version) if f"{{{of['name']}}}" in path]
    return {"parameters": [{**of, "in": "path", "required": True} for of in given]}
