"""The methods of a path: HEAD wherever there is GET, and all of them told where another came."""

from typing import NoReturn

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request


def answer_head(routes: APIRouter) -> None:
    """Let each GET answer HEAD too; the server leaves the body out, and OpenAPI's document the operation."""
    for route in list(routes.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            routes.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                response_model=route.response_model,
                response_class=route.response_class,
                route_class_override=APIRoute,
                include_in_schema=False,
            )


async def raise_again(request: Request, error: Exception) -> NoReturn:
    """Leave what Starlette refuses to the boundary; of a method that is not there say which are."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        path = request.scope["route"].path
        routes = [route for route in request.app.routes if isinstance(route, APIRoute) and route.path == path]
        allowed = sorted(method for route in routes for method in route.methods or ())
        raise HTTPException(405, headers={"Allow": ", ".join(allowed)}) from None
    raise error
