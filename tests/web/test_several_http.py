"""Models of several inputs and outputs over HTTP: each dialect, what does not fit, and what is of one alone."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from apps import app_of
from serving import GOLDEN, Process

from lstm_serve import Model, load_model
from lstm_serve.errors import InvalidInput
from lstm_serve.web.named_inputs import NamedInputs

PATH = GOLDEN / "several" / "k3__state_and_rul.h5"
NAME = "k3__state_and_rul"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(PATH)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with Process(PATH) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


def arrays(n: int = 3) -> dict[str, Any]:
    generator = np.random.default_rng(5)
    return {
        "words": generator.integers(0, 9, (n, 5)).astype(np.int32),
        "static": generator.normal(size=(n, 3)).astype(np.float32),
        "sensors": generator.normal(size=(n, 6, 4)).astype(np.float32),
    }


def rows(of: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: x[k].tolist() for name, x in of.items()} for k in range(len(of["words"]))]


def near(came: Any, expected: Any) -> bool:
    return bool(np.allclose(np.asarray(came), expected, atol=1e-6))


def test_native(client: httpx.Client, model: Model) -> None:
    x = arrays()
    y = model.predict(x)
    one = client.post("/predict", json={"inputs": rows(x)[0]}).json()
    assert [*one] == ["outputs"]
    assert [*one["outputs"]] == ["state", "rul"]
    assert [*one["outputs"]["state"]] == ["probabilities", "predicted_class", "label"]
    assert near(one["outputs"]["state"]["probabilities"], y["state"][0])
    assert near(one["outputs"]["rul"]["values"], y["rul"][0])
    for path in ("/predict/batch", "/invocations"):
        many = client.post(path, json={"inputs": rows(x)}).json()["predictions"]
        assert near([each["outputs"]["rul"]["values"] for each in many], y["rul"])
    assert client.post("/invocations", json={"inputs": rows(x)[0]}).json() == one


def test_one_array_alone_is_told_how_several_are_sent(client: httpx.Client, model: Model) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((1, 20, 15), np.float32))
    refused = client.post("/predict/batch", content=file.getvalue(), headers={"content-type": "application/x-npy"})
    assert refused.status_code == 415
    names = ", ".join(str(spec.name) for spec in model.inputs)
    assert f"a .npz file with an array by the name of each ({names})" in refused.json()["detail"]


def test_npz(client: httpx.Client, model: Model) -> None:
    x, file = arrays(), io.BytesIO()
    np.savez(file, **x)
    headers = {"content-type": "application/x-npz"}
    answer = client.post("/predict/batch", content=file.getvalue(), headers=headers).json()
    assert near([each["outputs"]["rul"]["values"] for each in answer["predictions"]], model.predict(x)["rul"])
    got = client.post("/predict/batch", content=file.getvalue(), headers={**headers, "accept": "application/x-npz"})
    assert got.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(got.content)) as outputs:
        assert outputs.files == ["state", "rul"]
        assert near(outputs["state"], model.predict(x)["state"])


def test_v1(client: httpx.Client, model: Model) -> None:
    x, path = arrays(), f"/v1/models/{NAME}:predict"
    y = model.predict(x)
    by_row = client.post(path, json={"instances": rows(x)}).json()["predictions"]
    assert all([*row] == ["state", "rul"] for row in by_row)
    assert near([row["state"] for row in by_row], y["state"])
    columns = client.post(path, json={"inputs": {name: value.tolist() for name, value in x.items()}}).json()["outputs"]
    assert [*columns] == ["state", "rul"]
    assert near(columns["rul"], y["rul"])
    signature = client.get(f"/v1/models/{NAME}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert [*signature["serving_default"]["inputs"]] == ["words", "static", "sensors"]
    assert signature["serving_default"]["inputs"]["words"]["dtype"] == "DT_INT32"


def tensors(of: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
    return [
        {"name": name, "shape": x.shape, "datatype": kinds[x.dtype.name], "data": x.ravel().tolist()}
        for name, x in of.items()
    ]


def test_v2(client: httpx.Client, model: Model) -> None:
    x, path = arrays(), f"/v2/models/{NAME}"
    y = model.predict(x)
    shuffled = tensors({"sensors": x["sensors"], "words": x["words"].astype(np.int64), "static": x["static"]})
    outputs = client.post(f"{path}/infer", json={"inputs": shuffled}).json()["outputs"]
    assert [(each["name"], each["shape"]) for each in outputs] == [("state", [3, 3]), ("rul", [3, 1])]
    assert near(outputs[0]["data"], y["state"].ravel())
    (only,) = client.post(f"{path}/infer", json={"inputs": shuffled, "outputs": [{"name": "rul"}]}).json()["outputs"]
    assert near(only["data"], y["rul"].ravel())
    told = client.get(path).json()
    assert [(each["name"], each["datatype"]) for each in told["inputs"]] == [
        ("words", "INT32"),
        ("static", "FP32"),
        ("sensors", "FP32"),
    ]


def test_v2_binary(client: httpx.Client, model: Model) -> None:
    x, tail, given = arrays(), b"", []
    for tensor in tensors(x):
        data = x[tensor["name"]].tobytes()
        given.append({**tensor, "parameters": {"binary_data_size": len(data)}})
        del given[-1]["data"]
        tail += data
    head = json.dumps({"inputs": given, "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    path = f"/v2/models/{NAME}/infer"
    answer = client.post(path, content=head + tail, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    numbers = np.frombuffer(answer.content[length:], "<f4")
    y = model.predict(x)
    assert near(numbers, np.concatenate([y["state"].ravel(), y["rul"].ravel()]))
    for wrong in (tail[:-1], tail + b"0"):
        assert client.post(path, content=head + wrong, headers=headers).status_code == 400


ROW = rows(arrays(1))[0]


@pytest.mark.parametrize(
    ("body", "detail", "pointer"),
    [
        ({"inputs": {**ROW, "sensors": None}}, "expected a list of 6 time steps, got null", "#/inputs/sensors"),
        ({"inputs": {name: ROW[name] for name in ("words", "static")}}, "lacks the input sensors", "#/inputs"),
        (
            {"inputs": {name[:5]: values for name, values in ROW.items()}},
            "lacks the input static, and has 2 that are none of words, static, sensors",
            "#/inputs",
        ),
        ({"inputs": {**ROW, "more": 1}}, "the inputs words, static, sensors alone, got 1 more", "#/inputs"),
        (
            {"inputs": [ROW, {**ROW, "words": [1, 2, 3, 4, 9]}]},
            "expected an integer id from 0",
            "#/inputs/1/words/4",
        ),
        ({"inputs": [ROW, 3]}, "an object of the inputs words, static, sensors, got a number", "#/inputs/1"),
        ({"inputs": []}, "expected a list of objects of the inputs", "#/inputs"),
        ({"sequence": []}, 'an object with the key "inputs" alone, got one in which "inputs" is missing', "#"),
        ({"inputs": ROW, "more": 1}, 'an object with the key "inputs" alone, got one with 2 keys', "#"),
    ],
)
def test_what_does_not_fit(client: httpx.Client, body: dict[str, Any], detail: str, pointer: str) -> None:
    path = "/predict/batch" if isinstance(body.get("inputs", []), list) else "/predict"
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_name_twice(client: httpx.Client) -> None:
    text = json.dumps({"inputs": ROW}).replace('"static"', '"static": [1, 2, 3], "static"')
    answer = client.post("/predict", content=text, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "expected each name once")


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        (":predict", {"inputs": {"words": [[1] * 5] * 2, "static": [[1] * 3], "sensors": [1]}}, "words 2, static 1"),
        (":predict", {"instances": [ROW], "inputs": ROW}, 'either "instances" or "inputs"'),
        ("/infer", {"inputs": tensors(arrays())[:2]}, "expected the inputs words, static, sensors, got 2"),
        ("/infer", {"inputs": [*tensors(arrays())[:2], tensors(arrays())[0]]}, "each once"),
        ("/infer", {"inputs": [*tensors(arrays())[:2], *tensors(arrays(1))[2:]]}, "words 3, static 3, sensors 1"),
        ("/infer", {"inputs": tensors(arrays()), "outputs": [{"name": "x"}]}, "one of the outputs state, rul"),
    ],
)
def test_what_does_not_fit_in_v1_and_v2(client: httpx.Client, path: str, body: dict[str, Any], detail: str) -> None:
    answer = client.post(f"/{'v2' if path == '/infer' else 'v1'}/models/{NAME}{path}", json=body)
    assert answer.status_code == 400
    assert detail in answer.json()["error"]


def test_what_is_of_one_input_says_so(client: httpx.Client) -> None:
    for path in ("/explain", "/trace"):
        for body in ({"inputs": ROW}, {"sequence": [[1]]}):
            answer = client.post(path, json=body)
            assert answer.status_code == 422
            assert "3 inputs (words, static, sensors) and 2 outputs (state, rul), and " in answer.json()["detail"]
            assert "POST /predict/batch, as .npz or JSON" in answer.json()["detail"]
    csv = client.post("/invocations", content=b"1,2,3\n", headers={"content-type": "text/csv"})
    assert csv.status_code == 422
    explained = client.post(f"/v1/models/{NAME}:explain", json={"instances": [ROW]})
    assert (explained.status_code, "3 inputs" in explained.text) == (400, True)


@pytest.mark.parametrize("prefix", ["", f"/models/{NAME}"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/series/a/rows"),
        ("POST", "/series/rows"),
        ("POST", "/predict/series"),
        ("GET", "/series/a"),
        ("DELETE", "/series/a"),
        ("GET", "/series/a/events"),
    ],
)
def test_a_series_is_of_one_input_and_says_so(client: httpx.Client, prefix: str, method: str, path: str) -> None:
    answer = client.request(method, prefix + path, json={"rows": [[1]]} if method == "POST" else None)
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "the model has 3 inputs (words, static, sensors), and a series needs one: load_model(...).predict({...}) "
        "answers it, and POST /predict/batch, as .npz or JSON"
    )


def test_what_is_told_of_it(client: httpx.Client) -> None:
    told = client.get("/model").json()
    assert [(each["name"], each["dtype"], each["ids"]) for each in told["inputs"]] == [
        ("words", "int32", 9),
        ("static", "float32", None),
        ("sensors", "float32", None),
    ]
    assert [(each["name"], each["kind"]) for each in told["outputs"]] == [("state", "classes"), ("rul", "values")]
    assert client.get("/models").json()["models"][0]["kind"] == "classes, values"
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert [*schemas["PredictRequest"]["properties"]["inputs"]["properties"]] == ["words", "static", "sensors"]
    assert [*schemas["OutputAnswers"]["properties"]] == ["state", "rul"]
    assert client.get(f"/models/{NAME}").status_code == 200


def test_the_log_tells_each_input_and_output(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        app_of(PATH)
    taken = "words (None, 5), static (None, 3), sensors (None, 6, 4)"
    assert f": {taken} to state (None, 3) classes, rul (None, 1) values in " in caplog.text


def test_requests_of_several_clients_share_batches(client: httpx.Client, model: Model) -> None:
    x = arrays(200)
    many = client.post("/predict/batch", json={"inputs": rows(x)}).json()["predictions"]
    assert near([each["outputs"]["state"]["probabilities"] for each in many], model.predict(x)["state"])


def test_a_fault_in_a_late_row_is_told_where_it_is(model: Model) -> None:
    """Rows are looked at some hundreds at a time."""
    given = rows(arrays(1000))
    given[900]["static"][1] = "x"
    with pytest.raises(InvalidInput) as caught:
        list(NamedInputs(model, max_rows=1000).rows({"inputs": given}).arrays(np.float32))
    assert [problem.where for problem in caught.value.problems] == [("inputs", 900, "static", 1)]
