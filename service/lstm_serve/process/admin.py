"""Health and metrics on a port of their own, from a thread: no limit on connections, no busy loop hides or fakes them.

It knows the service by what it is given alone, so that another process may have it as well. Plain HTTP, and no key:
the port is for the machine's own, an orchestrator and Prometheus.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson

from lstm_serve.process.sockets import listen, or_end
from lstm_serve.serving.health import content

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 100
MAX_HEAD = 1 << 13
SECONDS = 5.0  # for a request and its answer

Checks = Callable[[], Mapping[str, bool]]


def listen_for_admin(host: str, port: int) -> socket.socket:
    """Return the socket for `Admin`; where there can be none, end the process with status 3."""
    with or_end(log, host, port, "--admin-port takes another"):
        listener = listen(host, port)
    log.info("health and metrics on http://%s:%d", host, listener.getsockname()[1])
    return listener


class Admin:
    """The listener. Each path of health has its checks, and the status that it answers where one of them fails."""

    def __init__(
        self,
        health: Mapping[str, tuple[Checks, int]],
        told: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], tuple[str, bytes]],
    ) -> None:
        """`told` gives what is told beside the checks, `metrics` a content type and what Prometheus scrapes.

        All are called in the listener's thread.
        """
        self._health, self._told = health, told
        self._metrics = metrics
        self._open: dict[asyncio.StreamWriter, None] = {}  # who came first is first

    def start(self, listener: socket.socket) -> None:
        """Answer on this socket, in a thread that ends with the process."""
        threading.Thread(target=lambda: asyncio.run(self._serve(listener)), name="admin", daemon=True).start()

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listener, limit=MAX_HEAD)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            # Who has waited longest makes room: half requests keep nobody out.
            longest = next(iter(self._open))
            del self._open[longest]
            longest.transport.abort()
        self._open[writer] = None
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who asks so needs no answer
        except Exception:
            log.exception("a request to the admin port failed")
        finally:
            self._open.pop(writer, None)
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.decode("latin-1").partition(" ")
        path, _, query = rest.split(" ", 1)[0].partition("?")
        status, content_type, body = 404, "application/json", b'{"error":"expected /livez, /readyz or /metrics"}'
        if method not in {"GET", "HEAD"}:
            status, body = 405, b'{"error":"expected GET or HEAD"}'
        elif path == "/metrics":
            status, (content_type, body) = 200, self._metrics()
        elif path in self._health:
            checks, failed = self._health[path]
            found = checks()
            status = 200 if all(found.values()) else failed
            body = orjson.dumps(content(found, self._told() if "verbose" in query else None))
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"content-type: {content_type}",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            *(["allow: GET, HEAD"] if status == 405 else []),
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)
