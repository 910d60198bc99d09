"""The default model compiled: as `export --to c` writes it, and a trial that computes several rows at once."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lstm_serve.engine.operations.pointwise import Dense, Normalization
from lstm_serve.engine.operations.recurrent import LSTM
from lstm_serve.export import to_c
from lstm_serve.model.model import Model

FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
LOOP = """
#include "m.h"
void batch(int n, const float (*x)[M_TIMESTEPS][M_FEATURES], float (*y)[M_OUTPUTS]);
void batch(int n, const float (*x)[M_TIMESTEPS][M_FEATURES], float (*y)[M_OUTPUTS])
{
    for (int k = 0; k < n; ++k) m_predict(x[k], y[k]);
}
"""
BLOCK = 16  # as in tiles.c

Engine = Callable[[np.ndarray], np.ndarray]


class Tiled(ctypes.Structure):
    """The record `model` of tiles.c."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("timesteps", "features", "units", "classes", "blocks")),
        *((name, ctypes.c_void_p) for name in ("mean", "deviation", "kernels", "bias", "dense", "dense_bias")),
    )


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which("gcc") is not None


def exported(model: Model, folder: Path) -> Engine:
    """The exported C, a row at a time."""
    to_c(model, folder / "c")
    (folder / "c/batch.c").write_text(LOOP, "utf-8")
    compiled = _compiled(folder / "c/m.so", folder / "c/m.c", folder / "c/batch.c")
    return lambda x: _call(compiled, x, model)


def tiled(model: Model, folder: Path, rows: int, *more: str) -> Engine:
    """The trial, so many rows at once."""
    normalization, lstm, dense = (node.operation for node in model.nodes)
    if not (isinstance(normalization, Normalization) and isinstance(lstm, LSTM) and isinstance(dense, Dense)):
        raise TypeError("expected the default model: Normalization, LSTM, Dense")
    both = np.concatenate([lstm.kernel, lstm.recurrent_kernel])
    blocks = -(-both.shape[1] // BLOCK)
    padded = np.zeros((len(both), blocks * BLOCK), np.float32)
    padded[:, : both.shape[1]] = both
    bias = np.zeros(blocks * BLOCK, np.float32)
    bias[: both.shape[1]] = lstm.bias
    kernels = padded.reshape(len(both), blocks, BLOCK).transpose(1, 0, 2)
    deviation = np.maximum(np.sqrt(normalization.variance), np.float32(1e-7))
    given = (normalization.mean, deviation, kernels, bias, dense.kernel, dense.bias)
    arrays = [np.ascontiguousarray(array, np.float32) for array in given]
    timesteps, features = model.input_shape
    record = Tiled(timesteps, features, lstm.units, dense.kernel.shape[1], blocks, *(a.ctypes.data for a in arrays))
    source = Path(__file__).with_name("tiles.c")
    compiled = _compiled(folder / f"tiles{rows}{len(more)}.so", source, f"-DTILE={rows}", *more)

    held = record, arrays  # the record has their addresses alone
    return lambda x: _call(compiled, x, model, ctypes.byref(held[0]))


def _compiled(to: Path, *given: Path | str) -> ctypes.CDLL:
    subprocess.run(["gcc", *FLAGS, *map(str, given), "-lm", "-o", str(to)], check=True)
    return ctypes.CDLL(str(to))


def _call(compiled: ctypes.CDLL, x: np.ndarray, model: Model, *first: object) -> np.ndarray:
    y = np.empty((len(x), *(size or 1 for size in model.output_shape)), np.float32)
    compiled.batch(*first, len(x), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
    return y
