"""Over HTTP: models that take ids, and models whose sequences are of any length."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import lstm, numbers, save_sequential
from serving import GOLDEN, call, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

FEATURES = GOLDEN / "features"


def body(value: Any, key: str = "sequence") -> bytes:
    return json.dumps({key: value}).encode()


def app_of(path: Path, **settings: Any) -> Any:
    return create_app(Settings(model=path, access_log=False, **settings))


@pytest.mark.parametrize("file", ["k122__emb.h5", "k224__emb_mz.h5", "k3__emb_bi.keras", "tf215__emb_mz.keras"])
@in_loop
async def test_ids_are_answered_in_every_dialect(file: str) -> None:
    app = app_of(FEATURES / file)
    model = app.state.registry.get().current.model
    with np.load(FEATURES / f"{file}.golden.npz") as golden:
        x, y = golden["x0"].astype(int).tolist(), golden["y0"]
    async with started(app):
        batch = await call(app, "/predict/batch", body(x, "sequences"))
        one = await call(app, "/predict", body(x[0]))
        floats = await call(app, "/predict", body([float(each) for each in x[0]]))
        v1 = await call(app, f"/v1/models/{model.about.name}:predict", body(x, "instances"))
        tensor = {"name": "ids", "shape": list(np.shape(x)), "datatype": "INT64", "data": x}
        v2 = await call(app, f"/v2/models/{model.about.name}/infer", body([tensor], "inputs"))
    assert floats.json == one.json
    key = {"classes": "probabilities", "binary": "probability", "values": "values"}[model.kind]
    answers = np.array([row[key] for row in batch.json["predictions"]])
    assert np.abs(answers.reshape(y.shape) - y).max() <= 1e-5
    assert np.allclose(one.json[key], answers[0], rtol=0, atol=1e-6)
    assert np.allclose(np.ravel(v1.json["predictions"]), answers.ravel(), rtol=0, atol=1e-6)
    assert np.allclose(np.ravel(v2.json["outputs"][0]["data"]), answers.ravel(), rtol=0, atol=1e-6)


@in_loop
async def test_what_is_no_id_is_refused() -> None:
    app = app_of(FEATURES / "k224__emb_mz.h5")
    model = app.state.registry.get().current.model
    async with started(app):
        for bad in (1.7, 3.000000001, 3.0000000000000004, -1.0, -1, 10**6, 3e9, 1e30, True, "1", None):
            row: list[Any] = [1, 1, bad, 1, 1, 1]
            one = await call(app, "/predict", body(row))
            v1 = await call(app, f"/v1/models/{model.about.name}:predict", body([row], "instances"))
            assert (one.status, v1.status) == (422, 400), bad
            assert [problem["pointer"] for problem in one.json["errors"]] == ["#/sequence/2"], bad
            assert "expected" in one.json["detail"], bad


@in_loop
async def test_a_line_of_csv_is_a_sequence_of_ids(tmp_path: Path) -> None:
    embedding = ("Embedding", {"input_dim": 9, "output_dim": 3}, [numbers(9, 3)])
    app = app_of(save_sequential(tmp_path / "e.h5", [embedding, lstm()], [4]))
    async with started(app):
        batch = await call(app, "/predict/batch", body([[1, 2, 3, 4]], "sequences"))
        csv = await call(app, "/predict/series", b"1,2,3,4\n", headers={"content-type": "text/csv"})
    assert csv.status == 200, csv.body
    assert csv.json == {"rows": [1], "predictions": batch.json["predictions"]}


@in_loop
async def test_columns_that_are_no_ids_are_counted_and_not_shown() -> None:
    app = app_of(FEATURES / "k122__emb.h5")
    async with started(app):
        table = b"a,b,c,d,e,f,secret,label\n1,1,1,1,1,1,1,1\n"
        refused = await call(app, "/predict/series", table, headers={"content-type": "text/csv"})
    assert refused.status == 422
    assert "has 8 columns, and the model takes 6 ids a row" in refused.json["detail"]
    assert refused.json["detail"].endswith("its header has (not shown). Take away what is no id")


@in_loop
async def test_a_sequence_too_short_or_too_long(tmp_path: Path) -> None:
    layer = ("Conv1D", {"filters": 4, "kernel_size": [8]}, [numbers(8, 3, 4), numbers(4)])
    app = app_of(save_sequential(tmp_path / "c.h5", [layer], [None, 3]), max_timesteps=40)
    async with started(app):
        for steps, status in ((1, 422), (7, 422), (8, 200), (40, 200), (41, 413)):
            answer = await call(app, "/predict", body([[0.5] * 3] * steps))
            trace = await call(app, "/trace", body([[0.5] * 3] * steps))
            explained = await call(app, "/explain", body([[0.5] * 3] * steps))
            v1 = await call(app, "/v1/models/c:predict", body([[[0.5] * 3] * steps], "instances"))
            tensor = {"name": "x", "shape": [1, steps, 3], "datatype": "FP32", "data": [0.5] * 3 * steps}
            v2 = await call(app, "/v2/models/c/infer", body([tensor], "inputs"))
            assert (answer.status, trace.status, explained.status) == (status, status, status), steps
            of_other_dialects = 400 if status == 422 else status
            assert (v1.status, v2.status) == (of_other_dialects, of_other_dialects), steps
            if status == 200:
                assert np.shape(answer.json["values"]) == (steps - 7, 4)
                assert trace.json["answer"] == answer.json


@in_loop
async def test_a_trace_of_too_many_numbers(tmp_path: Path) -> None:
    app = app_of(save_sequential(tmp_path / "l.h5", [lstm(units=8, return_sequences=True)], [None, 3]))
    async with started(app):
        small = await call(app, "/trace", body([[0.5] * 3] * 100))
        large = await call(app, "/trace", body([[0.5] * 3] * 9_000))
    assert (small.status, large.status) == (200, 413)
    assert "inspect --trace" in large.json["detail"]


@in_loop
async def test_two_free_axes(tmp_path: Path) -> None:
    app = app_of(save_sequential(tmp_path / "a.h5", [("Activation", {"activation": "relu"}, [])], [None, None]))
    cases: list[tuple[Any, int, str]] = [
        ([[1, 2], [3, 4]], 200, ""),
        ([[1, 2, 3], [4, 5, 6]], 200, ""),
        ([[1, 2, 3], [4]], 422, "lists of equal lengths"),
        ([[1, 2], [3]], 422, "lists of equal lengths"),
        ([[1e39, 2], [3, 4]], 422, "float32"),
    ]
    async with started(app):
        for value, status, said in cases:
            answer = await call(app, "/predict", body(value))
            assert (answer.status, said in answer.body.decode()) == (status, True), value
            if status == 200:
                assert answer.json["values"] == value


@in_loop
async def test_axes_that_people_mix_up() -> None:
    app = app_of(GOLDEN / "small" / "binary.h5")
    async with started(app):
        for path, sent, said in (
            ("/predict", body([[[0.0] * 3] * 6]), "is there one axis too many?"),
            ("/predict", body([0.0] * 3), "is an axis missing?"),
            ("/predict/batch", body([[0.0] * 3] * 6, "sequences"), "of one: wrap it in another list"),
            ("/predict", body([[0.0] * 6] * 3), "are the two axes swapped?"),
        ):
            answer = await call(app, path, sent)
            assert answer.status == 422, said
            assert said in answer.json["detail"]
