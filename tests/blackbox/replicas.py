"""Two replicas behind HAProxy on one Redis, and devices that repeat, hang up and reorder, while all of them are killed.

The tests run it short. As a script it kills long and prints what was counted:

usage: PYTHONPATH=tests/helpers python tests/blackbox/replicas.py [--kills 20]
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from chaos import free_ports, haproxy
from devices import FEATURES, MODELS, STEPS, TOLERANCE, Found, Series, chance_of
from load import Connection, Lost, Reply, request
from redis_process import RedisProcess
from serving import ASKER, Process

PATH = ASKER / MODELS[0].origin.file
# A replica or the store is away; the proxy says it of a replica in its own way.
AWAY = {502, 503, 504}


async def killed(folder: Path, kills: int, devices: int, length: int) -> Found:
    """Kill by turns a replica, the store and the other replica under load, so many times, each to be started again."""
    found, ports = Found(), free_ports(2)
    reached = [asyncio.Event() for _ in range(kills)]
    several = [Series(f"d-{k}", length, k, MODELS[:1]) for k in range(devices)]
    with RedisProcess(folder) as redis:
        started = [_start(port, redis) for port in ports]
        try:
            with haproxy(folder, ports) as port:
                sent = 0

                def count(rows: int) -> None:
                    nonlocal sent
                    sent += rows
                    for event in reached[: sent * (kills + 1) // (devices * length)]:
                        event.set()

                async with asyncio.TaskGroup() as group:
                    group.create_task(_killing(reached, started, ports, redis, found))
                    for series in several:
                        group.create_task(_device(port, series, found, count))
                for series in several:
                    reply = await _asked(port, request(f"/series/{series.name}"), found)
                    found.hold(json.loads(reply.body)["answer"], series.wanted(MODELS[0].origin.digest, length - 1))
                    _expect_each_row_once(redis, series)
        finally:
            for process in started:
                process.__exit__()
    return found


def _start(port: int, redis: RedisProcess) -> Process:
    process = Process(PATH, LSTMSERVE_PORT=str(port), LSTMSERVE_SERIES_STORE=redis.url, LSTMSERVE_ACCESS_LOG="false")
    return process.__enter__()


async def _killing(
    reached: list[asyncio.Event], started: list[Process], ports: list[int], redis: RedisProcess, found: Found
) -> None:
    for turn, event in enumerate(reached):
        await event.wait()
        what = (0, "the store", 1)[turn % 3]
        found.told[f"killed {what}"] += 1
        if isinstance(what, int):
            started[what].signal(signal.SIGKILL)
            await asyncio.to_thread(started[what].ended)
            started[what] = await asyncio.to_thread(_start, ports[what], redis)
        else:
            await asyncio.to_thread(redis.__exit__)
            await asyncio.to_thread(redis.__enter__)


def _expect_each_row_once(redis: RedisProcess, series: Series) -> None:
    """Hold what the store has against what was sent: how many rows were ever appended, and the last ones."""
    name = MODELS[0].about.name
    held = cast("dict[bytes, Any]", redis.client.hgetall(f"lstmserve:{{{name}}}:{series.name}"))
    length = len(series.rows)
    assert int(held[b"count"]) == length
    assert np.frombuffer(held[b"seqs"]).tolist() == list(range(length - 2 * STEPS, length))
    rows = np.frombuffer(held[b"rows"], np.dtype(MODELS[0].input_dtype)).reshape(-1, FEATURES)
    np.testing.assert_array_equal(rows, series.rows[-2 * STEPS :].astype(rows.dtype))


async def _device(port: int, series: Series, found: Found, count: Callable[[int], None]) -> None:
    chance, at, length = chance_of(int(series.name[2:])), 0, len(series.rows)
    while at < length:
        stop = min(length, at + chance.randint(1, 5))
        what = chance.choice(["nothing", "again", "hang up", "late", "together", "twice at once", "what was before"])
        found.told[what] += 1
        if what == "hang up":
            await _hang_up(port, series.body(at, stop), chance.random() * 0.004)
        elif what == "late" and at > 0 and stop < length:
            reply = await _asked(port, series.body(stop, stop + 1), found)
            assert (reply.status, json.loads(reply.body)["expected"]) == (409, at), reply
        elif what == "what was before" and at > 0:
            await _sent(port, series, max(0, at - 3), at, found)
        elif what == "together":
            await _together(port, series, at, stop, found)
        elif what == "again":
            await _sent(port, series, at, stop, found)
        elif what == "twice at once":
            await asyncio.gather(*(_sent(port, series, at, stop, found) for _ in range(2)))
        await _sent(port, series, at, stop, found)
        count(stop - at)
        at = stop


async def _hang_up(port: int, data: bytes, after: float) -> None:
    async with Connection(port) as connection:
        (await connection.open())[1].write(data)
        await asyncio.sleep(after)


async def _sent(port: int, series: Series, start: int, stop: int, found: Found) -> None:
    """Send rows until there is an answer; it is the right one."""
    reply = await _asked(port, series.body(start, stop), found)
    assert reply.status == 200, reply
    content = json.loads(reply.body)
    assert content["seq"] == stop - 1, content
    found.hold(content["answer"], series.wanted(reply.headers["x-model-sha256"], stop - 1))


async def _together(port: int, series: Series, start: int, stop: int, found: Found) -> None:
    """Send rows as those of many series, each of which has its own answer, or is not there."""
    items = [{"series": series.name, "seq": k, "row": series.rows[k].tolist()} for k in range(start, stop)]
    reply = await _asked(port, request("/series/rows", json.dumps({"rows": items}).encode()), found)
    for k, result in zip(range(start, stop), json.loads(reply.body)["results"], strict=True):
        if "status" in result:
            assert result["status"] in {409, 503}, result
        else:
            found.hold(result["answer"], series.wanted(reply.headers["x-model-sha256"], k))


async def _asked(port: int, data: bytes, found: Found) -> Reply:
    """Ask until there is an answer of a replica that has the store."""
    while True:
        async with Connection(port) as connection:
            try:
                reply = await connection.ask(data)
            except Lost:
                found.told["lost"] += 1
            else:
                found.statuses[reply.status] += 1
                if reply.status not in {429, *AWAY}:
                    return reply
        await asyncio.sleep(0.01)


async def main(kills: int) -> None:
    """Everything, long. Raises AssertionError where something is not as it must be."""
    with tempfile.TemporaryDirectory() as folder:
        found = await killed(Path(folder), kills, 8, 100 * kills)
    sys.stdout.write(f"{kills} times kill -9 of replicas and of the store: {found}\n")
    assert found.worst <= TOLERANCE


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    asyncio.run(main(parser.parse_args().kills))
