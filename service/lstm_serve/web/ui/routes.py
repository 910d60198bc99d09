"""The page's files. They hold no data, and so need no key; what the page then asks for does."""

import asyncio
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lstm_serve.errors import LstmServeError
from lstm_serve.formats.folder import opened
from lstm_serve.serving.registry import Registry
from lstm_serve.settings import Settings
from lstm_serve.web.dialects.model_path import MODEL, meant
from lstm_serve.web.packaged import content, file_of

FOLDER = "lstm_serve.web.ui.static"
SHELL = "index.html"
ASSETS = (
    *("answers.js", "chart.js", "icon.svg", "inside.js", "live.js", "page.css", "page.js", "picture.js", "service.js"),
    *("watch.js", "why.js"),
)
PATHS = frozenset({"/", *(f"/ui/{name}" for name in ASSETS)})
# Nothing from elsewhere, nothing inline, in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


def router(settings: Settings, registry: Registry) -> APIRouter:
    """What the page is made of, and the series that lies beside the model to try it on."""
    routes = APIRouter()
    for name in ASSETS:
        routes.add_api_route(f"/ui/{name}", file_of(FOLDER, name, HEADERS), include_in_schema=False)

    @routes.get("/model/example", include_in_schema=False)
    @routes.get(f"{MODEL}/example", include_in_schema=False)
    async def example(request: Request) -> Response:
        try:
            path = meant(registry, request)[0].files.series
            series = await asyncio.to_thread(_example, path, settings.max_body_bytes)
        except (OSError, LstmServeError):
            raise HTTPException(404) from None
        return Response(series, media_type="text/csv")

    return routes


def shell() -> Response:
    """The page itself."""
    return Response(content(FOLDER, SHELL), media_type="text/html", headers={**HEADERS, "vary": "accept"})


def _example(path: Path, most: int) -> bytes:
    """The series beside the model; of a file that is larger than a request may be, the lines before that."""
    with opened(path) as file:
        lines = file.read(most).splitlines(keepends=True)
        return b"".join(lines[:-1] if file.read(1) else lines)
