"""What v2 and Triton's extensions tell of the model: its metadata, its configuration, its statistics."""

import math
from typing import Any

from starlette.requests import Request

from lstm_serve.engine.types import Shape
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.state import ServingState
from lstm_serve.web.dialects.v2.schemas import ModelMetadata, TensorMetadata
from lstm_serve.web.dialects.v2.tensors import (
    input_datatype,
    input_names,
    known_outputs,
)
from lstm_serve.web.predict import PostRoute


def model_metadata(model: Model, versions: list[str]) -> ModelMetadata:
    """What GET /v2/models/{name} answers."""
    rows: Shape = (None,)
    return ModelMetadata(
        name=model.about.name,
        versions=versions,
        platform="keras",
        inputs=[
            TensorMetadata(name=name, datatype=input_datatype(given), shape=_sizes(rows + given.shape))
            for name, given in input_names(model).items()
        ],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=_sizes(rows + shape))
            for name, datatype, shape in _outputs(model)
        ],
    )


def model_config(model: Model, max_rows: int) -> dict[str, Any]:
    """What GET /v2/models/{name}/config answers: dims are without the batch axis there."""
    return {
        "name": model.about.name,
        "platform": "keras",
        "backend": "lstm-serve",
        "version_policy": {"specific": {"versions": [int(model.about.version)]}},
        "max_batch_size": max_rows,
        "input": [
            {"name": name, "data_type": f"TYPE_{input_datatype(given)}", "dims": _sizes(given.shape)}
            for name, given in input_names(model).items()
        ],
        "output": [
            {"name": name, "data_type": f"TYPE_{datatype}", "dims": _sizes(shape)}
            for name, datatype, shape in _outputs(model)
        ],
        "dynamic_batching": {},
    }


def statistics(serving: ServingState, deployment: Deployment, served: Served, request: Request) -> dict[str, Any]:
    """What GET /v2/models/{name}/stats answers of a model: its versions are counted together.

    What is not measured by itself, such as decoding, is 0.
    """
    answering = {route.path for route in request.app.routes if isinstance(route, PostRoute)}
    requests, metrics = serving.metrics.requests, deployment.metrics
    batches = metrics.batch_rows

    def answered(*, well: bool) -> tuple[int, float]:
        return requests.total(
            lambda route, status, model: route in answering and model == deployment.name and (status == 200) == well
        )

    measured = {
        "success": answered(well=True),
        "fail": answered(well=False),
        "queue": (metrics.queue.count, metrics.queue.total),
        "compute_infer": (metrics.compute.count, metrics.compute.total),
        **dict.fromkeys(("compute_input", "compute_output", "cache_hit", "cache_miss"), (0, 0.0)),
    }
    return {
        "name": deployment.name,
        "version": served.model.about.version,
        "inference_count": round(batches.total),
        "execution_count": batches.count,
        "inference_stats": {
            name: {"count": count, "ns": round(seconds * 1e9)} for name, (count, seconds) in measured.items()
        },
        "batch_stats": [],
    }


def example(model: Model) -> dict[str, Any]:
    """For OpenAPI: a request of one sequence of zeros."""
    tensors = []
    for name, given in input_names(model).items():
        shape = [1, *(1 if size is None else size for size in given.shape)]
        data = [0] * math.prod(shape)
        tensors.append({"name": name, "shape": shape, "datatype": input_datatype(given), "data": data})
    return {"inputs": tensors}


def _outputs(model: Model) -> list[tuple[str, str, Shape]]:
    """Name, datatype, and shape without the batch axis."""
    shapes = [head.output_shape for head in model.heads.values()]
    return [
        # A class for each step, or one.
        (name, "INT64" if is_class else "FP32", shapes[number][:-1] if is_class else shapes[number])
        for name, (number, is_class) in known_outputs(model).items()
    ]


def _sizes(shape: Shape) -> list[int]:
    return [-1 if size is None else size for size in shape]
