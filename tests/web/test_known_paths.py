"""The way past the router: it leads where the router has led before, for as many paths as are kept."""

from typing import Any

import pytest
from serving import in_loop
from starlette.types import Receive, Scope, Send

from lstm_serve.web import known_paths
from lstm_serve.web.known_paths import KnownPaths
from lstm_serve.web.predict import PostRoute


class Route(PostRoute):
    """One that notes what it serves."""

    def __init__(self) -> None:
        self.served: list[tuple[str, dict[str, Any]]] = []

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as it is called
        self.served.append((scope["path"], scope["path_params"]))


class Router:
    """It finds the route of each path but `/nowhere`, and notes what it was asked."""

    def __init__(self) -> None:
        self.route, self.asked = Route(), list[tuple[str, str, str]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as it is called
        self.asked.append((scope["method"], scope["root_path"], scope["path"]))
        if scope["path"] != "/nowhere":
            scope["route"], scope["path_params"] = self.route, {"series": scope["path"][1:]}


async def ask(app: KnownPaths, path: str, *, method: str = "POST", root: str = "") -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent here")

    await app({"type": "http", "method": method, "root_path": root, "path": path}, never, never)


@in_loop
async def test_a_path_is_searched_for_once_and_served_as_it_was_found() -> None:
    router = Router()
    app = KnownPaths(router)
    for path in ("/a", "/b", "/a", "/b", "/nowhere", "/nowhere"):
        await ask(app, path)
    await ask(app, "/a", method="GET")
    await ask(app, "/a", root="/behind")
    assert router.route.served == [("/a", {"series": "a"}), ("/b", {"series": "b"})]
    assert router.asked == [
        *[("POST", "", path) for path in ("/a", "/b", "/nowhere", "/nowhere")],
        ("GET", "", "/a"),
        ("POST", "/behind", "/a"),
    ]


@in_loop
async def test_no_more_paths_are_kept_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_paths, "MOST_PATHS", 2)
    router = Router()
    app = KnownPaths(router)
    for path in ("/a", "/b", "/c", "/c", "/a"):
        await ask(app, path)
    assert [path for *_, path in router.asked] == ["/a", "/b", "/c", "/a"]
