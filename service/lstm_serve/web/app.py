"""The FastAPI app: the routes of each dialect, and the one middleware around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route

from lstm_serve import __version__
from lstm_serve.errors import SettingsError
from lstm_serve.serving.registry import Registry, registry_of
from lstm_serve.serving.reload import Reloader
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import PREFIX, Settings
from lstm_serve.telemetry.metrics import Metrics
from lstm_serve.web import docs, health
from lstm_serve.web.api_keys import Keys, configured
from lstm_serve.web.boundary import Boundary, open_paths
from lstm_serve.web.dialects import drift, explain, models, native
from lstm_serve.web.dialects.model_path import Documented
from lstm_serve.web.dialects.series import events, stateless
from lstm_serve.web.dialects.series import routes as series
from lstm_serve.web.dialects.v1 import routes as v1
from lstm_serve.web.dialects.v2 import routes as v2
from lstm_serve.web.known_paths import KnownPaths
from lstm_serve.web.methods import answer_head, raise_again
from lstm_serve.web.openapi import document
from lstm_serve.web.predict import PostRoute
from lstm_serve.web.ui import routes as page

DESCRIPTION = """A trained Keras recurrent model, served without Keras.

What uvicorn's parser refuses by itself, before a request reaches the service, is answered as plain text.
"""


# Of v2's binary tensors, in requests and answers.
BINARY_LENGTH = "Inference-Header-Content-Length"
# What the docs tell a client to send; a browser asks for each whether it may.
SENT_BY_PAGES = [
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    BINARY_LENGTH,
    "Last-Event-ID",
    "traceparent",
    "X-Drift",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
]


def create_app(settings: Settings) -> FastAPI:
    """Load the model and make the app that serves it; its lifespan runs the queue.

    Raises ModelError, or SettingsError where the keys cannot be read or a route of the settings is taken.
    """
    keys = Keys(settings) if configured(settings) else None
    serving = ServingState(settings, Metrics())
    registry = registry_of(settings)
    reloader = Reloader(registry, serving, {} if keys is None else {"the keys": keys})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for deployment in registry.deployments.values():
            deployment.start()
        watching = asyncio.create_task(reloader.watch(), name="reloading")
        yield
        watching.cancel()
        await asyncio.wait([watching])
        for deployment in registry.deployments.values():
            await deployment.close()
        if serving.redis is not None:
            await serving.redis.close()

    app = FastAPI(
        title=f"lstm-serve: {registry.title}",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(serving, keys),
        exception_handlers={HTTPException: raise_again},
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it asks for each request what is set up
    )
    # Not by `app.state.serving = ...`: what is set so Starlette finds by catching an error each time, a microsecond.
    vars(app.state).update(
        serving=serving, registry=registry, keys=keys, reloader=reloader, open_paths=open_paths(settings)
    )
    # Not include_router: it would put a second dispatch in front of each route.
    app.router.routes.extend(_routes(serving, registry, Documented(None, None)))
    _expect_free(app, settings)

    def openapi() -> dict[str, Any]:
        default = None if registry.default is None else registry.default.current
        return document(app, _routes(serving, registry, Documented(default, None if registry.several else default)))

    # https://fastapi.tiangolo.com/how-to/extending-openapi/
    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _routes(serving: ServingState, registry: Registry, documented: Documented) -> list[BaseRoute]:
    """All routes. They are tried in this order: what the settings give a path, and then literal paths before others."""
    own = partial(_of_models, serving, registry)
    routers = [
        v1.router(serving, registry, documented),
        *own(documented),
        models.router(registry, documented, lambda of: [route for router in own(of) for route in router.routes]),
        v2.router(serving, registry, documented),
        health.router(serving, registry),
        docs.router(registry),
        *([page.router(serving.settings, registry)] if serving.settings.page else []),
    ]
    for router in routers:
        answer_head(router)
    return [route for router in routers for route in router.routes]


def _of_models(serving: ServingState, registry: Registry, documented: Documented) -> list[APIRouter]:
    """The native routes of a model, those of v1's :explain too."""
    return [
        native.router(serving, registry, documented),
        stateless.router(serving, documented),
        series.router(serving, registry, documented),
        events.router(serving, registry, documented),
        explain.router(serving, documented),
        drift.router(registry, documented),
    ]


def _middleware(serving: ServingState, keys: Keys | None) -> list[Middleware]:
    """What is around the routes, from the outside in.

    A browser asks first whether a page of another origin may call, by a preflight that has no key and goes to no route.
    """
    within = [Middleware(Boundary, serving=serving, keys=keys), Middleware(KnownPaths)]
    origins = serving.settings.cors_origins
    if origins is None:
        return within
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins.split(","),
        allow_methods=["DELETE", "GET", "HEAD", "POST"],
        allow_headers=SENT_BY_PAGES,
        expose_headers=["X-Model-Sha256", "X-Request-Id", "Retry-After", BINARY_LENGTH],
    )
    return [cors, *within]


def _expect_free(app: FastAPI, settings: Settings) -> None:
    """Raise SettingsError where a path of the settings is that of something else: with keys, health needs none."""
    routes = [route for route in app.router.routes if isinstance(route, Route)]

    def there(path: str) -> list[Route]:
        return [route for route in routes if route.path_regex.match(path)]

    wrong = PREFIX + "{} is {}, which answers something else; give another path"
    path = settings.health_route
    if path is not None and path not in health.PATHS and len(there(path)) > 2:  # its GET and its HEAD
        raise SettingsError(wrong.format("HEALTH_ROUTE", path))
    path = settings.predict_route
    if path is not None and not all(isinstance(route, PostRoute) for route in there(path)):
        raise SettingsError(wrong.format("PREDICT_ROUTE", path))
