"""Devices that send rows, good and bad ones, over real sockets: each answer is held against that of its window.

The tests run each scenario short. As a script it runs them long and prints what was counted:

usage: PYTHONPATH=tests/helpers python tests/blackbox/devices.py [--series 10000] [--minutes 10]
"""

import argparse
import asyncio
import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chaos import footprint
from load import Connection, Floats, Lost, Reply, request, written
from scraping import parsed
from serving import ASKER, Process

from lstm_serve import load_model
from lstm_serve.model.model import Model

MODELS = [load_model(ASKER / name) for name in ("k215_model.h5", "k122_model.h5")]
BY_DIGEST = {model.origin.digest: model for model in MODELS}
STEPS, FEATURES = 20, 15
TOLERANCE = 2e-6

ROW = json.dumps({"rows": [[1] * FEATURES]}).encode()
BAD = [
    request(f"/series/{'x' * (1 << 20)}/rows", ROW),
    request(f"/series/{'y' * 500}/rows", ROW),
    request("/series/b/rows", b'{"rows": [' + b"[1]," * 400_000 + b"[1]]}"),
    request("/series/rows", b'{"rows": [' + b"{}," * 400_000 + b"{}]}"),
    request("/series/b/rows", ROW[:-5]),
    request("/series/b/rows", b'{"rows": [], "seq": 1e400}'),
    request("/series/b/rows?answers=some", ROW),
]


@dataclass
class Found:
    """What came back: how many answers were held against their windows, and how far the worst was from its own."""

    answers: int = 0
    worst: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)

    def hold(self, answer: Any, wanted: Floats | None) -> None:
        """An answer against that of its window; None is right where there is none yet."""
        if wanted is None or answer is None:
            assert wanted is None, "a row that ends a window has no answer"
            assert answer is None, "a row that ends no window has an answer"
            return
        self.answers += 1
        self.worst = max(self.worst, float(np.abs(np.array(answer["probabilities"]) - wanted).max()))


class Series:
    """The rows of a device, and what any of the models answers to each."""

    def __init__(self, name: str, length: int, seed: int, models: Sequence[Model] = MODELS) -> None:
        self.name = name
        self.rows = np.random.default_rng(seed).normal(size=(length, FEATURES)).round(3).astype(np.float32)
        self._wanted = {model.origin.digest: model.predict_series(self.rows) for model in models if length >= STEPS}

    def wanted(self, digest: str, k: int) -> Floats | None:
        return None if k < STEPS - 1 else self._wanted[digest][k - STEPS + 1]

    def body(self, start: int, stop: int, *, every: bool = False) -> bytes:
        """The request with rows from start to stop."""
        rows = written({"rows": self.rows[start:stop]})[:-1] + b', "seq": %d}' % (stop - 1)
        return request(f"/series/{self.name}/rows{'?answers=all' if every else ''}", rows)


def chance_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - it hides nothing


def delete(name: str) -> bytes:
    return f"DELETE /series/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def metrics(port: int, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """A metric's values, by their labels."""
    async with Connection(port) as connection:
        told = parsed((await connection.ask(request("/metrics"))).body.decode())
    return {labels: value for (found, labels), value in told.items() if found == name}


async def ways(port: int) -> dict[str, float]:
    """How many answers were computed by which way."""
    return {dict(labels)["way"]: value for labels, value in (await metrics(port, "series_steps_total")).items()}


# Random series.


async def random_series(port: int, numbers: Sequence[int], connections: int) -> Found:
    """A series for each number: of a random length, its rows one by one, in random chunks, or with those of others."""
    found, left = Found(), iter(numbers)

    async def client() -> None:
        async with Connection(port) as connection:
            for number in left:
                chance = chance_of(number)
                if chance.random() < 0.2:
                    await _together(connection, [_random(number, k) for k in range(4)], found, chance)
                else:
                    await _alone(connection, _random(number, 0), found, chance)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return found


def _random(number: int, k: int) -> Series:
    length = chance_of(number * 7 + k).randint(1, 200)
    return Series(f"r-{number}-{k}", length, number * 7 + k, MODELS[:1])


async def _alone(connection: Connection, series: Series, found: Found, chance: random.Random) -> None:
    largest, every, at = chance.choice([1, 1, 3, 64]), chance.random() < 0.7, 0
    while at < len(series.rows):
        start, at = at, min(at + chance.randint(1, largest), len(series.rows))
        reply = await connection.ask(series.body(start, at, every=every))
        content, digest = _content(reply), reply.headers["x-model-sha256"]
        for k, answer in (
            zip(range(start, at), content["answers"], strict=True) if every else [(at - 1, content["answer"])]
        ):
            found.hold(answer, series.wanted(digest, k))
    assert (await connection.ask(delete(series.name))).status == 204


async def _together(connection: Connection, several: Sequence[Series], found: Found, chance: random.Random) -> None:
    """Rows of several series in one request, in a random order but for those of one."""
    at = dict.fromkeys(range(len(several)), 0)
    while left := [k for k in at if at[k] < len(several[k].rows)]:
        items, expected = [], []
        for k in chance.choices(left, k=chance.randint(1, 40)):
            if at[k] < len(several[k].rows):
                items.append({"series": several[k].name, "seq": at[k], "row": several[k].rows[at[k]].tolist()})
                expected.append((several[k], at[k]))
                at[k] += 1
        reply = await connection.ask(request("/series/rows", json.dumps({"rows": items}).encode()))
        digest = reply.headers["x-model-sha256"]
        for (series, k), result in zip(expected, _content(reply)["results"], strict=True):
            found.hold(result["answer"], series.wanted(digest, k))
    for series in several:
        assert (await connection.ask(delete(series.name))).status == 204


def _content(reply: Reply) -> Any:
    assert reply.status == 200, reply
    return json.loads(reply.body)


# Exactly once.


async def exactly_once(process: Process, model: Path, devices: int, length: int, reloads: int = 1) -> Found:
    """Devices that repeat, hang up before the answer, reconnect and send out of order, with reloads in between.

    The model at the path is another one after each reload. Once each row is sent, each is there once.
    """
    found = Found()
    several = [Series(f"d-{k}", length, k) for k in range(devices)]
    reached = [asyncio.Event() for _ in range(reloads)]
    sent = Counter[str]()

    async def device(series: Series) -> None:
        chance, at = chance_of(int(series.name[2:])), 0
        while at < length:
            stop = min(length, at + chance.randint(1, 5))
            await _misbehave(process.port, series, at, stop, chance, found)
            await _sent(process.port, series, at, stop, found)
            at = sent[series.name] = stop
            for event in reached[: sent.total() * (reloads + 1) // (devices * length)]:
                event.set()

    async def reloading() -> None:
        for turn, event in enumerate(reached, 1):
            await event.wait()
            shutil.copy(ASKER / MODELS[turn % 2].origin.file, model)
            process.signal(signal.SIGHUP)
            await asyncio.to_thread(process.wait_for, "replaced", turn)

    async with asyncio.TaskGroup() as group:
        group.create_task(reloading())
        for series in several:
            group.create_task(device(series))
    async with Connection(process.port) as connection:
        for series in several:
            reply = await connection.ask(request(f"/series/{series.name}"))
            assert _content(reply)["seq"] == length - 1
    assert [*(await metrics(process.port, "series_rows_total")).values()] == [devices * length]
    return found


async def _sent(port: int, series: Series, start: int, stop: int, found: Found) -> None:
    """Send rows until there is an answer; it is the right one, of whichever model."""
    while True:
        async with Connection(port) as connection:
            try:
                reply = await connection.ask(series.body(start, stop))
            except Lost:
                continue
        found.statuses[reply.status] += 1
        if reply.status != 429:
            content = _content(reply)
            assert content["seq"] == stop - 1
            found.hold(content["answer"], series.wanted(reply.headers["x-model-sha256"], stop - 1))
            return
        await asyncio.sleep(0.001)


async def _misbehave(port: int, series: Series, start: int, stop: int, chance: random.Random, found: Found) -> None:
    """What a device does before it sends its rows as it should, of which they may be there already."""
    what = chance.choice(["nothing", "again", "hang up", "half", "late", "twice at once", "what was before"])
    found.told[what] += 1
    if what in {"hang up", "half"}:
        async with Connection(port) as connection:
            _, writer = await connection.open()
            data = series.body(start, stop)
            writer.write(data if what == "hang up" else data[: chance.randrange(len(data))])
            await asyncio.sleep(chance.random() * 0.004)
    elif what == "again":
        await _sent(port, series, start, stop, found)
    elif what == "twice at once":
        await asyncio.gather(*(_sent(port, series, start, stop, found) for _ in range(2)))
    elif what == "what was before" and start > 0:
        await _sent(port, series, max(0, start - 3), start, found)
    elif what == "late" and start > 0 and stop < len(series.rows):
        async with Connection(port) as connection:
            reply = await connection.ask(series.body(stop, stop + 1))
        found.statuses[reply.status] += 1
        assert (reply.status, json.loads(reply.body)["expected"]) == (409, start), reply


# A long time.


async def mixed(process: Process, seconds: float, samples: int = 20) -> tuple[Found, list[float]]:
    """Devices, floods of new ids, bodies that are none, clients that hang up; and the memory (MiB) meanwhile."""
    found, end, memory = Found(), time.monotonic() + seconds, list[float]()

    def going() -> bool:
        return time.monotonic() < end

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(_device(process.port, number, going, found))
        for number in range(2):
            group.create_task(_bad(process.port, number, going, found))
        group.create_task(_flood(process.port, going, found))
        for _ in range(samples):
            await asyncio.sleep(seconds / samples)
            memory.append(footprint(process).anonymous_mib)
    return found, memory


async def _device(port: int, number: int, going: Callable[[], bool], found: Found) -> None:
    """One series after the other; half of them are deleted, the others expire."""
    chance = chance_of(number)
    async with Connection(port) as connection:
        for turn in itertools.count():
            series = Series(f"m-{number}-{turn}", 120, turn, MODELS[:1])
            for k in range(len(series.rows)):
                if not going():
                    return
                reply = await connection.ask(series.body(k, k + 1))
                found.statuses[reply.status] += 1
                if reply.status == 429:  # there are too many series
                    break
                content = _content(reply)
                if content["rows"] < min(k + 1, STEPS):  # a busy machine: it was idle for too long
                    found.told["expired"] += 1
                    break
                found.hold(content["answer"], series.wanted(reply.headers["x-model-sha256"], k))
            if chance.random() < 0.5:
                await connection.ask(delete(series.name))


async def _flood(port: int, going: Callable[[], bool], found: Found) -> None:
    """Row after row of new series, until there are too many."""
    async with Connection(port) as connection:
        for turn in itertools.count():
            if not going():
                return
            items = [{"series": f"f-{turn}-{k}", "row": [0.5] * FEATURES} for k in range(200)]
            reply = await connection.ask(request("/series/rows", json.dumps({"rows": items}).encode()))
            for result in _content(reply)["results"]:
                found.statuses[result.get("status", 200)] += 1
            await asyncio.sleep(0.05)


async def _bad(port: int, number: int, going: Callable[[], bool], found: Found) -> None:
    """Requests that are refused, or are not sent whole."""
    chance = chance_of(number)
    while going():
        async with Connection(port) as connection:
            data = chance.choice(BAD)
            try:
                if chance.random() < 0.3:
                    (await connection.open())[1].write(data[: chance.randrange(len(data))])
                    await asyncio.sleep(0.005)
                else:
                    found.statuses[(await connection.ask(data)).status] += 1
            except (Lost, OSError):
                found.told["was hung up on"] += 1
        await asyncio.sleep(0.02)


async def main(series: int, minutes: float) -> None:
    """Everything, long. Raises AssertionError where something is not as it must be."""

    def told(what: str, found: Found, more: object = "") -> None:
        sys.stdout.write(f"{what}: {found} {more}\n")
        assert found.worst <= TOLERANCE

    quiet, path = {"LSTMSERVE_ACCESS_LOG": "false"}, ASKER / MODELS[0].origin.file
    for connections in (1, 16):
        with Process(path, **quiet) as process:
            found = await random_series(process.port, range(series // 2), connections)
            told(f"{series // 2} random series, {connections} at once", found, await ways(process.port))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(shutil.copy(path, Path(folder) / "model.h5"))
        with Process(model, **quiet) as process:
            told("exactly once", await exactly_once(process, model, 32, 600, reloads=6), await ways(process.port))
    limits = {"LSTMSERVE_SERIES_MAX": "5000", "LSTMSERVE_SERIES_TTL_SECONDS": "5"}
    with Process(path, **quiet, **limits) as process:
        found, memory = await mixed(process, 60 * minutes)
        told(f"mixed load of {minutes:g} minutes", found, f"memory, MiB: {[round(size) for size in memory]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    asyncio.run(main(asked.series, asked.minutes))
