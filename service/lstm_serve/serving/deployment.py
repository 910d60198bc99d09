"""One model being served: what answers now, the queue in front of it, and how another takes its place."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, TypeVarTuple, cast

import numpy as np

from lstm_serve.errors import LstmServeError, Unsupported
from lstm_serve.formats.text import printable
from lstm_serve.loading.load import load_model, resolve
from lstm_serve.loading.repository import expect_inside
from lstm_serve.loading.sidecars.golden import savez
from lstm_serve.model import notebook
from lstm_serve.model.carry import Carrying
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.model import Model
from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.drift import MOST_MODELS, Drift
from lstm_serve.serving.second_lane import SecondLane
from lstm_serve.serving.series.carry import REPEATS
from lstm_serve.serving.series.locks import SeriesLocks
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.redis_server import RedisServer
from lstm_serve.serving.series.redis_store import RedisStore, RowFormat, meaning_of
from lstm_serve.serving.series.steps import BegunWindows, measured
from lstm_serve.serving.series.store import WINDOWS, Appended, Limits, Sent, SeriesKey, Store
from lstm_serve.serving.series.watch import Watch
from lstm_serve.serving.warmup import LONGEST_ON_THE_LOOP, warm_up
from lstm_serve.settings import Settings
from lstm_serve.telemetry.logs import log_of_model
from lstm_serve.telemetry.metrics import Metrics, ModelMetrics

log = logging.getLogger(__name__)

T = TypeVar("T")
Sizes = TypeVarTuple("Sizes")


class NamedFiles(NamedTuple):
    """A model's files, and how it is called there; None is for its card and its file to say.

    `root` is what no file of it may lie outside of, where there is such a folder.
    """

    path: Path
    name: str | None = None
    version: str | None = None
    root: Path | None = None


class Loaded(NamedTuple):
    """A model that is ready to serve, the seconds that loading and a full batch take, and the steps of its series."""

    model: Model
    load_seconds: float
    batch_seconds: float
    files: ModelFiles
    steps: BegunWindows | None

    @property
    def slow(self) -> bool:
        """Whether its batches may take longer than the event loop can wait."""
        return self.model.is_free or self.batch_seconds > LONGEST_ON_THE_LOOP


def load(settings: Settings, source: NamedFiles | None = None) -> Loaded:
    """Load a model, that of the settings unless another is given, and warm it up. Raises ModelError."""
    start = time.perf_counter()
    path, name, version, root = source or NamedFiles(settings.model, settings.name)
    if root is not None:
        expect_inside(root, resolve(path))
    model = load_model(path, **settings.told)
    about = model.about
    model = replace(model, about=replace(about, name=name or about.name, version=version or about.version))
    try:
        batch_seconds = warm_up(model, settings.max_batch_rows)
    except MemoryError:
        raise Unsupported(
            f"{path.name}: computing {settings.max_batch_rows} rows needs more memory than there is; "
            "lower max_batch_rows"
        ) from None
    steps = measured(model, batch_seconds / settings.max_batch_rows, settings.series_max)
    return Loaded(model, time.perf_counter() - start, batch_seconds, ModelFiles.of(resolve(path)), steps)


class Served(NamedTuple):
    """What answers a request: taken once, so that it is decoded, computed and encoded by one model."""

    model: Model
    digest: bytes  # that the answer says was asked
    of_model: dict[tuple[Callable[..., Any], tuple[Any, ...]], Any]  # what holds requests, by what makes it within what
    steps: BegunWindows | None  # of the series, where a row by steps takes less than a window
    carrying: Carrying | None  # of the series, where they carry the model's states

    @classmethod
    def of(cls, model: Model, steps: BegunWindows | None = None) -> Self:
        """Answer with this model."""
        return cls(model, model.origin.digest.encode(), {}, steps, Carrying.of(model))

    def made(self, make: Callable[[Model, *Sizes], T], *limits: *Sizes) -> T:
        """Return what `make` makes of the model and limits of the settings, made when it is first needed."""
        if (found := self.of_model.get((make, limits))) is None:
            found = self.of_model[make, limits] = make(self.model, *limits)
        return cast("T", found)


class Deployment:
    """A model under its name, and its queue; the model may be replaced, the name and the queue stay.

    Its older versions are answered by the same queue.
    """

    current: Served
    versions: dict[str, Served]  # all, by their numbers

    def __init__(self, loaded: Loaded, settings: Settings, metrics: Metrics, redis: RedisServer | None = None) -> None:
        """Serve what was loaded, once it is started; `redis` keeps its series, or else this process."""
        self.requests = 0  # that are under way
        self.name = loaded.model.about.name
        self._log = log_of_model(log, self.name)
        self.metrics = ModelMetrics(metrics, self.name)
        self.queue = Batcher(
            max_batch_rows=settings.max_batch_rows, max_queue_rows=settings.max_queue_rows, observe=self.metrics.batch
        )
        self.behind = SecondLane(self.queue, settings.max_queue_rows)
        self.refused: str | None = None  # why the model's files, as they are now, are not served
        self._path, self._metrics, self._drift_rows = settings.model, metrics, settings.drift_rows
        self.drift: Drift | None = None  # where the current model has a profile
        # Of several workers each would have series of its own.
        self.has_all_series = settings.workers == 1 or redis is not None
        self.locks, self.watch, self.versions = SeriesLocks(), Watch(), {}
        self.series: Store | None = None
        self._new_store = partial(self._store, settings, redis)
        metrics.queued_rows.set(lambda: self.queue.queued_rows, self.name)
        self.activate(loaded)

    def _store(self, settings: Settings, redis: RedisServer | None, model: Model) -> Store:
        """What keeps the series of a model that has any."""
        kept = WINDOWS * (model.input_shape[0] or 0)
        if model.series_mode == "carry":
            kept = max(kept, REPEATS)
        limits = Limits(kept, settings.series_max, settings.series_ttl_seconds)
        if redis is None:
            return MemoryStore(limits, self._expired)
        row = np.zeros([size or 1 for size in model.input_shape[1:]], model.input_dtype)
        form = RowFormat(row, lambda: self.current.made(meaning_of))
        return RedisStore(redis, self.name, form, limits, self._expired)

    def activate(self, loaded: Loaded) -> None:
        """Answer with this model from now on. A request that is under way keeps the one that it has taken.

        Other versions are answered as before, until `keep` says which are there.
        """
        self._expect_slow(loaded)
        self.files = loaded.files
        self.current = Served.of(loaded.model, loaded.steps)
        self.versions = {**self.versions, loaded.model.about.version: self.current}
        self.refused = None
        if self.series is None and loaded.model.series_mode is not None:
            self.series = self._new_store(loaded.model)
            self._metrics.series.set(self.series.count, self.name)
            self._metrics.series_listeners.set(self.watch.count, self.name)
        self._begin_drift(loaded.model)
        self.metrics.loaded(loaded.model, loaded.load_seconds)
        self._announce(loaded)

    def _begin_drift(self, model: Model) -> None:
        """Count from now on what comes in for this model, anew; or nothing where it has no profile."""
        if self.drift is not None:
            self.drift.end()
            self.drift = None
        self._metrics.forget_features(self.name)
        if model.profile is None or self._metrics.watched >= MOST_MODELS:
            self._metrics.keep_bins(self.name, [])
            if model.profile is not None:
                self._log.warning("it is not watched for drift: %d other models are, and no more can be", MOST_MODELS)
            return
        self.drift = Drift(model, model.profile, self._drift_rows, self._metrics, self._log)
        self._log.info("its profile is of %d rows of training data: see /drift", model.profile.rows)

    def keep(self, older: Iterable[Loaded]) -> None:
        """Answer with these too, where their versions are asked for, and with no others."""
        kept = {}
        for loaded in older:
            self._expect_slow(loaded)
            version, model = loaded.model.about.version, loaded.model
            before = self.versions.get(version)
            kept[version] = before if before is not None and before.model is model else Served.of(model, loaded.steps)
        self.versions = {**kept, self.current.model.about.version: self.current}

    @property
    def numbers(self) -> list[str]:
        """The versions that can be asked for, in their order."""
        return sorted(self.versions, key=int)

    def _expect_slow(self, loaded: Loaded) -> None:
        if loaded.slow and self.queue.executor is None:
            self.queue.executor = ThreadPoolExecutor(1, "compute")

    async def append(self, store: Store, series: SeriesKey, sent: Sent, model: Model, drift: Drift | None) -> Appended:
        """Append rows to a series by the model's rules, count them, and wake who listens; raises as `Store` does."""
        done = await store.append(series, sent, model.about.series)
        self.appended([(series, sent, done)], drift)
        return done

    async def append_each(
        self, store: Store, several: Sequence[tuple[SeriesKey, Sent]], model: Model, drift: Drift | None
    ) -> list[Appended | LstmServeError]:
        """Append rows to several series, as `append` does to one: of each what it is then, or what is wrong."""
        found = await store.append_each(several, model.about.series)
        self.appended(
            [(*each, done) for each, done in zip(several, found, strict=True) if isinstance(done, Appended)], drift
        )
        return found

    def appended(self, several: Sequence[tuple[SeriesKey, Sent, Appended]], drift: Drift | None) -> None:
        """Count rows that were appended to some series, in their order, and wake who listens."""
        new = [sent.rows[len(sent.rows) - done.fresh :] for _, sent, done in several if done.fresh]
        fresh = sum(map(len, new))
        self.metrics.appended(fresh, sum(len(sent.rows) for _, sent, _ in several) - fresh)
        for series, _, done in several:
            if done.fresh:
                self.watch.appended(series)
        if new and drift is not None:
            drift.see(new[0] if len(new) == 1 else np.concatenate(new), None)

    async def forget(self, store: Store, series: SeriesKey) -> None:
        """Forget a series, be it there or not, and tell who listens; raises as `Store` does."""
        await store.forget(series)
        self.forgotten(series)

    def _expired(self, series: SeriesKey) -> None:
        self.metrics.expired()
        self.forgotten(series)

    def forgotten(self, series: SeriesKey) -> None:
        """Tell who listens that a series is not kept any more, and let go of its windows that have begun."""
        self.watch.forgotten(series)
        for served in self.versions.values():
            if served.steps is not None:
                served.steps.forget(series)

    def record_rejection(self, reason: str) -> None:
        """Note why the model's files, as they are now, are not served."""
        self.refused = without_folders(reason, self._path)
        self._metrics.refused(self.name)
        self._log.error("not all of its files are served, requests are answered by what is loaded: %s", reason)

    def forget_rejection(self) -> None:
        """Note that what was not served is not there any more."""
        self.refused = None
        self._metrics.reload_good.set(1, self.name)
        self._log.info("all of its files are served")

    def _announce(self, loaded: Loaded) -> None:
        model, origin = loaded.model, loaded.model.origin
        self._log.info(
            "loaded %s (%s, Keras %s): %s in %.2f s; %d rows take %.1f ms, computed %s",
            origin.file,
            origin.format,
            origin.keras or "unknown",
            notebook.shapes(model),
            loaded.load_seconds,
            self.queue.max_batch_rows,
            loaded.batch_seconds * 1000,
            "on the event loop" if self.queue.executor is None else "in a thread",
        )
        if loaded.steps is not None:
            self._log.info(
                "a row of a series takes %.2f ms to its answer and %.2f ms after it, its window %.2f ms",
                *loaded.steps.costs.in_ms,
            )
        card, golden = loaded.files.card, loaded.files.golden
        if card.exists():
            self._log.info("its card is %s", printable(str(card)))
        else:
            self._log.info("it has no card: there is no %s", printable(str(card)))
        for assumption in origin.assumed:
            self._log.warning("assumed: %s", assumption)
        if origin.verified:
            self._log.info(
                "it reproduces %d golden predictions in %s to %.1e",
                origin.golden_rows,
                printable(str(golden)),
                origin.golden_difference,
            )
            if origin.rounding is not None:
                self._log.warning(
                    "float32 is not enough for 1e-5 in this model: Keras' own answers are up to %.1e from those of "
                    "float64, so the tolerance is %.1e",
                    origin.rounding,
                    origin.tolerance,
                )
        else:
            self._log.warning(
                "not verified: there are no golden predictions. Make them where Keras is: %s",
                savez(model, repr(str(golden))),
            )

    def start(self) -> None:
        """Start the queue, in the running event loop."""
        self.queue.start()

    async def retire(self) -> None:
        """Finish the requests that have taken it, once it is given to no others."""
        while self.requests:  # noqa: ASYNC110 - it is rare, and an event would cost each request
            await asyncio.sleep(0.1)
        await self.close()

    async def close(self) -> None:
        """Finish what is queued."""
        if self.series is not None and (lost := await self.series.close()):
            self._log.warning("%d series of rows end, as %s is not served any more", lost, self.name)
        self.watch.wake_all()
        await self.behind.close()
        await self.queue.close()
        if self.queue.executor is not None:
            self.queue.executor.shutdown(wait=False)


def without_folders(reason: str, path: Path) -> str:
    """What is wrong with a model's files, without where on this machine they are."""
    return reason.replace(printable(str(path)), printable(path.name)) if path.name else reason
