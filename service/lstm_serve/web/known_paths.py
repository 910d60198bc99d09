"""The way past FastAPI, for paths that its router has found before."""

from collections.abc import Awaitable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from lstm_serve.web.predict import PostRoute

# Each series has its own; 400 bytes each. With one more all are forgotten, and found again as they are asked for.
MOST_PATHS = 1 << 14


def serve_known(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """ASGI: serve a request whose route is found."""
    route: PostRoute = scope["route"]
    return route.serve(scope, receive, send)


class KnownPaths:
    """ASGI: goes straight to the POST route that the router has found for a path before.

    Clients ask for one path again and again. The router tries one pattern after the other, and FastAPI is seven calls
    around it: together a seventh of the CPU time of a small request. Nothing is in here that the router has not found.
    """

    def __init__(self, app: ASGIApp, known: ASGIApp) -> None:
        """Nothing is known yet: all goes to `app`. What is known goes to `known`, its route in its scope."""
        self._app, self._serve_known = app, known
        self._known: dict[tuple[str, str], tuple[PostRoute, dict[str, Any]]] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request whose path is known, or let the router search."""
        if scope.get("method") != "POST":
            return self._app(scope, receive, send)
        key = scope.get("root_path", ""), scope["path"]
        if (known := self._known.get(key)) is None:
            return self._search(key, scope, receive, send)
        scope["route"], scope["path_params"] = known
        return self._serve_known(scope, receive, send)

    async def _search(self, key: tuple[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        # Where no model was found to be meant, any other path would do as well.
        if isinstance(route := scope.get("route"), PostRoute) and "model" in scope["state"]:
            if len(self._known) >= MOST_PATHS:
                self._known.clear()
            self._known[key] = route, scope["path_params"]
