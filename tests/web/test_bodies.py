"""Bodies, parsed and held to the model's shape, without any HTTP."""

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from echo import Echo, model_of
from hypothesis import given
from hypothesis import strategies as st

from lstm_serve.errors import InvalidInput, Malformed, TooLarge
from lstm_serve.model.metadata import Feature
from lstm_serve.web.body_types import one_and_many
from lstm_serve.web.json_structure import count_marks, structure
from lstm_serve.web.nested_lists import HEAVY, MAX_LOOKED_AT

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
    assert body.size == rows
    (came,) = body.arrays(np.float32)
    assert came.dtype == np.float32
    assert np.array_equal(came, x.astype(np.float32))
    (came,) = many.parse(raw(x.tolist())).arrays(np.float64)
    assert came.dtype == np.float64
    assert np.array_equal(came, x)


@pytest.mark.parametrize("many", [Many, Free, Flat, Deep])
def test_one_sequence_in_place_of_several_is_told_once(many: Any) -> None:
    one: Any = {Flat: [0, 1, 2], Deep: [[[0, 1]] * 2] * 2}.get(many, [[0, 1, 2]] * 2)
    with pytest.raises(InvalidInput) as caught:
        many.parse(raw(one))
    (problem,) = caught.value.problems
    assert problem.where == ("sequences",)
    assert problem.detail.startswith("expected at least one of the sequences, got the ")
    assert problem.detail.endswith(" of one: wrap it in another list")


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


LONG = [[[float(k)] * 15 for _ in range(20)] for k in range(300)]
TEXT_OF = [json.dumps(sequence).encode() for sequence in LONG]


def of_texts(texts: Sequence[bytes]) -> bytes:
    return b'{"sequences":[%s]}' % b",".join(texts)


@pytest.mark.parametrize("many", [Long, LongFree])
def test_many_sequences_come_in_their_order(many: Any) -> None:
    assert many.parse(raw(LONG)).size == 300
    assert np.array_equal(np.concatenate([*many.parse(raw(LONG)).arrays(np.float32)]), np.array(LONG, np.float32))


@pytest.mark.parametrize("many", [Long, LongFree])
@pytest.mark.parametrize("row", [0, 53, 54, 130, 299])
@pytest.mark.parametrize("value", [None, 1e39, [], True])
def test_the_first_fault_of_many_sequences_is_told(many: Any, row: int, value: Any) -> None:
    wrong = json.dumps([*LONG[row][:19], [float(row)] * 14 + [value]]).encode()
    with pytest.raises(InvalidInput) as caught:
        list(many.parse(of_texts([*TEXT_OF[:row], wrong, *TEXT_OF[row + 1 :]])).arrays(np.float32))
    assert [problem.where for problem in caught.value.problems] == [("sequences", row, 19, 14)]


def test_a_fault_far_on_in_a_later_slice_is_told() -> None:
    _, many = one_and_many(model_of(Echo(), (20, 2)), max_rows=900)
    step = many.slice_rows
    assert step is not None
    row = step + MAX_LOOKED_AT // 10  # of 21 lists each
    assert row < 2 * step <= 900
    x: Any = [[[0.5] * 2] * 20 for _ in range(900)]
    x[row][7] = [0.5, None]
    with pytest.raises(InvalidInput) as caught:
        list(many.parse(raw(x)).arrays(np.float32))
    (problem,) = caught.value.problems
    assert problem.where == ("sequences", row, 7, 1)
    assert problem.detail.startswith("expected a number, got null")


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


_, Ids = one_and_many(model_of(Echo(), (None,)), 4, longest=40)
OneShort, Short = one_and_many(model_of(Echo(), (None, 3)), 4, longest=40)
_, Squares = one_and_many(model_of(Echo(), (None, None)), 4, longest=40)


@pytest.mark.parametrize(
    ("of", "value", "key"),
    [
        (OneShort, [[0] * 3] * 41, "sequence"),
        (Short, [[[0] * 3] * 3, [[0] * 3] * 41], "sequences"),
        (Short, [*[[[0] * 3] * 3] * 3, [*[[0] * 3] * 41, None]], "sequences"),
        (Ids, [[0] * 41], "sequences"),
        (Squares, [[[0] * 41] * 2], "sequences"),
    ],
)
def test_a_sequence_that_is_too_long_is_looked_at_no_further(of: Any, value: Any, key: str) -> None:
    with pytest.raises(TooLarge, match=r"a sequence has 4[12] time steps; at most 40 are computed"):
        of.parse(raw(value, key))


def test_one_sequence_that_is_much_too_long_is_not_parsed() -> None:
    body = raw([[0] * 3] * (HEAVY // 8), "sequence")
    with pytest.raises(TooLarge, match="at most 40 time steps"):
        OneShort.parse(body[:-2] + b" no JSON]}")


def test_long_sequences_are_looked_at_one_after_the_other() -> None:
    x = [[[float(k)] * 15] * n for k, n in enumerate([1000, 1000, 2000, *[20] * 20])]
    arrays = [*LongFree.parse(raw(x)).arrays(np.float32)]
    assert [array.shape[:2] for array in arrays] == [(1, 1000), (1, 1000), (1, 2000), (20, 20)]
    assert [array[0, 0, 0] for array in arrays] == [0, 1, 2, 3]


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


# Time steps as objects, by the names of the card's features.

NAMES = ("T24", "flow l/s", 'the "x" \\ {y}~')


def named(shape: tuple[int | None, ...], max_rows: int = 4) -> tuple[Any, Any]:
    about = replace(ECHO.about, features=tuple(Feature(name=name) for name in NAMES))
    return one_and_many(replace(model_of(Echo(), shape), about=about), max_rows)


ECHO = model_of(Echo(), (2, 3))
OneByName, ManyByName = named((2, 3))


def by_name(x: Any) -> Any:
    """The same with objects in place of the innermost lists, in another order."""
    if isinstance(x[0], list):
        return [by_name(item) for item in x]
    return dict(reversed([*zip(NAMES, x, strict=True)]))


def test_one_sequence_by_name_in_place_of_several_is_told_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        ManyByName.parse(raw(by_name([[0, 1, 2]] * 2)))
    assert [problem.detail for problem in caught.value.problems] == [
        "expected at least one of the sequences, got the time steps of one: wrap it in another list"
    ]


@pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 2, 3), (None, 3)])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_time_steps_by_name_are_put_into_order(shape: tuple[int | None, ...], *, ascii_only: bool) -> None:
    one, many = named(shape)
    x = np.arange(2 * math.prod(size or 5 for size in shape)).reshape(2, *(size or 5 for size in shape)) / 7
    value = by_name(x.tolist())
    for rows in (value, [x[0].tolist(), value[1]]):
        text = json.dumps({"sequences": rows}, ensure_ascii=ascii_only).encode()
        assert np.array_equal(np.concatenate([*many.parse(text).arrays(np.float64)]), x)
    (alone,) = one.parse(raw(value[1], "sequence")).arrays(np.float32)
    assert np.array_equal(alone[0], x[1].astype(np.float32))
    if len(shape) == 2:
        mixed = [[x[0, 0].tolist(), *value[0][1:]]]
        (came,) = many.parse(raw(mixed)).arrays(np.float64)
        assert np.array_equal(came, x[:1])


STEP = dict.fromkeys(NAMES, 0.5)


def of_step(step: Any) -> bytes:
    return raw([[STEP, STEP], [STEP, "here"]]).replace(
        b'"here"', step if isinstance(step, bytes) else json.dumps(step).encode()
    )


def test_a_name_twice_is_found_in_any_step() -> None:
    twice = b"{%s:1,%s:1,%s:1,%s:1}" % (*TEXTS, TEXTS[0])
    for index in range(6):
        steps = [json.dumps(STEP).encode()] * 6
        steps[index] = twice
        text = b'{"sequences":[[%s,%s],[%s,%s],[%s,%s]]}' % (*steps,)
        with pytest.raises(InvalidInput) as caught:
            ManyByName.parse(text)
        assert caught.value.problems[0].where == ("sequences", *divmod(index, 2))


AT = ("sequences", 1, 1)
TEXTS = [json.dumps(name).encode() for name in NAMES]


@pytest.mark.parametrize(
    ("step", "where", "said"),
    [
        ({"T24": 1}, AT, f"lacks {NAMES[1]}, {NAMES[2]}, which the model's card names"),
        ({**STEP, "zyxwvut": 1}, AT, "expected the 3 features that the model's card names, got 1 more"),
        ({"zyxwvut": 1}, AT, f"lacks {', '.join(NAMES)}, which the model's card names"),
        ({}, AT, f"lacks {', '.join(NAMES)}"),
        ({**STEP, "T24": "zyxwvut"}, (*AT, "T24"), "expected a number, got a string"),
        ({**STEP, "flow l/s": None}, (*AT, "flow l/s"), "expected a number, got null"),
        ({**STEP, NAMES[2]: math.nan}, (*AT, NAMES[2]), "expected a finite float32 number"),
        ({**STEP, "T24": 1e39}, (*AT, "T24"), "expected a finite float32 number"),
        ({**STEP, "T24": True}, (*AT, "T24"), "expected a number, got true or false"),
        ({**STEP, "T24": STEP}, (*AT, "T24"), "expected a number, got an object"),
        ([0.5, 1e39, 0.5], (*AT, 1), "expected a finite float32 number"),
        (b"{%s:1,%s:1,%s:1,%s:1}" % (*TEXTS, TEXTS[0]), AT, "expected each name once"),
        (b'{%s:1,%s:1,%s:1,"\\u00542\\u0034":1}' % (*TEXTS,), AT, "expected each name once"),
        (b"{%s:1,%s:1,%s:1,%s:1}" % (TEXTS[2], *TEXTS), AT, "expected each name once"),
        (b"{%s:{},%s:1,%s:1,%s:1}" % (TEXTS[0], *TEXTS), (), 'expected the key "sequences" once'),
    ],
)
def test_a_step_with_wrong_names_or_values(step: Any, where: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        [*ManyByName.parse(of_step(step)).arrays(np.float32)]
    assert caught.value.problems[0].where == where
    assert caught.value.problems[0].detail.startswith(said)
    assert "zyxwvut" not in str(caught.value.problems)


@pytest.mark.parametrize(
    "hidden", [b"[]", b"[[{}]]", b'["\\ud800"]', b"[NaN]", b'{"a":{"a":1}}', b"[" * 900 + b"]" * 900]
)
@pytest.mark.parametrize("value", [[STEP], [[STEP, STEP]]])
def test_a_key_that_hides_another_beside_names(hidden: bytes, value: Any) -> None:
    body = b'{"sequences":%s,%s' % (hidden, raw(value)[1:])
    with pytest.raises((InvalidInput, Malformed)):
        ManyByName.parse(body)
    # One name alone is as many texts as the key itself.
    about = replace(ECHO.about, features=(Feature(name="a"),))
    _, many = one_and_many(replace(model_of(Echo(), (1, 1)), about=about), 4)
    with pytest.raises(InvalidInput, match='expected the key "sequences" once'):
        many.parse(b'{"sequences":[{}],"sequences":[[{"a":1}]]}')
    (came,) = many.parse(b'{"sequences":[[{"a":1}]]}').arrays(np.float32)
    assert came.tolist() == [[[1]]]


def test_without_names_in_the_card_a_step_is_a_list() -> None:
    with pytest.raises(InvalidInput, match="expected a list of 3 features, got an object"):
        Many.parse(of_step(STEP))


def test_a_large_body_by_name_is_no_heavy_one_and_others_are() -> None:
    _, many = named((2, 3), 4000)
    assert len(raw([[STEP, STEP]] * 4000)) > HEAVY
    assert many.parse(raw([[STEP, STEP]] * 4000)).size == 4000
    with pytest.raises(TooLarge):
        many.parse(raw([[STEP, STEP]] * 4001))
    for filler in (b"{},", b'{"a":1},', b'"",', b'{"a":{"b":1}},'):
        with pytest.raises(InvalidInput, match='the key "sequences" alone'):
            many.parse(b'{"sequences":[' + filler * 90_000 + b"0]}")
    with pytest.raises(InvalidInput, match='the key "sequences" alone'):
        many.parse(json.dumps({str(k): 0 for k in range(90_000)}).encode())


MARKED = ("a [m/s2], x", "b ]}", 'c {{[[,,"" \\')


@pytest.mark.parametrize("ascii_only", [True, False])
def test_marks_in_the_names_are_none_of_the_structure(*, ascii_only: bool) -> None:
    about = replace(ECHO.about, features=tuple(Feature(name=name) for name in MARKED))
    _, many = one_and_many(replace(ECHO, about=about), 4000)
    step = dict.fromkeys(MARKED, 0.5)
    good = json.dumps({"sequences": [[step, step]] * 3000}, ensure_ascii=ascii_only).encode()
    assert len(good) > HEAVY
    assert many.parse(good).size == 3000
    with pytest.raises(TooLarge):
        many.parse(raw([[step, step]] * 4001))
    # What would be much stays so, whatever the names have.
    name = json.dumps(MARKED[2])
    for filler in (f"{{{name}:[[],[],[],[],[],[],[]]}},", f"{{{name}:0}},{{}},{{}},{{}},{{}},", f"{name},", "[],"):
        with pytest.raises((InvalidInput, TooLarge), match=r"got \d+ lists, "):
            many.parse(b'{"sequences":[%s0]}' % (filler.encode() * 200_000))


TEXTS_AND_MARKS = st.recursive(st.text('[]{},"\\a', max_size=4) | st.just(0), lambda v: st.lists(v) | st.dictionaries(
    st.text('[]{},"\\a', max_size=4), v))  # fmt: skip


@given(value=TEXTS_AND_MARKS, ascii_only=st.booleans())
def test_what_is_counted_is_what_a_parser_finds(value: Any, *, ascii_only: bool) -> None:
    def found(value: Any) -> list[int]:
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        own = [isinstance(value, kind) for kind in (list, dict, str)]
        return [sum(counts) for counts in zip(own, *map(found, inner), strict=True)]

    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert count_marks(structure(text), '[{"') == count_marks(structure(text), ']}"') == found(value)


STEPS = st.dictionaries(st.sampled_from([*NAMES, "other"]), NUMBER | JSON, max_size=4) | st.fixed_dictionaries(
    dict.fromkeys(NAMES, NUMBER)
)


@given(value=st.lists(st.lists(STEPS | st.lists(NUMBER, min_size=3, max_size=3), min_size=2, max_size=2), max_size=4))
def test_steps_by_name_are_finite_float32_or_refused_with_reasons(value: Any) -> None:
    try:
        (x,) = ManyByName.parse(raw(value)).arrays(np.float32)
    except InvalidInput as error:
        assert 1 <= len(error.problems) <= 10  # noqa: PT017 - either is good
    else:
        rows = [[[step[name] for name in NAMES] if isinstance(step, dict) else step for step in row] for row in value]
        with np.errstate(all="ignore"):
            assert np.array_equal(x, np.array(rows, np.float64).astype(np.float32))
        assert np.isfinite(x).all()


_, Sliced = named((2, 3), 10_000)


def test_a_body_of_several_slices_is_whole() -> None:
    assert Sliced.slice_rows < 5000
    body = of_texts([json.dumps([STEP, STEP]).encode()] * 10_000)
    assert sum(map(len, Sliced.parse(body).arrays(np.float32))) == 10_000


@pytest.mark.parametrize(
    ("step", "where", "said"),
    [
        (b"{%s:1,%s:1,%s:1,%s:1}" % (*TEXTS, TEXTS[1]), (), "expected each name once"),
        (b"{%s:1,%s:1,%s:1e39}" % (*TEXTS,), (NAMES[2],), "expected a finite float32 number"),
        (b"{%s:1,%s:1,%s:NaN}" % (*TEXTS,), (NAMES[2],), "expected a finite float32 number"),
        (b'{%s:1,%s:"1",%s:1}' % (*TEXTS,), (NAMES[1],), "expected a number, got a string"),
        (b"{%s:1,%s:1}" % (*TEXTS[:2],), (), f"lacks {NAMES[2]}"),
        (b"[1,2]", (), "expected a list of 3 features, got 2"),
    ],
)
@pytest.mark.parametrize("at", [0, 5500, 8200])  # near the start of a slice
def test_in_a_body_of_several_slices_a_wrong_step_is_found_too(
    at: int, step: bytes, where: tuple[Any, ...], said: str
) -> None:
    rows = [json.dumps([STEP, STEP]).encode()] * 10_000
    rows[at] = b"[%s,%s]" % (json.dumps(STEP).encode(), step)
    with pytest.raises(InvalidInput) as caught:
        [*Sliced.parse(of_texts(rows)).arrays(np.float32)]
    assert caught.value.problems[0].where == ("sequences", at, 1, *where)
    assert caught.value.problems[0].detail.startswith(said)
