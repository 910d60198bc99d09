"""Drift: what is found, what is not, and what it costs.

usage: python benchmarks/drift.py [--data FOLDER] [--streams 10] [--rows 500000] [--load]

With --data, the folder of train_FD001.txt and test_FD001.txt: the odd training engines are the profile, the even ones,
changed or not, and the test engines the stream. Without it, streams in which nothing drifts. --load tells the cost.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests" / "helpers"), str(HERE.parent / "models")]

from profile_turbofan import MODEL, NAMES, write_table  # noqa: E402 - they are found above
from serving import call, started  # noqa: E402 - the same
from streams import KINDS, alarms, states, stream  # noqa: E402 - the same

from lstm_serve import Model, load_model  # noqa: E402 - the same
from lstm_serve.model.profile import Profile, psi  # noqa: E402 - the same
from lstm_serve.scoring.profile import of_rows  # noqa: E402 - the same
from lstm_serve.serving.drift import TOGETHER  # noqa: E402 - the same
from lstm_serve.settings import Settings  # noqa: E402 - the same
from lstm_serve.web.app import create_app  # noqa: E402 - the same

TRAIN = 100_000
CONNECTIONS = 64
REQUESTS = 5120  # of a round: a window of 5,000 rows is judged in each
WINDOWS = (2000, 5000)
CONTINUOUS = [k for k, name in enumerate(NAMES) if name not in {"P15", "htBleed"}]

Rows = NDArray[np.float32]


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    logging.disable()  # of each drift that is found there is a line
    model = load_model(MODEL)
    if arguments.load:
        asyncio.run(overhead(model, arguments.rounds))
    elif arguments.data is not None:
        engines(model, arguments.data)
    else:
        quiet(model, arguments.streams, arguments.rows)


def quiet(model: Model, count: int, rows: int) -> None:
    """Streams in which nothing drifts."""
    false = np.zeros(len(KINDS), int)
    watched = np.zeros(len(KINDS), int)
    for seed in range(count):
        profile = of_rows(KINDS, stream(TRAIN, 1000 + seed))
        found = states(model, profile, stream(rows, seed), WINDOWS[-1])
        false += [alarms(found, k) for k in range(len(KINDS))]
        watched += [sum(window[k] == "watch" for window in found) for k in range(len(KINDS))]
        print(f"stream {seed + 1} of {count}: {len(found)} windows, {sum(false)} false alarms so far", flush=True)
    for kind, alarm, watch in zip(KINDS, false, watched, strict=True):
        print(f"{kind:24} drifted in {alarm}, watched in {watch} of {count * (rows // WINDOWS[-1])} windows")


def engines(model: Model, data: Path) -> None:
    """The even engines, as they are and changed, and the test engines."""
    odd, even, test = (
        table(data / name, which)
        for name, which in (("train_FD001.txt", 1), ("train_FD001.txt", 0), ("test_FD001.txt", 2))
    )
    profile = of_rows(NAMES, odd)
    for window in WINDOWS:
        found = states(model, profile, even, window)
        drifted = [name for k, name in enumerate(NAMES) if alarms(found, k)]
        print(f"windows of {window}: {len(found)} of the even engines, drifted: {', '.join(drifted) or 'none'}")
    window = WINDOWS[-1]
    changes: dict[str, Callable[[Rows, float], Rows]] = {
        "+ 0.5 sd": lambda x, sd: x + np.float32(sd / 2),
        "- 0.5 sd": lambda x, sd: x - np.float32(sd / 2),
        "another unit (5/9)": lambda x, _: x * np.float32(5 / 9),
        "stuck at its first value": lambda x, _: np.full_like(x, x[0]),
    }
    for name, change in changes.items():
        those = CONTINUOUS if name.startswith("stuck") else range(len(NAMES))
        missed = []
        for k in those:
            changed = even.copy()
            changed[:, k] = change(even[:, k], profile.columns[k].sd)
            found = states(model, profile, changed, window)
            if found[1][k] != "drifted":
                missed.append(told(profile, changed, k, window))
            others = [of for j, of in enumerate(NAMES) if j != k and alarms(found, j)]
            if others:
                print(f"  {NAMES[k]}: others drifted too: {others}")
        print(f"{name}: {len(those) - len(missed)} of {len(those)} features named after two windows of {window}")
        for line in missed:
            print(f"  not {line}")
    found = states(model, profile, test, window)
    print(f"test engines: {sum(state == 'drifted' for state in found[1])} of {len(NAMES)} features drifted")
    for k in range(len(NAMES)):
        print(f"  {found[1][k]:8} {told(profile, test, k, window)}")


def told(profile: Profile, x: Rows, k: int, window: int) -> str:
    """The figures of a feature in the first two windows."""
    parts = [x[start : start + window] for start in (0, window)]
    index = ", ".join(f"{psi(profile.counts(part), profile.shares)[k]:.3f}" for part in parts)
    apart = ", ".join(f"{profile.wasserstein(part)[k]:.3f}" for part in parts)
    limits = profile.limits(window)
    return f"{NAMES[k]}: PSI {index} of {limits[0][k]:.2f}; distance {apart} sd of {limits[1][k]:.2f}"


def table(data: Path, which: int) -> Rows:
    """The rows of a file's engines with odd numbers (1), even ones (0), or of all (2), as the model takes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_table(data, path, lambda engine: which in {2, engine % 2})
        return np.loadtxt(path, np.float32, delimiter=",", skiprows=1, usecols=range(2, 2 + len(NAMES)))


async def overhead(model: Model, rounds: int) -> None:
    """CPU of a row that is counted and judged, and of a whole request, 64 at once, by the app in this process.

    The least of the rounds: on a shared machine two servers under load differ by far more than this.
    """
    app = create_app(Settings(model=MODEL, access_log=False))
    drift = app.state.registry.get().drift
    body = MODEL.with_suffix(".example.json").read_bytes()
    x = np.array(json.loads(body)["sequence"], np.float32)[np.newaxis]
    y = model.predict(x)
    rows, requests = [], []
    async with started(app):
        for _ in range(rounds):
            begin = time.process_time()
            for k in range(REQUESTS):
                drift.see(x, y)
                if k % TOGETHER == TOGETHER - 1:
                    await asyncio.sleep(0)
            rows.append((time.process_time() - begin) / REQUESTS * 1e6)
        app.state.registry.get().drift = None
        for _ in range(rounds):
            begin = time.process_time()
            for _ in range(REQUESTS // CONNECTIONS):
                await asyncio.gather(*(call(app, "/predict", body) for _ in range(CONNECTIONS)))
            requests.append((time.process_time() - begin) / REQUESTS * 1e6)
    print(f"{min(rows):.2f} us of CPU a row, {statistics.median(rows):.2f} in the median of {rounds} rounds")
    print(f"{min(requests):.0f} us of CPU a request without it and without a socket, {statistics.median(requests):.0f}")


if __name__ == "__main__":
    main()
