"""Work that waits behind predictions: taken when none waits, in short slices, where predictions are computed.

A slice is as many rows as take some milliseconds, reckoned from the last, and those of a job are about as long as each
other. It is computed in pieces, and predictions that come meanwhile are computed after the next one. In a thread beside
them it would keep them longer: its small NumPy calls hold Python's lock, which is handed over after 5 ms or by luck.
Only rows of which one alone takes as long have a thread of their own. Bounded, first in, first out.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import ComputeFailed, DeadlinePassed, LstmServeError, QueueFull, Unavailable
from lstm_serve.model.model import Model
from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.jobs import Job, deliver
from lstm_serve.serving.pauses import UNTIL_QUEUED, pause

T = TypeVar("T")

log = logging.getLogger(__name__)

PIECE = 0.00012  # seconds of a piece, after which it stops where it can
LONGEST = 0.005  # seconds of a row, beyond which predictions do not wait for it
# Under a load that never ends some of it is done all the same: a piece after so many seconds, and other work.
PIECE_WAITS = 0.02
OTHER_WAITS = 1.0


class Work(Protocol):
    """What a job computes: rows number 0 to `count`, in slices of about `seconds` each, in their order.

    `compute(start, stop)` gives arrays that joined are (stop - start, ...), and None where it may stop. It may raise
    `count`, and NumPy's warnings are off.
    """

    seconds: ClassVar[float]

    @property
    def count(self) -> int:
        """How many rows there are, so far as is known."""

    def compute(self, start: int, stop: int) -> Iterator[AnyArray | None]:
        """What is computed of some rows."""


class Behind(Job):
    """Work on the row x (1, *input_shape): the future has what it gives, joined."""

    __slots__ = ("work",)

    def __init__(self, model: Model, x: Array, deadline: float, work: Work) -> None:
        """`deadline` is in the time of `time.monotonic`."""
        super().__init__(model, x, deadline, asyncio.get_running_loop())
        self.work = work
        self.waits = True


class SecondLane:
    """The lane behind a queue."""

    def __init__(self, queue: Batcher, max_rows: int) -> None:
        """At most `max_rows` wait in it."""
        self.rows = 0
        self.max_rows = max_rows
        self._queue = queue
        self._jobs: deque[Behind] = deque()
        self._numbers = dict[type, int]()  # in the rows of the next slice, by what computes them
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._executor: ThreadPoolExecutor | None = None

    def check_room(self, rows: int) -> None:
        """Raise QueueFull or Unavailable where so many rows have no place."""
        if self._closing:
            raise Unavailable("the service is stopping")
        if self.rows + rows > self.max_rows:
            raise QueueFull(f"{self.rows} rows of explanations are waiting; at most {self.max_rows} may")

    def submit(self, job: Behind) -> Behind:
        """Queue a job. Raises QueueFull or Unavailable."""
        self.check_room(job.work.count)
        self.rows += job.work.count
        self._jobs.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="second lane")
        return job

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """Return what work of another kind gives, done between slices; it counts as one row.

        Raises what it raises, QueueFull, Unavailable, or DeadlinePassed: what has begun by then goes on in its thread.
        """
        self.check_room(1)
        self.rows += 1
        try:
            await self._queue.is_idle(min(deadline, time.monotonic() + OTHER_WAITS))
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.get_running_loop().run_in_executor(self._thread(), work)
        except TimeoutError:
            raise DeadlinePassed("the deadline passed while the layers were computed") from None
        except LstmServeError:
            raise
        except Exception:
            log.exception("work behind predictions raised")
            raise ComputeFailed("the forward pass failed") from None
        finally:
            self.rows -= 1

    async def close(self) -> None:
        """Refuse new work, and finish what is queued."""
        self._closing = True
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    async def _work(self) -> None:
        """Work until nothing is queued."""
        while self._jobs:
            job = self._jobs[0]
            if not job.future.done() and job.deadline < time.monotonic():
                job.future.set_exception(DeadlinePassed("the deadline passed while the explanation was computed"))
            if job.future.done():
                self._jobs.popleft()
                self.rows -= job.work.count - job.started
                continue
            try:
                await self._slice(job)
            except Exception:
                log.exception("a forward pass of an explanation raised")
                if not job.future.done():
                    job.future.set_exception(ComputeFailed("the forward pass failed"))

    async def _slice(self, job: Behind) -> None:
        work, count = type(job.work), job.work.count
        numbers, row = self._numbers.get(work, 1), job.x[0].size
        call = self._queue.call if work.seconds * row / numbers < LONGEST else self._call_aside
        # Slices that are alike: the longest is shorter than where a rest is left for the last. Rounded up, since one of
        # a single row does not tell how little a second row adds.
        slices = ceil((count - job.started) / ceil(numbers / row))
        start, stop = job.started, job.started + ceil((count - job.started) / slices)
        pieces, seconds = job.work.compute(start, stop), 0.0
        while job.started < stop:
            await self._queue.is_idle(min(job.deadline, time.monotonic() + PIECE_WAITS))
            if job.future.done() or job.deadline < time.monotonic():
                return
            if not job.compute_seconds:
                job.queue_seconds = time.monotonic() - job.queued_at
            y, took = await call(partial(_piece, pieces))
            seconds += took
            job.compute_seconds += took
            if y is not None:
                job.started += len(y)
                self.rows += job.work.count - count - len(y)
                count = job.work.count
                deliver(job, y, last=job.started == count)
            await pause(UNTIL_QUEUED)
        fit = (stop - start) * row * work.seconds / max(seconds, 1e-6)
        self._numbers[work] = ceil(min(2 * max(numbers, row), fit))

    async def _call_aside(self, compute: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread(), compute)

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "behind")
        return self._executor


def _piece(pieces: Iterator[AnyArray | None]) -> tuple[AnyArray | None, float]:
    """The next rows, or None where they take longer than a piece, and the seconds that it took."""
    began = time.perf_counter()
    with np.errstate(all="ignore"):
        y = next(pieces)
        while y is None and time.perf_counter() - began < PIECE:
            y = next(pieces)
    return y, time.perf_counter() - began
