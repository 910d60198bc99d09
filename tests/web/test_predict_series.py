"""POST /predict/series: an answer for each window, the same as from Python and on the command line."""

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from apps import app_of
from hypothesis import given
from hypothesis import strategies as st
from kerasfiles import dense, lstm, save_sequential
from numpy.typing import NDArray
from serving import PATIENCE, SMALL, Process, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.cli import main

PATH = "/predict/series"
NPY = {"content-type": "application/x-npy"}
CSV = {"content-type": "text/csv"}
MODEL = load_model(SMALL / "binary.h5")
STEPS, FEATURES = (size or 0 for size in MODEL.input_shape)


def rows_of(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def npy(rows: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def json_body(rows: Any, **more: object) -> bytes:
    return json.dumps({"series": rows.tolist(), **more}).encode()


def csv_of(rows: Any, header: str = "a,b,c", keys: list[str] | None = None) -> bytes:
    lines = [",".join(map(repr, map(float, row))) for row in rows]
    if keys is not None:
        lines = [f"{line},{key}" for line, key in zip(lines, keys, strict=True)]
    return "\n".join([header, *lines]).encode()


def probabilities(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [each["probability"] for each in answer.json()["predictions"]]


@contextmanager
def serving(path: Path, **variables: str) -> Iterator[httpx.Client]:
    with Process(path, **variables) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        yield client


def carded(folder: Path) -> Path:
    shutil.copy(SMALL / "binary.h5", folder / "m.h5")
    (folder / "m.card.json").write_text('{"features": ["a", "b", "c"]}')
    return folder / "m.h5"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return carded(tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def named(path: Path) -> Iterator[httpx.Client]:
    """A client of the service with a model whose card names its features."""
    with serving(path) as client:
        yield client


def ask(client: httpx.Client, body: bytes, headers: Mapping[str, str] | None = None, query: str = "") -> httpx.Response:
    return client.post(f"{PATH}?{query}" if query else PATH, content=body, headers=headers)


def test_every_form_gives_what_python_gives(named: httpx.Client) -> None:
    rows = rows_of(STEPS + 40)
    for stride in (1, 3, 1000):
        expected = MODEL.predict_series(rows, stride)[:, 0]
        last = [*range(STEPS, len(rows) + 1, stride)]
        steps = [dict(zip("cab", map(float, (row[2], row[0], row[1])), strict=True)) for row in rows]
        for body, headers, query in (
            (json_body(rows, stride=stride), None, ""),
            (json_body(rows), None, f"stride={stride}"),
            (json.dumps({"stride": stride, "series": steps}).encode(), None, ""),
            (npy(rows), NPY, f"stride={stride}"),
            (npy(np.asfortranarray(rows.astype(np.float64))), NPY, f"stride={stride}"),
            (csv_of(rows), CSV, f"stride={stride}"),
        ):
            answer = ask(named, body, headers, query)
            assert answer.json().get("rows") == last, answer.content
            np.testing.assert_allclose(probabilities(answer), expected, rtol=0, atol=2e-6)
            assert answer.headers["x-model-sha256"] == MODEL.origin.digest


@given(count=st.integers(1, 3 * STEPS), stride=st.integers(1, STEPS + 2), seed=st.integers(0, 1000))
def test_each_answer_is_that_of_its_window(named: httpx.Client, count: int, stride: int, seed: int) -> None:
    rows = rows_of(count, seed)
    answer = ask(named, json_body(rows, stride=stride))
    if count < STEPS:
        assert answer.status_code == 422
        assert answer.json()["detail"] == f"the series has {count} rows, and the model needs {STEPS} for an answer"
        return
    cut = [rows[last - STEPS : last].tolist() for last in answer.json()["rows"]]
    each = named.post("/predict/batch", json={"sequences": cut})
    np.testing.assert_allclose(probabilities(answer), probabilities(each), rtol=0, atol=2e-6)


def test_units_of_a_csv_file_are_series_of_their_own(named: httpx.Client) -> None:
    keys = ["x", "y, 1"] * STEPS + ["short"] * 2 + ["x"] * STEPS
    rows = rows_of(len(keys))
    body = csv_of(rows, "a,b,c,engine", [f'"{key}"' for key in keys])
    answer = ask(named, body, CSV, "by=engine")
    places = {key: [k for k, of in enumerate(keys) if of == key] for key in ("x", "y, 1")}
    expected = [(key, place + 1) for key, at in places.items() for place in at[STEPS - 1 :]]
    found = zip(answer.json()["keys"], answer.json()["rows"], strict=True)
    assert [(key["engine"], row) for key, row in found] == expected
    np.testing.assert_allclose(probabilities(answer), MODEL.predict_series(rows, by=keys)[:, 0], atol=2e-6)
    assert any("of fewer rows" in note for note in answer.json()["notes"])
    assert "units" not in answer.json()
    refused = ask(named, body, CSV, "by=engine&inputs=true")  # the rows of which one?
    assert (refused.status_code, "without `by`" in refused.json()["detail"]) == (422, True)


def test_units_that_nobody_asked_for_are_told(named: httpx.Client) -> None:
    keys = ["7"] * 8 + ["x y"] * 9
    answer = ask(named, csv_of(rows_of(len(keys)), "a,b,c,engine", keys), CSV, "stride=99").json()
    assert answer["units"] == {"by": "engine", "keys": ["7", "x y"], "last": [8, 17]}
    assert "?by=engine" in answer["notes"][-1]


def test_is_what_the_command_gives(named: httpx.Client, path: Path, tmp_path: Path) -> None:
    lines = csv_of(np.hstack([rows_of(2 * STEPS), np.ones((2 * STEPS, 1))]), "c,a,b,more")
    (tmp_path / "rows.csv").write_bytes(lines)
    assert main.main(["predict", str(path), str(tmp_path / "rows.csv"), "-o", str(tmp_path / "y.json")]) == 0
    answer = ask(named, lines, CSV).json()
    told = json.loads((tmp_path / "y.json").read_text())["predictions"]
    assert [each["label"] for each in answer["predictions"]] == [each["label"] for each in told]
    of_command = [each["probability"] for each in told]
    np.testing.assert_allclose([each["probability"] for each in answer["predictions"]], of_command, atol=2e-6)
    assert answer["notes"] == ["left out the column more, no feature of the model"]


def test_the_raw_output_as_a_file(named: httpx.Client) -> None:
    rows = rows_of(STEPS + 4)
    answer = ask(named, npy(rows), {**NPY, "accept": "application/x-npy"})
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), MODEL.predict_series(rows), atol=2e-6)


def test_the_rows_are_told_as_they_were_read(named: httpx.Client) -> None:
    rows = rows_of(STEPS + 4)
    for body, headers in ((json_body(rows), None), (npy(rows), NPY), (csv_of(rows), CSV)):
        np.testing.assert_allclose(ask(named, body, headers, "inputs=true").json()["inputs"], rows, rtol=1e-6)


def test_more_windows_than_may_be_are_refused_with_how_to_send_parts(path: Path) -> None:
    rows = rows_of(STEPS + 7)
    with serving(path, LSTMSERVE_MAX_ROWS="8", LSTMSERVE_MAX_BATCH_ROWS="4") as client:
        refuses_more(client, rows)


def refuses_more(named: httpx.Client, rows: NDArray[np.float32]) -> None:
    whole = ask(named, json_body(rows))
    assert len(probabilities(whole)) == 8
    more = np.concatenate([rows, rows_of(1)])
    for body, headers in ((json_body(more), None), (npy(more), NPY), (csv_of(more), CSV)):
        refused = ask(named, body, headers)
        assert (refused.status_code, refused.json()["detail"]) == (
            413,
            f"the series has 9 windows; at most 8 are answered at once: send parts that overlap by {STEPS - 1} rows",
        )
    units = csv_of(np.concatenate([rows[:-3], rows[:-3]]), "a,b,c,unit", ["x", "y"] * (len(rows) - 3))
    refused = ask(named, units, CSV, "by=unit")
    assert (refused.status_code, "the series has 10 windows" in refused.json()["detail"]) == (413, True)
    parts = [ask(named, json_body(more[:STEPS])), ask(named, json_body(more[1:]))]
    joined = [p for part in parts for p in probabilities(part)]
    np.testing.assert_allclose(joined, MODEL.predict_series(more)[:, 0], atol=2e-6)


@pytest.mark.parametrize(
    ("body", "query", "said"),
    [
        (b'{"series": []}', "", "expected at least one of the rows, got 0"),
        (b'{"series": [[1, 2]]}', "", "expected a list of 3 features, got 2"),
        (b'{"series": [[1, 2, true]]}', "", "expected a number, got true or false"),
        (b'{"series": [{"a": 1, "b": 2}]}', "", "lacks c, which the model's card names"),
        (
            b'{"series": [[1, 2, 3]], "stride": 0}',
            "",
            "expected a whole number from 1 on, rows from one window to the next",
        ),
        (
            b'{"series": [[1, 2, 3]], "stride": true}',
            "",
            "expected a whole number from 1 on, rows from one window to the next",
        ),
        (b'{"series": [[1, 2, 3]], "strid": 1}', "", "expected the keys series, stride, got 1 more"),
        (b'{"series": [[1, 2, 3]], "stride": 1, "stride": 2}', "", "expected each of the keys series, stride once"),
        (b'{"series": [[1, 2, 3]], "series": [[1, 2, 3]]}', "", "expected each of the keys series, stride once"),
        (b'{"series": [{"a": 1, "b": 2, "c": 3, "a": 4}], "stride": 1}', "", "expected each name once"),
        (b'{"sequence": [[1, 2, 3]]}', "", 'expected the key "series"; "sequence" goes to POST /predict'),
        (
            b'{"series": [[1, 2, 3]], "stride": 1}',
            "stride=1",
            "the stride is there twice, in the query and in the body",
        ),
        (
            b'{"series": [[1, 2, 3]]}',
            "strid=3",
            "expected in the query `stride`, `by`, `inputs` alone, got another name",
        ),
        (b'{"series": [[1, 2, 3]]}', "stride=x", "expected as the query `stride` a whole number from 1 on"),
        (b'{"series": [[1, 2, 3]]}', "by=a", "the query `by` names columns of a CSV file, and the body is none"),
    ],
)
def test_what_is_wrong_is_told(named: httpx.Client, body: bytes, query: str, said: str) -> None:
    answer = ask(named, body, query=query)
    assert (answer.status_code, answer.json()["detail"]) == (422, said)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("a,b,secret\n1,2,3", ""),
        ("a,b,c\n1,2,secret", ""),
        ("a,b,c\n1,2,3", "by=secret"),
        ("a,b,c,secret,secret\n1,2,3,4,4", "by=secret"),
        ("a,b,c,secret\n1,2,3,", "by=secret"),
        ("a,b,c,secret\n1,2,3,4", "by=secret"),
        ("A,b,c,secret\n1,2,3,4", ""),
        ("a,b,c\n1,2,1e39", ""),
        ("a,b,c\n1,2", ""),
        ("a,b,c", ""),
        ("secret", ""),
        ("1,2,secret", ""),
    ],
)
def test_nothing_of_a_csv_file_comes_back_in_an_error(named: httpx.Client, text: str, query: str) -> None:
    answer = ask(named, text.encode(), CSV, query)
    assert answer.status_code == 422
    assert b"secret" not in answer.content
    assert b"1e+39" not in answer.content
    assert b"..." not in answer.content  # as if it had been cut


def test_a_file_whose_line_ends_are_left_out(named: httpx.Client) -> None:
    answer = ask(named, b"a,b,c" + b"1,2,3" * 100, CSV)
    assert answer.status_code == 422
    assert "one line; expected a header and a line for each row (curl -d leaves" in answer.json()["detail"]
    assert "--data-binary @name" in answer.json()["detail"]
    assert "one line" not in ask(named, b"a,b,c\r1,2,3\r", CSV).json()["detail"]


def test_an_empty_body(named: httpx.Client) -> None:
    for headers in (None, CSV, NPY):
        assert (ask(named, b"", headers)).status_code == 400


@in_loop
async def test_of_a_model_of_free_length_a_series_is_one_sequence(tmp_path: Path) -> None:
    path = save_sequential(tmp_path / "m.h5", [lstm(), dense()], [None, 3])
    rows = rows_of(31)
    app = app_of(path, max_timesteps=50)
    async with started(app):
        answer = (await call(app, PATH, json_body(rows))).json
        assert answer["rows"] == [31]
        expected = load_model(path).predict_series(rows)[0]
        np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected, atol=2e-6)
        # One line is not one without its ends.
        assert (await call(app, PATH, b"1,2,3", headers=CSV)).json["rows"] == [1]
        assert (await call(app, PATH, json_body(rows_of(51)))).status == 413
        assert (await call(app, PATH, json_body(rows, stride=2))).status == 422
        assert (await call(app, f"{PATH}?stride=2", npy(rows), headers=NPY)).status == 422


def test_windows_are_no_copies(tmp_path: Path) -> None:
    # 900 windows of 50 rows of 3 numbers are 540 KB, and what they are cut from is 11 KB.
    path = save_sequential(tmp_path / "m.h5", [lstm(), dense()], [50, 3])
    with serving(path, LSTMSERVE_MAX_BODY_BYTES="100000", LSTMSERVE_MAX_INFLIGHT_BYTES="100000") as client:
        assert len(ask(client, npy(rows_of(949)), NPY).json()["rows"]) == 900


def test_a_flood_of_empty_rows_is_refused_before_it_is_parsed(named: httpx.Client) -> None:
    body = b'{"series":[' + b",".join([b"[]"] * 600_000) + b"]}"
    assert ask(named, body).status_code == 413


@in_loop
async def test_a_model_without_time_has_no_series(tmp_path: Path) -> None:
    app = app_of(save_sequential(tmp_path / "m.h5", [dense(2, 3)], [3]))
    async with started(app):
        assert (await call(app, PATH, json_body(rows_of(30)))).status == 404
