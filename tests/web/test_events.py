"""The events of a series, over real sockets: each row's answer, in order, whoever leaves, comes back or is too slow."""

import asyncio
import itertools
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_stream import Event, listening
from hypothesis import given
from hypothesis import strategies as st
from kerasfiles import dense, lstm, save_sequential
from numpy.typing import NDArray
from redis_process import RedisProcess, needs_redis
from serving import SMALL, Process, ask, call, in_loop, read_all, started

from lstm_serve import load_model
from lstm_serve.model.metadata import SeriesRules
from lstm_serve.serving.series.memory import MemoryStore
from lstm_serve.serving.series.store import WINDOWS, Limits, Sent, SeriesKey
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app
from lstm_serve.web.dialects.series import events
from lstm_serve.web.dialects.series.events import position

MODEL = load_model(SMALL / "binary.h5")
STEPS, FEATURES = (size or 0 for size in MODEL.input_shape)
Rows = NDArray[np.float32]
NUMBERS = itertools.count()
KEYS = ["a-key-of-twenty-four-chars", "another-key-of-that-length"]


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """Which is impatient: no timeout of a connection may end a stream."""
    names = ("HEADER_SECONDS", "BODY_SECONDS", "KEEP_ALIVE_SECONDS")
    with Process(SMALL / "binary.h5", **{f"LSTMSERVE_{name}": "1" for name in names}) as process:
        yield process


@pytest.fixture
def at(process: Process) -> str:
    """The address of a series that nobody has used."""
    return f"{process.url}/series/s{next(NUMBERS)}"


def rows_of(count: int, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def append(at: str, rows: Rows, seq: int | None = None, **headers: str) -> dict[str, Any]:
    body = {"rows": rows.tolist(), **({} if seq is None else {"seq": seq})}
    answer = ask("POST", f"{at}/rows", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counted(name: str) -> int:
    """The number in the id of a row that has none of its own."""
    number, _, series = name.partition("-")
    assert len(series) == 8
    return int(number)


def check(told: list[Event], rows: Rows, first: int = 0) -> None:
    """They are of all rows from `first` on, whose number 0 is the first of `rows`, and have the answers of predict."""
    assert [event.id for event in told] == [str(k) for k in range(first, first + len(told))]
    wanted = MODEL.predict_series(rows)[:, 0]
    for k, event in enumerate(told, first):
        kept = min(k + 1, STEPS)
        assert (event.name, event.data["seq"], event.data["rows"]) == ("message", k, kept)
        assert event.data["ready"] == (kept == STEPS)
        if kept < STEPS:
            assert (event.data["missing"], event.data["answer"]) == (STEPS - kept, None)
        else:
            np.testing.assert_allclose(event.data["answer"]["probability"], wanted[k - STEPS + 1], atol=2e-6)


def test_each_row_is_told_in_the_form_of_its_answer(at: str) -> None:
    rows, answered = rows_of(STEPS + 11), []
    answered.append(append(at, rows[:3], 2))
    with listening(f"{at}/events") as stream:
        headers = stream.response.headers
        assert (headers["content-type"], headers["cache-control"]) == ("text/event-stream", "no-store")
        told = stream.take(3)
        for end in (4, 9, 10, len(rows)):  # a row, and several in a request
            answered.append(append(at, rows[answered[-1]["seq"] + 1 : end], end - 1))
            told += stream.take(end - len(told))
        end, more = len(rows), STEPS + 2
        append(at, rows_of(more), end + more - 1)  # of which one has no window any more
        assert stream.take(2)[0].data == {"after": end - 1, "next": end + 1}
    check(told, rows)
    for answer in answered:
        event = told[answer["seq"]].data
        assert event.keys() == answer.keys()
        assert (event | {"answer": None}) == (answer | {"answer": None})


def test_many_listen_and_many_devices_send(process: Process) -> None:
    names = [f"many{k}" for k in range(3)]
    rows = {name: rows_of(STEPS + 3, k) for k, name in enumerate(names)}

    def send(k: int) -> None:
        body = {"rows": [{"series": name, "seq": k, "row": rows[name][k].tolist()} for name in names]}
        assert ask("POST", f"{process.url}/series/rows", json=body).status_code == 200

    send(0)
    with ExitStack() as opened:
        streams = [
            (name, opened.enter_context(listening(f"{process.url}/series/{name}/events?inputs=true")))
            for name in names * 2
        ]
        for k in range(1, STEPS + 3):
            send(k)
        for name, stream in streams:
            told = stream.take(STEPS + 3)
            check(told, rows[name])
            assert np.array_equal(np.array([event.data["row"] for event in told], np.float32), rows[name])
        assert 'lstmserve_series_listeners{model="binary"} 6.0' in ask("GET", f"{process.url}/metrics").text


def test_who_comes_back_goes_on(at: str) -> None:
    rows = rows_of(3 * STEPS)
    append(at, rows, len(rows) - 1)
    kept = len(rows) - STEPS - 1  # the first row whose window is kept
    for after in range(kept - 1, len(rows) - 1):
        with listening(f"{at}/events", str(after)) as stream:
            check(stream.take(len(rows) - 1 - after), rows, after + 1)
    for after in (0, kept - 2, 7000):
        with listening(f"{at}/events", str(after)) as stream:
            gap, *told = stream.take(STEPS + 2)
            assert (gap.name, gap.data) == ("gap", {"after": after, "next": kept})
            check(told, rows, kept)
    wrong = ask("GET", f"{at}/events", headers={"last-event-id": "x"})
    assert (wrong.status_code, wrong.json()["type"]) == (400, "urn:lstm-serve:malformed")


def test_rows_without_numbers_are_counted(at: str) -> None:
    rows = rows_of(STEPS + 2)
    append(at, rows[:2])
    with listening(f"{at}/events") as stream:
        append(at, rows[2:])
        told = stream.take(len(rows))
    ids = [event.id for event in told]
    assert [counted(event.id) for event in told] == [*range(1, len(rows) + 1)]
    assert {event.data["seq"] for event in told} == {None}
    with listening(f"{at}/events", ids[STEPS - 1]) as stream:
        assert [event.id for event in stream.take(2)] == ids[STEPS:]
    ask("DELETE", at)
    append(at, rows)  # another series that has had as many
    for after in (ids[STEPS - 1], str(STEPS)):
        with listening(f"{at}/events", after) as stream:
            gap, first = stream.take(2)
            assert (gap.name, gap.data, counted(first.id)) == ("gap", {"after": STEPS, "next": 1}, 1)


@given(st.lists(st.tuples(st.integers(1, 13), st.booleans()), max_size=12), st.booleans(), st.sampled_from([1, 4]))
def test_no_row_is_missed_in_silence_or_told_twice(
    steps: list[tuple[int, bool]],
    numbered: bool,  # noqa: FBT001
    timesteps: int,
) -> None:
    """Whenever a client looks: all rows are told, or that some between two were not."""
    store, key, count, after, told = (
        MemoryStore(Limits(WINDOWS * timesteps, 9, 9.0)),
        SeriesKey(b"", "s"),
        0,
        None,
        list[int](),
    )
    for more, looks in steps:
        seqs = range(count, count + more) if numbered else None
        asyncio.run(store.append(key, Sent(np.zeros((more, 1), np.float32), seqs), SeriesRules()))
        count += more
        if not looks:
            continue
        numbers = asyncio.run(store.look(key)).numbers
        start, missed = position(numbers, timesteps, after)
        if after is not None:
            assert missed == (numbers[start] != after + 1 if start < len(numbers) else False)
        told += numbers[start:]
        after = numbers[-1]
        assert position(numbers, timesteps, after) == (len(numbers), False)
    assert told == sorted(set(told))


def test_a_series_that_ends_says_so(at: str) -> None:
    append(at, rows_of(1), 0)
    with listening(f"{at}/events") as stream:
        stream.take(1)
        ask("DELETE", at)
        append(at, rows_of(1), 0)  # another one
        (end,) = stream.rest()
    assert (end.name, end.id) == ("end", "")  # nothing is resumed


def test_a_series_that_expires_says_so_and_one_bad_answer_is_no_end(tmp_path: Path) -> None:
    arrays = [np.full((FEATURES, 1), 2, np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32)]
    save_sequential(tmp_path / "m.h5", [("SimpleRNN", {"units": 1, "activation": "linear"}, arrays)], [1, 3])
    with Process(tmp_path / "m.h5", LSTMSERVE_SERIES_TTL_SECONDS="5") as process:  # no busy machine takes as long
        at = f"{process.url}/series/s"
        append(at, np.ones((1, 3), np.float32), 0)
        with listening(f"{at}/events") as stream:
            stream.take(1)
            overflows = ask("POST", f"{at}/rows", json={"rows": [[3e38] * 3], "seq": 1})
            assert overflows.status_code == 500
            append(at, np.ones((1, 3), np.float32), 2)
            bad, good, end = stream.rest()
        assert (bad.id, bad.data["answer"]) == ("1", None)
        assert bad.data["problem"] == overflows.json() | {"request_id": stream.response.headers["x-request-id"]}
        assert (good.id, good.data["answer"], end.name) == ("2", {"values": [6.0]}, "end")
        assert ask("GET", f"{at}/events").json()["type"] == "urn:lstm-serve:unknown-series"


def test_no_timeout_ends_a_stream(process: Process, at: str) -> None:
    append(at, rows_of(1), 0)
    with listening(f"{at}/events") as stream:
        stream.take(1)
        with process.connect() as idle:
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            read_all(idle)  # it is closed after its second
        append(at, rows_of(1), 1)
        assert [event.id for event in stream.take(1)] == ["1"]


def test_head_and_http_1_0(process: Process, at: str) -> None:
    append(at, rows_of(1), 0)
    path = at.removeprefix(process.url)
    head = ask("HEAD", f"{at}/events")
    assert (head.status_code, head.headers["content-type"], head.content) == (200, "text/event-stream", b"")
    with process.connect() as old:
        old.sendall(f"GET {path}/events HTTP/1.0\r\n\r\n".encode())
        found = b""
        while b'"answer":null' not in found:
            found += old.recv(1 << 16)
        ask("DELETE", at)
        found += read_all(old)
    headers, _, body = found.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in headers
    assert body.startswith(b"retry: 1000\n\nid: 0\ndata: {")
    assert body.endswith(b'is not kept any more"}\n\n')


def test_keys_a_reload_and_the_end(tmp_path: Path) -> None:
    """Another key's series is not there, a withdrawn key ends what it began; a reload ends nothing, a stop all."""
    file, model = tmp_path / "keys", tmp_path / "m.h5"
    file.write_text("\n".join(KEYS))
    shutil.copy(SMALL / "binary.h5", model)
    mine, yours = ({"authorization": f"Bearer {key}"} for key in KEYS)
    settings = {"API_KEYS_FILE": str(file), "DRAIN_SECONDS": "0", "GRACE_SECONDS": "3600"}
    with Process(model, **{f"LSTMSERVE_{name}": value for name, value in settings.items()}) as process:
        at, rows = f"{process.url}/series/s", rows_of(STEPS + 2)
        append(at, rows[:STEPS], STEPS - 1, **mine)
        statuses = [ask("GET", f"{at}/events", headers=headers).status_code for headers in ({}, yours)]
        assert statuses == [401, 404]
        with listening(f"{at}/events", headers=mine) as stream:
            stream.take(STEPS)
            process.signal(signal.SIGHUP)
            process.wait_for("loaded m.h5", 2)
            append(at, rows[STEPS:], STEPS + 1, **mine)
            check(stream.take(2), rows, STEPS)
            file.write_text(KEYS[1])
            process.signal(signal.SIGHUP)
            assert stream.rest() == []
        append(at, rows[:1], 0, **yours)
        with listening(f"{at}/events", headers=yours) as stream:
            stream.take(1)
            process.signal(signal.SIGTERM)
            assert stream.rest() == []  # a whole answer, from which a client goes on elsewhere
        assert process.ended() == 0


def test_listeners_are_bounded_and_who_never_reads_goes(tmp_path: Path) -> None:
    save_sequential(tmp_path / "m.h5", [lstm(), dense(6000)], [2, 3])
    limits = {"LSTMSERVE_MAX_CONNECTIONS": "5", "LSTMSERVE_BODY_SECONDS": "1"}
    with Process(tmp_path / "m.h5", **limits) as process, socket.socket() as deaf:
        at = f"{process.url}/series/s"
        append(at, rows_of(1), 0)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        deaf.connect(("127.0.0.1", process.port))
        deaf.sendall(b"GET /series/s/events HTTP/1.1\r\nHost: a\r\n\r\n")
        with listening(f"{at}/events") as stream:
            stream.take(1)
            full = ask("GET", f"{at}/events")
            assert (full.status_code, full.json()["type"]) == (429, "urn:lstm-serve:listeners-full")
            assert full.json()["detail"].startswith("2 clients listen")
            sent = 1
            while 'lstmserve_connections_ended_total{state="unread"} 1.0' not in (
                text := ask("GET", f"{process.url}/metrics").text
            ):
                append(at, np.zeros((3, 3), np.float32), sent + 2)
                sent += 3
                stream.take(3)
        assert 'lstmserve_rejected_total{reason="listeners-full"} 1.0' in text


@needs_redis
def test_of_several_replicas_each_tells_what_any_takes(tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as redis, ExitStack() as replicas:
        here, there = (
            f"{replicas.enter_context(Process(SMALL / 'binary.h5', LSTMSERVE_SERIES_STORE=redis.url)).url}/series/s"
            for _ in range(2)
        )
        rows, another = rows_of(STEPS + 4), rows_of(STEPS + 4, 2)
        append(here, rows[:STEPS])
        with listening(f"{here}/events") as stream, listening(f"{there}/events") as other:
            told = stream.take(STEPS)
            for k in range(STEPS, len(rows)):
                append((here, there)[k % 2], rows[k : k + 1])
                told += stream.take(1)
            redis.__exit__()
            assert ask("GET", f"{here}/events").status_code == 503
            redis.__enter__()
            told += other.take(len(rows))
            ask("DELETE", there).raise_for_status()
            append(there, another)  # a series of its own, of which as many rows are there
            with listening(f"{here}/events") as late:
                anew = late.take(len(another))
            assert [[event.name for event in each.rest()] for each in (stream, other)] == [["end"], ["end"]]
    for those, of in ((told[: len(rows)], rows), (told[len(rows) :], rows), (anew, another)):
        assert [counted(event.id) for event in those] == [*range(1, len(of) + 1)]
        assert len({event.id.partition("-")[2] for event in those}) == 1
        wanted = MODEL.predict_series(of)[:, 0]
        found = [event.data["answer"]["probability"] for event in those[STEPS - 1 :]]
        np.testing.assert_allclose(found, wanted, atol=2e-6)


@in_loop
async def test_silence_is_broken_for_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BEAT_SECONDS", 0.01)
    app = create_app(Settings(model=SMALL / "binary.h5"))
    path, beats, left = "/series/s/events", asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body") == b":\n\n":
            beats.set()

    async with started(app):
        deployment = app.state.registry.default
        await deployment.series.append(SeriesKey(b"", "s"), Sent(rows_of(1), None), SeriesRules())
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        serving = asyncio.create_task(app(scope, receive, send))
        await beats.wait()
        assert deployment.watch.count() == app.state.serving.listeners == 1
        left.set()
        await serving
        assert deployment.watch.count() == app.state.serving.listeners == 0
        app.state.serving.draining = True
        refused = await call(app, path)
        assert (refused.status, refused.json["detail"]) == (503, "the service is stopping")


def test_paths_of_a_named_model(process: Process, at: str) -> None:
    append(at, rows_of(1), 0)
    name = at.rpartition("/")[2]
    with listening(f"{process.url}/models/binary/series/{name}/events") as stream:
        assert json.dumps(stream.take(1)[0].data)
    assert ask("GET", f"{process.url}/models/other/series/{name}/events").status_code == 404
