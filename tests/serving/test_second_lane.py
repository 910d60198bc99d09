"""The lane behind the queue: taken when no prediction waits, bounded, and every job gets an answer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from echo import Echo, model_of
from serving import PATIENCE, in_loop

from lstm_serve.engine.types import Array
from lstm_serve.errors import ComputeFailed, DeadlinePassed, NotFinite, QueueFull, Unavailable
from lstm_serve.model.model import Model
from lstm_serve.model.records import packed, unpacked
from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.second_lane import PIECE, Behind, SecondLane


def rows(*values: float) -> Array:
    return np.repeat(np.array(values, np.float32)[:, np.newaxis], 2, axis=1)


class First:
    """Of each row the first number of the answer, of what `made` it is."""

    seconds: ClassVar[float] = 0.001

    def __init__(self, x: Array, made: Callable[[Array], Array], more: int = 0) -> None:
        self.x, self.made, self.count, self.more = x, made, len(x) - more, more

    def compute(self, start: int, stop: int) -> Iterator[Array | None]:
        if stop == self.count:
            self.count, self.more = self.count + self.more, 0
        yield self.made(self.x[start:stop])


def job(on: Model, *values: float, seconds: float = PATIENCE, more: int = 0) -> Behind:
    x = rows(*values)
    return Behind(on, x[:1], time.monotonic() + seconds, First(x, lambda part: on.forward(part)[:, 0], more))


def lanes(max_rows: int = 100) -> tuple[Batcher, SecondLane, Echo, Model]:
    layer = Echo()
    queue = Batcher(max_batch_rows=4, max_queue_rows=16)
    return queue, SecondLane(queue, max_rows), layer, model_of(layer)


@in_loop
async def test_a_job_is_answered_in_slices_and_in_order() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    numbers = np.arange(50, dtype=np.float32)
    given = lane.submit(job(on, *numbers))
    other = lane.submit(job(on, 7, 8))
    expected = on.forward(rows(*numbers))[:, 0]
    assert np.array_equal(await given.future, expected)
    assert np.array_equal(await other.future, on.forward(rows(7, 8))[:, 0])
    assert lane.rows == 0
    await lane.close()
    await queue.close()


@in_loop
async def test_slices_of_a_job_are_about_as_long_as_each_other() -> None:
    """Once it is known how long they may be, which doubles until then: no rest is left for the last."""

    class Short(First):
        seconds: ClassVar[float] = 1e9

    queue, lane, layer, on = lanes()
    queue.start()
    x = rows(*range(33))
    behind = Behind(on, x[:1], time.monotonic() + PATIENCE, Short(x, lambda part: on.forward(part)[:, 0]))
    await lane.submit(behind).future
    assert layer.rows == [1, 2, 4, 7, 10, 9]
    await lane.close()
    await queue.close()


@in_loop
async def test_work_may_become_more_while_it_is_computed() -> None:
    queue, lane, _, on = lanes(max_rows=4)
    queue.start()
    numbers = np.arange(9, dtype=np.float32)
    given = lane.submit(job(on, *numbers, more=6))
    assert np.array_equal(await given.future, on.forward(rows(*numbers))[:, 0])
    assert lane.rows == 0
    await lane.close()
    await queue.close()


@in_loop
async def test_a_slice_of_wider_rows_has_fewer() -> None:
    queue, lane, _, on = lanes(max_rows=1000)
    queue.start()
    slices: list[int] = []

    def counted(x: Array) -> Array:
        slices.append(len(x))
        return x[:, 0]

    for width in (2, 2000):
        x = np.zeros((64, width), np.float32)
        slices.clear()
        await lane.submit(Behind(on, x[:1], time.monotonic() + PATIENCE, First(x, counted))).future
    assert slices[0] == 1  # at most 128 numbers were in one before
    await lane.close()
    await queue.close()


@in_loop
async def test_nothing_is_taken_while_predictions_wait() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    first = queue.submit(on, rows(1, 2, 3), time.monotonic() + PATIENCE)
    behind = lane.submit(job(on, 5, 6))
    done: list[str] = []
    first.future.add_done_callback(lambda _: done.append("prediction"))
    behind.future.add_done_callback(lambda _: done.append("explanation"))
    await behind.future
    await asyncio.sleep(0)
    assert done == ["prediction", "explanation"]
    await lane.close()
    await queue.close()


@in_loop
async def test_a_load_that_never_ends_lets_some_of_it_through() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    ends = time.monotonic() + PATIENCE

    async def ask_without_end() -> None:
        while True:
            await queue.submit(on, rows(1), ends).future

    load = [asyncio.create_task(ask_without_end()) for _ in range(8)]
    assert np.array_equal(await lane.submit(job(on, 5, 6)).future, on.forward(rows(5, 6))[:, 0])
    assert await lane.run(lambda: "traced", ends) == "traced"
    for task in load:
        task.cancel()
    await lane.close()
    await queue.close()


@in_loop
async def test_predictions_are_computed_between_two_pieces() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    done: list[str] = []

    class Stopping(First):
        def compute(self, start: int, stop: int) -> Iterator[Array | None]:
            prediction = queue.submit(on, rows(1), time.monotonic() + PATIENCE)
            prediction.future.add_done_callback(lambda _: done.append("prediction"))
            time.sleep(2 * PIECE)  # as long as a piece, at the least
            yield None
            done.append("explanation")
            yield self.made(self.x[start:stop])

    x = rows(5)
    await lane.submit(Behind(on, x, time.monotonic() + PATIENCE, Stopping(x, lambda part: part[:, 0]))).future
    assert done == ["prediction", "explanation"]
    await lane.close()
    await queue.close()


class AtOnce(Executor):
    """An executor that computes where it is submitted: nothing it is given begins later than it might."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, the future carries it
            future.set_exception(error)
        return future


@in_loop
async def test_work_of_another_kind_begins_when_no_prediction_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_serve.serving.second_lane.ThreadPoolExecutor", lambda *_: AtOnce())
    monkeypatch.setattr("lstm_serve.serving.second_lane.OTHER_WAITS", PATIENCE)
    queue, lane, _, on = lanes(max_rows=1)
    queue.start()
    for k in range(2):
        first = queue.submit(on, rows(*range(k, k + 9)), time.monotonic() + PATIENCE)
        assert await lane.run(first.future.done, time.monotonic() + PATIENCE)
    for raised, told in ((ValueError, ComputeFailed), (NotFinite, NotFinite)):
        with pytest.raises(told):
            await lane.run(partial(_raise, raised), time.monotonic() + PATIENCE)
    assert await lane.run(lambda: lane.rows, time.monotonic() + PATIENCE) == 1
    assert lane.rows == 0
    await lane.close()
    await queue.close()


@in_loop
async def test_only_work_of_which_a_row_takes_long_has_a_thread_of_its_own() -> None:
    class Long(First):
        seconds: ClassVar[float] = 1

    queue, lane, _, _ = lanes()
    queue.start()
    x, threads = rows(1), list[threading.Thread]()

    def where(part: Array) -> Array:
        threads.append(threading.current_thread())
        return part[:, 0]

    for kind in (First, Long):
        await lane.submit(Behind(model_of(Echo()), x, time.monotonic() + PATIENCE, kind(x, where))).future
    assert [thread is threading.current_thread() for thread in threads] == [True, False]
    await lane.close()
    await queue.close()


@in_loop
async def test_what_is_abandoned_stops_after_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_serve.serving.second_lane.PIECE", 0)
    queue, lane, _, on = lanes()
    queue.start()
    x, pieces = rows(1), list[int]()

    class Left(First):
        def compute(self, start: int, stop: int) -> Iterator[Array | None]:
            for piece in range(9):
                pieces.append(piece)
                if piece == 2:
                    behind.abandon()
                yield None
            yield self.made(self.x[start:stop])

    behind = lane.submit(Behind(on, x, time.monotonic() + PATIENCE, Left(x, lambda part: part[:, 0])))
    await lane.close()
    assert (pieces, lane.rows) == ([0, 1, 2], 0)
    await queue.close()


@in_loop
async def test_numpy_does_not_warn_of_what_is_computed() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    x = rows(0)
    work = First(x, lambda part: np.reciprocal(np.reciprocal(part[:, 0])))  # in a test a warning is an error
    assert (await lane.submit(Behind(on, x, time.monotonic() + PATIENCE, work)).future).tolist() == [0]
    await lane.close()
    await queue.close()


@in_loop
async def test_it_is_bounded_and_has_room_again_once_a_job_is_abandoned() -> None:
    queue, lane, _, on = lanes(max_rows=5)
    queue.start()
    first = lane.submit(job(on, 1, 2, 3))
    with pytest.raises(QueueFull):
        lane.submit(job(on, 1, 2, 3))
    first.abandon()
    async with asyncio.timeout(PATIENCE):
        while lane.rows:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    await lane.submit(job(on, 1, 2, 3)).future
    await lane.close()
    with pytest.raises(Unavailable):
        lane.submit(job(on, 1))
    await queue.close()


@in_loop
async def test_each_failure_is_answered() -> None:
    queue, lane, layer, on = lanes()
    queue.start()
    late = lane.submit(job(on, 1, seconds=-1))
    with pytest.raises(DeadlinePassed):
        await late.future
    broken = lane.submit(Behind(on, rows(1), time.monotonic() + PATIENCE, First(rows(1), lambda _: _raise(ValueError))))
    with pytest.raises(ComputeFailed):
        await broken.future
    infinite = lane.submit(job(on, float("inf")))
    with pytest.raises(NotFinite):
        await infinite.future
    assert lane.rows == 0
    del layer
    await lane.close()
    await queue.close()


@in_loop
async def test_several_outputs_are_records() -> None:
    queue, lane, _, on = lanes()
    queue.start()

    def of_two(x: Array) -> Array:
        y = on.forward(x)
        return packed(("a", "b"), (y, y + 1))

    x = rows(1, 2)
    given = lane.submit(Behind(on, x[:1], time.monotonic() + PATIENCE, First(x, of_two)))
    assert [y.tolist() for y in unpacked(await given.future)] == [[[2, 2], [4, 4]], [[3, 3], [5, 5]]]
    await lane.close()
    await queue.close()


def _raise(error: type[Exception]) -> Array:
    raise error


@in_loop
async def test_closing_finishes_what_is_queued() -> None:
    queue, lane, _, on = lanes()
    queue.start()
    jobs = [lane.submit(job(on, k, k + 1)) for k in range(5)]
    await lane.close()
    assert all(one.future.done() and one.future.exception() is None for one in jobs)
    await queue.close()
