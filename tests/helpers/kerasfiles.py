"""Small Keras files, made without Keras: for what no real file at hand has."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from serving import ASKER

Array = npt.NDArray[Any]
Layers = list[tuple[str, dict[str, Any], list[Array]]]


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def lstm(units: int = 4, features: int = 3, **options: Any) -> tuple[str, dict[str, Any], list[Array]]:
    arrays = [numbers(features, 4 * units), numbers(units, 4 * units), numbers(4 * units)]
    return "LSTM", {"units": units, "recurrent_activation": "sigmoid", **options}, arrays


def dense(units: int = 2, features: int = 4, **options: Any) -> tuple[str, dict[str, Any], list[Array]]:
    return "Dense", {"units": units, "activation": "softmax", **options}, [numbers(features, units), numbers(units)]


def sequential(layers: Layers, shape: list[int | None] | None = None) -> dict[str, Any]:
    entries = []
    for k, (class_name, config, _) in enumerate(layers):
        first = {"batch_input_shape": [None, 5, 3] if shape is None else [None, *shape]} if k == 0 else {}
        entries.append({"class_name": class_name, "config": {"name": f"layer_{k}", **first, **config}})
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}


def functional(nodes: list[tuple[str, dict[str, Any], list[str]]], output: str | None = None) -> dict[str, Any]:
    """Of (class, config with a name, names of what it is called on); the first is the input."""
    entries = [
        {
            "class_name": class_name,
            "name": config["name"],
            "config": config,
            "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
        }
        for class_name, config, sources in nodes
    ]
    last = output or entries[-1]["name"]
    config = {"name": "model", "layers": entries, "input_layers": [[entries[0]["name"], 0, 0]]}
    return {"class_name": "Functional", "config": config | {"output_layers": [[last, 0, 0]]}}


def save(
    path: Path,
    model: Any,
    groups: dict[str, list[Array]],
    *,
    keras: str | None = "2.15.0",
    backend: str = "tensorflow",
) -> Path:
    """A whole-model HDF5 file; with None for the model, weights alone."""
    with h5py.File(path, "w") as file:
        weights = file
        if model is not None:
            file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
            weights = file.create_group("model_weights")
        if keras is not None:
            weights.attrs["keras_version"] = keras
        weights.attrs["backend"] = backend
        weights.attrs["layer_names"] = np.array([name.encode() for name in groups])
        for name, arrays in groups.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/w{k}:0".encode() for k in range(len(arrays))])
            for k, array in enumerate(arrays):
                group[f"{name}/w{k}:0"] = array
    return path


def save_sequential(path: Path, layers: Layers, shape: list[int | None] | None = None, **options: Any) -> Path:
    groups = {f"layer_{k}": arrays for k, (_, _, arrays) in enumerate(layers)}
    return save(path, sequential(layers, shape), groups, **options)


def save_embedding(path: Path, rows: int, **storage: Any) -> Path:
    """A model with an Embedding of `rows` x 300, most of which are zeros that a file system does not store."""
    embedding: tuple[str, dict[str, Any], list[Array]] = (
        "Embedding",
        {"input_dim": rows, "output_dim": 300, "batch_input_shape": [None, 6]},
        [],
    )
    save_sequential(path, [embedding, lstm(features=300), dense()], [6])
    with h5py.File(path, "r+") as file:
        group = file["model_weights/layer_0"]
        group.attrs["weight_names"] = np.array([b"embeddings:0"])
        table = group.create_dataset("embeddings:0", (rows, 300), "f4", **storage)
        table[-1] = 0.5
    return path


def scaled_copy(path: Path, factor: float = 1.0, source: Path = ASKER / "k215_model.h5") -> Path:
    """A copy of a model whose output layer's kernel is multiplied, put there in one step as `mv` does."""
    made = path.with_suffix(".new")
    shutil.copy(source, made)
    with h5py.File(made, "r+") as file:
        kernels: list[h5py.Dataset] = []
        file["model_weights"].visititems(lambda name, item: kernels.append(item) if name.endswith("kernel:0") else None)
        dense = min(kernels, key=lambda kernel: kernel.shape[-1])
        dense[...] = dense[()] * np.float32(factor)
    made.replace(path)
    return path
