"""The process: a uvicorn server that drains before it stops, and exits 0.

uvicorn closes its socket at once on SIGTERM, ignores a second one, and ends by the signal. Here the first SIGTERM makes
/readyz say 503 while the socket still answers for the drain delay; then what was accepted is finished; a second signal
ends the process at once.
"""

import asyncio
import gc
import logging
import math
import os
import shlex
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import FrameType

import uvicorn

from lstm_serve.errors import SettingsError
from lstm_serve.formats import system_limits
from lstm_serve.loading.load import resolve
from lstm_serve.model.files import ModelFiles
from lstm_serve.process.admin import Admin, listen_for_admin
from lstm_serve.process.connection import Protocol
from lstm_serve.process.event_loop import new_loop
from lstm_serve.process.signals import Hangup
from lstm_serve.process.sockets import url, why_not
from lstm_serve.process.tuning import collect_seldom
from lstm_serve.serving import health
from lstm_serve.serving.health import READY
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.reload import Reloader
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.telemetry import logs
from lstm_serve.telemetry.log_handler import LogHandler
from lstm_serve.web.app import create_app

log = logging.getLogger(__name__)

# After the socket is closed: so long requests that are on their way on open connections are still read.
LAST_READ_SECONDS = 0.1
# Where a listener on all addresses is reached from its own machine.
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}
COLLECT_TICKS = 600  # a minute: some milliseconds, since what was loaded is left out
TRIM_BYTES = 8 << 20  # freed in small pieces: so many are given back beside requests, fewer when there are none


class Server(uvicorn.Server):
    """uvicorn's server, with its own way to stop."""

    def __init__(self, config: uvicorn.Config, hangup: Hangup | None = None) -> None:
        """Say in the serving state of its app that it is draining."""
        super().__init__(config)
        state = config.app.state  # type: ignore[union-attr]
        self._serving: ServingState = state.serving
        self._registry: Registry = state.registry
        self._reloader: Reloader = state.reloader
        self._hangup = hangup
        self._signal = signal.SIGTERM
        self._drained_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, which logs why it cannot listen somewhere, and ends the process with status 3."""
        port = self._serving.settings.admin_port
        listener = None if port is None else listen_for_admin(self.config.host, port)
        try:
            await super().startup(sockets)
        except SystemExit as error:
            # No traceback: it says it all. uvicorn ends within its handler of what went wrong.
            cause = error.__context__
            why = f": {why_not(cause)}" if isinstance(cause, OSError) else ""
            where = f"{self.config.host}:{self.config.port}"
            log.error("cannot listen on %s%s; --host and --port take others", where, why)  # noqa: TRY400
            raise
        if listener is not None:
            self._start_admin(listener)  # not before: who asks it when this is ready may send requests
        self._welcome()

    def _welcome(self) -> None:
        if self.servers and sys.stdout.isatty():
            port = self.servers[0].sockets[0].getsockname()[1]
            for line in welcome(self._serving.settings, port, several=self._registry.several):
                log.info(line)

    def _start_admin(self, listener: socket.socket) -> None:
        serving, registry = self._serving, self._registry

        def live() -> dict[str, bool]:
            return health.liveness_from_outside(serving, registry)

        def ready() -> dict[str, bool]:
            return {**health.readiness(serving, registry), **live()}

        checks = {**dict.fromkeys(READY, (ready, 503)), "/livez": (live, 500)}
        serving.beat = time.monotonic()
        Admin(checks, lambda: health.details(serving, registry), lambda: _metrics(serving)).start(listener)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """First signal: drain. Second: end at once.

        Nothing else: a handler interrupts any line, that of a log record too, and a second signal interrupts the first.
        """
        if self._serving.draining:
            os._exit(128 + sig)
        self.stop(sig)

    def stop(self, sig: int) -> None:
        """Begin to drain, as this signal asks for."""
        self._serving.draining = True
        self._signal = signal.Signals(sig)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop now; once a second, what has waited too long.

        Neither a Ctrl-C nor a closed terminal waits for the drain.
        """
        self._serving.beat = time.monotonic()  # each time: ten ticks of a busy loop take longer than a stalled one may
        if counter % 10 == 0:
            self._sweep()
        if counter % COLLECT_TICKS == 0:
            gc.collect()
            self._serving.budget.trim()
        if self._hangup is not None and self._hangup.came:
            self._hangup.came = False
            if not self._hangup.of_terminal:
                self.reload()
            elif not self._serving.draining:
                self.handle_exit(signal.SIGHUP, None)
        if self._serving.draining and self._drained_at is None:
            seconds = self._serving.settings.drain_seconds if self._signal == signal.SIGTERM else 0
            log.info("%s: stopping in %g s", self._signal.name, seconds)
            self._drained_at = time.monotonic() + seconds
            self._registry.wake_listeners()
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def reload(self) -> None:
        """Have the certificate, the keys and the models read again."""
        self._certificate_task = asyncio.create_task(asyncio.to_thread(self._read_certificate))
        self._reloader.ask()

    def _read_certificate(self) -> None:
        """Use the certificate and the key as they are now, for whoever connects from now on."""
        context, (cert, key) = self.config.ssl, (self.config.ssl_certfile, self.config.ssl_keyfile)
        if context is None or cert is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)  # whose key is another's changes nothing
            context.load_cert_chain(cert, key)
        except OSError as error:
            reason = _unusable(self._serving.settings, error)
            log.error("the TLS certificate stays as it was, what is there now %s", reason)  # noqa: TRY400 - it says it all
        else:
            log.info("the TLS certificate was read again")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, read what has come by now, then as uvicorn does; who waits too long is ended meanwhile."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_READ_SECONDS)
        sweeping = asyncio.create_task(self._keep_sweeping())
        await super().shutdown(sockets)
        sweeping.cancel()
        # uvloop waits, when it is closed, for whatever is open.
        for transport in [*self._serving.lingering, *(connection.transport for connection in self._connections)]:
            transport.abort()
        await asyncio.sleep(0)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._sweep()

    def _sweep(self) -> None:
        self._serving.beat = now = time.monotonic()
        for connection in self._connections:
            connection.sweep(now)
        for deployment in self._registry.deployments.values():
            if deployment.series is not None:
                deployment.series.expire()
        budget = self._serving.budget
        if budget.freed > (TRIM_BYTES if budget.bytes else 0):
            budget.trim()

    @property
    def _connections(self) -> list[Protocol]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Protocol)]


def _metrics(serving: ServingState) -> tuple[str, bytes]:
    exposition = import_module("lstm_serve.telemetry.prometheus")
    return exposition.CONTENT_TYPE, exposition.text(serving.metrics)


def welcome(settings: Settings, port: int, *, several: bool = False) -> list[str]:
    """What to tell a person who has started the service: where its API is described, and a request to try."""
    host = ANY_HOST.get(settings.host, settings.host)
    address = url(host, port, tls=settings.tls_certfile is not None)
    restricted = settings.api_keys is not None or settings.api_keys_file is not None
    key = " -H 'Authorization: Bearer KEY'" * restricted
    docs = " (it needs a key, unless --open-docs)" * (restricted and not settings.open_docs)
    try_it = f"{address}/models" if several else f"{address}/model"
    if not several and (example := ModelFiles.of(resolve(settings.model)).example).is_file():
        try_it = f"-d @{shlex.quote(str(example))} {address}/predict"
    return [f"the API, to read and to try: {address}/docs{docs}", f"a first request: curl{key} {try_it}"]


def run(settings: Settings) -> None:
    """Serve until a signal comes. Raises ModelError or SettingsError before anything is bound."""
    handler, hangup = logs.configure(), Hangup()
    serve(settings, handler, lambda config: Server(config, hangup))


def serve(settings: Settings, handler: LogHandler, server: Callable[[uvicorn.Config], Server]) -> None:
    """Load, and then serve by the server that is made of uvicorn's configuration. Raises as `run` does."""
    connections, backlog = system_limits.allow_files(settings.max_connections)
    app = create_app(settings)
    app.state.serving.slots.limit = connections
    handler.count = app.state.serving.metrics.dropped_lines.add
    collect_seldom()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        lifespan="on",
        backlog=backlog,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
        ssl_certfile=settings.tls_certfile,
        ssl_keyfile=settings.tls_keyfile,
    )
    try:
        config.load()
    except OSError as error:
        raise SettingsError(f"the TLS certificate or its key {_unusable(settings, error)}") from None
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    with asyncio.Runner(loop_factory=lambda: new_loop(app.state.serving)) as runner:
        runner.run(server(config).serve())
    if app.state.reloader.reads:
        _end_at_once()


def _unusable(settings: Settings, error: OSError) -> str:
    """Which files of TLS cannot be used, and why."""
    names = [str(path) for path in (settings.tls_certfile, settings.tls_keyfile) if path is not None]
    wrong = "no PEM, or the key is not the certificate's" if isinstance(error, ssl.SSLError) else error.strerror
    if settings.tls_keyfile is None:
        wrong = f"{wrong}; its key is looked for in the same file, where --tls-keyfile names no other"
    return f"({', '.join(names)}) cannot be used: {wrong}"


def _end_at_once() -> None:
    """End with status 0, and not by Python's way out.

    That stops a thread wherever it is. One that reads a model may hold HDF5's lock there: the process would wait for it
    for good, or crash.
    """
    logging.shutdown()
    os._exit(0)
