"""What waits in a queue and is computed in batches: a request's rows, and how their answers come together."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import ComputeFailed, NotFinite
from lstm_serve.model.records import all_finite

log = logging.getLogger(__name__)


class Shortcut(NamedTuple):
    """A way to the y of a job of one row, (1, *output_shape), that may be shorter than a forward pass.

    `pays(due)` says whether it is where so many rows are due at once.
    """

    compute: Callable[[], Array]
    pays: Callable[[int], bool]


class Computes(Protocol):
    """A model, or what else computes rows; those of one are computed together."""

    def forward(self, x: Array) -> Array:
        """Rows x (n, ...) to their y (n, ...)."""


class Job:
    """A request's rows on their way: x (n, *input_shape) of one model, and the future of its y (n, *output_shape)."""

    __slots__ = (
        "compute_seconds",
        "deadline",
        "done",
        "due",
        "future",
        "model",
        "queue_seconds",
        "queued_at",
        "shortcut",
        "shortened",
        "started",
        "waits",
        "x",
    )

    def __init__(
        self,
        model: Computes,
        x: Array,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        shortcut: Shortcut | None = None,
    ) -> None:
        """`deadline` is in the time of `time.monotonic`."""
        self.model = model
        self.x = x
        self.deadline = deadline
        self.future: asyncio.Future[Array] = loop.create_future()
        self.queued_at = time.monotonic()
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0
        self.started = 0  # rows that are in a batch or behind one
        self.done: list[Array] = []  # the rows of y so far
        self.waits = False  # whether it takes more than the next batch, and its caller is worth watching
        self.shortcut, self.shortened = shortcut, False
        self.due = 0  # rows in its last batch

    def abandon(self) -> None:
        """Say that nobody waits for it any more; nothing where its answer is there."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # or asyncio would complain that nobody asked for it
        self.future.cancel()


class JobRows(NamedTuple):
    """Rows start to stop of a job, in one batch."""

    job: Job
    start: int
    stop: int

    @property
    def x(self) -> Array:
        """The rows themselves."""
        return self.job.x[self.start : self.stop]

    @property
    def is_last(self) -> bool:
        """Whether they are the job's last."""
        return self.stop == len(self.job.x)


class ReservedRows:
    """How many rows are reserved in a queue, and have not come."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        """None are."""
        self.rows = 0


class Reservation(AbstractContextManager["Reservation"]):
    """Of rows that are to come into a queue: they count against its limit already, and are not refused any more."""

    __slots__ = ("_reserved", "left")

    def __init__(self, reserved: ReservedRows, rows: int) -> None:
        """Of so many rows none has come; they are reserved from now on, and those that have not come until it ends."""
        self._reserved, self.left = reserved, rows
        reserved.rows += rows

    def take(self, rows: int) -> None:
        """Say that so many have come, of those that were to."""
        come = min(rows, self.left)
        self.left -= come
        self._reserved.rows -= come

    def __exit__(self, *_: object) -> None:
        """No more come."""
        self.take(self.left)


def deliver(job: Job, y: Array, *, last: bool, finite: bool = False) -> None:
    """Hand a job its next rows, `finite` where that is known; the last ones complete it. Raises nothing."""
    if job.future.done():
        return
    try:
        if not finite and not all_finite(y):
            job.future.set_exception(NotFinite("the model answered NaN or infinity"))
        elif last and not job.done:
            job.future.set_result(y)
        else:
            job.done.append(y)
            if last:
                job.future.set_result(np.concatenate(job.done))
    except Exception:  # of memory, or rows that do not go together: it must not end the batching task
        log.exception("the rows of an answer could not be put together")
        job.future.set_exception(ComputeFailed("the forward pass failed"))
