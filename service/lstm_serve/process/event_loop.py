"""The event loop that the service runs in: uvloop's, or asyncio's own where there is none, as on Windows."""

import asyncio
import errno
import importlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lstm_serve.process.handshakes import Handshake
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
            with _host_names():
                return await super().create_server(*args, **options)

    loop: asyncio.AbstractEventLoop = Loop()
    return loop


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; `::` is every address there is: asyncio would leave out those of IPv4. Raises OSError."""
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with _host_names():
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)


@contextmanager
def _host_names() -> Iterator[None]:
    """Make an OSError, as of any host that is none, of what Python says where IDNA has no form of a name."""
    try:
        yield
    except UnicodeError:
        raise OSError(errno.EINVAL, "no host has such a name: a part of it is empty or over 63 characters") from None


def _loop_class() -> Any:  # noqa: ANN401 - uvloop's is none of asyncio's
    try:
        return importlib.import_module("uvloop").Loop
    except ImportError:
        pass
    if sys.platform == "win32":  # of its two, the one that can start processes
        return asyncio.ProactorEventLoop
    return asyncio.SelectorEventLoop
