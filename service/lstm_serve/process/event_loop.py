"""The event loop that the service runs in: uvloop's, or asyncio's own where there is none, as on Windows."""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from lstm_serve.process.handshakes import Handshake
from lstm_serve.process.sockets import host_names, listen
from lstm_serve.serving.state import ServingState

BACKLOG = 4096  # connections that wait to be accepted, where net.core.somaxconn allows as many
AT_ONCE = 16  # of them that are accepted in an iteration of the loop


class Listening:
    """Servers that are one for uvicorn: their sockets are the same, under several numbers, and each accepts."""

    def __init__(self, servers: Sequence[asyncio.Server]) -> None:
        """The first one is that which was asked for."""
        self._servers, self.sockets = servers, servers[0].sockets

    def close(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until what they have accepted is closed."""
        for server in self._servers:
            await server.wait_closed()


def new_loop(serving: ServingState) -> asyncio.AbstractEventLoop:
    """A loop in which a TLS handshake has a slot, and may take as long as a request's headers."""
    base: Any = _loop_class()
    accepts_one = not issubclass(base, asyncio.BaseEventLoop)  # in an iteration; asyncio's own as many as may wait

    class Loop(base):  # type: ignore[misc]
        async def create_server(self, make: Any, *args: Any, **options: Any) -> Listening:  # noqa: ANN401 - as asyncio says
            """As asyncio has it."""
            if (context := options.pop("ssl", None)) is not None:
                seconds = serving.settings.header_seconds
                make = partial(Handshake, make, context, seconds, serving.slots, serving.budget)
            if options.get("host") == "::":
                options["sock"] = listen(options.pop("host"), options.pop("port"))
            if accepts_one:
                # Who finds no room among those that wait tries again after a second.
                options["backlog"] = BACKLOG
            create = super().create_server
            with host_names():
                first = await create(make, *args, **options)
            # Were one accepted in each, a few clients that keep iterations long would let nobody in behind a flood.
            # Each takes a file, and one more until who goes for it is closed.
            more = min(AT_ONCE, serving.slots.limit // 8) - 1 if accepts_one else 0
            others = [one.dup() for one in first.sockets for _ in range(more)]
            return Listening([first, *[await create(make, sock=one, backlog=BACKLOG) for one in others]])

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
