"""Short runs of what `make chaos` runs long."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest
from chaos import (
    BEHAVIOURS,
    HAPROXY,
    MODEL,
    footprint,
    mixed,
    overload,
    random_questions,
    rolling_restart,
    settled,
    stopped_under_load,
)
from load import Connection, request
from serving import Process, in_loop

pytestmark = pytest.mark.long


@in_loop
async def test_bad_clients_do_no_harm_to_good_ones() -> None:
    times = {"LSTMSERVE_HEADER_SECONDS": "4", "LSTMSERVE_BODY_SECONDS": "4"}
    with Process(MODEL, LSTMSERVE_ACCESS_LOG="false", **times) as process:
        fresh = footprint(process)
        await mixed(process, 0.1, bad=16)
        before = await settled(process, fresh.files)
        tally, bad = await mixed(process, 1, seed=1, bad=16, enough=21)
        after = await settled(process, before.files, before.anonymous_mib + 16)
        async with Connection(process.port) as connection:
            assert (await connection.ask(request("/readyz"))).status == 200
    assert not tally.wrong
    assert tally.good > 20
    assert len(bad.sent) == len(BEHAVIOURS)
    assert set(bad.statuses) <= {200, 400, 404, 405, 408, 413, 415, 422, 429, 431}
    assert after.files <= before.files
    assert after.anonymous_mib < before.anonymous_mib + 16
    assert process.popen.returncode == 0
    assert not process.errors


@pytest.mark.parametrize("drain", ["0", "0.01", "0.5"])
@in_loop
async def test_stopping_under_load_loses_nothing_that_was_read(drain: str) -> None:
    tally, process, answered = await stopped_under_load(drain=drain)
    read = {record["request_id"] for record in process.records if record.get("path", "").startswith("/predict")}
    assert not tally.wrong
    assert tally.good > 0
    assert not read - answered
    assert process.popen.returncode == 0


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed (Debian: haproxy)")
def test_a_rolling_restart_behind_the_proxy_fails_nothing(tmp_path: Path) -> None:
    @in_loop
    async def run() -> None:
        tally, ended = await rolling_restart(tmp_path, clients=4, drain="1.5", pause=0.02)
        assert not tally.wrong
        assert tally.good > 0
        assert ended == [0, 0, 0]

    run()


@in_loop
async def test_overload_is_refused_and_passes() -> None:
    limits = {"LSTMSERVE_MAX_QUEUE_ROWS": "1024", "LSTMSERVE_MAX_ROWS": "1024"}
    # So few that not all of 160 who ask can wait, and all of 16 can: each has up to a quarter of a MiB read at once.
    limits["LSTMSERVE_MAX_INFLIGHT_BYTES"] = str(8 << 20)
    with Process(MODEL, LSTMSERVE_ACCESS_LOG="false", **limits) as process:
        found = await overload(process, 0.3)
        after = await settled(process, found["before"].files)
    refused = 0
    for load in found.values():
        if hasattr(load, "statuses"):
            assert not load.wrong
            assert set(load.statuses) <= {200, 429}
            assert load.without_retry == 0
            assert load.statuses[200] > 0
            refused += load.statuses[429]
    assert refused > 0
    assert found["after"].statuses.keys() == {200}
    assert after.anonymous_mib < found["before"].anonymous_mib + 64
    assert process.popen.returncode == 0


@pytest.mark.parametrize("pipelined", [False, True])
@in_loop
async def test_who_asks_again_where_there_is_no_room_is_told_so(*, pipelined: bool) -> None:
    """Large bodies of connections on which something was answered, or is being: all come in one iteration."""
    (small,), (large,) = random_questions([1]), random_questions([64])
    statuses = Counter[int]()

    async def ask(connection: Connection) -> None:
        if pipelined:
            (await connection.open())[1].write(small.data)
        statuses[(await connection.ask(large.data)).status] += 1

    limits = {"LSTMSERVE_MAX_INFLIGHT_BYTES": str(4 << 20)}
    with Process(MODEL, LSTMSERVE_ACCESS_LOG="false", **limits) as process:
        connections = [Connection(process.port) for _ in range(100)]
        for connection in connections:
            assert (await connection.ask(small.data)).status == 200
        process.signal(signal.SIGSTOP)
        try:
            asked = [asyncio.create_task(ask(connection)) for connection in connections]
            for _ in range(5):
                await asyncio.sleep(0)
        finally:
            process.signal(signal.SIGCONT)
        await asyncio.gather(*asked)
        for connection in connections:
            connection.close()
    assert statuses.keys() == {200, 429}
    assert statuses.total() == len(connections)
