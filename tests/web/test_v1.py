"""TF-Serving's REST API and KServe's v1, over a real socket."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema_rs import Draft202012Validator
from serving import GOLDEN, SMALL, Clients, Golden, call, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

MODEL = "/v1/models/k215_model"
PREDICT = f"{MODEL}:predict"
ROW = [[round(0.01 * (t + f), 2) for f in range(15)] for t in range(20)]

# The forms of the answers in tensorflow_serving/g3doc/api_rest.md of tensorflow/serving, where `half_plus_three` is
# asked: a list of values, and the status of versions, whose names are strings.
STATUS = {
    "type": "object",
    "required": ["model_version_status"],
    "properties": {
        "model_version_status": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["version", "state", "status"],
                "additionalProperties": False,
                "properties": {
                    "version": {"type": "string", "pattern": "^[0-9]+$"},
                    "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                    "status": {
                        "type": "object",
                        "required": ["error_code", "error_message"],
                        "additionalProperties": False,
                        "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                    },
                },
            },
        }
    },
}


def answer_schema(key: str) -> dict[str, Any]:
    """One key, under it a (nested) list of values: what a model with one output answers."""
    rows = {"type": "array", "items": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/rows"}]}}
    return {
        "type": "object",
        "required": [key],
        "additionalProperties": False,
        "properties": {key: {"$ref": "#/$defs/rows"}},
        "$defs": {"rows": rows},
    }


ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"type": "string"}},
}


def refused(response: httpx.Response, status: int = 400) -> str:
    """Check an error of v1. Gives its words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    Draft202012Validator(ERROR).validate(response.json())
    words: str = response.json()["error"]
    return words


# What is answered.


def test_every_form_gives_what_keras_gave(client: httpx.Client, golden: Golden) -> None:
    x, y = golden
    rows = x.tolist()
    named = [{"lstm_1_input": row} for row in rows]
    requests: list[tuple[str, Any]] = [
        ("predictions", {"instances": rows}),
        ("predictions", {"instances": named, "signature_name": "serving_default"}),
        ("predictions", {"signature_name": "", "instances": [{"anything": row} for row in rows]}),
        ("outputs", {"inputs": rows}),
        ("outputs", {"inputs": {"lstm_1_input": rows}, "signature_name": None}),
        ("predictions", {"instances": rows, "inputs": None, "signature_name": None, "parameters": None}),
        ("outputs", {"instances": None, "inputs": rows}),
        ("predictions", {"instances": rows, "parameters": {"ignored": True}}),  # as Vertex AI sends it
    ]
    for key, request in requests:
        response = client.post(PREDICT, json=request)
        assert response.status_code == 200, response.text
        Draft202012Validator(answer_schema(key)).validate(response.json())
        assert np.abs(np.array(response.json()[key]) - y).max() <= 1e-6
        assert len(response.headers["x-model-sha256"]) == 64


def test_as_the_documentation_asks_with_curl(client: httpx.Client) -> None:
    """A form's content type, and a version."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"instances": [ROW]})
    wanted = client.post(PREDICT, content=body, headers=headers)
    assert wanted.status_code == 200
    assert client.post(f"{MODEL}/versions/1:predict", content=body).json() == wanted.json()
    native = client.post("/predict", json={"sequence": ROW}).json()
    assert wanted.json() == {"predictions": [native["probabilities"]]}


def test_status_and_metadata(client: httpx.Client) -> None:
    assert client.get("/").json()["status"] == "alive"
    assert client.get("/v1/models").json() == {"models": ["k215_model"]}
    status = client.get(MODEL).json()
    Draft202012Validator(STATUS).validate(status)
    assert (status["name"], status["ready"]) == ("k215_model", True)
    assert status["model_version_status"][0] == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert client.get(f"{MODEL}/versions/1").json() == status
    about = client.get(f"{MODEL}/metadata").json()
    assert about["model_spec"] == {"name": "k215_model", "signature_name": "", "version": "1"}
    signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    given, answered = signature["inputs"]["lstm_1_input"], signature["outputs"]["dense_1"]
    assert (given["dtype"], answered["dtype"]) == ("DT_FLOAT", "DT_FLOAT")
    assert [dim["size"] for dim in given["tensor_shape"]["dim"]] == ["-1", "20", "15"]
    assert [dim["size"] for dim in answered["tensor_shape"]["dim"]] == ["-1", "5"]


@in_loop
async def test_not_ready_while_stopping() -> None:
    app = create_app(Settings(model=SMALL / "binary.h5"))
    async with started(app):
        app.state.serving.draining = True
        answer = await call(app, "/v1/models/binary")
    assert (answer.status, answer.json["ready"]) == (503, False)
    assert answer.json["model_version_status"][0]["state"] == "UNLOADING"


def test_one_output_unit_and_sequences_of_several_lengths(served: Clients) -> None:
    with np.load(SMALL / "steps.golden.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    rows = [x[0].tolist(), x[1, :4].tolist(), x[2].tolist()]
    client = served(SMALL / "steps.h5")
    answer = client.post("/v1/models/steps:predict", json={"instances": rows}).json()["predictions"]
    for found, wanted in zip(answer, (y[0], y[1, :4], y[2]), strict=True):
        assert np.allclose(found, wanted, rtol=0, atol=1e-6)
    with np.load(SMALL / "binary.golden.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    client = served(SMALL / "binary.h5")
    answer = client.post("/v1/models/binary:predict", json={"inputs": x.tolist()}).json()["outputs"]
    assert np.allclose(answer, y, rtol=0, atol=1e-6)


@in_loop
async def test_metadata_of_ids_and_of_raw_values(tmp_path: Path) -> None:
    def dtype_of(answer: Any) -> str:
        (given,) = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"].values()
        dtype: str = given["dtype"]
        return dtype

    ids = GOLDEN / "features/k3__emb_bi.h5"
    assert dtype_of((await call(create_app(Settings(model=ids)), "/v1/models/k3__emb_bi/metadata")).json) == "DT_INT32"
    (tmp_path / "m.h5").write_bytes((SMALL / "binary.h5").read_bytes())
    (tmp_path / "m.card.json").write_text('{"scaling": {"mean": [0, 0, 0], "scale": [1, 1, 1]}, "version": "7"}')
    answer = (await call(create_app(Settings(model=tmp_path / "m.h5")), "/v1/models/m/versions/7/metadata")).json
    assert dtype_of(answer) == "DT_DOUBLE"
    assert answer["model_spec"]["version"] == "7"


# What is refused, and how.

SHORT = [*ROW[:19]]
REQUESTS: dict[str, tuple[Any, str]] = {
    "no object": ([ROW], 'either "instances" or "inputs"'),
    "neither": ({"sequences": [ROW]}, 'either "instances" or "inputs"; "sequences" goes to POST /predict/batch'),
    "a longer series": ({"instances": [ROW * 2]}, "a longer series goes to POST /predict/series"),
    "a native key too": ({"instances": [ROW], "sequences": [ROW]}, '"sequences" goes to POST /predict/batch'),
    "both": ({"instances": [ROW], "inputs": [ROW]}, 'either "instances" or "inputs"'),
    "another signature": ({"instances": [ROW], "signature_name": "predict"}, "#/signature_name"),
    "a signature of another type": ({"instances": [ROW], "signature_name": ["serving_default"]}, "#/signature_name"),
    "both null": ({"instances": None, "inputs": None}, 'either "instances" or "inputs"'),
    "no rows": ({"instances": []}, "#/instances"),
    "null": ({"instances": None}, "#/instances"),
    "an object for rows": ({"instances": {"a": ROW}}, "#/instances"),
    "one row, not a list of them": ({"instances": ROW}, "#/instances: expected at least one of the sequences, got the"),
    "a short row": ({"instances": [ROW, SHORT]}, "#/instances/1: expected a list of 20 time steps, got 19"),
    "a short named row": ({"instances": [{"x": ROW}, {"x": SHORT}]}, "#/instances/1: expected a list of 20"),
    "two names": ({"instances": [{"x": ROW, "y": ROW}]}, "#/instances/0: expected an object with the one input"),
    "no name": ({"instances": [{}]}, "#/instances/0: expected an object with the one input"),
    "two columns": ({"inputs": {"x": [ROW], "y": [ROW]}}, "#/inputs: expected an object with the one input"),
    "text in a column": ({"inputs": {"x": [[["1"] * 15] * 20]}}, "#/inputs/0/0/0: expected a number, got a string"),
    "true in a row": ({"instances": [[[True] * 15] * 20]}, "#/instances/0/0/0: expected a number"),
    "base64": ({"instances": [{"b64": "AAAA"}]}, "#/instances/0"),
    "beyond float32": ({"inputs": [[[1e39] * 15] * 20]}, "#/inputs/0/0/0: expected a finite float32"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_request(client: httpx.Client, name: str) -> None:
    request, words = REQUESTS[name]
    assert words in refused(client.post(PREDICT, json=request))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(client: httpx.Client, number: str) -> None:
    body = json.dumps({"instances": [ROW]}).replace("0.17", number)
    assert "finite float32" in refused(client.post(PREDICT, content=body))


def test_not_json_and_too_much(client: httpx.Client) -> None:
    assert "empty" in refused(client.post(PREDICT))
    assert "not JSON" in refused(client.post(PREDICT, content=b"instances=1"))
    refused(client.post(PREDICT, content=b" " * (3 << 20)), 413)
    many = client.post(PREDICT, json={"instances": [[]] * 1025})
    assert "1025 sequences" in refused(many, 413)
    refused(client.post(PREDICT, json={"instances": [ROW]}, headers={"x-request-timeout-ms": "0"}), 504)


@pytest.mark.parametrize(("filler", "status"), [("[],", 413), ("{},", 400), ('"",', 400)])
def test_what_cannot_be_good_is_refused_before_it_is_parsed(client: httpx.Client, filler: str, status: int) -> None:
    body = '{"instances": [' + filler * (1_900_000 // len(filler)) + "0]}"
    refused(client.post(PREDICT, content=body), status)


def test_a_large_request_is_no_heavy_one(client: httpx.Client) -> None:
    rows = [{"x": [[0.25] * 15] * 20}] * 1024
    assert len(client.post(PREDICT, json={"instances": rows}).json()["predictions"]) == 1024


def test_another_model_version_or_verb_is_not_found(client: httpx.Client) -> None:
    body = {"instances": [ROW]}
    assert '"k215_model"' in refused(client.post("/v1/models/half:predict", json=body), 404)
    assert "version" in refused(client.post(f"{MODEL}/versions/2:predict", json=body), 404)
    for path in ("/v1/models/half", "/v1/models/half/metadata", f"{MODEL}/versions/2", f"{MODEL}/versions/2/metadata"):
        refused(client.get(path), 404)
    refused(client.get(PREDICT), 404)  # as if the model were called k215_model:predict
    for path in ("", ":predict", "/metadata"):
        ask = (
            client.post(f"{MODEL}/labels/stable{path}", json=body)
            if path == ":predict"
            else client.get(f"{MODEL}/labels/stable{path}")
        )
        assert "no labels here: the path goes on from /v1/models/k215_model or" in refused(ask, 404)
    assert '"k215_model"' in refused(client.get("/v1/models/half/labels/stable"), 404)
    refused(client.post(f"{MODEL}:classify", json=body), 405)
