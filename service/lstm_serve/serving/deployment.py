"""The model being served now: loaded, warmed up, and with the queue in front of it."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lstm_serve.errors import Unsupported
from lstm_serve.loading.load import load_model, resolve
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.model import Model
from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.memory_budget import Inflight
from lstm_serve.serving.places import Places
from lstm_serve.serving.turns import Turns
from lstm_serve.serving.warmup import LONGEST_ON_THE_LOOP, warm_up
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

# Without a sign of life for so long the event loop hangs.
STALLED_SECONDS = 5.0


class Loaded(NamedTuple):
    """A model that is ready to serve, and how long it takes to load and to compute a full batch."""

    model: Model
    load_seconds: float
    batch_seconds: float
    files: ModelFiles

    @property
    def slow(self) -> bool:
        """Whether its batches may take longer than the event loop can wait."""
        return None in self.model.input_shape or self.batch_seconds > LONGEST_ON_THE_LOOP


def load(settings: Settings) -> Loaded:
    """Load the model and warm it up. Raises ModelError."""
    start = time.perf_counter()
    model = load_model(settings.model, **settings.told)
    try:
        batch_seconds = warm_up(model, settings.max_batch_rows)
    except MemoryError:
        raise Unsupported(
            f"{settings.model.name}: computing {settings.max_batch_rows} rows needs more memory than there is; "
            "lower max_batch_rows"
        ) from None
    return Loaded(model, time.perf_counter() - start, batch_seconds, ModelFiles.of(resolve(settings.model)))


class Live:
    """The model, its queue, and whether the service is ready."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Load the model and warm it up. Raises ModelError."""
        self.settings = settings
        self.metrics = metrics
        self.batcher = Batcher(
            max_batch_rows=settings.max_batch_rows, max_queue_rows=settings.max_queue_rows, observe=metrics.batch
        )
        metrics.queued_rows.value = lambda: self.batcher.queued_rows
        self.draining = False
        self.beat = 0.0  # when the event loop last came around, in the time of `time.monotonic`
        self.places = Places(settings.max_connections, metrics.ended.add)
        self.inflight = Inflight(settings.max_inflight_bytes)
        self.turns = Turns()
        self.lingering: set[asyncio.Transport] = set()  # those of connections that were refused and are not closed yet
        self.use(load(settings))

    def use(self, loaded: Loaded) -> None:
        """Answer with this model from now on. A request that is under way keeps the one it was validated against."""
        if loaded.slow and self.batcher.executor is None:
            self.batcher.executor = ThreadPoolExecutor(1, "compute")
        self.model = loaded.model
        self.refused: str | None = None
        self.metrics.loaded(loaded.model, loaded.load_seconds)
        self._announce(loaded)

    def refuse(self, reason: str) -> None:
        """Note why the model's files, as they are now, are not served."""
        path = self.settings.model
        self.refused = reason.replace(str(path), path.name) if path.name else reason
        self.metrics.refused()
        log.error("the model stays the one before: %s", reason)

    def _announce(self, loaded: Loaded) -> None:
        model, origin = self.model, self.model.origin
        log.info(
            "loaded %s (%s, Keras %s): %s %s -> %s in %.2f s; %d rows take %.1f ms, computed %s",
            origin.file,
            origin.format,
            origin.keras or "unknown",
            model.kind,
            model.input_shape,
            model.output_shape,
            loaded.load_seconds,
            self.settings.max_batch_rows,
            loaded.batch_seconds * 1000,
            "on the event loop" if self.batcher.executor is None else "in a thread",
        )
        card, golden = loaded.files.card, loaded.files.golden
        if card.exists():
            log.info("its card is %s", card)
        else:
            log.info("it has no card: there is no %s", card)
        for assumption in origin.assumed:
            log.warning("assumed: %s", assumption)
        if origin.verified:
            log.info(
                "it reproduces %d golden predictions in %s to %.1e",
                origin.golden_rows,
                golden,
                origin.golden_difference,
            )
            if origin.rounding is not None:
                log.warning(
                    "float32 is not enough for 1e-5 in this model: Keras' own answers are up to %.1e from those of "
                    "float64, so the tolerance is %.1e",
                    origin.rounding,
                    origin.tolerance,
                )
        else:
            log.warning(
                "not verified: there are no golden predictions. Make them where Keras is: "
                "y = model.predict(x); np.savez(%r, x=x, y=y)",
                str(golden),
            )

    def start(self) -> None:
        """Start the queue, in the running event loop."""
        self.batcher.start()

    async def close(self) -> None:
        """Finish what is queued."""
        await self.batcher.close()
        if self.batcher.executor is not None:
            self.batcher.executor.shutdown(wait=False)

    def beats(self) -> dict[str, bool]:
        """What liveness depends on, as another thread sees it."""
        return {"batching": self.batcher.alive, "loop": time.monotonic() - self.beat < STALLED_SECONDS}

    @property
    def ready(self) -> bool:
        """Whether every check is good."""
        return all(self.checks().values())

    def checks(self) -> dict[str, bool]:
        """What readiness depends on, by name."""
        return {"model": True, "batching": self.batcher.alive, "accepting": not self.draining}
