"""Requests of the Open Inference Protocol, and what it says that a server answers, as JSON Schema.

From specification/protocol/open_inference_rest.yaml of kserve/open-inference-protocol, which is OpenAPI 3.0, put into
JSON Schema's own words; and from the prose beside it, which says more of a few fields. A tensor whose data comes after
the JSON, as the binary extension has it, has its size in place of `data`.
"""

import json
from typing import Any

import numpy.typing as npt
from jsonschema_rs import Draft202012Validator

from lstm_serve.web.dialects.v2.tensors import DTYPES

AnyArray = npt.NDArray[Any]
STRING: dict[str, Any] = {"type": "string"}
SIZES = {"type": "array", "items": {"type": "integer"}}
# A name of the prose's table of tensor data types.
NUMERIC = [f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)]
DATATYPE = {"enum": ["BOOL", *NUMERIC, "FP16", "FP32", "FP64", "BYTES"]}


def record(required: str, **properties: Any) -> dict[str, Any]:
    """An object with these properties, of which some are required."""
    return {"type": "object", "properties": properties, "required": required.split()}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


TENSOR_DATA = array(
    {"anyOf": [{"$ref": "#/$defs/tensor_data"}, *({"type": t} for t in ("number", "string", "boolean"))]}
)
METADATA_TENSOR = record("name datatype shape", name=STRING, datatype=DATATYPE, shape=SIZES)
RESPONSE_OUTPUT = {
    **record(
        "name shape datatype",
        name=STRING,
        shape=SIZES,
        datatype=DATATYPE,
        parameters={"type": "object"},
        data={"$ref": "#/$defs/tensor_data"},
    ),
    "oneOf": [
        {"required": ["data"]},
        {"required": ["parameters"], "properties": {"parameters": record("binary_data_size")}},
    ],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "metadata_server_response": record(
        "name version extensions", name=STRING, version=STRING, extensions=array(STRING)
    ),
    "metadata_model_response": record(
        "name platform inputs outputs",
        name=STRING,
        versions=array(STRING),
        platform=STRING,
        inputs=array(METADATA_TENSOR),
        outputs=array(METADATA_TENSOR),
    ),
    "inference_response": {
        **record(
            "model_name outputs",
            model_name=STRING,
            model_version=STRING,
            id=STRING,
            parameters={"type": "object"},
            outputs=array(RESPONSE_OUTPUT),
        ),
        "$defs": {"tensor_data": TENSOR_DATA},
    },
    # The same for each of its error responses.
    "error_response": record("error", error=STRING),
    # Of the prose.
    "live_response": record("live", live={"type": "boolean"}),
    "ready_response": record("ready", ready={"type": "boolean"}),
    "model_ready_response": record("name ready", name=STRING, ready={"type": "boolean"}),
}


def check(name: str, answer: Any) -> None:
    """Raise where an answer is not what the protocol says."""
    Draft202012Validator(SCHEMAS[name]).validate(answer)


def tensor(x: AnyArray, datatype: str = "FP32", **extra: Any) -> dict[str, Any]:
    return {"name": "any", "shape": list(x.shape), "datatype": datatype, "data": x.tolist(), **extra}


def binary(
    x: AnyArray, datatype: str = "FP32", *, tail: bytes | None = None, length: str | None = None, **request: Any
) -> tuple[bytes, dict[str, str]]:
    """The body of a request with a binary tensor, and its headers."""
    raw = x.astype(DTYPES[datatype]).tobytes() if tail is None else tail
    given = {"name": "x", "shape": list(x.shape), "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [given], **request}).encode()
    return head + raw, {"inference-header-content-length": str(len(head)) if length is None else length}
