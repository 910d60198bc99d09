"""Several workers at one address: this process binds the sockets, has a worker listen on each, and replaces what ends.

It loads no model, and answers nothing itself but health and metrics. A socket stays open here whatever becomes of its
worker: who connects meanwhile is answered by the successor.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from lstm_serve.errors import LstmServeError, ModelError, SettingsError
from lstm_serve.process.admin import Admin, listen_for_admin
from lstm_serve.process.channel import Handlers
from lstm_serve.process.place import Digests, WorkerPlace
from lstm_serve.process.shared_log import share
from lstm_serve.process.signals import ENDING, Hangup
from lstm_serve.process.sockets import bind, expect_free, or_end, url
from lstm_serve.serving.health import READY, STALLED_SECONDS, told_together
from lstm_serve.settings import CLOUDS, PREFIX, Settings, variables
from lstm_serve.telemetry import logs, reports
from lstm_serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

HUNG_SECONDS = 10  # without an answer a worker is ended
SCRAPE_SECONDS = 1.0  # for an answer to a scrape; of whom gives none, what it told last counts
MOST_SHORT = 5  # where so many fail one after the other, and no worker serves meanwhile, the service ends


class Workers:
    """The workers, and what they count together."""

    def __init__(self, settings: Settings, sockets: list[list[socket.socket]], hangup: Hangup, log_lock: int) -> None:
        """None is started. `sockets` are those of each worker."""
        self._settings, self._hangup, self._log_lock = settings, hangup, log_lock
        self._places = [WorkerPlace(number, own) for number, own in enumerate(sockets, 1)]
        own = settings.model_copy(update={"workers": len(sockets), "admin_port": None, "reload_seconds": 0.0})
        others = {name: value for name, value in os.environ.items() if not (name.startswith(PREFIX) or name in CLOUDS)}
        self._env = others | variables(own)
        self._counted = Metrics()  # by this process, and by workers that have ended
        self.dropped = self._counted.dropped_lines.add
        self._asking, self._over = threading.Lock(), False  # the admin port's thread its loop, until that ends
        self._loaded, self._stopping, self._reloading = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        self._open = False  # whether all have served
        self._short = 0  # how many have failed since one has served for long
        self._failure: LstmServeError | None = None

    async def run(self, admin: socket.socket | None) -> None:
        """Serve until a signal comes, with health and metrics on `admin`. Raises LstmServeError."""
        loop = asyncio.get_running_loop()
        for sig in ENDING:
            loop.add_signal_handler(sig, self._signalled, sig)
        if admin is not None:
            self._start_admin(admin, loop)
        ticking = asyncio.create_task(self._tick())
        await asyncio.gather(*map(self._keep, self._places))
        ticking.cancel()
        with self._asking:
            self._over = True
        await asyncio.sleep(0)  # what was asked last has begun: it ends with the loop
        if self._failure is not None:
            raise self._failure

    # The life of a worker.

    async def _keep(self, place: WorkerPlace) -> None:
        """Have a worker in this place until the service stops, or none can be had in any."""
        while not self._stopping.is_set():
            how = await self._live(place)
            if place.told is not None:
                reports.add_counted(self._counted, place.told["metrics"])
            failure, place.reason = place.failure, str(place.failure or f"it has ended {how}")
            place.short = 0 if place.lasting else place.short + 1
            self._short = 0 if any(one.lasting for one in self._places) else self._short + 1
            place.clear()
            if self._stopping.is_set():
                return
            if not self._open or self._short >= MOST_SHORT:
                often = f", as {self._short - 1} before it" * (self._short > 1)
                self._fail(failure or LstmServeError(f"worker {place.number} has ended as it began{often}: {how}"))
                return
            then = f" in {place.pause} s" * (place.pause > 0)
            log.error("worker %d has ended: %s; another takes its place%s", place.number, failure or how, then)
            self._counted.worker_restarts.add()
            if place.pause:
                place.leave()
                await place.wait()

    async def _live(self, place: WorkerPlace) -> str:
        """Start a worker and wait until it has ended. Gives how it did."""
        handlers: Handlers = {
            "loaded": partial(self._has_loaded, place),
            "serving": partial(self._serves, place),
            "failed": partial(self._has_failed, place),
            "ready": lambda _: self._ready_and_missing(),
            "metrics": lambda _: self._metrics(),
        }
        return await place.live(handlers, self._env, self._log_lock, greets=place.number == 1 and not self._open)

    async def _has_failed(self, place: WorkerPlace, told: list[Any]) -> None:
        of_model, reason = told
        place.failure = (ModelError if of_model else SettingsError)(reason)

    async def _has_loaded(self, place: WorkerPlace, models: Digests) -> None:
        """Let it serve: at the start once all have loaded, and only what the others serve, who read it again first."""
        if self._stopping.is_set():
            place.kill()
        place.models = models
        if not self._loaded.is_set() and all(one.models is not None for one in self._places):
            try:
                expect_free(place.sockets)
            except OSError as error:
                self._fail(LstmServeError(f"cannot listen: {error.strerror}; --host and --port take others"))
            self._loaded.set()
        await self._loaded.wait()
        async with self._reloading:
            differ = [one for one in self._places if one.let and one.models != models]
            await self._reload(differ, asked=True)
            if any(one.models != models for one in differ):
                place.failure = ModelError(
                    "the models' files are not what the other workers serve, nor do those take them: the log says why. "
                    "Put back what they serve, or start the service again"
                )
                place.kill()
            place.let = True

    async def _serves(self, place: WorkerPlace, _: None) -> None:
        place.since = place.seen = asyncio.get_running_loop().time()
        place.away = False
        place.watching = asyncio.create_task(self._watch(place))
        if not self._open and all(one.since is not None for one in self._places):
            self._open = True
            port, tls = place.sockets[0].getsockname()[1], self._settings.tls_certfile is not None
            where = url(self._settings.host, port, tls=tls)
            log.info("%d workers running on %s (Press CTRL+C to quit)", len(self._places), where)

    async def _watch(self, place: WorkerPlace) -> None:
        """End a worker that hangs, or is broken."""
        while True:
            if not await place.answers(HUNG_SECONDS):
                log.error("worker %d does not answer for %d seconds: it is ended", place.number, HUNG_SECONDS)
                break
            if not self._stopping.is_set() and place.told is not None and not all(place.told["checks"].values()):
                log.error("worker %d is broken: it is ended", place.number)
                break
            await asyncio.sleep(1)
        place.kill()

    # Signals, and files that change.

    def _signalled(self, sig: int) -> None:
        if self._stopping.is_set():
            for place in self._places:
                place.kill()
            os._exit(128 + sig)
        self._stop(sig)

    def _stop(self, sig: int) -> None:
        """Have each worker stop, as a single process does. What listens from now on ends with its worker."""
        self._stopping.set()
        for place in self._places:
            place.again.set()
            for one in place.sockets:
                one.close()
            if place.since is None:
                place.kill()
            else:
                with contextlib.suppress(ConnectionError):  # it has ended
                    place.channel.tell("stop", sig)

    def _fail(self, failure: LstmServeError) -> None:
        self._failure = self._failure or failure
        if not self._stopping.is_set():
            self._stop(signal.SIGINT)

    async def _tick(self) -> None:
        """Ten times a second: whether files are to be read again."""
        every, looked = self._settings.reload_seconds, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(0.1)
            now = asyncio.get_running_loop().time()
            asked, self._hangup.came = self._hangup.came, False
            if asked and self._hangup.of_terminal:
                if not self._stopping.is_set():
                    self._stop(signal.SIGHUP)
            elif asked or (every and now - looked >= every):
                looked = now
                async with self._reloading:
                    await self._reload([one for one in self._places if one.let], asked=asked)
                for place in self._places if asked else []:
                    place.again.set()

    async def _reload(self, places: list[WorkerPlace], *, asked: bool) -> None:
        """Have workers read what has changed, or may have, one after the other: each needs memory for it."""
        for place in places:
            # Who takes the place of one that has ended meanwhile has not served yet: it waits for the end of this.
            if place.let:
                with contextlib.suppress(ConnectionError):  # it has ended
                    place.models = await place.channel.ask("reload", asked)

    # What is told.

    def _start_admin(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        def of_loop(make: Callable[[], Coroutine[Any, Any, T]], late: T) -> T:
            with self._asking:
                if self._over:
                    raise ConnectionAbortedError
                asked = asyncio.run_coroutine_threadsafe(make(), loop)
            try:
                return asked.result(STALLED_SECONDS)
            except TimeoutError:
                return late
            except CancelledError:
                raise ConnectionAbortedError from None

        async def live() -> dict[str, bool]:
            return {"loop": True}

        def metrics() -> tuple[str, bytes]:
            content_type, text = of_loop(self._metrics, ("text/plain", ""))
            return content_type, text.encode()

        def told() -> dict[str, Any]:
            found = told_together(one.told["told"] for one in self._places if one.told is not None)
            return found | ({"missing": missing} if (missing := self._missing()) else {})

        hangs = {"loop": False}
        ready = partial(of_loop, self._ready, hangs), 503
        health = {**dict.fromkeys(READY, ready), "/livez": (partial(of_loop, live, hangs), 500)}
        Admin(health, told, metrics).start(listener)

    async def _ready(self) -> dict[str, bool]:
        """Whether who connects is answered: a place that is away is nobody's."""
        now = asyncio.get_running_loop().time()
        good = [one.since is not None and now - one.seen < STALLED_SECONDS for one in self._places if not one.away]
        return {"workers": bool(good) and all(good), "accepting": not self._stopping.is_set()}

    async def _ready_and_missing(self) -> tuple[dict[str, bool], dict[str, str]]:
        return await self._ready(), self._missing()

    def _missing(self) -> dict[str, str]:
        """Why a worker is missing, by its number."""
        return {str(one.number): one.reason for one in self._places if one.reason and one.since is None}

    async def _metrics(self) -> tuple[str, str]:
        """The content type and the text of what all have counted."""
        exposition = await asyncio.to_thread(import_module, "lstm_serve.telemetry.prometheus")
        places = [one for one in self._places if one.since is not None]
        if asked := [asyncio.create_task(one.ask_report()) for one in places]:
            for late in (await asyncio.wait(asked, timeout=SCRAPE_SECONDS))[1]:
                late.cancel()
        together = Metrics()
        if self._settings.series_store is not None:
            together.series.together = max  # each tells of the same store
        told = [one.told["metrics"] for one in self._places if one.told is not None]
        for one in told:
            reports.add_present(together, one)
        there = together.model.values
        for (model,) in [*self._counted.rows.counts] if there else []:
            if model not in there:  # it was taken away
                self._counted.forget(str(model))
        for one in (reports.report(self._counted), *told):
            reports.add_counted(together, one)
        pids = [place.process.pid for place in places if place.process is not None]
        return exposition.CONTENT_TYPE, exposition.text(together, pids).decode()


def run(settings: Settings, count: int) -> None:
    """Serve by so many workers until a signal comes. Raises LstmServeError before they listen."""
    if sys.platform != "linux":
        raise SettingsError(
            f"{PREFIX}WORKERS: several of them need Linux, which spreads who connects among the sockets of one port "
            "(SO_REUSEPORT); here start several services behind a proxy"
        )
    keys = settings.api_keys_file
    if keys is not None and keys.exists() and not keys.is_file():
        raise SettingsError(f"{PREFIX}API_KEYS_FILE is a pipe, which can be read once: for several workers give a file")
    handler, lock, hangup = logs.configure(), os.memfd_create("log"), Hangup()
    share(handler, lock)
    with or_end(log, settings.host, settings.port, "--host and --port take others"):
        sockets = bind(settings.host, settings.port, count)
    admin = None if settings.admin_port is None else listen_for_admin(settings.host, settings.admin_port)
    workers = Workers(settings, sockets, hangup, lock)
    handler.count = workers.dropped
    asyncio.run(workers.run(admin))
