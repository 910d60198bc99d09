"""A worker: the service in a process beside others, on sockets that its parent has bound.

It answers the parent over a channel, does what that says, and ends with it. Signals are the parent's.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
from types import FrameType
from typing import Any, NamedTuple

import uvicorn

from lstm_serve.errors import LstmServeError, ModelError, Unavailable
from lstm_serve.process.channel import Channel, message
from lstm_serve.process.server import Server, serve
from lstm_serve.process.shared_log import share
from lstm_serve.process.signals import ENDING
from lstm_serve.serving.health import details, liveness
from lstm_serve.settings import read
from lstm_serve.telemetry import logs, reports

ANSWER_SECONDS = 2.0  # for the parent


class Told(NamedTuple):
    """What the parent tells as it starts a worker: descriptors, and whether it greets a person at a terminal."""

    channel: int
    sockets: list[int]
    log_lock: int
    greets: bool


class Worker(Server):
    """The server of one worker."""

    def __init__(
        self, config: uvicorn.Config, end: socket.socket, sockets: list[socket.socket], *, greets: bool
    ) -> None:
        """Speak with the parent over this end of a pair of sockets."""
        super().__init__(config)
        self._end, self._sockets, self._greets = end, sockets, greets
        self._channel = Channel({"report": self._report, "reload": self._reload, "stop": self._stop})
        self._serving.workers = self

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - they are the parent's
        """As uvicorn does, once the parent says that this worker may."""
        await self._channel.open(self._end)
        channel = asyncio.create_task(self._channel.run())
        channel.add_done_callback(lambda _: self.stop(signal.SIGINT))  # what else it ends with has stopped by then
        with contextlib.suppress(ConnectionError):
            await self._channel.ask("loaded", self._served())
            await super().serve(self._sockets)
        channel.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the server of a single process does."""
        await super().startup(sockets)
        await self._channel.ask("serving")

    def _welcome(self) -> None:
        if self._greets:
            super()._welcome()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave signals to the parent: where they are sent to a whole group, both get them."""

    async def readiness(self) -> tuple[dict[str, bool], dict[str, str]]:
        """Return what has to be good for requests to be sent to the service, and why workers are missing."""
        found: tuple[dict[str, bool], dict[str, str]] | None = await self._asked("ready")
        return found or ({"workers": False}, {})

    async def metrics(self) -> tuple[str, str]:
        """Return the content type and the text of what Prometheus scrapes of all workers. Raises Unavailable."""
        found: tuple[str, str] | None = await self._asked("metrics")
        if found is None:
            raise Unavailable("the metrics of all workers cannot be had now")
        return found[0], found[1]

    async def _asked(self, name: str) -> Any:  # noqa: ANN401 - what the parent's handler gives
        """Return the parent's answer, None where it gives none in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._channel.ask(name)
        except (ConnectionError, TimeoutError):
            return None

    def _served(self) -> dict[str, dict[str, str]]:
        """The digests of the models that answer, by name and version."""
        return {
            name: {version: served.digest.decode() for version, served in deployment.versions.items()}
            for name, deployment in self._registry.deployments.items()
        }

    async def _report(self, _: object) -> dict[str, Any]:
        return {
            "checks": liveness(self._registry),
            "told": details(self._serving, self._registry),
            "metrics": reports.report(self._serving.metrics),
        }

    async def _reload(self, asked: object) -> dict[str, dict[str, str]]:
        if asked:
            self.reload()
        else:
            self._reloader.look()
        await self._reloader.settled.wait()
        return self._served()

    async def _stop(self, sig: Any) -> None:  # noqa: ANN401 - the number of a signal
        self.stop(sig)


def main(told: str) -> int:
    """Serve until the parent says to stop. What a model or a setting is refused for is told to the parent."""
    for name in (*ENDING, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    gc.disable()  # as the command does, until all is loaded
    given = Told(*json.loads(told))
    for inherited in (given.channel, given.log_lock, *given.sockets):
        os.set_inheritable(inherited, False)  # a child that reads a model would have the parent wait for its end too
    handler = logs.configure()
    share(handler, given.log_lock)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # of starting and stopping the parent tells
    with socket.socket(fileno=given.channel) as end, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(fileno=one)) for one in given.sockets]
        try:
            serve(read(os.environ, {}), handler, lambda config: Worker(config, end, sockets, greets=given.greets))
        except LstmServeError as error:
            end.sendall(message("failed", content=[isinstance(error, ModelError), str(error)]))
            return 1
    return 0
