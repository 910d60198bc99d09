"""The OpenAPI document: FastAPI's, with the errors of each dialect, and which paths need a key."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from lstm_serve.errors import (
    InvalidInput,
    Problem,
)
from lstm_serve.web.api_keys import needs_key
from lstm_serve.web.errors import OF_HTTP, STATUSES, TABLE, Status, of_another_dialect, problem
from lstm_serve.web.schemas import PlainError, ProblemDetails

RETRY_HEADER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
REFERENCE = "#/components/schemas/{model}"
_EXAMPLE = Problem(("sequence",), "expected a list of 20 time steps, got 19")


def problem_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these errors of the native paths, each with an example."""
    return {code: problem_response(STATUSES[code]) for code in codes}


def every_response() -> dict[str, dict[str, Any]]:
    """For OpenAPI: every row of the table by the last part of its type; some are answered at any path, or at none."""
    return {row.slug: problem_response(row) for row in (*OF_HTTP.values(), *TABLE.values())}


def problem_response(row: Status) -> dict[str, Any]:
    """For OpenAPI: one error of the native paths, by its row of the table, with an example."""
    error = InvalidInput([_EXAMPLE]) if row.code == 422 else None
    example = orjson.loads(problem(row, row.example, error, "6f1c-2a"))
    content = {"application/problem+json": {"schema": _reference(ProblemDetails), "example": example}}
    response = {"description": row.title, "content": content}
    if row.code == 401:
        response["headers"] = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
    if row.code in {429, 503}:
        response["headers"] = RETRY_HEADER
    return response


def _reference(error: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=error.__name__)}


def not_so(answer: BaseModel) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: a 503 that says so in the words of the good answer, with this example."""
    example = {"application/json": {"example": answer.model_dump()}}
    return {503: {"description": "Not so", "model": type(answer), "content": example}}


def plain_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these errors of the v1 and v2 paths, each with an example."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        example = {"error": STATUSES[code].example}
        content = {"application/json": {"schema": _reference(PlainError), "example": example}}
        responses[code] = {"description": STATUSES[code].title, "content": content}
        if code in {429, 503}:
            responses[code]["headers"] = RETRY_HEADER
    return responses


def document(app: FastAPI, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return FastAPI's document, without the 422 that it says of every body: v1 and v2 have none, and ours is another.

    Where callers need a key it says so.
    """
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=routes)
    schemas: dict[str, Any] = made["components"]["schemas"]
    operations = [(path, of) for path, paths in made["paths"].items() for of in paths.values()]
    if schemas.pop("HTTPValidationError", None) is not None:
        schemas.pop("ValidationError")
        for _, operation in operations:
            content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in content:
                del operation["responses"]["422"]
    _, errors = models_json_schema(
        [(ProblemDetails, "serialization"), (PlainError, "serialization")], ref_template=REFERENCE
    )
    schemas.update(errors["$defs"])
    made["components"]["responses"] = every_response()
    if app.state.keys is not None:
        settings = app.state.serving.settings
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operation in operations:
            closed = needs_key(path, app.state.open_paths)
            operation["security"] = [{"key": []}] if closed else []
            if closed:
                plain = of_another_dialect(path, settings)
                refused = plain_responses(401) if plain else problem_responses(401)
                operation["responses"].setdefault("401", refused[401])
    return made
