"""The engine alone, one thread: against ONNX Runtime's fused LSTM where that is installed, and the machine's sgemm.

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
        import onnxruntime  # noqa: PLC0415
        from onnx_model import write  # noqa: PLC0415
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write(model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)
    return lambda x: session.run(None, {"x": x})[0]


if __name__ == "__main__":
    main()
