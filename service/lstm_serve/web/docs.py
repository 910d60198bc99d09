"""GET /docs: the API page, with nothing from outside, so that it opens on a machine with no internet."""

import orjson
from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from lstm_serve.serving.deployment import Served
from lstm_serve.serving.registry import Registry
from lstm_serve.web.making import MadeOnce
from lstm_serve.web.packaged import Pieces, file_of

# The package fastapi-swagger carries Swagger UI's own files; they are all that is used of it.
FOLDER = "fastapi_swagger.resources"
SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
PATHS = {"/openapi.json", "/docs", *(f"/docs/{name}" for name in (SCRIPT, STYLE, ICON))}
A_DAY = {"cache-control": "public, max-age=86400"}


def router(registry: Registry) -> APIRouter:
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

    of: Served | None = None
    made: MadeOnce[bytes] | None = None  # the same bytes for all, of this model

    @routes.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Response:
        nonlocal of, made
        current = None if registry.default is None else registry.default.current
        if made is None or of is not current:
            of, made = current, MadeOnce(lambda: orjson.dumps(request.app.openapi()))  # some tenths of a second
        return Pieces(await made.get(), media_type="application/json")

    for name in (SCRIPT, STYLE, ICON):
        routes.add_api_route(f"/docs/{name}", file_of(FOLDER, name, A_DAY), include_in_schema=False)
    return routes
