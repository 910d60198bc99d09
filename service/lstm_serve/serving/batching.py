"""One queue, no timer: a batch is whatever waits when the engine is free.

    submit -> queue -> take (at most max_batch_rows, one model, one row shape) -> forward -> split -> futures

A lone request goes at once, after another lone one past the queue, and under load the batches grow by themselves. A
request larger than a batch is split. Rows whose caller has left, or whose deadline has passed, are not computed. A pass
that raises is repeated row by row, so that only the request with the bad row fails. Every caller gets an answer, also
when the batching task dies.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import ComputeFailed, DeadlinePassed, QueueFull, Unavailable
from lstm_serve.model.records import all_finite
from lstm_serve.serving.jobs import Computes, Job, JobRows, Reservation, ReservedRows, Shortcut, deliver
from lstm_serve.serving.pauses import UNTIL_ANSWERED, pause

T = TypeVar("T")

log = logging.getLogger(__name__)


class Batcher:
    """The queue and the task that works through it.

    `executor` computes the batches, or the event loop itself where it is None: on one core the hand-over to a thread
    costs more than it gives, as long as a batch takes milliseconds. `observe(rows, seconds)` is told of each batch.
    """

    def __init__(
        self,
        *,
        max_batch_rows: int,
        max_queue_rows: int,
        executor: Executor | None = None,
        observe: Callable[[int, float], None] = lambda _rows, _seconds: None,
    ) -> None:
        """Bind nothing yet: `start` does, inside the event loop."""
        self.max_batch_rows = max_batch_rows
        self.max_queue_rows = max_queue_rows
        self.queued_rows = 0
        self._reserved = ReservedRows()
        self.executor = executor
        self._observe = observe
        self._queue: deque[Job] = deque()
        self._running: Sequence[JobRows] = ()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._trying: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._lone = False  # whether the last batch was one request
        self._at_once = False  # whether one was computed in this iteration of the loop, past the task
        self.alive = False  # whether the batching task is there to work
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Start the batching task in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work(), name="batching")
        self._task.add_done_callback(self._ended)
        self.alive = True

    async def close(self) -> None:
        """Refuse new work, finish what is queued, and end."""
        self._closing = True
        self._notify()
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def works(self) -> bool:
        """Whether what is asked is computed; once it is closed nothing is, and nothing is wrong."""
        return self.alive or self._closing

    def check_room(self, rows: int) -> None:
        """Raise what `submit` would for so many rows, so that a request is refused before its values are converted."""
        self._expect_open()
        if not self.has_room(rows):
            waiting = self.queued_rows + self._reserved.rows
            raise QueueFull(f"{waiting} rows are waiting; at most {self.max_queue_rows} may")

    def has_room(self, rows: int) -> bool:
        """Return whether so many more rows may wait."""
        return self.queued_rows + self._reserved.rows + rows <= self.max_queue_rows

    def _expect_open(self) -> None:
        if self._closing or not self.alive:
            raise Unavailable("the service is stopping" if self._closing else "the service cannot compute")

    def reserve(self, rows: int) -> Reservation:
        """Reserve places for rows that come later or never: until its block ends. Raises as `check_room` does."""
        self.check_room(rows)
        return Reservation(self._reserved, rows)

    def submit(
        self,
        model: Computes,
        x: Array,
        deadline: float,
        shortcut: Shortcut | None = None,
        reserved: Reservation | None = None,
    ) -> Job:
        """Queue x (n, *input_shape), n > 0. Raises QueueFull or Unavailable at once; the future has the rest.

        What is `reserved` is never refused: rows that are computed again have left the queue before.
        """
        if reserved is None:
            self.check_room(len(x))
        else:
            self._expect_open()
            reserved.take(len(x))
        job = Job(model, x, deadline, self._loop, shortcut)
        if self._is_lone(job):
            self._compute_at_once(job)
            return job
        self._queue.append(job)
        self._idle.clear()
        self.queued_rows += len(x)
        job.waits = bool(self._running) or self.queued_rows > self.max_batch_rows
        self._notify()
        return job

    def _is_lone(self, job: Job) -> bool:
        """Whether it is to be computed by itself, as the last one was, an iteration of the event loop ago or more."""
        if self._at_once:
            self._lone = False  # two have come in one: they would have been a batch
        free = self._lone and self.executor is None and not self._queue
        return free and len(job.x) <= self.max_batch_rows and job.deadline >= job.queued_at

    def _compute_at_once(self, job: Job) -> None:
        """Compute a request where it is submitted: past the queue, the task and two iterations of the event loop."""
        self._at_once = True
        self._loop.call_soon(self._end_turn)
        job.started = len(job.x)
        parts, start = [JobRows(job, 0, len(job.x))], time.monotonic()
        try:
            y = self._way(parts)()
            finite = all_finite(y)
        except Exception:
            log.exception("a forward pass of a request raised; each row is tried alone")
            self._trying = self._loop.create_task(self._compute_alone(parts))
        else:
            self._hand_out(parts, y, time.monotonic() - start, finite=finite)

    def _end_turn(self) -> None:
        self._at_once = False

    def run_after(self, work: Callable[[], Callable[[], None]]) -> None:
        """Do a little work that nobody waits for, where batches are computed, once what is answered now is out.

        What it returns is called on the event loop. Neither may raise.
        """
        if self.executor is None:
            self._loop.call_soon(_do, work)
        elif self.alive:
            self.executor.submit(lambda: self._loop.call_soon_threadsafe(work()))

    async def is_idle(self, deadline: float) -> bool:
        """Wait until nothing is queued or computed, or until then, in the time of `time.monotonic`."""
        while not self._idle.is_set():
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _work(self) -> None:
        requests = 0  # in the last batch
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._wake = self._loop.create_future()
                self._idle.set()
                await self._wake
                if requests >= UNTIL_ANSWERED:
                    await pause(1)  # after a batch of many this one comes in parts, of which the last is not queued yet
            self._running = self._take()
            requests = len(self._running)
            if requests:
                await self._compute(self._running)
                self._running = ()
            self._lone = requests == 1
            # What has arrived meanwhile joins the next batch, or is refused. After a batch of few the pause is shorter:
            # beside a flood of another model iterations are long, and who is seldom asked does not wait for four.
            await pause(min(UNTIL_ANSWERED, requests))

    def _take(self) -> list[JobRows]:
        """The next batch: first in, first out, rows of one shape and one model.

        Another model's, that of another version, are passed over: versions that are asked by turns make no batches of
        one. The first of those that were passed over is in the next batch.
        """
        parts: list[JobRows] = []
        passed: list[Job] = []
        rows, now = 0, time.monotonic()
        while self._queue and rows < self.max_batch_rows:
            job = self._queue[0]
            start, end = job.started, len(job.x)
            if job.deadline < now and not start and not job.future.done():
                job.future.set_exception(DeadlinePassed("the deadline passed while the request waited"))
            if job.future.done():
                self._queue.popleft()
                self.queued_rows -= end - start
                continue
            form = job.x.shape[1:], job.x.dtype
            if not parts:
                model, first = job.model, form
            elif job.model is not model:
                if len(passed) >= self.max_batch_rows:
                    break
                passed.append(self._queue.popleft())
                continue
            elif form != first:
                break
            if not start:
                job.queue_seconds = now - job.queued_at
            job.started = stop = min(end, start + self.max_batch_rows - rows)
            parts.append(JobRows(job, start, stop))
            rows += stop - start
            self.queued_rows -= stop - start
            if stop == end:
                self._queue.popleft()
        self._queue.extendleft(reversed(passed))
        return parts

    async def _compute(self, parts: Sequence[JobRows]) -> None:
        start = time.monotonic()
        try:
            y = await self.call(self._way(parts))
            finite = all_finite(y)
        except Exception:
            log.exception("a forward pass of %d requests raised; each row is tried alone", len(parts))
            await self._compute_alone(parts)
            return
        self._hand_out(parts, y, time.monotonic() - start, finite=finite)

    def _hand_out(self, parts: Sequence[JobRows], y: Array, seconds: float, *, finite: bool) -> None:
        """Give each job its rows of y, which took so long."""
        self._observe(len(y), seconds)
        at = 0
        for part in parts:
            part.job.compute_seconds += seconds
            part.job.due = len(y)
            rows = part.stop - part.start
            deliver(part.job, y[at : at + rows], last=part.is_last, finite=finite)
            at += rows

    async def _compute_alone(self, parts: Sequence[JobRows]) -> None:
        for part in parts:
            if part.job.future.done():
                continue
            start = time.monotonic()
            try:
                forward = part.job.model.forward
                y = np.concatenate([await self.call(partial(forward, row[np.newaxis])) for row in part.x])
            except Exception:
                log.exception("a forward pass of one row raised")
                if not part.job.future.done():
                    part.job.future.set_exception(ComputeFailed("the forward pass failed"))
            else:
                seconds = time.monotonic() - start
                part.job.compute_seconds += seconds
                part.job.due = 1
                self._observe(len(y), seconds)
                deliver(part.job, y, last=part.is_last)

    def _way(self, parts: Sequence[JobRows]) -> Callable[[], Array]:
        """What computes the rows' y, in their order: the jobs' shortcuts where all have one that pays."""
        ways = [part.job.shortcut for part in parts]
        shortcuts = [way for way in ways if way is not None and way.pays(len(parts))]
        if len(shortcuts) == len(parts):
            return partial(_shortened, parts, shortcuts)
        x = parts[0].x if len(parts) == 1 else np.concatenate([part.x for part in parts])
        return partial(parts[0].job.model.forward, x)

    async def call(self, compute: Callable[[], T]) -> T:
        """Return what `compute` gives, computed where batches are, between two."""
        if self.executor is None:
            return compute()
        return await self._loop.run_in_executor(self.executor, compute)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Answer whoever is left when the batching task ends, which it does by itself only when it is closed."""
        self.alive = False
        if not task.cancelled() and task.exception() is not None:
            log.critical("the batching task died; nothing is computed any more", exc_info=task.exception())
        for job in [*(part.job for part in self._running), *self._queue]:
            if not job.future.done():
                job.future.set_exception(Unavailable("the service cannot compute"))
        self._queue.clear()
        self.queued_rows = 0


def _do(work: Callable[[], Callable[[], None]]) -> None:
    work()()


def _shortened(parts: Sequence[JobRows], shortcuts: Sequence[Shortcut]) -> Array:
    y = np.concatenate([shortcut.compute() for shortcut in shortcuts])
    for part in parts:
        part.job.shortened = True
    return y
