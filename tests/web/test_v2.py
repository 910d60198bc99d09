"""The Open Inference Protocol v2 over a real socket, with binary tensors and without."""

import asyncio
import gzip
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import open_inference
import pytest
from apps import deployment_of
from echo import Echo, model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from open_inference import AnyArray, binary, tensor
from serving import GOLDEN, SMALL, Clients, Golden, call, in_loop, started

from lstm_serve.errors import InvalidInput, LstmServeError
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app
from lstm_serve.web.dialects.v2.codec import decode
from lstm_serve.web.dialects.v2.tensors import DTYPES

MODEL = "/v2/models/k215_model"
INFER = f"{MODEL}/infer"
ECHO = model_of(Echo())


def parted(response: httpx.Response) -> dict[str, AnyArray]:
    """The outputs of an answer, by name, from its JSON or from behind it."""
    length = response.headers.get("inference-header-content-length")
    head = json.loads(response.content if length is None else response.content[: int(length)])
    open_inference.check("inference_response", head)
    at, found = int(length or 0), {}
    for output in head["outputs"]:
        dtype = np.dtype(DTYPES[output["datatype"]])
        if "data" in output:
            values = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            values, at = np.frombuffer(response.content[at : at + size], dtype), at + size
        found[output["name"]] = values.reshape(output["shape"])
    assert length is None or at == len(response.content)
    return found


def refused(response: httpx.Response, status: int = 400) -> str:
    """Check an error of v2. Gives its words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    open_inference.check("error_response", body)
    assert body.keys() == {"error"}
    assert len(response.content) <= 1024
    words: str = body["error"]
    return words


# What is answered.


def test_json_flat_nested_and_binary_give_what_keras_gave(client: httpx.Client, golden: Golden) -> None:
    x, y = golden
    body, headers = binary(x)
    answers = [
        client.post(INFER, json={"inputs": [tensor(x)]}),
        client.post(INFER, json={"inputs": [{**tensor(x), "data": x.ravel().tolist()}]}),
        client.post(INFER, content=body, headers=headers),
        client.post(f"{MODEL}/versions/1/infer", content=body, headers=headers),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        outputs = parted(answer)
        assert list(outputs) == ["probabilities", "predicted_class"]
        assert outputs["probabilities"].dtype == np.float32
        assert outputs["probabilities"].shape == (16, 5)
        assert np.abs(outputs["probabilities"] - y).max() <= 1e-6
        assert outputs["predicted_class"].tolist() == y.argmax(axis=1).tolist()
    head = answers[0].json()
    assert (head["model_name"], head["model_version"], "id" in head) == ("k215_model", "1", False)


@pytest.mark.parametrize("rows", [1, 16])
def test_the_same_as_predict(client: httpx.Client, golden: Golden, rows: int) -> None:
    x = golden[0][:rows]
    body, headers = binary(x, outputs=[{"name": "dense_1", "parameters": {"binary_data": True}}])
    outputs = parted(client.post(INFER, content=body, headers=headers))
    native = client.post("/predict/batch", json={"sequences": x.tolist()}).json()["predictions"]
    assert np.abs(outputs["dense_1"] - [answer["probabilities"] for answer in native]).max() <= 1e-7


def test_outputs_that_are_asked_for(client: httpx.Client, golden: Golden) -> None:
    x = golden[0][:2]

    def asked(*outputs: dict[str, Any], **request: Any) -> tuple[httpx.Response, dict[str, AnyArray]]:
        response = client.post(INFER, json={"inputs": [tensor(x)], "outputs": list(outputs), **request})
        assert response.status_code == 200, response.text
        return response, parted(response)

    assert list(asked()[1]) == ["probabilities", "predicted_class"]
    assert list(asked({"name": "predicted_class"})[1]) == ["predicted_class"]
    response, both = asked({"name": "dense_1"}, {"name": "probabilities", "parameters": {"binary_data": True}}, id="a1")
    assert list(both) == ["dense_1", "probabilities"]
    assert np.array_equal(both["dense_1"], both["probabilities"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert b'"id":"a1"' in response.content
    assert asked(id="")[0].json()["id"] == ""
    every = {"binary_data_output": True}
    response, both = asked(parameters=every)
    assert response.content.count(b"binary_data_size") == 2
    response, both = asked({"name": "predicted_class", "parameters": {"binary_data": False}}, parameters=every)
    assert "inference-header-content-length" not in response.headers
    assert both["predicted_class"].dtype == np.int64


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BOOL"])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_other_numbers_are_cast(client: httpx.Client, datatype: str, form: str) -> None:
    x = (np.arange(300).reshape(1, 20, 15) % 7).astype(DTYPES[datatype])
    wanted = parted(client.post(INFER, json={"inputs": [tensor(x.astype(np.float32))]}))
    body, headers = binary(x, datatype) if form == "binary" else (json.dumps({"inputs": [tensor(x, datatype)]}), {})
    found = parted(client.post(INFER, content=body, headers=headers))
    assert np.array_equal(found["probabilities"], wanted["probabilities"])


def test_booleans_are_zero_and_one(client: httpx.Client) -> None:
    x = np.arange(300).reshape(1, 20, 15) % 2 == 0
    wanted = parted(client.post(INFER, json={"inputs": [tensor(x.astype(np.float32))]}))
    body, headers = binary(x, tail=(x.astype(np.uint8) * 255).tobytes(), datatype="BOOL")
    for answer in (
        client.post(INFER, json={"inputs": [tensor(x, "BOOL")]}),
        client.post(INFER, content=body, headers=headers),
    ):
        assert np.array_equal(parted(answer)["probabilities"], wanted["probabilities"])


def test_half_precision_is_what_the_client_said(client: httpx.Client) -> None:
    x = np.full((1, 20, 15), 0.1, np.float16)
    body, headers = binary(x, "FP16")
    found = parted(client.post(INFER, content=body, headers=headers))
    wanted = parted(client.post(INFER, json={"inputs": [tensor(x.astype(np.float32))]}))
    assert np.array_equal(found["probabilities"], wanted["probabilities"])


def bfloat16(x: AnyArray) -> bytes:
    """The upper halves of float32, little-endian: what `ml_dtypes.bfloat16` holds, and tritonclient sends."""
    return (x.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def test_bfloat16_is_binary_alone(client: httpx.Client, golden: Golden) -> None:
    x = golden[0]
    assert bfloat16(np.array([1.0, -2.0, 0.15625], np.float32)) == b"\x80\x3f\x00\xc0\x20\x3e"
    cut = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    body, headers = binary(x, "BF16", tail=bfloat16(x))
    found = parted(client.post(INFER, content=body, headers=headers))
    wanted = parted(client.post(INFER, json={"inputs": [tensor(cut)]}))
    assert np.array_equal(found["probabilities"], wanted["probabilities"])
    for number in (np.nan, np.inf):
        body, headers = binary(x, "BF16", tail=bfloat16(np.full_like(x, number)))
        assert "#/inputs/0: expected finite" in refused(client.post(INFER, content=body, headers=headers))
    body, headers = binary(x, "BF16", tail=x.tobytes())
    assert f"expected {2 * x.size} bytes" in refused(client.post(INFER, content=body, headers=headers))
    words = refused(client.post(INFER, json={"inputs": [tensor(x, "BF16")]}))
    assert words == "#/inputs/0/datatype: BF16 has no form in JSON: send it as binary data, or the numbers as FP32"


def test_whatever_is_optional_may_be_null(client: httpx.Client, golden: Golden) -> None:
    """As clients send that serialise structs."""
    x = golden[0]
    wanted = client.post(INFER, json={"inputs": [tensor(x)]}).json()
    idle = {"timeout": None, "binary_data_output": None, "sequence_id": None, "sequence_start": None}
    of_tensor = {"binary_data_size": None, "shared_memory_region": None}
    named: list[Any] = [
        {"name": output["name"], "parameters": parameters}
        for output in wanted["outputs"]
        for parameters in (None, {"binary_data": None, "classification": None})
    ]
    for request in (
        {"id": None, "parameters": None, "outputs": None, "inputs": [tensor(x, parameters=None)]},
        {"parameters": idle, "inputs": [tensor(x, parameters=of_tensor)]},
        {"inputs": [tensor(x)], "outputs": named[::2]},
        {"inputs": [tensor(x)], "outputs": named[1::2]},
    ):
        response = client.post(INFER, json=request)
        assert response.status_code == 200, response.text
        assert response.json() == wanted
    body, headers = binary(x, id=None, outputs=None, parameters={"binary_data_output": True, "timeout": None})
    assert client.post(INFER, content=body, headers=headers).headers["inference-header-content-length"]
    body, headers = binary(x, outputs=named[1::2], parameters={"binary_data_output": True})
    assert client.post(INFER, content=body, headers=headers).headers["inference-header-content-length"]
    head: dict[str, Any] = {"name": "x", "shape": [*x.shape], "datatype": "FP32", "data": None}
    head["parameters"] = {"binary_data_size": x.nbytes, "shared_memory_region": None}
    text = json.dumps({"inputs": [head]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    assert client.post(INFER, content=text + x.tobytes(), headers=headers).json() == wanted


def test_a_byte_order_mark_is_no_part_of_the_json(client: httpx.Client, golden: Golden) -> None:
    x = golden[0]
    wanted = client.post(INFER, json={"inputs": [tensor(x)]}).json()
    marked = b"\xef\xbb\xbf" + json.dumps({"inputs": [tensor(x)]}).encode()
    assert client.post(INFER, content=marked).json() == wanted
    body, headers = binary(x)
    length = str(int(headers["inference-header-content-length"]) + 3)
    marked = b"\xef\xbb\xbf" + body
    assert client.post(INFER, content=marked, headers={"inference-header-content-length": length}).json() == wanted


def test_a_compressed_request(client: httpx.Client, golden: Golden) -> None:
    body, headers = binary(golden[0])
    plain = client.post(INFER, content=body, headers=headers)
    packed = client.post(INFER, content=gzip.compress(body), headers={**headers, "content-encoding": "gzip"})
    assert packed.content == plain.content


def test_the_deadline_of_the_parameters(client: httpx.Client, golden: Golden) -> None:
    def within(timeout: Any, **headers: str) -> httpx.Response:
        body = {"inputs": [tensor(golden[0])], "parameters": {"timeout": timeout}}
        return client.post(INFER, json=body, headers=headers)

    refused(within(20), 504)  # in milliseconds it would be enough
    assert within(10_000_000).status_code == 200
    assert within(0).status_code == 200  # as Triton has it: none of its own
    refused(within(10_000_000, **{"x-request-timeout-ms": "0"}), 504)
    refused(within(1, **{"x-request-timeout-ms": "10000"}), 504)
    wrongs: list[Any] = [-1, 1.5, "1", True, [], 1 << 64]
    for wrong in wrongs:
        assert "microseconds" in refused(within(wrong))


# What is refused, and how.

X = np.zeros((2, 20, 15), np.float32)
GOOD = tensor(X)


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def at(index: int, value: Any) -> dict[str, Any]:
    """The good tensor with one value of its flat data changed."""
    return {**GOOD, "data": [value if k == index else 0.5 for k in range(X.size)]}


REQUESTS: dict[str, tuple[Any, str]] = {
    "no object": ([], "expected an object|valid dictionary"),
    "no inputs": ({}, "#/inputs"),
    "native keys": ({"sequences": [1]}, '#/inputs: expected the key "inputs"; "sequences" goes to POST /predict/batch'),
    "v1's key": ({"instances": [1]}, '"instances" goes to POST /v1/models/k215_model:predict'),
    "empty inputs": ({"inputs": []}, "expected one input, got 0"),
    "two inputs": ({"inputs": [GOOD, GOOD]}, "expected one input, got 2"),
    "inputs of another type": ({"inputs": {"x": 1}}, "#/inputs"),
    "no name": ({"inputs": [without(GOOD, "name")]}, "#/inputs/0/name"),
    "no shape": ({"inputs": [without(GOOD, "shape")]}, "#/inputs/0/shape"),
    "no datatype": ({"inputs": [without(GOOD, "datatype")]}, "#/inputs/0/datatype"),
    "no data": ({"inputs": [without(GOOD, "data")]}, "expected data, or binary_data_size"),
    "data is null": ({"inputs": [{**GOOD, "data": None}]}, "expected data, or binary_data_size"),
    "data is text": ({"inputs": [{**GOOD, "data": "AAAA"}]}, "#/inputs/0/data"),
    "bytes": ({"inputs": [{**GOOD, "datatype": "BYTES"}]}, "#/inputs/0/datatype"),
    "unknown datatype": ({"inputs": [{**GOOD, "datatype": "fp32"}]}, "#/inputs/0/datatype"),
    "no rows": ({"inputs": [{**GOOD, "shape": [0, 20, 15], "data": []}]}, "(n, 20, 15), got the shape (0, 20, 15)"),
    "negative size": ({"inputs": [{**GOOD, "shape": [-2, -20, 15]}]}, "got the shape (-2, -20, 15)"),
    "free size": ({"inputs": [{**GOOD, "shape": [-1, 20, 15]}]}, "got the shape (-1, 20, 15)"),
    "no batch axis": ({"inputs": [{**GOOD, "shape": [20, 15]}]}, "got the shape (20, 15)"),
    "axes swapped": ({"inputs": [{**GOOD, "shape": [2, 15, 20]}]}, "got the shape (2, 15, 20)"),
    "a longer series": ({"inputs": [{**GOOD, "shape": [1, 40, 15]}]}, "lstm-serve predict slides windows"),
    "many axes": ({"inputs": [{**GOOD, "shape": [1] * 90}]}, "#/inputs/0/shape"),
    "absurd size": ({"inputs": [{**GOOD, "shape": [10**40, 20, 15]}]}, "#/inputs/0/shape"),
    "size of another type": ({"inputs": [{**GOOD, "shape": [2.0, 20, 15]}]}, "#/inputs/0/shape/0"),
    "size is true": ({"inputs": [{**GOOD, "shape": [True, 20, 15]}]}, "#/inputs/0/shape/0"),
    "fewer values": ({"inputs": [{**GOOD, "data": [0.5] * 599}]}, "expected 600 values for this shape, got 599"),
    "more values": ({"inputs": [{**GOOD, "data": [0.5] * 601}]}, "got 601"),
    "nested otherwise": ({"inputs": [{**GOOD, "data": [[0.5] * 300] * 2}]}, "flat, or nested as the shape (2, 20, 15)"),
    "ragged": (
        {"inputs": [{**GOOD, "data": [[[0.5] * 15] * 20, [[0.5] * 15] * 19 + [[0.5] * 14]]}]},
        "flat, or nested",
    ),
    "nested too deep": ({"inputs": [{**GOOD, "data": [[[[0.5]] * 15] * 20] * 2}]}, "#/inputs/0/data/0"),
    "text among numbers": (
        {"inputs": [at(349, "3")]},
        "#/inputs/0/data/349: expected a number, as FP32 says, got other at (1, 3, 4)",
    ),
    "text in a nested list": (
        {"inputs": [{**GOOD, "data": [[[0.5] * 15] * 20, [[0.5, "3"] * 7 + [0.5]] * 20]}]},
        "#/inputs/0/data/1/0/1: expected a number",
    ),
    "true among numbers": ({"inputs": [at(7, True)]}, "#/inputs/0/data/7: expected a number"),
    "null among numbers": ({"inputs": [at(7, None)]}, "#/inputs/0/data/7: expected a number"),
    "beyond float32": (
        {"inputs": [at(349, 1e39)]},
        "#/inputs/0/data/349: expected finite float32 numbers, got another at (1, 3, 4)",
    ),
    "beyond float32 in a nested list": (
        {"inputs": [{**GOOD, "data": [[[0.5] * 15] * 20, [[0.5, 1e39] * 7 + [0.5]] * 20]}]},
        "#/inputs/0/data/1/0/1: expected finite float32",
    ),
    "beyond float32 in rows of a sequence": (
        {
            "inputs": [{**tensor(X[:1]), "datatype": "FP64", "shape": [1, 4, 15], "data": [0.5] * 59 + [1e39]}],
            "parameters": {"sequence_id": 5, "sequence_start": True},
        },
        "#/inputs/0/data/59: expected finite float32 numbers, got another at (3, 14)",
    ),
    "fractions as integers": ({"inputs": [{**at(7, 1), "datatype": "INT32"}]}, "#/inputs/0/data/0: expected a whole"),
    "beyond the integers": ({"inputs": [{**GOOD, "datatype": "UINT8", "data": [256] * 600}]}, "the range of UINT8"),
    "negative as unsigned": ({"inputs": [{**GOOD, "datatype": "UINT64", "data": [-1] * 600}]}, "the range of UINT64"),
    "beyond half precision": ({"inputs": [{**at(7, 70000.0), "datatype": "FP16"}]}, "the range of FP16"),
    "numbers as booleans": (
        {"inputs": [{**at(7, 1), "datatype": "BOOL"}]},
        "#/inputs/0/data/0: expected true or false",
    ),
    "data in two places": ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 2400}}]}, "got both"),
    "binary data that is not there": (
        {"inputs": [{**without(GOOD, "data"), "parameters": {"binary_data_size": 2400}}]},
        "0 bytes follow the JSON",
    ),
    "unknown output": (
        {"inputs": [GOOD], "outputs": [{"name": "probs"}]},
        "#/outputs/0/name: expected one of the outputs",
    ),
    "output twice": ({"inputs": [GOOD], "outputs": [{"name": "dense_1"}] * 2}, "#/outputs/1/name"),
    "very many outputs": ({"inputs": [GOOD], "outputs": [{"name": "dense_1"}] * 99}, "#/outputs"),
    "output without a name": ({"inputs": [GOOD], "outputs": [{}]}, "#/outputs/0/name"),
    "a sequence that has not begun": (
        {"inputs": [tensor(X[:1])], "parameters": {"sequence_id": 5}},
        "expected sequence_start",
    ),
    "the end of no sequence": ({"inputs": [GOOD], "parameters": {"sequence_end": True}}, "expected a sequence_id"),
    "a sequence of half a number": ({"inputs": [GOOD], "parameters": {"sequence_id": 0.5}}, "whole number of 64 bits"),
    "a sequence beyond 64 bits": (
        {"inputs": [GOOD], "parameters": {"sequence_id": 1 << 64}},
        "whole number of 64 bits",
    ),
    "a sequence of any text": ({"inputs": [GOOD], "parameters": {"sequence_id": "a/b"}}, "expected an id"),
    "the start in words": (
        {"inputs": [GOOD], "parameters": {"sequence_id": 1, "sequence_start": "yes"}},
        "true or false",
    ),
    "two sequences at once": (
        {"inputs": [GOOD], "parameters": {"sequence_id": 5, "sequence_start": True}},
        "expected k rows of one series, the shape (1, k, 15), got (2, 20, 15)",
    ),
    "shared memory": (
        {"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]},
        "shared_memory_region is not",
    ),
    "classification": (
        {"inputs": [GOOD], "outputs": [{"name": "dense_1", "parameters": {"classification": 2}}]},
        "classification is not",
    ),
    "id of another type": ({"inputs": [GOOD], "id": 3}, "#/id"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_request(client: httpx.Client, name: str) -> None:
    request, words = REQUESTS[name]
    found = refused(client.post(INFER, json=request))
    assert any(word in found for word in words.split("|")), found


def test_an_axis_too_many_is_not_called_swapped(client: httpx.Client) -> None:
    for shape in ([2, 20, 15, 1], [40, 15, 1]):
        assert "swapped" not in refused(client.post(INFER, json={"inputs": [{**GOOD, "shape": shape}]}))


def test_a_value_never_comes_back(client: httpx.Client) -> None:
    x = np.full_like(X, 0.5, np.float64)
    x[1, 19, 14] = -7.25e77
    body, headers = binary(x, "FP64")
    for response in (
        client.post(INFER, content=body, headers=headers),
        client.post(INFER, json={"inputs": [tensor(x, "FP64")]}),
    ):
        said = refused(response)
        assert said.endswith("expected finite float32 numbers, got another at (1, 19, 14)")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(client: httpx.Client, number: str) -> None:
    body = json.dumps({"inputs": [at(7, 1234.5)]}).replace("1234.5", number)
    assert "finite float32" in refused(client.post(INFER, content=body))


def test_what_is_ignored(client: httpx.Client) -> None:
    """Unknown keys and parameters, and those that Triton's clients send with nothing in them."""
    idle = {"sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 3, "mine": [1]}
    request = {"inputs": [{**GOOD, "extra": 1}], "parameters": idle, "model_name": "other", "outputs": []}
    assert client.post(INFER, json=request, headers={"content-type": "text/plain"}).status_code == 200


def test_not_json(client: httpx.Client) -> None:
    assert "empty" in refused(client.post(INFER))
    assert "not JSON" in refused(client.post(INFER, content=b"\x00\x01"))


@pytest.mark.parametrize("filler", ["[],", "{},", '"",'])
def test_what_cannot_be_good_is_refused_before_it_is_parsed(client: httpx.Client, filler: str) -> None:
    data = "[" + filler * (1_900_000 // len(filler)) + "0]"
    body = json.dumps({"inputs": [{**GOOD, "data": "DATA"}]}).replace('"DATA"', data)
    assert "much else" in refused(client.post(INFER, content=body))


def test_a_large_request_is_no_heavy_one(client: httpx.Client) -> None:
    x = np.full((1024, 20, 15), 0.25, np.float32)
    for data in (x.tolist(), x.ravel().tolist()):
        assert client.post(INFER, json={"inputs": [{**tensor(x), "data": data}]}).status_code == 200


def test_too_many_rows(client: httpx.Client) -> None:
    x = np.zeros((1025, 20, 15), np.uint8)
    body, headers = binary(x, "UINT8")
    assert "1025 sequences" in refused(client.post(INFER, content=body, headers=headers), 413)
    claimed = {**GOOD, "shape": [1 << 30, 20, 15]}
    refused(client.post(INFER, json={"inputs": [claimed]}), 413)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": "x"}, "Inference-Header-Content-Length"),
        ({"length": "-1"}, "Inference-Header-Content-Length"),
        ({"length": "9" * 30}, "Inference-Header-Content-Length"),
        ({"length": "1000000"}, "Inference-Header-Content-Length"),
        ({"length": "0"}, "empty"),
        ({"length": "9"}, "not JSON"),
        ({"tail": b""}, "expected 2400 bytes"),
        ({"tail": b"\0" * 2399}, "expected 2400 bytes"),
        ({"tail": b"\0" * 2400, "datatype": "FP64"}, "expected 4800 bytes"),
        ({"tail": np.full(600, np.nan, np.float32).tobytes()}, "got another at (0, 0, 0)"),
        ({"tail": np.full(600, -np.inf, np.float16).tobytes(), "datatype": "FP16"}, "expected finite"),
        ({"tail": np.full(600, 1e39).tobytes(), "datatype": "FP64"}, "expected finite float32"),
    ],
)
def test_bad_binary(client: httpx.Client, change: dict[str, Any], words: str) -> None:
    body, headers = binary(X, **change)
    assert words in refused(client.post(INFER, content=body, headers=headers))


def test_binary_sizes_that_do_not_agree(client: httpx.Client) -> None:
    body, headers = binary(X)
    assert "2399 bytes follow the JSON" in refused(client.post(INFER, content=body[:-1], headers=headers))
    assert "2401 bytes follow the JSON" in refused(client.post(INFER, content=body + b"\0", headers=headers))
    assert "not JSON" in refused(client.post(INFER, content=body))  # where the JSON ends was not said
    head = json.dumps({"inputs": [GOOD]}).encode()
    length = {"inference-header-content-length": str(len(head))}
    assert "expected nothing after the JSON, got 4" in refused(
        client.post(INFER, content=head + b"1234", headers=length)
    )
    assert client.post(INFER, content=head, headers=length).status_code == 200
    for size in (True, 2400.0, "2400", -2400):
        wrong = {**without(GOOD, "data"), "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [wrong]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        assert "2400 bytes" in refused(client.post(INFER, content=head + bytes(2400), headers=headers))


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats", "/infer"])
def test_another_model_or_version_is_not_found(client: httpx.Client, path: str) -> None:
    ask: Callable[[str], httpx.Response] = client.get
    if path == "/infer":
        ask = lambda url: client.post(url, json={"inputs": [GOOD]})  # noqa: E731 - as short as it gets
    assert '"k215_model"' in refused(ask(f"/v2/models/resnet{path}"), 404)
    assert "version" in refused(ask(f"{MODEL}/versions/2{path}"), 404)
    assert ask(f"{MODEL}/versions/1{path}").status_code == 200


def test_wrong_methods_and_paths(client: httpx.Client) -> None:
    refused(client.get(INFER), 405)
    refused(client.post(MODEL), 405)
    refused(client.post(f"{MODEL}/generate"), 404)


# What is said of the server and the model.


def test_health_and_metadata(client: httpx.Client) -> None:
    def told(schema: str, path: str) -> Any:
        response = client.get(path)
        assert response.status_code == 200
        open_inference.check(schema, response.json())
        return response.json()

    assert told("live_response", "/v2/health/live") == {"live": True}
    assert told("ready_response", "/v2/health/ready") == {"ready": True}
    assert told("metadata_server_response", "/v2") == told("metadata_server_response", "/v2/")
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
    assert client.get("/v2/models").json() == {"models": ["k215_model"]}
    assert told("model_ready_response", f"{MODEL}/ready") == {"name": "k215_model", "ready": True}
    about = told("metadata_model_response", MODEL)
    assert about["versions"] == ["1"]
    assert about["inputs"] == [{"name": "sequences", "datatype": "FP32", "shape": [-1, 20, 15]}]
    assert about["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "predicted_class", "datatype": "INT64", "shape": [-1]},
    ]
    config = client.get(f"{MODEL}/config").json()
    assert (config["name"], config["max_batch_size"]) == ("k215_model", 1024)
    assert config["input"] == [{"name": "sequences", "data_type": "TYPE_FP32", "dims": [20, 15]}]
    assert [output["dims"] for output in config["output"]] == [[5], []]
    assert (
        client.post("/v2/repository/index").json() == client.post("/v2/repository/index", json={"ready": True}).json()
    )
    assert client.post("/v2/repository/index").json() == [
        {"name": "k215_model", "version": "1", "state": "READY", "reason": ""}
    ]


@in_loop
async def test_not_ready_while_stopping() -> None:
    app = create_app(Settings(model=SMALL / "binary.h5"))
    serving: ServingState = app.state.serving
    async with started(app):
        serving.draining = True
        for path, said in (
            ("/v2/health/ready", {"ready": False}),
            ("/v2/models/binary/ready", {"name": "binary", "ready": False}),
        ):
            answer = await call(app, path)
            assert (answer.status, answer.json) == (503, said)
        index = await call(app, "/v2/repository/index", b"")
        assert index.json[0]["state"] == "UNAVAILABLE"
        assert (await call(app, "/v2/health/live")).status == 200
    assert (await call(app, "/v2/health/live")).json == {"live": True}


@in_loop
async def test_not_live_once_nothing_is_computed_any_more() -> None:
    app = create_app(Settings(model=SMALL / "binary.h5"))
    async with started(app):
        task = deployment_of(app).queue._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        answer = await call(app, "/v2/health/live")
    assert (answer.status, answer.json) == (503, {"live": False})


@in_loop
async def test_statistics_count_what_was_done(golden: Golden) -> None:
    app = create_app(Settings(model=GOLDEN / "asker/k215_model.h5", max_batch_rows=8))
    request = json.dumps({"inputs": [tensor(golden[0])]}).encode()
    async with started(app):
        for body, status in ((request, 200), (request, 200), (b"{}", 400)):
            assert (await call(app, INFER, body)).status == status
        stats = (await call(app, f"{MODEL}/stats")).json
        assert (await call(app, "/v2/models/stats")).json == stats
    (found,) = stats["model_stats"]
    assert (found["name"], found["version"]) == ("k215_model", "1")
    assert (found["inference_count"], found["execution_count"]) == (32, 4)
    counts = {name: told["count"] for name, told in found["inference_stats"].items()}
    assert counts == {
        "success": 2, "fail": 1, "queue": 2, "compute_infer": 4,
        "compute_input": 0, "compute_output": 0, "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    ns = {name: told["ns"] for name, told in found["inference_stats"].items()}
    assert 0 < ns["compute_infer"] < ns["success"]


# Other kinds of model.


@pytest.mark.parametrize("stem", ["binary", "values", "steps", "free"])
def test_each_kind_of_model(served: Clients, stem: str) -> None:
    client = served(SMALL / f"{stem}.h5")
    with np.load(SMALL / f"{stem}.golden.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    about = client.get(f"/v2/models/{stem}").json()
    datatype = about["inputs"][0]["datatype"]
    body, headers = binary(x, datatype, parameters={"binary_data_output": True})
    outputs = parted(client.post(f"/v2/models/{stem}/infer", content=body, headers=headers))
    assert [output["name"] for output in about["outputs"]] == list(outputs)
    for output in about["outputs"]:
        found = outputs[output["name"]]
        assert [-1 if free == -1 else size for free, size in zip(output["shape"], found.shape, strict=True)] == output[
            "shape"
        ]
    name = {"binary": "probability", "classes": "probabilities"}.get(client.get("/model").json()["kind"], "values")
    assert np.allclose(outputs[name], y, rtol=0, atol=1e-6)
    if name == "probability":
        assert outputs["predicted_class"].tolist() == (y[:, 0] >= 0.5).astype(int).tolist()


FEATURES = GOLDEN / "features"


@in_loop
async def test_ids_of_an_embedding() -> None:
    app = create_app(Settings(model=FEATURES / "k3__emb_bi.h5"))
    path = "/v2/models/k3__emb_bi"

    async def asked(datatype: str, value: Any) -> tuple[int, Any]:
        request = {"inputs": [{"name": "x", "shape": [1, 6], "datatype": datatype, "data": [0, 1, 2, 3, 4, value]}]}
        answer = await call(app, f"{path}/infer", json.dumps(request).encode())
        return answer.status, answer.json

    async with started(app):
        about = (await call(app, path)).json
        assert about["inputs"] == [{"name": "sequences", "datatype": "INT32", "shape": [-1, 6]}]
        status, wanted = await asked("INT32", 8)
        assert status == 200
        for datatype, value in (("INT64", 8), ("UINT8", 8), ("FP32", 8.0), ("FP64", 8)):
            assert await asked(datatype, value) == (200, wanted)
        for datatype, value in (("FP32", 1.5), ("INT32", 9), ("INT32", -1), ("INT64", 1 << 40)):
            status, answer = await asked(datatype, value)
            assert status == 400
            assert "integers from 0 to 8" in answer["error"]


@in_loop
async def test_a_model_that_takes_raw_values_is_sent_double_precision(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes((SMALL / "binary.h5").read_bytes())
    features = 3
    card = {"scaling": {"mean": [0.0] * features, "scale": [1.0] * features}}
    (tmp_path / "m.card.json").write_text(json.dumps(card))
    app = create_app(Settings(model=tmp_path / "m.h5"))
    async with started(app):
        about = (await call(app, "/v2/models/m")).json
        config = (await call(app, "/v2/models/m/config")).json
    assert about["inputs"][0]["datatype"] == "FP64"
    assert config["input"][0]["data_type"] == "TYPE_FP64"


# Whatever comes.

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
SHAPES = st.lists(st.integers(-2, 5) | st.just(1 << 40), max_size=4)
TENSORS = st.fixed_dictionaries(
    {"name": st.text(max_size=3), "shape": SHAPES | JSON_VALUES, "datatype": st.sampled_from([*DTYPES, "BYTES"])},
    optional={"data": JSON_VALUES, "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 40))},
)
OTHERS = {"outputs": JSON_VALUES, "parameters": JSON_VALUES, "id": JSON_VALUES}


@given(
    request=st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=2) | JSON_VALUES}, optional=OTHERS)
    | JSON_VALUES,
    tail=st.binary(max_size=40),
    length=st.none() | st.integers(0, 200) | st.just(-1),
)
@settings(max_examples=300, deadline=None)
def test_any_body_is_answered_or_refused(request: Any, tail: bytes, length: int | None) -> None:
    head = json.dumps(request).encode()
    said = b"%d" % (len(head) if length == -1 else length or 0)
    headers = {} if length is None else {b"inference-header-content-length": said}
    with suppress(LstmServeError):
        (x,) = decode(ECHO, head + tail, headers, 4, 10).arrays(np.float32)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()


@given(
    rows=st.integers(1, 3),
    datatype=st.sampled_from([name for name in DTYPES if name != "BOOL"]),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_binary_flat_and_nested_are_the_same_numbers(rows: int, datatype: str, data: st.DataObject) -> None:
    shape = (rows, *(2 if size is None else size for size in ECHO.input_shape))
    dtype = np.dtype(DTYPES[datatype])
    size = math.prod(shape) * dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    x = np.frombuffer(raw, dtype).reshape(shape)
    packed, headers = binary(x, datatype, tail=raw)
    json_bodies = [{"inputs": [{**tensor(x, datatype), "data": values}]} for values in (x.tolist(), x.ravel().tolist())]
    bodies = [(packed, {name.encode(): value.encode() for name, value in headers.items()})]
    bodies += [(json.dumps(body).encode(), {}) for body in json_bodies]
    found: list[bytes | None] = []
    for body, given_headers in bodies:
        try:
            found.append(decode(ECHO, body, given_headers, 4, 10).arrays(np.float32)[0].tobytes())
        except InvalidInput:
            found.append(None)
    with np.errstate(over="ignore", invalid="ignore"):
        good = bool(np.isfinite(x.astype(np.float32)).all())
        wanted = x.astype(np.float32).tobytes()
    assert found == [wanted if good else None] * 3
