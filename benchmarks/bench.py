"""The server under load, against what a person might run instead, all in one run and in turns.

usage: python benchmarks/bench.py [--rounds 5] [--seconds 4]

Each server runs on core 0 as users start it, wrk (Debian's package) on core 1. The table has medians over the rounds;
ratios hold between machines, the figures do not. CPU is the server's own time for a request, from /proc.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_serve import load_model

HERE = Path(__file__).parent
CONNECTIONS = (1, 8, 64)
ROWS = 256  # of the large request
PORT = 8950


class Point(NamedTuple):
    """One measurement."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure, and print the tables."""
    arguments = command_line()
    with tempfile.TemporaryDirectory() as folder:
        one, many = bodies(Path(folder))
        peers = commands(Path(folder))
        points: dict[tuple[str, str], list[Point]] = {}
        starts: dict[str, list[float]] = {}
        memory: dict[str, float] = {}
        for round_ in range(arguments.rounds):
            for name, (command, environment) in peers.items():
                with serving(command, environment) as (process, seconds):
                    starts.setdefault(name, []).append(seconds)
                    for connections in CONNECTIONS:
                        point = load(process.pid, "/predict", one, connections, arguments.seconds)
                        points.setdefault((name, str(connections)), []).append(point)
                    if name != "bare uvicorn, a constant":
                        point = load(process.pid, "/predict/batch", many, 1, arguments.seconds)
                        points.setdefault((name, "batch"), []).append(point)
                    memory[name] = resident(process.pid)
            print(f"round {round_ + 1} of {arguments.rounds} done", file=sys.stderr)
    report(list(peers), points, starts, memory)


def command_line() -> argparse.Namespace:
    """What the command line asks for, once wrk is known to be there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    return arguments


def bodies(folder: Path) -> tuple[Path, Path]:
    """Files of request bodies, one a line: one sequence, and many."""
    x = np.load("models/turbofan.golden.npz")["x"]
    sequences = [[[round(value, 6) for value in step] for step in sequence] for sequence in x.tolist()]
    one, many = folder / "one.jsonl", folder / "many.jsonl"
    one.write_text("".join(json.dumps({"sequence": sequence}) + "\n" for sequence in sequences))
    many.write_text(json.dumps({"sequences": (sequences * (ROWS // len(sequences)))}) + "\n")
    return one, many


def commands(folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Each server's command and what it adds to the environment."""
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", str(PORT), "--log-level", "warning"]
    peers = {
        "lstm-serve": (
            [str(Path(sys.executable).with_name("lstm-serve")), "serve", "models/turbofan.h5"],
            {"LSTMSERVE_PORT": str(PORT), "LSTMSERVE_ACCESS_LOG": "false"},
        ),
        "lstm-serve, access log on": (
            [str(Path(sys.executable).with_name("lstm-serve")), "serve", "models/turbofan.h5"],
            {"LSTMSERVE_PORT": str(PORT)},
        ),
        "stock FastAPI, no computing": ([*uvicorn, "--no-access-log", "peers:app"], {"PEER": "noop"}),
        "bare uvicorn, a constant": ([*uvicorn, "--no-access-log", "peers:app"], {"PEER": "bare"}),
    }
    with contextlib.suppress(ImportError):
        from onnx_model import write  # noqa: PLC0415 - needs the package onnx

        path = folder / "model.onnx"
        write(load_model("models/turbofan.h5"), path)
        peers["FastAPI + ONNX Runtime, tuned by hand"] = (
            [*uvicorn, "--no-access-log", "peers:app"],
            {"PEER": "onnx", "PEER_ONNX": str(path)},
        )
    return peers


@contextlib.contextmanager
def serving(command: Sequence[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A server on core 0, with the seconds from its start to its first right answer."""
    # An installed package is compiled: here the first round does it.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "-c", "0", *command],
        env={**inherited, "OPENBLAS_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        body = Path("models/turbofan.example.json").read_bytes()
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", body, {"Content-Type": "application/json"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    assert json.load(answer)["predicted_class"] == 0
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{command} ended") from None
                time.sleep(0.01)
        yield process, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def load(pid: int, path: str, bodies: Path, connections: int, seconds: int, **told: str) -> Point:
    """Drive the server with wrk from core 1; `told` are more variables for post.lua."""
    environment = {**os.environ, "BODIES": str(bodies), "POST_PATH": path, **told}
    options = ["-t1", f"-c{connections}", "--timeout", "20s", "--latency", "-s", str(HERE / "post.lua")]
    command = ["taskset", "-c", "1", "wrk", *options]
    url = f"http://127.0.0.1:{PORT}"
    subprocess.run([*command, "-d1", url], env=environment, check=True, stdout=subprocess.DEVNULL)
    time.sleep(0.5)  # its last requests, which nobody waits for, are given up meanwhile
    before = cpu_seconds(pid)
    done = subprocess.run([*command, f"-d{seconds}", url], env=environment, check=True, capture_output=True, text=True)
    spent = cpu_seconds(pid) - before
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("COUNTED ")]
    counted: dict[str, Any] = json.loads(line.removeprefix("COUNTED "))
    if counted["failed"]:
        raise SystemExit(f"{counted['failed']} requests failed")
    requests = counted["requests"]
    return Point(
        requests / counted["microseconds"] * 1e6, spent / requests * 1e6, counted["p50"] / 1e3, counted["p99"] / 1e3
    )


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """The megabytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(
    names: Sequence[str],
    points: dict[tuple[str, str], list[Point]],
    starts: dict[str, list[float]],
    memory: dict[str, float],
) -> None:
    """Print the table, and the ratios of the first server to each other one, round by round and then the median."""
    print(f"{processor()}, Python {platform.python_version()}; medians of {len(starts[names[0]])} rounds\n")
    print(
        "| server | req/s at 1 / 8 / 64 | p50 ms at 1 | CPU us a request at 64 | 256 sequences in one, sequences/s |"
        " start s | memory MB |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in names:
        rates = " / ".join(f"{median(points[name, str(c)], 'rate'):,.0f}" for c in CONNECTIONS)
        batch = f"{median(points[name, 'batch'], 'rate') * ROWS:,.0f}" if (name, "batch") in points else ""
        latency, cpu = median(points[name, "1"], "p50_ms"), median(points[name, "64"], "cpu_us")
        start = statistics.median(starts[name])
        print(f"| {name} | {rates} | {latency:.2f} | {cpu:.0f} | {batch} | {start:.2f} | {memory[name]:.0f} |")
    print("\nTimes the requests a second of each other server, and CPU a request, the median of the rounds' ratios:\n")
    print("| lstm-serve against | 1 | 8 | 64 | CPU at 64 | 256 in one |")
    print("|---|--:|--:|--:|--:|--:|")
    ours = names[0]
    for name in names[1:]:
        cells = [f"{ratio(points, ours, name, str(c), 'rate'):.2f}" for c in CONNECTIONS]
        cells.append(f"{ratio(points, ours, name, '64', 'cpu_us'):.2f}")
        cells.append(f"{ratio(points, ours, name, 'batch', 'rate'):.2f}" if (name, "batch") in points else "")
        print(f"| {name} | {' | '.join(cells)} |")


def median(points: Sequence[Point], field: str) -> float:
    """The median of one field."""
    return statistics.median(float(getattr(point, field)) for point in points)


def ratio(points: dict[tuple[str, str], list[Point]], ours: str, theirs: str, at: str, field: str) -> float:
    """The median over the rounds of the ratio of one field."""
    pairs = zip(points[ours, at], points[theirs, at], strict=True)
    return statistics.median(float(getattr(a, field) / getattr(b, field)) for a, b in pairs)


def processor() -> str:
    """The processor's name."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.machine()


if __name__ == "__main__":
    main()
