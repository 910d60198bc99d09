"""The model being served now: loaded, warmed up, and with the queue in front of it."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.batching import Batcher
from service.engine.model import Model
from service.loading import load_model
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger(__name__)

# A batch that takes longer is computed in a thread, so that health checks are answered meanwhile.
LONGEST_ON_THE_LOOP = 0.010
# How long a sequence of free length is taken to be at warm-up.
WARM_UP_TIMESTEPS = 32


class Live:
    """The model, its queue, and whether the service is ready."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Load the model and warm it up. Raises ModelError."""
        start = time.perf_counter()
        self.settings = settings
        self.metrics = metrics
        self.model = load_model(settings.model)
        batch_seconds = warm_up(self.model, settings.max_batch_rows)
        self.load_seconds = time.perf_counter() - start
        metrics.loaded(self.model, self.load_seconds)
        free = None in self.model.input_shape
        threaded = free or batch_seconds > LONGEST_ON_THE_LOOP
        self._executor = ThreadPoolExecutor(1, "compute") if threaded else None
        self.batcher = Batcher(
            max_batch_rows=settings.max_batch_rows,
            max_queue_rows=settings.max_queue_rows,
            executor=self._executor,
            observe=metrics.batch,
        )
        metrics.queued_rows.set_function(lambda: self.batcher.queued_rows)
        self.draining = False
        self.inflight_bytes = 0
        self._announce(batch_seconds, threaded=threaded)

    def _announce(self, batch_seconds: float, *, threaded: bool) -> None:
        model, origin = self.model, self.model.origin
        log.info(
            "loaded %s (%s, Keras %s): %s %s -> %s in %.2f s; %d rows take %.1f ms, computed %s",
            origin.file,
            origin.format,
            origin.keras or "unknown",
            model.kind,
            model.input_shape,
            model.output_shape,
            self.load_seconds,
            self.settings.max_batch_rows,
            batch_seconds * 1000,
            "in a thread" if threaded else "on the event loop",
        )
        for assumption in origin.assumed:
            log.warning("assumed: %s", assumption)
        if origin.verified:
            log.info("it reproduces %d golden predictions to %.1e", origin.golden_rows, origin.golden_difference)
        else:
            log.warning(
                "not verified: there are no golden predictions. Make them where Keras is: "
                "y = model.predict(x); np.savez(%r, x=x, y=y)",
                f"{self.settings.model.stem}.golden.npz",
            )

    def start(self) -> None:
        """Start the queue, in the running event loop."""
        self.batcher.start()

    async def close(self) -> None:
        """Finish what is queued."""
        await self.batcher.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    @property
    def ready(self) -> bool:
        """Whether every check is good."""
        return all(self.checks().values())

    def checks(self) -> dict[str, bool]:
        """What readiness depends on, by name."""
        return {"model": True, "batching": self.batcher.alive, "accepting": not self.draining}


def warm_up(model: Model, rows: int) -> float:
    """Compute some rows, so that the first request finds everything made. Gives the seconds of a full batch."""
    shape = tuple(WARM_UP_TIMESTEPS if size is None else size for size in model.input_shape)
    x = np.zeros((rows, *shape), model.input_dtype)
    model.forward(x[:1])
    model.forward(x)
    start = time.perf_counter()
    model.forward(x)
    return time.perf_counter() - start
