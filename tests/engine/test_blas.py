"""How many threads BLAS has while a model computes in somebody else's process, and afterwards."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from serving import PATIENCE
from small_models import classes, dense, model, numbers
from threadpoolctl import OpenBLASController, ThreadpoolController, threadpool_limits

from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.operations.base import BaseOperation
from lstm_serve.engine.types import Array, Mask, Outputs

SHARED = [
    library
    for library in ThreadpoolController().select(user_api="blas").lib_controllers
    if getattr(library, "threading_layer", None) != "openmp"
]

pytestmark = pytest.mark.skipif(not SHARED, reason="needs a BLAS whose threads can be counted")


def threads() -> int:
    return int(SHARED[0].get_num_threads())


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = threads()
    SHARED[0].set_num_threads(2)
    OpenBLASController.clear_controlling_thread()
    assert threads() == 2
    yield
    SHARED[0].set_num_threads(before)
    OpenBLASController.clear_controlling_thread()


class Counting(BaseOperation):
    """A layer that notes how many threads BLAS has while it computes."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        seen.append(threads())
        return (xs[0],), (masks[0],)


seen: list[int] = []


def test_a_pass_has_one_thread_and_leaves_what_there_was() -> None:
    counted = model([Counting(name="counting"), dense(3, 2)])
    x = numbers(2, 4, 3)
    for call, expected in ((counted.predict, 1), (counted.predict_series, 1), (counted.trace, 1), (counted.forward, 2)):
        seen.clear()
        call(x[0] if call == counted.predict_series else x)
        assert {*seen} == {expected}
        assert threads() == 2


def test_a_pass_that_fails_leaves_what_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = classes()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(type(broken), "forward", fail)
    with pytest.raises(MemoryError):
        broken.predict(numbers(1, 4, 3))
    assert threads() == 2


@pytest.mark.parametrize("first_out", [0, 1])
def test_the_last_of_overlapping_passes_restores(first_out: int) -> None:
    came, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    found: queue.Queue[int] = queue.Queue()

    def passing(k: int) -> None:
        with one_thread():
            came[k].set()
            assert leave[k].wait(PATIENCE)
        found.put(threads())
        # The thread lives on, as one of a pool does.
        assert done.wait(PATIENCE)

    done = threading.Event()
    running = [threading.Thread(target=passing, args=(k,)) for k in range(2)]
    for k in range(2):
        running[k].start()
        assert came[k].wait(PATIENCE)
    for k, left in ((first_out, 1), (1 - first_out, 2)):
        assert threads() == 1
        leave[k].set()
        assert found.get(timeout=PATIENCE) == left
    assert threads() == 2
    done.set()
    for each in running:
        each.join(PATIENCE)


def test_the_users_own_limit_stands() -> None:
    with threadpool_limits(1, user_api="blas"):
        with one_thread():
            assert threads() == 1
        assert threads() == 1
    assert threads() == 2


def test_a_pool_that_the_users_thread_holds_is_left_alone() -> None:
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with threadpool_limits(2, user_api="blas"):
            holding.set()
            assert done.wait(PATIENCE)

    user = threading.Thread(target=hold)
    user.start()
    assert holding.wait(PATIENCE)
    with one_thread():
        assert threads() == 2
    done.set()
    user.join(PATIENCE)
    assert threads() == 2
    with one_thread():
        assert threads() == 1
    assert threads() == 2
