import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import classes, dense, lstm, model, numbers

from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.errors import InvalidInput, SettingsError
from lstm_serve.model.metadata import About, Feature
from lstm_serve.model.model import Model
from lstm_serve.scoring import row_lines
from lstm_serve.scoring.follow import Answered, Follower
from lstm_serve.scoring.row_lines import MAX_LINE, arriving

NAMES = ("alpha", "beta", "gamma")
NAMED = classes(about=About(name="m", features=tuple(Feature(name=name) for name in NAMES)))
UNNAMED = classes()


def pieces_of(data: bytes, sizes: Sequence[int]) -> Callable[[int], bytes]:
    """A stream that gives as many bytes at a time as there happen to be."""
    place, given = 0, iter(sizes)

    def read(most: int) -> bytes:
        nonlocal place
        piece = data[place : place + min(most, next(given, most))]
        place += len(piece)
        return piece

    return read


def followed(
    data: bytes, model: Model = NAMED, by: Sequence[str] = (), sizes: Sequence[int] = (), **options: Any
) -> tuple[list[Answered], list[str]]:
    said: list[str] = []
    follower = Follower(model, by, said.append, **options)
    found = [one for lines in arriving(pieces_of(data, sizes)) for one in follower.answers(lines)]
    assert follower.faults == sum(note.endswith("left out") for note in said)
    return found, said


def csv_of(rows: Sequence[tuple[str, Sequence[float]]], end: str = "\n") -> bytes:
    lines = ["gamma,unit,alpha,beta", *(f"{c!r},{unit},{a!r},{b!r}" for unit, (a, b, c) in rows)]
    return "".join(line + end for line in lines).encode()


def json_of(rows: Sequence[tuple[str, Sequence[float]]]) -> bytes:
    lines = [json.dumps({"unit": unit, **dict(zip(NAMES, row, strict=True))}) for unit, row in rows]
    return "\n".join(lines).encode()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.tuples(*[st.floats(-5, 5, width=32)] * 3)), min_size=1, max_size=40),
    st.lists(st.integers(1, 50), max_size=60),
    st.sampled_from([csv_of, lambda rows: csv_of(rows, "\r\n"), json_of]),
)
def test_each_answer_is_that_of_the_units_rows_so_far(
    rows: list[tuple[str, Sequence[float]]], sizes: list[int], form: Callable[..., bytes]
) -> None:
    found, said = followed(form(rows), by=["unit"], sizes=sizes)
    assert said == []
    expected = []
    for number in range(1, len(rows) + 1):
        unit = rows[number - 1][0]
        so_far = [row for one, row in rows[:number] if one == unit]
        if len(so_far) >= 4:
            expected.append(((unit,), number, NAMED.predict_series(so_far)[-1]))
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for mine, (_, _, y) in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.y, y, rtol=0, atol=2e-6)


def test_lists_and_headerless_csv_are_in_the_models_order() -> None:
    rows = [[k, k / 2, -k] for k in range(6)]
    expected = UNNAMED.predict_series(rows)
    for text in ("".join(f"{row}\n" for row in rows), "".join(f"{a};{b};{c}\n" for a, b, c in rows)):
        found, said = followed(text.encode(), UNNAMED)
        assert said == []
        assert [one.number for one in found] == [4, 5, 6]
        np.testing.assert_allclose([one.y for one in found], expected, rtol=0, atol=2e-6)


GOOD = "[1, 2, 3]"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("[1, 2", "line 4 is no valid JSON"),
        ("[1, 2, NaN]", "line 4 is no valid JSON"),
        ("[" * 100_000, "line 4 is no valid JSON"),
        ("7", "line 4 is neither a list nor an object"),
        ("[1, 2]", "line 4 has 2 numbers, and the model takes 3"),
        ("[1, 2, true]", "line 4, column 'gamma' holds no number"),
        ('[1, null, "3"]', "line 4, column 'beta' holds no number"),
        ("[1, 1e39, 3]", "line 4, column 'beta' holds 1e+39, and a finite float32 number was expected"),
        (f"[1, 1{'0' * 400}, 3]", "line 4 holds a number that is too large"),
        ('{"alpha": 1, "beta": 2}', "line 4 lacks gamma"),
        ('{"alpha": 1, "alpha": 1, "beta": 2, "gamma": 3}', "line 4 is no valid JSON"),
        (
            "\udcff".encode("utf-8", "surrogateescape"),
            "line 4 is not text in UTF-8 (in Latin-1 or Windows-1252?); save it as UTF-8",
        ),
        (" " * (MAX_LINE + 1), f"line 4 has more than {MAX_LINE} bytes"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_left_out(bad: str | bytes, told: str) -> None:
    raw = bad if isinstance(bad, bytes) else bad.encode()
    good = GOOD.encode()
    found, said = followed(b"\n".join([good, b"", good, raw, good, good]))
    assert said == [f"{told}: left out"]
    assert [one.number for one in found] == [5]
    np.testing.assert_allclose(found[0].y, NAMED.predict_series([[1, 2, 3]] * 4)[0], rtol=0, atol=2e-6)


def test_a_bad_line_of_csv() -> None:
    text = (
        "alpha\tbeta\tgamma\tmore\n1\t2\t3\t\n1\t2\n1\tx\t3\t\nalpha\tbeta\tgamma\tmore\n\t\t\t\n" + "1\t2\t3\t\n" * 3
    )
    found, said = followed(text.encode())
    assert (
        said
        == [
            "left out the column more, no feature of the model",
            "line 3 has 2 cells, and the first has 4: left out",
            "line 4, column 'beta' holds 'x', which is no number: left out",
            "line 5, column 'alpha' holds 'alpha', which is no number: left out",
            "line 9 is no row: left out",
        ][:4]
    )
    assert [one.number for one in found] == [7]


def test_too_few_rows_are_told_at_the_end() -> None:
    row = (1.0, 2.0, 3.0)
    for rows, told in (
        ("", ["no answer: a header came, and no row after it"]),
        ("aabaa", []),
        ("aaabbc", ["no answer: 4 rows of a series are needed for one, and 3 came"]),
    ):
        said: list[str] = []
        follower = Follower(NAMED, ["unit"], said.append)
        for lines in arriving(pieces_of(csv_of([(unit, row) for unit in rows]), [])):
            list(follower.answers(lines))
        follower.end()
        assert (said, follower.faults) == (told, 0 if rows else 1)


def test_a_line_that_never_ends_keeps_no_memory() -> None:
    sizes = [1 << 16] * 40
    found, said = followed(b"x" * (1 << 16) * 40, sizes=sizes)
    assert (found, said) == ([], [f"line 1 has more than {MAX_LINE} bytes: left out"])


def test_a_line_of_the_most_bytes_is_read_and_a_longer_one_is_told_at_the_very_end() -> None:
    first, second = (GOOD.encode().ljust(size) for size in (MAX_LINE, MAX_LINE + 1))
    follower = Follower(NAMED, [], (said := list[str]()).append)
    pieces = iter([first, b"\n" + second, b""])
    for lines in arriving(lambda _: next(pieces)):
        assert not [*follower.answers(lines)]
    follower.end()
    assert said == [
        f"line 2 has more than {MAX_LINE} bytes: left out",
        f"no answer: {NAMED.input_shape[0]} rows of a series are needed for one, and 1 came",
    ]


@pytest.mark.parametrize("sizes", [[], [1 << 16] * 40])
def test_a_line_that_is_too_long_is_left_out_and_those_after_it_are_not(sizes: list[int]) -> None:
    timesteps = NAMED.input_shape[0] or 0
    rows, long = [[float(k), 0.0, 1.0] for k in range(timesteps)], b"x" * 2 * MAX_LINE
    lines = [json.dumps(row).encode() for row in rows]
    data = b"\n".join([lines[0], long, *lines[1:], long])
    found, said = followed(data, sizes=sizes)
    assert [each.number for each in found] == [timesteps + 1]
    np.testing.assert_allclose(found[0].y, NAMED.predict([rows])[0], atol=1e-6)
    assert said == [f"line {number} has more than {MAX_LINE} bytes: left out" for number in (2, timesteps + 2)]


def test_a_unit_has_a_name() -> None:
    for line, told in (
        ("[1, 2, 3]", "line 1 is a list, which has no 'unit': send objects: left out"),
        (
            '{"unit": null, "alpha": 1, "beta": 2, "gamma": 3}',
            "line 1 names its unit with something else than a text or a whole number: left out",
        ),
        (
            '{"unit": true, "alpha": 1, "beta": 2, "gamma": 3}',
            "line 1 names its unit with something else than a text or a whole number: left out",
        ),
        (
            '{"unit": "\\ud800", "alpha": 1, "beta": 2, "gamma": 3}',
            "line 1 names its unit with something else than a text or a whole number: left out",
        ),
        (
            json.dumps({"unit": "u" * 2000, "alpha": 1, "beta": 2, "gamma": 3}),
            f"line 1 names its unit with more than {row_lines.MAX_KEY} characters: left out",
        ),
    ):
        assert followed(line.encode(), by=["unit"]) == ([], [told])
    assert followed(b"unit,alpha,beta,gamma\n,1,2,3\n", by=["unit"])[1] == [
        "line 2, column 'unit' holds nothing, and the rows are told apart by it: left out"
    ]


def test_blanks_around_the_name_of_a_unit_make_no_other() -> None:
    row = (1.0, 2.0, 3.0)
    for form in (csv_of, json_of):
        found, said = followed(form([(unit, row) for unit in ("E1", " E1", "E1 ", "E1")]), by=["unit"])
        assert [(one.key, one.number) for one in found] == [(("E1",), 4)]
        assert said == []


def test_further_names_are_left_out_and_told_once() -> None:
    line = b'{"time": "10:00", "alpha": 1, "beta": 2, "gamma": 3}\n'
    found, said = followed(line * 5)
    assert (len(found), said) == (2, ["left out time, no feature of the model"])


@pytest.mark.parametrize("form", [csv_of, json_of])
def test_a_left_out_column_that_looks_like_a_unit_is_told_at_its_second_value(form: Callable[..., bytes]) -> None:
    row = (1.0, 2.0, 3.0)
    for more in ([], [("E2", row)], [("E2", row), ("E3", row)] * 9):
        _, (left_out, *said) = followed(form([*[("E1", row)] * 9, *more]))
        assert left_out.startswith("left out")
        assert [note.partition(", and a window")[0] for note in said] == [
            "the column unit, left out, looks as if it told units apart"
        ] * bool(more)
    assert followed(form([("E1", row)] * 9 + [("E2", row)]), by=["unit"])[1] == []


def test_an_answer_of_which_one_number_is_not_finite_is_none() -> None:
    kernel = np.array([[1, 3e38], *[[1, 0]] * 4], np.float32)
    last = replace(dense(5, 2), kernel=kernel, bias=np.array([0, 3e38], np.float32))
    said = list[str]()
    follower = Follower(replace(model([lstm(3, 5), last]), about=NAMED.about), ["unit"], said.append)
    data = csv_of([*[("low", (0, 0, 0))] * 4, *[("high", (1, 1, 1))] * 4, ("low", (0, 0, 0))])
    found = [one for lines in arriving(pieces_of(data, [])) for one in follower.answers(lines)]
    assert [one.number for one in found] == [4, 9]
    assert said == ["the answer for row 8 is not finite: the model overflows on that input"]
    assert follower.faults == 1


def test_an_object_needs_a_card() -> None:
    _, said = followed(b'{"a": 1}', UNNAMED)
    assert said[0].startswith("line 1 is an object, and the model's card does not name its features")


def test_the_unit_without_a_row_for_longest_is_forgotten() -> None:
    row = (1.0, 2.0, 3.0)
    rows = [(unit, row) for unit in ("a", "a", "a", "b", "a", "c", "a", "b", "b", "b", "b")]
    found, said = followed(csv_of(rows), by=["unit"], most=2)
    assert said == [
        f"2 units are kept: forgot {unit}, without a row for longest, which begins anew with its next row"
        for unit in ("b", "c")
    ]
    assert [one[:2] for one in found] == [(("a",), 5), (("a",), 7), (("b",), 11)]


def test_a_stream_that_cannot_be_read_is_refused_at_its_first_line() -> None:
    ids = model(
        [
            Embedding(name="e", keras_class="Embedding", embeddings=numbers(9, 3), mask_zero=False),
            lstm(3, 5),
            dense(5, 2),
        ],
        (4,),
    )
    for text, told, on in (
        ("alpha,beta\n1,2\n", "line 1 lacks the column gamma", NAMED),
        ("\n1,2\n", "line 2 has 2 columns", NAMED),
        ("a;b;c\n1;2;3\n", "line 1 has 3 columns, and the model takes 1", ids),
        ("time,word\n10:00,2\n", "line 1 has 2 columns, and the model takes 1", ids),
        ("alpha,beta,gamma\r1,2,3\r4,5,6\r", "line 1 holds several rows: the lines end in CR alone", NAMED),
        ("1,2,3\r4,5,6", "line 1 holds several rows: the lines end in CR alone", UNNAMED),
    ):
        with pytest.raises(InvalidInput, match=told):
            followed(text.encode(), on)


def test_a_model_without_rows_is_refused() -> None:
    for shape in ((None, 3),):
        with pytest.raises(SettingsError, match="`timesteps` in the card fixes it"):
            followed(b"", classes(shape))
