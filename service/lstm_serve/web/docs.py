"""GET /docs: the API page, with nothing from outside, so that it opens on a machine with no internet."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.resources import files
from mimetypes import guess_type

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

# The package fastapi-swagger carries Swagger UI's own files; they are all that is used of it.
FOLDER = "fastapi_swagger.resources"
SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
PATHS = {"/openapi.json", "/docs", *(f"/docs/{name}" for name in (SCRIPT, STYLE, ICON))}
PIECE = 1 << 16  # bytes
A_DAY = {"cache-control": "public, max-age=86400"}


def router() -> APIRouter:
    """The page, and the three files that it asks for, by relative paths: a proxy may put it anywhere."""
    routes = APIRouter()

    @routes.get("/docs", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            title=request.app.title,
            openapi_url="openapi.json",
            swagger_js_url=f"docs/{SCRIPT}",
            swagger_css_url=f"docs/{STYLE}",
            swagger_favicon_url=f"docs/{ICON}",
        )

    @routes.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Response:
        return Response(_document(request.app), media_type="application/json")

    for name in (SCRIPT, STYLE, ICON):
        routes.add_api_route(f"/docs/{name}", _file(name), include_in_schema=False)
    return routes


@lru_cache(maxsize=1)
def _document(app: FastAPI) -> bytes:
    """The document as it is sent; to make it takes 15 ms."""
    return orjson.dumps(app.openapi())


class Pieces(Response):
    """A file that is sent piece by piece: of who does not read, one piece alone is kept.

    It is in memory. The threads that would read it from disk for a thousand clients kept 150 MB.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for at in range(0, len(self.body), PIECE):
            more = at + PIECE < len(self.body)
            await send({"type": "http.response.body", "body": self.body[at : at + PIECE], "more_body": more})
            await asyncio.sleep(0)  # others have their turn


@lru_cache
def _content(name: str) -> bytes:
    return (files(FOLDER) / name).read_bytes()


def _file(name: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Pieces(_content(name), headers=A_DAY, media_type=guess_type(name)[0])

    return file
