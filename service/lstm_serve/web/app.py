"""The FastAPI app: the routes of each dialect, and the one middleware around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from lstm_serve import __version__
from lstm_serve.errors import SettingsError
from lstm_serve.serving.deployment import Live
from lstm_serve.serving.reload import Reloader, fingerprint
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics
from lstm_serve.web import docs, health
from lstm_serve.web.api_keys import Keys, configured
from lstm_serve.web.boundary import Boundary, needs_key, open_paths
from lstm_serve.web.dialects import native
from lstm_serve.web.dialects.v1 import routes as v1
from lstm_serve.web.dialects.v2 import routes as v2
from lstm_serve.web.errors import every_response, of_another_dialect, plain_responses, problem_responses
from lstm_serve.web.predict import PostRoute

DESCRIPTION = """A trained Keras recurrent model, served without Keras.

What uvicorn's parser refuses by itself, before a request reaches the service, is answered as plain text.
"""


# Of v2's binary tensors, in requests and answers.
BINARY_LENGTH = "Inference-Header-Content-Length"


class App(FastAPI):
    """A FastAPI app with our one middleware in place of the usual six: it answers every error itself."""

    # FastAPI's own asks, for each request, whether telemetry is configured.
    __call__ = Starlette.__call__

    def build_middleware_stack(self) -> ASGIApp:
        """The one middleware, around the router; where pages of other origins may call, CORS around that.

        A browser asks first, by a preflight that has no key and goes to no route.
        """
        boundary = Boundary(self.router, self.state.live, self.state.keys)
        origins = self.state.live.settings.cors_origins
        if origins is None:
            return boundary
        return CORSMiddleware(
            boundary,
            allow_origins=origins.split(","),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", BINARY_LENGTH],
            expose_headers=["X-Model-Sha256", "X-Request-Id", "Retry-After", BINARY_LENGTH],
        )

    def openapi(self) -> dict[str, Any]:
        """FastAPI's document, without the 422 that it says of every body: v1 and v2 have none, and ours is another.

        Where callers need a key it says so.
        """
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        schemas: dict[str, Any] = document["components"]["schemas"]
        operations = [(path, of) for path, paths in document["paths"].items() for of in paths.values()]
        if schemas.pop("HTTPValidationError", None) is not None:
            schemas.pop("ValidationError")
            for _, operation in operations:
                content = operation["responses"].get("422", {}).get("content", {})
                if "application/json" in content:
                    del operation["responses"]["422"]
        document["components"]["responses"] = every_response()
        if self.state.keys is not None:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operation in operations:
                closed = needs_key(path, self.state.open_paths)
                operation["security"] = [{"key": []}] if closed else []
                if closed:
                    plain = of_another_dialect(path, self.state.live.settings)
                    refused = plain_responses(401) if plain else problem_responses(401)
                    operation["responses"].setdefault("401", refused[401])
        return document


def create_app(settings: Settings) -> FastAPI:
    """Load the model and make the app that serves it; its lifespan runs the queue.

    Raises ModelError, or SettingsError where the keys cannot be read or a route of the settings is taken.
    """
    keys = Keys(settings) if configured(settings) else None
    seen = fingerprint(settings.model)
    live = Live(settings, Metrics())
    reloader = Reloader(live, seen, {} if keys is None else {"the keys": keys})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        watching = asyncio.create_task(reloader.watch(), name="reloading")
        yield
        watching.cancel()
        await asyncio.wait([watching])
        await live.close()

    app = App(
        title=f"lstm-serve: {live.model.about.name}",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.live, app.state.keys, app.state.reloader = live, keys, reloader
    app.state.open_paths = open_paths(settings)
    of_v1 = v1.request_type(live.model, settings.max_rows)
    for router in (
        native.router(live, of_v1),
        v2.router(live),
        v1.router(live, of_v1),
        health.router(live),
        docs.router(),
    ):
        # Not include_router: it would put a second dispatch in front of each route.
        app.router.routes.extend(router.routes)
    # They are tried in order: first those that are hot.
    app.router.routes.sort(key=lambda route: not isinstance(route, PostRoute))
    _expect_free(app, settings)
    if settings.predict_route is not None:
        _lead(app, settings.predict_route)
    for route in app.routes:
        if isinstance(route, APIRoute) and not isinstance(route, PostRoute):
            route.app = AsyncExitStackMiddleware(route.app)  # what FastAPI's own handling expects around it
    return app


def _expect_free(app: FastAPI, settings: Settings) -> None:
    """Raise SettingsError where a path of the settings is that of something else: with keys, health needs none."""
    routes = [route for route in app.router.routes if isinstance(route, Route)]

    def there(path: str) -> list[Route]:
        return [route for route in routes if route.path_regex.match(path)]

    wrong = "{} is {}, which answers something else; give another path"
    path = settings.health_route
    if path is not None and path not in health.PATHS and len(there(path)) > 1:
        raise SettingsError(wrong.format("health_route", path))
    path = settings.predict_route
    if path is not None and not all(isinstance(route, PostRoute) for route in there(path)):
        raise SettingsError(wrong.format("predict_route", path))


def _lead(app: FastAPI, path: str) -> None:
    """Leave only v1 at a path that the settings give it, where another dialect has it too."""
    app.router.routes[:] = [
        route
        for route in app.router.routes
        if getattr(route, "path", None) != path or isinstance(route, v1.PredictRoute)
    ]
