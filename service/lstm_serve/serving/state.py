"""What the connections and requests of a process share, whichever model they are for."""

import asyncio
from typing import Protocol

from lstm_serve.serving.memory_budget import Inflight
from lstm_serve.serving.read_scheduler import ReadScheduler
from lstm_serve.serving.series.redis_server import RedisServer
from lstm_serve.serving.slots import Slots
from lstm_serve.serving.turns import Turns
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics


class WorkerGroup(Protocol):
    """The service of which this process is one worker among several."""

    async def readiness(self) -> tuple[dict[str, bool], dict[str, str]]:
        """Return what has to be good for requests to be sent to it, and why workers are missing, by their numbers."""

    async def metrics(self) -> tuple[str, str]:
        """Return the content type and the text of what Prometheus scrapes of all workers. Raises Unavailable."""


class ServingState:
    """The settings, what is counted, what is limited, and whether the process is stopping."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Nothing is read or answered yet. Raises SettingsError where the store of series is none."""
        self.settings = settings
        self.metrics = metrics
        self.budget = Inflight(settings.max_inflight_bytes)
        self.slots = Slots(settings.max_connections, metrics.ended.add)
        self.turns = Turns()
        self.reads = ReadScheduler()
        store = settings.series_store
        self.redis = None if store is None else RedisServer(store.get_secret_value())
        self.draining = False
        self.listeners = 0  # clients that listen to series
        self.workers: WorkerGroup | None = None
        self.beat = 0.0  # when the event loop last came around, in the time of `time.monotonic`
        self.lingering: set[asyncio.Transport] = set()  # those of connections that were refused and are not closed yet
