"""What v1 answers, as OpenAPI tells it, and what it tells of the model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from lstm_serve.engine.types import Shape
from lstm_serve.model.model import Model
from lstm_serve.web.dialects.v1.codec import SIGNATURE
from lstm_serve.web.dialects.v2.tensors import INPUT, VALUES
from lstm_serve.web.schemas import Schema

TENSORFLOW_TYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "int32": "DT_INT32"}


class Predictions(Schema):
    """The answer to `instances`."""

    predictions: list[Any] = Field(description="the model's output for each row")


class Outputs(Schema):
    """The answer to `inputs`."""

    outputs: list[Any] | dict[str, Any] = Field(description="the model's output; several by their names")


class VersionError(Schema):
    """Why a version is not available; it always is."""

    error_code: str
    error_message: str


class VersionStatus(Schema):
    """The status of a version."""

    version: str
    state: str
    status: VersionError


class ModelStatus(Schema):
    """The status of the model: `name` and `ready` for KServe's clients, the rest for TF-Serving's."""

    name: str
    ready: bool
    model_version_status: list[VersionStatus]


class Alive(Schema):
    """That the process works, as KServe's v1 asks for it."""

    status: str
    docs: str = Field(description="where to read on")


def model_status(name: str, versions: Iterable[str], *, ready: bool) -> ModelStatus:
    """What GET /v1/models/{name} answers: of each version that is meant."""
    state = "AVAILABLE" if ready else "UNLOADING"
    good = VersionError(error_code="OK", error_message="")
    status = [VersionStatus(version=version, state=state, status=good) for version in versions]
    return ModelStatus(name=name, ready=ready, model_version_status=status)


def model_signature(model: Model) -> dict[str, Any]:
    """What GET /v1/models/{name}/metadata answers. The tensors have the file's own names where these are known."""
    given = {spec.name or INPUT: spec for spec in model.inputs}
    answered = {output.name or VALUES[output.kind]: output for output in model.outputs}
    signature = {
        "inputs": {
            name: _tensor(f"{SIGNATURE}_{name}:0", np.dtype(spec.dtype).name, spec.shape)
            for name, spec in given.items()
        },
        "outputs": {
            name: _tensor(f"StatefulPartitionedCall:{k}", "float32", output.shape)
            for k, (name, output) in enumerate(answered.items())
        },
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.about.name, "signature_name": "", "version": model.about.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor(name: str, dtype: str, shape: Shape) -> dict[str, Any]:
    sizes = ("-1", *("-1" if size is None else str(size) for size in shape))
    return {
        "dtype": TENSORFLOW_TYPES[dtype],
        "tensor_shape": {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False},
        "name": name,
    }
