"""The process: a uvicorn server that drains before it stops, and exits 0.

uvicorn closes its socket at once on SIGTERM, ignores a second one, and ends by the signal. Here the first SIGTERM makes
/readyz say 503 while the socket still answers for the drain delay; then what was accepted is finished; a second signal
ends the process at once.
"""

import logging
import math
import os
import signal
import time
from types import FrameType

import uvicorn

from service import logs
from service.app import create_app
from service.live import Live
from service.protocol import Protocol
from service.settings import Settings

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server, with its own way to stop."""

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        """Stop by draining `live`."""
        super().__init__(config)
        self._live = live
        self._signal = signal.SIGTERM
        self._drained_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """First signal: drain. Second: end at once.

        Nothing else: a handler interrupts any line, that of a log record too, and a second signal interrupts the first.
        """
        if self._live.draining:
            os._exit(128 + sig)
        self._live.draining = True
        self._signal = signal.Signals(sig)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop now; once a second, what has waited too long.

        A Ctrl-C does not wait for the drain.
        """
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.sweep(now)
        if self._live.draining and self._drained_at is None:
            seconds = 0 if self._signal == signal.SIGINT else self._live.settings.drain_seconds
            log.info("%s: stopping in %g s", self._signal.name, seconds)
            self._drained_at = time.monotonic() + seconds
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run(settings: Settings) -> None:
    """Serve until a signal comes. Raises ModelError before anything is bound."""
    logs.configure()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
    )
    Server(config, app.state.live).run()
