"""The event loop that the service runs in: uvloop's, or asyncio's own where there is none, as on Windows."""

import asyncio
import importlib
import sys
from typing import Any

from lstm_serve.process.handshakes import Handshake
from lstm_serve.process.sockets import host_names, listen
from lstm_serve.serving.state import ServingState

BACKLOG = 4096  # connections that wait to be accepted, where net.core.somaxconn allows as many


def new_loop(serving: ServingState) -> asyncio.AbstractEventLoop:
    """A loop in which a TLS handshake has a place, and may take as long as a request's headers."""
    base: Any = _loop_class()

    class Loop(base):  # type: ignore[misc]
        async def create_server(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever asyncio says
            """As asyncio has it."""
            if (context := options.pop("ssl", None)) is not None:
                (make, *args_left) = args
                seconds = serving.settings.header_seconds
                args = (lambda: Handshake(make, context, seconds, serving.places, serving.budget), *args_left)
            if options.get("host") == "::":
                options["sock"] = listen(options.pop("host"), options.pop("port"))
            if not issubclass(base, asyncio.BaseEventLoop):
                # uvloop accepts one in a turn, asyncio's own as many as may wait. Who finds no room among those that
                # wait tries again after a second.
                options["backlog"] = BACKLOG
            with host_names():
                return await super().create_server(*args, **options)

    loop: asyncio.AbstractEventLoop = Loop()
    return loop


def _loop_class() -> Any:  # noqa: ANN401 - uvloop's is none of asyncio's
    try:
        return importlib.import_module("uvloop").Loop
    except ImportError:
        pass
    if sys.platform == "win32":  # of its two, the one that can start processes
        return asyncio.ProactorEventLoop
    return asyncio.SelectorEventLoop
