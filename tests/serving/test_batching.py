"""The ten rules of the batcher, one by one, and under any interleaving."""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from echo import Echo, model_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from serving import PATIENCE, in_loop

from lstm_serve.engine.types import Array, Mask, Outputs
from lstm_serve.errors import ComputeFailed, DeadlinePassed, NoAnswer, NotFinite, QueueFull, Unavailable
from lstm_serve.model.model import Model
from lstm_serve.serving.batching import Batcher
from lstm_serve.serving.jobs import Job, Reservation, Shortcut
from lstm_serve.serving.pauses import UNTIL_ANSWERED


def later() -> float:
    return time.monotonic() + PATIENCE


def rows(*values: float) -> Array:
    """A row of two equal numbers for each value."""
    return np.repeat(np.array(values, np.float32)[:, np.newaxis], 2, axis=1)


@dataclass
class Rig:
    """A batcher that runs, and a model to give it."""

    batcher: Batcher
    layer: Echo
    model: Model
    batches: list[int]

    def submit(self, *values: float, deadline: float | None = None, reserved: Reservation | None = None) -> Job:
        return self.batcher.submit(
            self.model, rows(*values), later() if deadline is None else deadline, reserved=reserved
        )


Running = Callable[..., Any]


@pytest.fixture(params=["on the loop", "in a thread"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A context manager of a Rig, for each way to compute."""
    pool = ThreadPoolExecutor(1) if request.param == "in a thread" else None

    @asynccontextmanager
    async def run(
        max_batch_rows: int = 4, max_queue_rows: int = 16, observe: Callable[[], None] = lambda: None
    ) -> AsyncIterator[Rig]:
        batches: list[int] = []

        def observed(n: int, seconds: float) -> None:
            assert seconds >= 0
            batches.append(n)
            observe()

        batcher = Batcher(max_batch_rows=max_batch_rows, max_queue_rows=max_queue_rows, executor=pool, observe=observed)
        batcher.start()
        layer = Echo()
        try:
            yield Rig(batcher, layer, model_of(layer), batches)
        finally:
            await batcher.close()

    yield run
    if pool is not None:
        pool.shutdown()


async def settled(*jobs: Job) -> list[Any]:
    """For each job its answer, or its error."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)


@in_loop
async def test_rule_1_a_batch_is_what_waits_and_a_lone_request_goes_at_once(running: Running) -> None:
    async with running() as rig:
        assert (await rig.submit(1).future).tolist() == [[2, 2]]
        assert rig.layer.rows == [1]
        jobs = [rig.submit(k) for k in range(3)]
        assert [y.tolist() for y in await settled(*jobs)] == [[[2 * k, 2 * k]] for k in range(3)]
        # After a lone one the next is computed where it is submitted, if that is on the loop.
        assert rig.layer.rows == rig.batches == ([1, 3] if rig.batcher.executor else [1, 1, 2])
        assert all(job.queue_seconds >= 0 and job.compute_seconds > 0 for job in jobs)


@in_loop
async def test_a_lone_request_after_a_lone_one_is_computed_where_it_is_submitted() -> None:
    batcher, layer = Batcher(max_batch_rows=4, max_queue_rows=16), Echo(fail={2}, nan={3})
    batcher.start()
    model = model_of(layer)
    await settled(batcher.submit(model, rows(1), later()))
    failed, not_finite = await settled(*[await _soon(batcher, model, value) for value in (2, 3)])
    assert [type(failed), type(not_finite)] == [ComputeFailed, NotFinite]
    lone = await _soon(batcher, model, 4)
    assert lone.future.result().tolist() == [[8, 8]]
    assert (lone.due, lone.waits, batcher.queued_rows) == (1, False, 0)
    several = [await _soon(batcher, model, 5), *(batcher.submit(model, rows(value), later()) for value in (6, 7))]
    assert [job.future.done() for job in several] == [True, False, False]  # two in an iteration are a batch
    await settled(*several)
    assert not (await _soon(batcher, model, 8)).future.done()  # as long as they are
    assert await batcher.is_idle(later())
    assert layer.rows == [1, 1, 1, 1, 1, 1, 2, 1]
    await batcher.close()


@pytest.mark.parametrize(("before", "batches"), [(UNTIL_ANSWERED, [2]), (UNTIL_ANSWERED - 1, [1, 1])])
@in_loop
async def test_after_a_batch_of_many_what_comes_an_iteration_later_joins_the_next(
    before: int, batches: list[int]
) -> None:
    batcher, layer = Batcher(max_batch_rows=4, max_queue_rows=16), Echo()
    batcher.start()
    model = model_of(layer)
    await settled(*(batcher.submit(model, rows(value), later()) for value in range(before)))
    assert await batcher.is_idle(later())
    first = batcher.submit(model, rows(1), later())
    await asyncio.sleep(0)
    await settled(first, batcher.submit(model, rows(2), later()))
    assert layer.rows == [before, *batches]
    await batcher.close()


async def _soon(batcher: Batcher, model: Model, *values: float) -> Job:
    """Submit a request in an iteration of its own."""
    for _ in range(3):
        await asyncio.sleep(0)
    return batcher.submit(model, rows(*values), later())


@in_loop
async def test_a_lone_request_does_not_go_past_one_that_waits() -> None:
    batcher, layer = Batcher(max_batch_rows=4, max_queue_rows=16), Echo()
    batcher.start()
    model = model_of(layer)
    await settled(batcher.submit(model, rows(0), later()))
    large = await _soon(batcher, model, 1, 2, 3, 4, 5)  # of more rows than a batch: it is queued
    small = batcher.submit(model, rows(6), later())
    assert not small.future.done()
    await settled(large, small)
    assert np.concatenate(layer.calls)[:, 0].tolist() == list(range(7))
    await batcher.close()


@in_loop
async def test_rule_2_first_in_first_out_and_a_larger_request_is_split(running: Running) -> None:
    async with running(max_batch_rows=4) as rig:
        jobs = [rig.submit(0), rig.submit(*range(1, 10)), rig.submit(10, 11)]
        answers = await settled(*jobs)
        assert [y[:, 0].tolist() for y in answers] == [[0], list(range(2, 20, 2)), [20, 22]]
        assert rig.layer.rows == [4, 4, 4]
        assert np.concatenate(rig.layer.calls)[:, 0].tolist() == list(range(12))
        assert rig.batcher.queued_rows == 0


class Growing(Echo):
    """Its rows are longer each time: those of two batches do not go together."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        (y,), out = super().__call__(xs, masks)
        return (y.repeat(len(self.calls), axis=1),), out


@in_loop
async def test_the_seconds_of_a_split_request_are_those_of_all_its_batches_and_until_its_first(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    for module in ("batching", "jobs"):
        monkeypatch.setattr(f"lstm_serve.serving.{module}.time", SimpleNamespace(monotonic=lambda: clock.now))

    class Second(Echo):
        def __call__(self, *args: Any) -> Any:
            clock.now += 1
            return super().__call__(*args)

    async with running(max_batch_rows=2) as rig:
        job = rig.batcher.submit(model_of(Second()), rows(1, 2, 3, 4, 5), math.inf)
        clock.now = 10
        await settled(job)
        assert (job.queue_seconds, job.compute_seconds, rig.batches) == (10, 3, [2, 2, 1])


@in_loop
async def test_rows_that_do_not_go_together_are_an_error_of_their_job_alone(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        job, other = rig.batcher.submit(model_of(Growing()), rows(1, 2, 3), later()), rig.submit(5)
        broken, answer = await settled(job, other)
        assert isinstance(broken, ComputeFailed)
        assert answer.tolist() == [[10, 10]]


@in_loop
async def test_what_is_no_number_is_computed_again(running: Running) -> None:
    async with running() as rig:
        shortcut = Shortcut(lambda: np.array([[None, None]]), lambda _due: True)
        job = rig.batcher.submit(rig.model, rows(1), later(), shortcut)
        assert [y.tolist() for y in await settled(job)] == [[[2, 2]]]


@in_loop
async def test_shortcuts_are_asked_whether_they_pay_for_all_rows_of_the_batch(running: Running) -> None:
    async with running() as rig:
        alone = Shortcut(lambda: rows(-1), lambda due: due < 2)
        for values, shortened in (((1, 2), [False, False]), ((3,), [True])):
            jobs = [rig.batcher.submit(rig.model, rows(value), later(), alone) for value in values]
            await settled(*jobs)
            assert [job.shortened for job in jobs] == shortened
        assert rig.layer.rows == [2]


@in_loop
async def test_a_row_with_a_shortcut_beside_one_without_is_computed(running: Running) -> None:
    async with running() as rig:
        shortcut = Shortcut(lambda: rows(-1), lambda _due: True)
        jobs = [rig.batcher.submit(rig.model, rows(1), later(), shortcut), rig.submit(2)]
        assert [y.tolist() for y in await settled(*jobs)] == [[[2, 2]], [[4, 4]]]
        assert [job.shortened for job in jobs] == [False, False]


@in_loop
async def test_where_a_shortcut_raises_its_row_is_computed_alone(running: Running) -> None:
    def broken() -> Array:
        raise ValueError

    async with running() as rig:
        job = rig.batcher.submit(rig.model, rows(1), later(), Shortcut(broken, lambda _due: True))
        assert (await job.future).tolist() == [[2, 2]]
        assert (job.due, job.shortened) == (1, False)


@in_loop
async def test_rule_3_every_caller_is_answered_when_the_task_dies(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def observe() -> None:
        raise MemoryError

    async with running(max_batch_rows=2, observe=observe) as rig:
        jobs = [rig.submit(0), rig.submit(1, 2, 3), rig.submit(4), rig.submit(5)]
        answers = await settled(*jobs)
        assert [type(answer) for answer in answers] == [Unavailable] * 4
        assert rig.batcher.queued_rows == 0
        with pytest.raises(Unavailable, match="cannot compute"):
            rig.submit(6)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


@in_loop
async def test_rule_3_every_caller_is_answered_when_the_task_is_cancelled(running: Running) -> None:
    async with running() as rig:
        jobs = [rig.submit(1), rig.submit(2)]
        assert rig.batcher._task is not None
        rig.batcher._task.cancel()
        assert [type(answer) for answer in await settled(*jobs)] == [Unavailable] * 2
        assert not rig.batcher.alive


@in_loop
async def test_rule_4_who_leaves_changes_nothing_for_the_others(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        jobs = [rig.submit(k) for k in range(6)]
        jobs[0].future.cancel()
        jobs[3].future.cancel()
        answers = await settled(*jobs)
        assert [type(answers[k]) for k in (0, 3)] == [asyncio.CancelledError] * 2
        assert [answers[k].tolist() for k in (1, 2, 4, 5)] == [[[2 * k, 2 * k]] for k in (1, 2, 4, 5)]
        assert np.concatenate(rig.layer.calls)[:, 0].tolist() == [1, 2, 4, 5]
        assert rig.batcher.queued_rows == 0


@in_loop
async def test_rule_4_the_rest_of_a_split_request_is_not_computed_once_its_caller_has_left(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        job, other = rig.submit(*range(10)), rig.submit(99)
        assert job.waits
        while not rig.batches:  # noqa: ASYNC110 - each iteration is what is waited for
            await asyncio.sleep(0)
        job.abandon()
        assert (await other.future).tolist() == [[198, 198]]
        assert sum(rig.layer.rows) < 10
        assert rig.batcher.queued_rows == 0


@in_loop
async def test_rule_5_only_the_bad_row_fails(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        rig.layer.fail.add(2)
        rig.layer.nan.add(3)
        answers = await settled(*(rig.submit(k) for k in (1, 2, 3, 4)))
        assert [type(answer) for answer in answers] == [np.ndarray, ComputeFailed, NotFinite, np.ndarray]
        assert answers[3].tolist() == [[8, 8]]
        assert rig.layer.rows == [4, 1, 1, 1, 1]
        assert rig.batches == [1, 1, 1]
        assert rig.batcher.alive
        assert "Fault" in caplog.text
        assert (await rig.submit(5).future).tolist() == [[10, 10]]


@in_loop
async def test_rule_5_rows_that_are_not_finite_are_told_to_their_caller_alone(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        rig.layer.nan.add(3)
        answers = await settled(rig.submit(1, 2, 3, 4), rig.submit(5))
        assert type(answers[0]) is NotFinite
        assert answers[1].tolist() == [[10, 10]]


@in_loop
async def test_a_batch_that_cannot_be_put_together_fails_row_by_row(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as rig:
        jobs = [rig.submit(1), rig.submit(2)]
        joined = np.concatenate
        with monkeypatch.context() as patch:
            patch.setattr(np, "concatenate", lambda arrays: _no_memory() if len(arrays) > 1 else joined(arrays))
            answers = await settled(*jobs)
        assert [answer.tolist() for answer in answers] == [[[2, 2]], [[4, 4]]]
        assert rig.batcher.alive


def _no_memory() -> None:
    raise MemoryError


@in_loop
async def test_rule_6_the_queue_is_bounded_in_rows(running: Running) -> None:
    async with running(max_queue_rows=4) as rig:
        jobs = [rig.submit(1, 2, 3), rig.submit(4)]
        with pytest.raises(QueueFull, match="4 rows are waiting; at most 4 may"):
            rig.submit(5)
        with pytest.raises(QueueFull):
            rig.batcher.check_room(1)
        assert rig.batcher.queued_rows == 4
        assert all(isinstance(answer, np.ndarray) for answer in await settled(*jobs))
        assert (await rig.submit(6).future).tolist() == [[12, 12]]


@in_loop
async def test_rule_6_what_has_room_counts_as_waiting_and_is_not_refused(running: Running) -> None:
    async with running(max_queue_rows=4) as rig:
        with rig.batcher.reserve(2) as reserved:
            jobs = [rig.submit(1, 2)]
            with pytest.raises(QueueFull, match="4 rows are waiting; at most 4 may"), rig.batcher.reserve(1):
                raise AssertionError
            assert not rig.batcher.has_room(1)
            jobs += [rig.submit(*values, reserved=reserved) for values in ((3,), (4, 5), (6,))]
            assert rig.batcher.queued_rows == 6
            await settled(*jobs)
        with rig.batcher.reserve(4):
            pass
        assert rig.batcher.has_room(4)
        with rig.batcher.reserve(4):
            pass


@in_loop
async def test_rule_6_rows_that_had_room_wait_once(running: Running) -> None:
    async with running(max_batch_rows=16, max_queue_rows=16) as rig:
        with rig.batcher.reserve(8) as reserved:
            jobs = [rig.submit(*range(8), reserved=reserved), rig.submit(*range(8))]
            assert not rig.batcher.has_room(1)
            assert all(isinstance(answer, np.ndarray) for answer in await settled(*jobs))


@in_loop
async def test_rule_7_a_deadline_that_has_passed_is_not_computed(running: Running) -> None:
    async with running() as rig:
        jobs = [rig.submit(1, deadline=time.monotonic()), rig.submit(2), rig.submit(3, deadline=0)]
        answers = await settled(*jobs)
        assert [type(answer) for answer in answers] == [DeadlinePassed, np.ndarray, DeadlinePassed]
        assert rig.layer.rows == [1]


@in_loop
async def test_rule_7_what_has_begun_is_finished(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        job = rig.submit(1, 2, 3)
        while not rig.batches:  # noqa: ASYNC110 - each iteration is what is waited for
            await asyncio.sleep(0)
        job.deadline = 0
        assert (await job.future)[:, 0].tolist() == [2, 4, 6]


@in_loop
async def test_rule_8_closing_finishes_what_is_queued_and_refuses_more(running: Running) -> None:
    async with running(max_batch_rows=2) as rig:
        jobs = [rig.submit(k) for k in range(5)]
        closing = asyncio.ensure_future(rig.batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="stopping"):
            rig.submit(9)
        assert [y.tolist() for y in await settled(*jobs)] == [[[2 * k, 2 * k]] for k in range(5)]
        await closing
        assert not rig.batcher.alive
        await rig.batcher.close()


@in_loop
async def test_a_batcher_that_was_never_started_refuses_and_closes() -> None:
    batcher = Batcher(max_batch_rows=1, max_queue_rows=1)
    with pytest.raises(Unavailable):
        batcher.check_room(1)
    await batcher.close()


@in_loop
async def test_rule_10_a_batch_holds_one_shape_and_one_model(running: Running) -> None:
    async with running(max_batch_rows=4) as rig:
        other = Echo()
        another, batcher = model_of(other), rig.batcher
        long = np.ones((1, 3, 2), np.float32)
        jobs = [
            rig.submit(1),
            rig.submit(2),
            batcher.submit(another, rows(*range(6)), later()),
            rig.submit(3),
            batcher.submit(rig.model, long, later()),
            rig.submit(4),
        ]
        answers = await settled(*jobs)
        assert [len(answer) for answer in answers] == [1, 1, 6, 1, 1, 1]
        assert answers[4].tolist() == (2 * long).tolist()
        assert rig.layer.rows == [3, 1, 1]  # past the other model, and not past the other shape
        assert other.rows == [4, 2]  # split, and still of the model that it was validated against


@in_loop
async def test_rule_10_those_that_were_passed_over_keep_their_order(running: Running) -> None:
    async with running(max_batch_rows=4) as rig:
        other, answered = model_of(Echo()), list[str]()
        jobs = {
            "A1": rig.submit(0),
            **{f"B{k}": rig.batcher.submit(other, rows(k), later()) for k in (1, 2, 3)},
            "A2": rig.submit(4),
        }
        for name, job in jobs.items():
            job.future.add_done_callback(lambda _, name=name: answered.append(name))
        await settled(*jobs.values())
        assert answered == ["A1", "A2", "B1", "B2", "B3"]


@in_loop
async def test_rule_10_a_batch_holds_rows_of_one_dtype(running: Running) -> None:
    async with running() as rig:
        xs = [np.ones((1, 2), dtype) for dtype in (np.float32, np.float64)]
        await settled(*(rig.batcher.submit(rig.model, x, later()) for x in xs))
        assert [(len(x), x.dtype) for x in rig.layer.calls] == [(1, np.float32), (1, np.float64)]


@in_loop
async def test_who_waits_is_watched_and_a_lone_request_is_not(running: Running) -> None:
    async with running(max_batch_rows=2, max_queue_rows=99) as rig:
        jobs = [rig.submit(1), rig.submit(2), rig.submit(3)]
        assert [job.waits for job in jobs] == [False, False, True]
        await settled(*jobs)
        job = rig.submit(4)
        assert not job.waits
        await job.future


@in_loop
async def test_what_arrives_during_a_batch_makes_the_next() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(Echo):
        def __call__(self, *args: Any) -> Any:
            entered.set()
            assert leave.wait(PATIENCE)
            return super().__call__(*args)

    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(max_batch_rows=8, max_queue_rows=8, executor=pool)
        batcher.start()
        layer = Slow()
        model = model_of(layer)
        first = batcher.submit(model, rows(0), later())
        await asyncio.to_thread(entered.wait, 20)
        behind = [batcher.submit(model, rows(k), later()) for k in (1, 2, 3)]
        assert not first.waits
        assert all(job.waits for job in behind)
        leave.set()
        await settled(first, *behind)
        assert layer.rows == [1, 3]
        await batcher.close()


class ByHand(Executor):
    """An executor that computes when it is told to: a thread whose timing the test decides."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def finish(self) -> None:
        future, compute = self.waiting.pop(0)
        try:
            future.set_result(compute())
        except Exception as error:  # noqa: BLE001 - whatever it is, the future carries it
            future.set_exception(error)


@in_loop
async def test_rule_4_who_leaves_is_not_tried_again_either() -> None:
    executor, layer = ByHand(), Echo(fail={1})
    model = model_of(layer)
    batcher = Batcher(max_batch_rows=8, max_queue_rows=8, executor=executor)
    batcher.start()
    jobs = [batcher.submit(model, rows(k), later()) for k in (1, 2, 3)]
    for _ in range(4):
        await asyncio.sleep(0)
        while executor.waiting:
            executor.finish()
            jobs[1].abandon()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    answers = await settled(*jobs)
    assert [type(answer) for answer in answers] == [ComputeFailed, asyncio.CancelledError, np.ndarray]
    assert [x[:, 0].tolist() for x in layer.calls] == [[1, 2, 3], [1], [3]]
    await batcher.close()


@dataclass
class Sent:
    """A job that was accepted, and what is known of it."""

    job: Job
    model: int
    ids: list[int]
    late: bool
    left: bool = False
    computed_before: set[int] = field(default_factory=set)


MAX_BATCH, MAX_QUEUE = 3, 8


class Interleaving(RuleBasedStateMachine):
    """Submits, leaves, passed deadlines, failing and non-finite rows, iterations and close, in any order."""

    by_hand = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.executor = ByHand() if self.by_hand else None
        self.layers = [Echo(), Echo()]
        self.models = [model_of(layer) for layer in self.layers]
        self.sent: list[Sent] = []
        self.ids = itertools.count(1)
        self.closing: asyncio.Task[None] | None = None
        self.batcher = Batcher(max_batch_rows=MAX_BATCH, max_queue_rows=MAX_QUEUE, executor=self.executor)
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.batcher.start()

    async def _submit(self, model: int, x: Array, deadline: float) -> Job:
        return self.batcher.submit(self.models[model], x, deadline)

    @rule(
        model=st.sampled_from([0, 0, 0, 1]),
        kinds=st.lists(st.sampled_from(["good"] * 6 + ["fails", "not finite"]), min_size=1, max_size=7),
        width=st.sampled_from([2, 2, 2, 3]),
        late=st.sampled_from([False, False, False, True]),
    )
    def submit(self, model: int, kinds: list[str], width: int, *, late: bool) -> None:
        ids = [next(self.ids) for _ in kinds]
        for number, kind in zip(ids, kinds, strict=True):
            if kind == "fails":
                self.layers[model].fail.add(number)
            elif kind == "not finite":
                self.layers[model].nan.add(number)
        x = np.repeat(np.array(ids, np.float32)[:, np.newaxis], width, axis=1)
        waiting = self.batcher.queued_rows
        try:
            job = self.loop.run_until_complete(self._submit(model, x, 0.0 if late else later()))
        except QueueFull:
            assert waiting + len(ids) > MAX_QUEUE
        except Unavailable:
            assert self.closing is not None
        else:
            assert self.closing is None
            self.sent.append(Sent(job, model, ids, late))

    @precondition(lambda self: self.sent)
    @rule(pick=st.randoms())
    def leave(self, pick: Any) -> None:
        sent = pick.choice(self.sent)
        if not sent.job.future.done():
            sent.left = True
            sent.computed_before = {*self._computed(), *self._in_flight()}
        sent.job.abandon()

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        for _ in range(times):
            self.loop.run_until_complete(asyncio.sleep(0))

    @precondition(lambda self: self.executor is not None and self.executor.waiting)
    @rule()
    def finish(self) -> None:
        assert self.executor is not None
        self.executor.finish()
        self.turn(2)

    @precondition(lambda self: self.closing is None and len(self.sent) > 4)
    @rule()
    def close(self) -> None:
        self.closing = self.loop.create_task(self.batcher.close())
        self.turn(1)

    @invariant()
    def queue_is_bounded(self) -> None:
        assert 0 <= self.batcher.queued_rows <= MAX_QUEUE
        queued = sum(len(job.x) - job.started for job in self.batcher._queue)
        assert self.batcher.queued_rows == queued

    def _computed(self) -> list[int]:
        return [int(number) for layer in self.layers for x in layer.calls for number in x[:, 0]]

    def _in_flight(self) -> list[int]:
        return [int(number) for part in self.batcher._running for number in part.x[:, 0]]

    def teardown(self) -> None:
        self.loop.run_until_complete(asyncio.wait_for(self._end(), PATIENCE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        for layer in self.layers:
            seen: set[int] = set()
            for x in layer.calls:
                numbers = [int(number) for number in x[:, 0]]
                assert len(numbers) <= MAX_BATCH
                if seen.isdisjoint(numbers):  # else a row tried once more, alone
                    assert numbers == sorted(numbers)
                    assert numbers[0] > max(seen, default=0)
                else:
                    assert len(numbers) == 1
                seen.update(numbers)
        for sent in self.sent:
            self._check(sent, set(self._computed()))

    async def _end(self) -> None:
        closing = asyncio.ensure_future(self.batcher.close())
        while not closing.done():
            if self.executor is not None and self.executor.waiting:
                self.executor.finish()
            await asyncio.sleep(0)
        if self.closing is not None:
            await self.closing

    def _check(self, sent: Sent, computed: set[int]) -> None:
        future, layer = sent.job.future, self.layers[sent.model]
        assert future.done()
        if sent.left:
            assert future.cancelled()
            assert computed & set(sent.ids) <= sent.computed_before
            return
        error = future.exception()
        if sent.late:
            assert isinstance(error, DeadlinePassed)
            assert computed.isdisjoint(sent.ids)
            return
        fails, not_finite = layer.fail & set(sent.ids), layer.nan & set(sent.ids)
        if not fails and not not_finite:
            assert error is None
            assert future.result().tolist() == (2 * sent.job.x).tolist()
        else:
            assert isinstance(error, NoAnswer)
            assert type(error) in {*({ComputeFailed} if fails else ()), *({NotFinite} if not_finite else ())}


class InterleavingByHand(Interleaving):
    by_hand = True


TestOnTheLoop = Interleaving.TestCase
TestInAThread = InterleavingByHand.TestCase
TestOnTheLoop.settings = TestInAThread.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
