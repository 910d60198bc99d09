"""POST /explain and v1's :explain: the same as from Python, and as strict as /predict."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from apps import app_of, deployment_of
from kerasfiles import dense, lstm, save_sequential
from serving import GOLDEN, ROOT, SMALL, Clients, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.explain.asked import Asked
from lstm_serve.explain.why import explained

TURBOFAN = ROOT / "models/turbofan.h5"
MODEL = load_model(TURBOFAN)
X = np.load(ROOT / "models/turbofan.golden.npz")["x"]


@pytest.fixture(scope="module")
def client(served: Clients) -> httpx.Client:
    return served(TURBOFAN)


def same(found: Any, expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key in ("score", "by_step", "by_feature", "attribution", "completeness_error"):
        if expected[key] is None:
            assert found[key] is None
        else:
            assert np.allclose(found[key], expected[key], rtol=0, atol=1e-5)
    for key in ("class", "label", "method", "grain", "baseline"):
        assert found[key] == expected[key]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, Asked()),
        ({"method": "occlusion", "grain": "cell", "class": 3}, Asked(3, "cell", method="occlusion")),
        (dict.fromkeys(("method", "grain", "class", "baseline")), Asked()),
        ({"class": 2.0, "baseline": 600, "method": "occlusion"}, Asked(2, baseline=600, method="occlusion")),
        ({"method": "integrated-gradients", "class": 1}, Asked(1, method="integrated-gradients")),
        ({"baseline": [1.5] * 15}, Asked(baseline=[1.5] * 15)),
        ({"class": None, "baseline": None}, Asked()),
    ],
)
def test_it_is_what_python_says(client: httpx.Client, more: dict[str, Any], asked: Asked) -> None:
    reply = client.post("/explain", json={"sequence": X[0].tolist(), **more})
    assert reply.status_code == 200
    same(reply.json(), explained(MODEL, X[0], asked))
    assert reply.headers["x-model-sha256"] == MODEL.origin.digest
    answer = client.post("/predict", json={"sequence": X[0].tolist()}).json()
    assert reply.json()["answer"]["label"] == answer["label"]


def test_v1_explains_each_row(client: httpx.Client) -> None:
    body = {"instances": X[:3].tolist(), "grain": "cell"}
    found = client.post("/v1/models/turbofan:explain", json=body).json()
    assert found.keys() == {"predictions", "explanations"}
    assert np.allclose(found["predictions"], MODEL.predict(X[:3]), rtol=0, atol=1e-5)
    for one, x in zip(found["explanations"], X, strict=False):
        same(one, explained(MODEL, x, Asked(grain="cell")))
    path = f"/v1/models/turbofan/versions/{MODEL.about.version}:explain"
    assert client.post(path, json={"inputs": X[:1].tolist()}).json().keys() == {"outputs", "explanations"}


@pytest.mark.parametrize(
    ("more", "pointer", "detail"),
    [
        ({"class": 5}, "#/class", "expected an integer from 0 to 4"),
        ({"class": -1}, "#/class", "expected the index of a class"),
        ({"class": True}, "#/class", "expected the index of a class"),
        ({"grain": "row"}, "#/grain", 'expected "step"'),
        ({"method": "gradients"}, "#/method", 'expected "integrated-gradients"'),
        ({"baseline": "mean"}, "#/baseline", "expected a number, or a list"),
        ({"baseline": 1e300}, "#/baseline", "expected a finite number, or a list of 15"),
        ({"baseline": [1]}, "#/baseline", "a list of 15"),
        ({"baseline": 3.4e38, "method": "occlusion"}, "#/baseline", "with which the model's answers are finite"),
        ({"baseline": 1e38}, "#/baseline", "with which the model's answers are finite"),
        ({"sequence": [[1]]}, "#/sequence", "expected a list of 20 time steps"),
        ({"what": 1}, "#", "expected the keys sequence, class, grain, method, baseline, got 1 more"),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    client: httpx.Client, more: dict[str, Any], pointer: str, detail: str
) -> None:
    reply = client.post("/explain", json={"sequence": X[0].tolist(), **more})
    assert reply.status_code == 422
    (first, *_) = reply.json()["errors"]
    assert first["pointer"] == pointer
    assert detail in first["detail"]
    if "sequence" not in more:
        plain = client.post("/v1/models/turbofan:explain", json={"instances": X[:1].tolist(), **more})
        assert plain.status_code == 400
        assert detail.rpartition(", ")[2] in plain.json()["error"]


@pytest.mark.parametrize(
    "twice", ['"class": 1, "class": 2', '"sequence": [], "method": "occlusion"', '"grain": "step", "grain": "step"']
)
def test_a_key_that_is_there_twice_is_refused(client: httpx.Client, twice: str) -> None:
    sequence = json.dumps(X[0].tolist())
    reply = client.post("/explain", content=f'{{{twice}, "sequence": {sequence}}}')
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["detail"] == "expected each key once"
    more = '"class": 1, "grain": "step", "method": "occlusion", "baseline": 1'
    assert client.post("/explain", content=f'{{{more}, "sequence": {sequence}}}').status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"nothing", b'{"class": 1}'])
def test_a_body_that_is_none(client: httpx.Client, body: bytes) -> None:
    assert client.post("/explain", content=body).status_code in {400, 422}


def test_more_than_may_wait_is_too_large() -> None:
    async def ask() -> None:
        app = app_of(TURBOFAN, max_queue_rows=8)
        async with started(app):
            for method, rows in (("occlusion", 36), (None, 10)):
                body = json.dumps({"sequence": X[0].tolist(), "method": method}).encode()
                reply = await call(app, "/explain", body)
                assert reply.status == 413
                assert f"would answer {rows} sequences; at most 8" in reply.json["detail"]

    in_loop(ask)()


def test_a_full_lane_is_429() -> None:
    async def ask() -> None:
        app = app_of(TURBOFAN)
        async with started(app):
            lane = deployment_of(app).behind
            lane.rows = lane.max_rows
            reply = await call(app, "/explain", json.dumps({"sequence": X[0].tolist()}).encode())
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            lane.rows = 0

    in_loop(ask)()


@pytest.mark.parametrize("name", ["binary", "values", "free", "steps"])
def test_each_kind_of_model_is_explained(name: str) -> None:
    on = load_model(SMALL / f"{name}.h5")
    x = np.random.default_rng(3).normal(size=[size or 7 for size in on.input_shape]).astype(np.float32)

    async def ask() -> None:
        app = app_of(SMALL / f"{name}.h5")
        async with started(app):
            reply = await call(app, "/explain", json.dumps({"sequence": x.tolist(), "grain": "cell"}).encode())
            assert reply.status == 200
            same(reply.json, explained(on, x, Asked(grain="cell")))

    in_loop(ask)()


@in_loop
async def test_what_has_no_gradient_is_occluded() -> None:
    app = app_of(GOLDEN / "features/k224__emb_mz.h5")
    body = {"sequence": [1, 2, 3, 4, 2, 1]}
    async with started(app):
        reply = await call(app, "/explain", json.dumps(body).encode())
        assert (reply.status, reply.json["method"]) == (200, "occlusion")
        reply = await call(app, "/explain", json.dumps({**body, "method": "integrated-gradients"}).encode())
        assert reply.status == 422
        assert "has no gradient: between two ids there is nothing" in reply.json["errors"][0]["detail"]


def test_a_hostile_sequence_is_explained_or_refused(client: httpx.Client) -> None:
    rng = np.random.default_rng(4)
    for size in (1e-38, 1e19, 3e38):
        sequence = (size * rng.uniform(-1, 1, X[0].shape)).tolist()
        answer = client.post("/predict", json={"sequence": sequence}).status_code
        for baseline in (None, [size] * 15):
            found = client.post("/explain", json={"sequence": sequence, "baseline": baseline})
            assert found.status_code in {answer, 422}, found.text


@in_loop
async def test_a_model_of_a_thousand_layers_is_explained(tmp_path: Path) -> None:
    deep = save_sequential(tmp_path / "deep.h5", [dense(3, 3, activation="tanh")] * 998 + [lstm(), dense()])
    app = app_of(deep)
    async with started(app):
        reply = await call(app, "/explain", json.dumps({"sequence": [[1, 2, 3]] * 5}).encode())
        assert (reply.status, reply.json["method"]) == (200, "integrated-gradients")
