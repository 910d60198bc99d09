"""The models that each target is given: every golden file in the repository, and some made by hand."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden_models import golden_models
from small_models import dense, lstm, model

from lstm_serve.engine.activations import SOFTMAX
from lstm_serve.engine.types import Array
from lstm_serve.errors import Unsupported
from lstm_serve.export import TARGETS, Golden, export, target
from lstm_serve.export.artifact import made_golden, write
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, OutputWords
from lstm_serve.model.model import Model

# The Python of an environment with Keras 3, as `make exports` makes it.
KERAS_PYTHON = os.environ.get("EXPORTS_KERAS_PYTHON")

# Of the many models that a target is tried on, each so-manieth, and all of them in `make exports`: to build or start a
# program for each takes minutes.
EVERY = dict.fromkeys(TARGETS, 1) if KERAS_PYTHON else {"keras": 12, "numpy": 40, "c": 50, "onnx": 12, "js": 30}

# ONNX files are written with the package onnx, an extra.
NEEDS_ONNX = pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs the package onnx: make exports")
EACH_TARGET = [pytest.param(name, marks=[NEEDS_ONNX] if name == "onnx" else []) for name in TARGETS]


def written(to: str, folder: Path, every: int | None = None) -> Iterator[tuple[str, Path, Golden]]:
    """Each golden model that the target takes, or each so-manieth, written."""
    aim = target(to)
    for name, made, golden in golden_models(every or EVERY[to]):
        try:
            files = aim.build(made, golden)
        except Unsupported:
            continue
        path = folder / f"{name.replace('/', '-')}{aim.suffix}"
        write(path, files, folder=aim.is_folder, force=False)
        yield name, path, golden


def difference(y: list[Array] | str, golden: Golden) -> float:
    """The largest, relative above 1."""
    assert not isinstance(y, str), y
    return golden.worst(y)


def expect_the_same(to: str, made: Model, folder: Path) -> None:
    """Write a model for a target, and hold what its program answers against the engine; skip where it cannot be run."""
    golden, aim = made_golden(made), target(to)
    path = folder / f"m{aim.suffix}"
    export(made, to, path, golden=golden)
    y = aim.run(path, golden.xs)
    if isinstance(y, str):
        pytest.skip(y)
    assert difference(y, golden) <= 1e-5


def of_several(names: Sequence[str] = ("rows", "start", "classes", "state")) -> Model:
    """Two inputs, two outputs, and states from one layer to the next."""
    first = lstm(3, 5, name="first", return_sequences=True, return_state=True)
    nodes = (
        Node(first, (Source(INPUT),)),
        Node(dense(2, 5, name="start"), (Source(INPUT, 1),)),
        Node(lstm(5, 5, name="second"), (Source(0), Source(1), Source(0, 2))),
        Node(dense(5, 2, SOFTMAX, name="last"), (Source(2),)),
    )
    float32 = np.dtype(np.float32)
    return replace(
        model([first]),
        nodes=nodes,
        inputs=(TensorSpec(names[0], (4, 3), float32), TensorSpec(names[1], (2,), float32)),
        output_names=tuple(names[2:]),
        ends=(Source(3), Source(0, 1)),
        about=About(name="m", inputs=(None, None), outputs=(OutputWords(), OutputWords())),
    )


def run(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lstm_serve", *argv], cwd=cwd, capture_output=True, text=True, check=False
    )
