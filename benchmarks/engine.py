"""The engine alone, one thread: against ONNX Runtime's fused LSTM where that is installed, and the machine's sgemm.

A convolution over pictures and attention of several heads too, against ONNX Runtime on what the exporter writes.

Where there is gcc, against the exported C too, with -O3 -march=native, a row at a time; and against a trial of rows in
tiles, tiles.c, with -ffast-math besides, without which expf and tanhf are computed one by one.

usage: OPENBLAS_NUM_THREADS=1 python benchmarks/engine.py
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import compiled
import numpy as np

from lstm_serve import load_model
from lstm_serve.engine.activations import ACTIVATIONS
from lstm_serve.engine.operations.windows import Convolution, Window
from lstm_serve.engine.types import Shape
from lstm_serve.errors import ModelError
from lstm_serve.export import to_onnx
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers.registry import lower
from lstm_serve.loading.layers.subgraph import Part
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.model import Model

BATCHES = (1, 8, 32, 64, 128, 256, 1024)
ROUNDS = 7
SECONDS = 0.15  # of each round
TILES = (4, 8)


def main() -> None:
    """Print a table: milliseconds a call, ratios, and the share of the sgemm peak."""
    model = load_model("models/turbofan.h5", replay=False)
    golden = np.load("models/turbofan.golden.npz")
    engines: dict[str, Callable[[np.ndarray], np.ndarray]] = {"ours": model.forward}
    other = onnx_session(model)
    if other is not None:
        engines["onnx"] = other
    with tempfile.TemporaryDirectory() as folder:
        if compiled.available():
            engines["C"] = compiled.exported(model, Path(folder))
            for rows in TILES:
                engines[f"tiles of {rows}"] = compiled.tiled(model, Path(folder), rows, "-ffast-math")
    for engine in engines.values():
        if np.abs(engine(golden["x"]) - golden["y"]).max() > 1e-5:
            raise SystemExit("an engine gives wrong answers")
    peak = sgemm_peak()
    print(f"sgemm, best of several sizes: {peak / 1e9:.1f} GFLOP/s on one thread")
    print(f"{'batch':>6} {'ours ms':>9} {'us/row':>8} {'of peak':>8}", *(f"{name:>16}" for name in [*engines][1:]))
    for batch in BATCHES:
        x = np.tile(golden["x"], (batch // 32 + 1, 1, 1))[:batch]
        times = alternate({name: partial(engine, x) for name, engine in engines.items()})
        ours = times.pop("ours")
        share = flops(model) * batch / ours / peak
        row = f"{batch:6d} {ours * 1e3:9.3f} {ours / batch * 1e6:8.1f} {share:8.0%}"
        print(row, *(f"{theirs * 1e3:9.3f} x {theirs / ours:4.2f}" for theirs in times.values()))
    long = np.random.default_rng(0).standard_normal((8, 2000, 15)).astype(np.float32)
    lstm = model.nodes[1].operation
    times = alternate({str(t): partial(lstm, [long[:, :t]], [None]) for t in (200, 2000)})
    print(f"10 times the time steps cost {times['2000'] / times['200']:.2f} times as much")
    for name, parts, shape in (convolution(), attention()):
        compare(name, of_parts(parts, shape))


def convolution() -> tuple[str, list[Part], Shape]:
    """A Conv2D of 3 x 3 on pictures of 16 channels."""
    kernel, bias = numbers(3, 3, 16, 32), numbers(32)
    windows = (Window(size=3, padding="same"),) * 2
    layer = Convolution(name="c", kernel=kernel, bias=bias, windows=windows, activation=ACTIVATIONS["relu"])
    return "Conv2D, 32 x 32", [Part(layer, (0,))], (32, 32, 16)


def attention() -> tuple[str, list[Part], Shape]:
    """A MultiHeadAttention of 8 heads over 64 steps."""
    options = Options("MultiHeadAttention", {"num_heads": 8, "key_dim": 8}, KerasVersion.parse("3.15.0"), [])
    arrays = [array for _ in range(3) for array in (numbers(64, 8, 8), numbers(8, 8))]
    shape = (64, 64)
    return "attention, 8 heads", lower(options, [*arrays, numbers(8, 8, 64), numbers(64)], [shape] * 2), shape


def numbers(*shape: int) -> np.ndarray:
    """Small ones at random."""
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def of_parts(parts: list[Part], shape: Shape) -> Model:
    """A model of a layer's operations, all of whose inputs are the model's one."""
    given = 1 if len(parts) == 1 else 2  # a query and values
    sources = [Source(INPUT)] * given + [Source(k) for k in range(len(parts))]
    nodes = tuple(Node(operation, tuple(sources[k] for k in inputs)) for operation, inputs in parts)
    spec = TensorSpec(None, shape, np.dtype(np.float32))
    origin = Origin(file="layer.h5", sha256="0" * 64, format="made here", keras="3.15.0")
    return Model(nodes=nodes, inputs=(spec,), origin=origin, about=About(name="layer"))


def compare(name: str, model: Model) -> None:
    """Print a layer's times, a row at a time and in a batch."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            to_onnx(model, Path(folder, "m.onnx"))
            other = session(Path(folder, "m.onnx"))
        except (ImportError, ModelError):
            other = None
    for batch in (1, 32):
        x = (
            np.random.default_rng(1)
            .normal(0, 1, (batch, *(size or 1 for size in model.input_shape)))
            .astype(np.float32)
        )
        calls = {"ours": partial(model.forward, x)} | ({} if other is None else {"onnx": partial(other, x)})
        if other is not None and np.abs(model.forward(x) - other(x)).max() > 1e-4:
            raise SystemExit("an engine gives wrong answers")
        times = alternate(calls)
        theirs = f", ONNX Runtime {times['onnx'] * 1e3:.3f} ms, x {times['onnx'] / times['ours']:.2f}" if other else ""
        print(f"{name}, batch {batch}: {times['ours'] * 1e3:.3f} ms{theirs}")


def alternate(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median seconds of each call, the calls taking turns."""
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            spent, count = 0.0, 0
            while spent < SECONDS:
                start = time.perf_counter()
                call()
                spent += time.perf_counter() - start
                count += 1
            rounds[name].append(spent / count)
    return {name: statistics.median(times) for name, times in rounds.items()}


def flops(model: Model) -> int:
    """Multiplications and additions of the matrix products of one sequence."""
    return 2 * sum(
        array.size * (20 if "kernel" in name and len(node.operation.weights) == 3 else 1)
        for node in model.nodes
        for name, array in node.operation.weights.items()
        if array.ndim == 2
    )


def sgemm_peak() -> float:
    """The most floating point operations a second that a matrix product reaches here."""
    best = 0.0
    for n in (256, 512, 768):
        a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
        best = max(best, *(2 * n**3 / alternate({"a": partial(np.dot, a, b)})["a"] for _ in range(2)))
    return best


def onnx_session(model: Model) -> Callable[[np.ndarray], np.ndarray] | None:
    """ONNX Runtime on the same model with one thread, or None where it is not installed."""
    try:
        from onnx_model import write  # noqa: PLC0415
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write(model, path)
        return session(path)


def session(path: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    """ONNX Runtime on a file of one input, with one thread, or None where it is not installed."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(str(path), options)
    (given,) = made.get_inputs()
    return lambda x: made.run(None, {given.name: x})[0]


if __name__ == "__main__":
    main()
