"""Answers of a model of one input and one output as recorded: the same bytes but for the last digits of numbers."""

import json
import re
from typing import Any

import httpx
import numpy as np
import pytest
from serving import ROOT, Clients

TURBOFAN = ROOT / "models/turbofan.h5"
ROWS = json.loads((ROOT / "models/turbofan.example.json").read_text())["sequence"]
NUMBERS = [0.97899216, 0.020965206, 0.000032976466, 0.000007092133, 0.0000024096196]
# As JSON has the numbers above, whose last digits are another machine's.
FIVE = "0.#,0.#,0.#,0.#,0.#"
V2 = (
    f'{{"model_name":"turbofan","model_version":"1","outputs":[{{"name":"probabilities","shape":[1,5],"datatype":"FP32",'
    f'"data":[{FIVE}]}},{{"name":"predicted_class","shape":[1],"datatype":"INT64","data":[0]}}],"id":"a"}}'
)
NATIVE = f'{{"probabilities":[{FIVE}],"predicted_class":0,"label":"0-29 cycles left"}}'
TENSOR = {"name": "x", "shape": [1, 20, 15], "datatype": "FP32", "data": [ROWS]}
RECORDED: list[tuple[str, Any, str]] = [
    ("/predict", {"sequence": ROWS}, NATIVE),
    ("/predict/batch", {"sequences": [ROWS]}, f'{{"predictions":[{NATIVE}]}}'),
    ("/invocations", {"sequence": ROWS}, NATIVE),
    ("/v1/models/turbofan:predict", {"instances": [ROWS]}, f'{{"predictions":[[{FIVE}]]}}'),
    ("/v1/models/turbofan:predict", {"inputs": [ROWS]}, f'{{"outputs":[[{FIVE}]]}}'),
    ("/v2/models/turbofan/infer", {"id": "a", "inputs": [TENSOR]}, V2),
]


@pytest.fixture(scope="module")
def client(served: Clients) -> httpx.Client:
    return served(TURBOFAN)


@pytest.mark.parametrize(("path", "body", "answer"), RECORDED)
def test_one_input_and_one_output_are_answered_as_recorded(
    client: httpx.Client, path: str, body: Any, answer: str
) -> None:
    response = client.post(path, json=body)
    assert re.sub(r"0\.\d+", "0.#", response.text) == answer
    assert response.headers["content-type"] == "application/json"
    came = [float(number) for number in re.findall(r"0\.\d+", response.text)]
    assert np.allclose(came, NUMBERS, rtol=0, atol=1e-6)
