"""The query of a path."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from lstm_serve.errors import InvalidInput


def expect_query(request: Request, *known: Mapping[str, Any]) -> None:
    """Raise InvalidInput where the query has other names than these parameters, which are as OpenAPI has them."""
    if not request.scope["query_string"]:
        return
    names = [parameter["name"] for parameter in known]
    if not request.query_params.keys() <= {*names}:
        allowed = f"in the query {', '.join(f'`{name}`' for name in names)} alone" if names else "no query"
        raise InvalidInput.at(f"expected {allowed}, got another name")
    for parameter in known:
        if parameter["schema"]["type"] != "array" and len(request.query_params.getlist(parameter["name"])) > 1:
            raise InvalidInput.at(f"expected the query `{parameter['name']}` once")
