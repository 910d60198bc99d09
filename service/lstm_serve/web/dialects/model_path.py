"""Paths with a model's name in them, and perhaps a version: what they mean, and how OpenAPI tells them."""

from typing import Any, NamedTuple

from starlette.requests import Request

from lstm_serve.errors import UnknownModel
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.registry import Registry
from lstm_serve.web.api_keys import may_know

UNKNOWN = "no such model is served here"

MODEL = "/models/{model_name}"
VERSION = f"{MODEL}/versions/{{model_version}}"


class Documented(NamedTuple):
    """Whose bodies OpenAPI tells: of the paths that name no model, and of the others, where there is one model alone.

    None is any model's. What is answered does not depend on it.
    """

    default: Served | None
    only: Served | None

    def of(self, prefix: str) -> Served | None:
        """Whose they are on paths that begin so."""
        return self.only if prefix else self.default


def model_of(registry: Registry, request: Request) -> Model:
    """Return the model that the path means, as it is served now. Raises UnknownModel."""
    return meant(registry, request)[1].model


def meant(registry: Registry, request: Request) -> tuple[Deployment, Served]:
    """Return the deployment that the path means, and what answers it. Raises UnknownModel."""
    asked = request.path_params
    try:
        found = registry.find(asked.get("model_name"), asked.get("model_version"), request.scope["route"].path)
    except UnknownModel:
        if may_know(request):
            raise
        raise UnknownModel(UNKNOWN) from None  # what it is called is for callers alone
    request.scope["state"]["model"] = found[0].name
    return found


def parameters(served: Served | None, path: str) -> dict[str, Any]:
    """For OpenAPI: what stands in the path."""
    # The name of the only model stays as long as the process does, the version may change with the model.
    schema = {"type": "string"}
    name: dict[str, Any] = {"name": "model_name", "schema": schema}
    version: dict[str, Any] = {"name": "model_version", "schema": schema}
    if served is not None:
        name["schema"] = {**schema, "enum": [served.model.about.name]}
        version["example"] = served.model.about.version
    given = [of for of in (name, version) if f"{{{of['name']}}}" in path]
    return {"parameters": [{**of, "in": "path", "required": True} for of in given]}


def example_name(served: Served | None) -> str:
    """For OpenAPI: what a model is called."""
    return "pump" if served is None else served.model.about.name
