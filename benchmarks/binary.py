"""Binary tensors of the Open Inference Protocol against JSON, at 64 connections, all in one run and in turns.

usage: python benchmarks/binary.py [--rounds 5] [--seconds 4]

The same rows are sent as JSON to /predict/batch and to v2, and as binary tensors. Ratios are of requests a second,
round by round and then the median.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench import PORT, Point, command_line, load, median, processor, serving

ROWS = (1, 16, 64)
CONNECTIONS = 64
BODIES = 32  # different ones, sent in turn
INFER = "/v2/models/turbofan/infer"
FORMS = ("native JSON", "v2 JSON", "v2 binary")


class Form(NamedTuple):
    """A way to send rows: the path, a file of bodies, and what post.lua is told of them."""

    name: str
    path: str
    bodies: Path
    told: dict[str, str]


def main() -> None:
    """Measure, and print the table."""
    arguments = command_line()
    points: dict[tuple[int, str], list[Point]] = {}
    command = [sys.executable, "-m", "lstm_serve", "serve", "models/turbofan.h5"]
    environment = {"LSTMSERVE_PORT": str(PORT), "LSTMSERVE_ACCESS_LOG": "false"}
    with tempfile.TemporaryDirectory() as folder, serving(command, environment) as (process, _):
        made = {rows: list(forms(rows, Path(folder))) for rows in ROWS}
        for round_ in range(arguments.rounds):
            for rows in ROWS:
                for name, path, bodies, told in made[rows]:
                    point = load(process.pid, path, bodies, CONNECTIONS, arguments.seconds, **told)
                    points.setdefault((rows, name), []).append(point)
            print(f"round {round_ + 1} of {arguments.rounds} done", file=sys.stderr)
    report(points, arguments.rounds)


def forms(rows: int, folder: Path) -> Iterator[Form]:
    """The same sequences in each form."""
    x = np.load("models/turbofan.golden.npz")["x"].round(6)
    batches = [x[np.arange(start, start + rows) % len(x)] for start in range(BODIES)]
    native = [{"sequence": b[0].tolist()} if rows == 1 else {"sequences": b.tolist()} for b in batches]
    yield lines(FORMS[0], "/predict" if rows == 1 else "/predict/batch", folder / f"native{rows}", native)
    tensor = {"name": "sequences", "shape": [rows, 20, 15], "datatype": "FP32"}
    asked = {"name": "probabilities"}
    json_bodies = [{"inputs": [{**tensor, "data": b.ravel().tolist()}], "outputs": [asked]} for b in batches]
    yield lines(FORMS[1], INFER, folder / f"json{rows}", json_bodies)
    size = batches[0].astype("<f4").nbytes
    request = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": size}}],
        "outputs": [{**asked, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(request).encode()
    file = folder / f"binary{rows}"
    file.write_bytes(b"".join(head + b.astype("<f4").tobytes() for b in batches))
    yield Form(FORMS[2], INFER, file, {"BODY_BYTES": str(len(head) + size), "HEADER_LENGTH": str(len(head))})


def lines(name: str, path: str, file: Path, bodies: list[dict[str, Any]]) -> Form:
    """Bodies of JSON, one a line."""
    # As many digits as the numbers have: what a client sends whose values are float32.
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return Form(name, path, file, {})


def report(points: dict[tuple[int, str], list[Point]], rounds: int) -> None:
    """Print the table."""
    print(f"{processor()}; {CONNECTIONS} connections, medians of {rounds} rounds\n")
    names = " | ".join(f"{name}, req/s" for name in FORMS)
    print(f"| rows a request | {names} | against native | against v2 JSON | CPU |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for rows in ROWS:
        found = [points[rows, name] for name in FORMS]
        rates = " | ".join(f"{median(of, 'rate'):,.0f}" for of in found)
        ratios = [statistics.median(b.rate / j.rate for b, j in zip(found[2], json, strict=True)) for json in found[:2]]
        cpu = statistics.median(j.cpu_us / b.cpu_us for b, j in zip(found[2], found[0], strict=True))
        print(f"| {rows} | {rates} | {ratios[0]:.2f} | {ratios[1]:.2f} | {cpu:.2f} |")
    print("\nCPU: native JSON's of the server's own time for a request, in terms of binary's.")


if __name__ == "__main__":
    main()
