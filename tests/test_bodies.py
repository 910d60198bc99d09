"""Bodies, parsed and held to the model's shape, without any HTTP."""

import gc
import json
import math
from typing import Any

import numpy as np
import pytest
from echo import Echo, model_of
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bodies import one_and_many
from service.errors import InvalidInput, Malformed, TooLarge

One, Many = one_and_many(model_of(Echo(), (2, 3)), max_rows=4)
_, Free = one_and_many(model_of(Echo(), (None, 3)), max_rows=4)
_, Flat = one_and_many(model_of(Echo(), (3,)), max_rows=4)
_, Deep = one_and_many(model_of(Echo(), (2, 2, 2)), max_rows=4)


def raw(value: Any, key: str = "sequences") -> bytes:
    return json.dumps({key: value}).encode()


@pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 2, 2)])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_good_body_of_any_rank(shape: tuple[int, ...], rows: int) -> None:
    _, many = one_and_many(model_of(Echo(), shape), max_rows=4)
    x = np.arange(rows * math.prod(shape)).reshape(rows, *shape) / 7
    body = many.parse(raw(x.tolist()))
    assert body.rows == rows
    (came,) = body.arrays(np.float32)
    assert came.dtype == np.float32
    assert np.array_equal(came, x.astype(np.float32))
    (came,) = many.parse(raw(x.tolist())).arrays(np.float64)
    assert came.dtype == np.float64
    assert np.array_equal(came, x)


def test_sequences_of_several_lengths_are_runs() -> None:
    lengths = [2, 2, 1, 2]
    x = [[[float(k)] * 3] * n for k, n in enumerate(lengths)]
    arrays = list(Free.parse(raw(x)).arrays(np.float32))
    assert [array.shape for array in arrays] == [(2, 2, 3), (1, 1, 3), (1, 2, 3)]
    assert [array[0, 0, 0] for array in arrays] == [0, 2, 3]
    with pytest.raises(InvalidInput) as caught:
        list(Free.parse(raw(x).replace(b"3.0", b"1e39")).arrays(np.float32))
    assert [problem.where for problem in caught.value.problems][:2] == [("sequences", 3, 0, 0), ("sequences", 3, 0, 1)]


_, Long = one_and_many(model_of(Echo(), (20, 15)), max_rows=300)
_, LongFree = one_and_many(model_of(Echo(), (None, 15)), max_rows=300)


@pytest.mark.parametrize("many", [Long, LongFree])
@pytest.mark.parametrize("row", [0, 53, 54, 130, 299])
@pytest.mark.parametrize("value", [None, 1e39, [], True])
def test_the_first_fault_of_many_sequences_is_told(many: Any, row: int, value: Any) -> None:
    x = [[[float(k)] * 15 for _ in range(20)] for k in range(300)]
    (good,) = {array.shape[1:] for array in many.parse(raw(x)).arrays(np.float32)}
    assert good == (20, 15)
    assert sum(len(array) for array in many.parse(raw(x)).arrays(np.float32)) == many.parse(raw(x)).rows == 300
    x[row][19][14] = value
    with pytest.raises(InvalidInput) as caught:
        list(many.parse(raw(x)).arrays(np.float32))
    assert [problem.where for problem in caught.value.problems] == [("sequences", row, 19, 14)]


def test_a_key_twice_with_many_sequences() -> None:
    body = raw([[[0.5] * 15] * 20] * 140)
    with pytest.raises(InvalidInput, match='expected the key "sequences" once'):
        list(Long.parse(body[:-1] + b"," + body[1:]).arrays(np.float32))


def test_a_fault_at_the_end_of_one_long_sequence_is_told() -> None:
    x = [[0.5] * 15 for _ in range(5000)]
    x[4999][14] = None  # type: ignore[call-overload]
    with pytest.raises(InvalidInput) as caught:
        list(LongFree.parse(raw([x])).arrays(np.float32))
    assert [problem.where for problem in caught.value.problems] == [("sequences", 0, 4999, 14)]


@pytest.mark.parametrize("many", [Many, Free])
def test_too_many_sequences(many: Any) -> None:
    good = [[[0] * 3] * 2] * 5
    with pytest.raises(TooLarge, match="the body has 5 sequences; at most 4"):
        many.parse(raw(good))
    # Their number is held against the limit before any of them is looked at.
    with pytest.raises(TooLarge):
        many.parse(raw([[], *good]))
    with pytest.raises(TooLarge):
        many.parse(raw([*good, []]))


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("body", [raw([]), b"{", raw([[[0] * 3] * 2] * 5)])
def test_garbage_collection_is_left_as_it_was(body: bytes, *, collects: bool) -> None:
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises((InvalidInput, Malformed, TooLarge)):
            Many.parse(body)
        assert gc.isenabled() == collects
    finally:
        gc.enable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)
NUMBER = st.integers(-9, 9) | st.floats(width=32) | st.sampled_from([1e39, -1e39, 10**400])
NEARLY = st.lists(st.lists(st.lists(NUMBER | JSON, min_size=3, max_size=3), min_size=2, max_size=2), max_size=5)
SOUND = st.lists(st.lists(st.lists(NUMBER, min_size=3, max_size=3), min_size=2, max_size=2), min_size=1, max_size=4)


@given(value=JSON | NEARLY | SOUND, key=st.sampled_from(["sequences", "sequences", "sequence", "x"]))
@settings(deadline=None, max_examples=300)
def test_a_body_is_finite_float32_or_refused_with_reasons(value: Any, key: str) -> None:
    # The refusal comes from another walk than the acceptance: they must agree on every body.
    try:
        (x,) = Many.parse(raw(value, key)).arrays(np.float32)
    except InvalidInput as error:
        told = error.problems
        assert 1 <= len(told) <= 10
        assert all(problem.detail and len(problem.detail) < 200 for problem in told)
    except TooLarge:
        assert len(value) > 4
    else:
        assert key == "sequences"
        assert x.shape == (len(value), 2, 3)
        assert np.isfinite(x).all()
        with np.errstate(all="ignore"):
            assert np.array_equal(x, np.array(value, np.float64).astype(np.float32))
