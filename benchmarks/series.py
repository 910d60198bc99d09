"""Rows of series against ready windows, all in one run and in turns: latency, CPU, rows a second, bytes, memory.

usage: python benchmarks/series.py [--rounds 5] [--seconds 4]

The server runs on core 0, wrk on core 1. A row has no number, so that a body can be sent again and again; a window is
what a client sends to /predict or /predict/batch that keeps its rows itself. Ratios are of the same number of answers,
round by round and then the median.
"""

import http.client
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench import PORT, Point, command_line, load, median, processor, resident, serving

SERIES = (1, 64, 10_000)
ROWS = (1, 64)  # a request
AT_ONCE = 256  # rows of a request with many series: so many windows fit into a body
MANY = 100_000  # series, for memory alone
FILL = 40  # rows, of which a window takes 20


class Way(NamedTuple):
    """A way to have a row answered: the path, a file of bodies, the rows in each, and of how many series they are."""

    path: str
    bodies: Path
    rows: int
    connections: int
    series: int | None = None  # where the path has their number

    @property
    def bytes_a_row(self) -> float:
        """Of the bodies."""
        lines = self.bodies.read_bytes().splitlines()
        return sum(map(len, lines)) / len(lines) / self.rows


def main() -> None:
    """Measure, and print the table and what is in memory."""
    arguments = command_line()
    environment = {"LSTMSERVE_PORT": str(PORT), "LSTMSERVE_ACCESS_LOG": "false", "LSTMSERVE_SERIES_MAX": str(MANY)}
    points: dict[Way, list[Point]] = {}
    command = [sys.executable, "-m", "lstm_serve", "serve", "models/turbofan.h5"]
    with tempfile.TemporaryDirectory() as folder, serving(command, environment) as (process, _):
        pairs = ways(Path(folder))
        memory = {0: resident(process.pid)}
        fill(0, SERIES[-1])
        memory[SERIES[-1]] = resident(process.pid)
        for round_ in range(arguments.rounds):
            for way in dict.fromkeys(way for pair in pairs.values() for way in pair):
                told = {} if way.series is None else {"SERIES": str(way.series)}
                point = load(process.pid, way.path, way.bodies, way.connections, arguments.seconds, **told)
                points.setdefault(way, []).append(point)
            print(f"round {round_ + 1} of {arguments.rounds} done", file=sys.stderr)
        report(pairs, points, arguments.rounds)
        before = resident(process.pid)
        fill(SERIES[-1], MANY)
        memory[MANY] = resident(process.pid) - before + memory[SERIES[-1]]
    for series in (SERIES[-1], MANY):
        print(f"{series:,} series of {FILL} rows: {memory[series] - memory[0]:.0f} MB over {memory[0]:.0f}")


def ways(folder: Path) -> dict[str, tuple[Way, Way]]:
    """By a name, rows and the windows against them."""
    x = np.load("models/turbofan.golden.npz")["x"].astype(np.float64).round(6)
    rows, windows = x.reshape(-1, x.shape[-1]).tolist(), x.tolist()

    def written(name: str, bodies: Sequence[dict[str, Any]]) -> Path:
        (folder / name).write_text("".join(json.dumps(body) + "\n" for body in bodies))
        return folder / name

    def cycled(values: list[Any], start: int, count: int) -> list[Any]:
        return [values[k % len(values)] for k in range(start, start + count)]

    found: dict[str, tuple[Way, Way]] = {}
    for count in ROWS:
        of_rows = written(f"rows{count}", [{"rows": cycled(rows, k, count)} for k in range(len(windows))])
        one = count == 1
        bodies = [{"sequence": w} if one else {"sequences": cycled(windows, k, count)} for k, w in enumerate(windows)]
        of_windows = written(f"windows{count}", bodies)
        for series in SERIES:
            connections = min(series, 64 if one else 16)  # of more, the rows of 64 would not fit into the queue
            query = "" if one else "?answers=all"
            way = Way(f"/series/s%d/rows{query}", of_rows, count, connections, series)
            name = f"{series:,} series, {count} row{'' if one else 's'} a request"
            against = Way("/predict" if one else "/predict/batch", of_windows, count, connections)
            found[name] = way, against
    groups = range(0, SERIES[-1] - AT_ONCE, AT_ONCE)
    many = [
        {"rows": [{"series": f"s{k}", "row": rows[k % len(rows)]} for k in range(start, start + AT_ONCE)]}
        for start in groups
    ]
    batches = written("batches", [{"sequences": cycled(windows, 0, AT_ONCE)}])
    found[f"{SERIES[-1]:,} series, {AT_ONCE} of them a request"] = (
        Way("/series/rows", written("many", many), AT_ONCE, 1),
        Way("/predict/batch", batches, AT_ONCE, 1),
    )
    return found


def fill(start: int, stop: int) -> None:
    """Give series all the rows that are kept."""
    x = np.load("models/turbofan.golden.npz")["x"]
    body = json.dumps({"rows": np.concatenate(x)[:FILL].tolist()})
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    for k in range(start, stop):
        connection.request("POST", f"/series/s{k}/rows", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()


def report(pairs: dict[str, tuple[Way, Way]], points: dict[Way, list[Point]], rounds: int) -> None:
    """Print the table."""
    print(f"{processor()}; medians of {rounds} rounds\n")
    print("| | rows/s | p50 ms | CPU us a row | rows/s, of windows | p50 | CPU | bytes, times fewer |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, (way, against) in pairs.items():
        found, turns = points[way], list(zip(points[way], points[against], strict=True))
        rate, cpu = median(found, "rate") * way.rows, median(found, "cpu_us") / way.rows
        ratios = " | ".join(
            f"{statistics.median(getattr(a, field) / getattr(b, field) for a, b in turns):.2f}"
            for field in ("rate", "p50_ms", "cpu_us")
        )
        fewer = against.bytes_a_row / way.bytes_a_row
        print(f"| {name} | {rate:,.0f} | {median(found, 'p50_ms'):.2f} | {cpu:.0f} | {ratios} | {fewer:.1f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
