"""The log: one JSON object a line, one line a request, no input in it."""

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import httpx
import pytest
from apps import app_of, queued, row_of, with_echo
from native_requests import MARK, many, one
from serving import ASKER, COMMAND, PATIENCE, ROOT, Process, ask, call, environment, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.telemetry import logs
from lstm_serve.telemetry.log_handler import LogHandler
from lstm_serve.web.app import create_app

INPUT = 0.8436512
ROW = [[INPUT] * 15] * 20


def record_of(message: str = "hello", **more: Any) -> logging.LogRecord:
    record = logging.LogRecord("lstm_serve.x", logging.INFO, "x.py", 1, message, (), None)
    for name, value in more.items():
        setattr(record, name, value)
    return record


def test_every_line_of_the_process_is_a_JSON_object() -> None:  # noqa: N802 - a name
    with Process(ASKER / "k215_model.h5") as process:
        with httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
            headers = {"x-request-id": "abc", "traceparent": "00-1-2-01"}
            assert client.post("/predict", content=one(ROW), headers=headers).status_code == 200
            assert client.post("/predict/batch", content=many([ROW] * 3)).status_code == 200
            assert client.post("/predict", content=one(MARK)).status_code == 422
            assert client.get("/nowhere", params={"q": MARK}).status_code == 404
            for path in ("/livez", "/readyz", "/health", "/healthz", "/metrics"):
                assert client.get(path).status_code == 200
        process.raw(b"no request\r\n\r\n")
        process.wait_for("/nowhere")
    records = process.records
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["time"])
        assert record["level"] in {"info", "warning"}
        assert record["logger"]
        assert record["message"]
    assert {"uvicorn.error", "lstm_serve.serving.deployment", "lstm_serve.access", "lstm_serve.process.server"} <= {
        r["logger"] for r in records
    }
    assert any(r["message"] == "Invalid HTTP request received." for r in records)
    requests = [record for record in records if record["logger"] == "lstm_serve.access"]
    assert [(r["method"], r["path"], r["status"], r.get("rows")) for r in requests] == [
        ("POST", "/predict", 200, 1),
        ("POST", "/predict/batch", 200, 3),
        ("POST", "/predict", 422, None),
        ("GET", "/nowhere", 404, None),
    ]
    assert (requests[0]["request_id"], requests[0]["traceparent"]) == ("abc", "00-1-2-01")
    assert "traceparent" not in requests[1]
    for record in requests[:2]:
        assert record["ms"] >= record["compute_ms"] > 0
        assert record["queue_ms"] >= 0
    everything = "\n".join(process.lines)
    assert str(INPUT) not in everything
    assert MARK not in everything
    assert process.errors == ""


@in_loop
async def test_the_access_log_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(Settings(model=ASKER / "k215_model.h5", access_log=False))
    caplog.clear()
    async with started(app):
        await call(app, "/predict", one(ROW))
    assert caplog.records == []


@in_loop
async def test_a_path_is_cut_and_its_control_characters_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(Settings(model=ASKER / "k215_model.h5"))
    for path in ("/\x1b[2J\nGET /fine 200", "/" + "x" * 5000):
        assert (await call(app, path)).status == 404
        line = caplog.records[-1].getMessage()
        assert line.isprintable()
        assert len(line) < 300


@in_loop
async def test_a_path_with_blanks_is_no_record_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await call(create_app(Settings(model=ASKER / "k215_model.h5")), "/x 200 ms=0.1 rows=1")
    assert caplog.records[-1].getMessage() == "GET '/x 200 ms=0.1 rows=1' 404"


@in_loop
async def test_a_request_behind_a_slow_batch_says_how_long_it_waited(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = app_of(max_batch_rows=1)
    layer = with_echo(app)
    layer.seconds[9.0] = 0.02
    async with started(app):
        job = queued(app, 9)
        assert (await call(app, "/predict", row_of(1))).status == 200
        await job.future
    record = caplog.records[-1].fields  # type: ignore[attr-defined]
    assert record["queue_ms"] >= 20
    assert record["compute_ms"] > 0
    assert record["queue_ms"] != record["compute_ms"]
    assert record["ms"] >= record["queue_ms"] + record["compute_ms"]


@in_loop
async def test_a_traceparent_of_any_bytes_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = app_of()
    for given, kept in (("a" * 200, "a" * 200), ("a" * 201, "a" * 200), ("a" * 5000, "a" * 200), ("\xe9", "\xc3\xa9")):
        assert (await call(app, "/nowhere", headers={"traceparent": given})).status == 404
        assert caplog.records[-1].fields["traceparent"] == kept  # type: ignore[attr-defined]


def test_what_a_body_makes_python_warn_of_goes_nowhere() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1or 2, 20, 15)}"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with Process(ASKER / "k215_model.h5", PYTHONWARNINGS="") as process:
        kind = {"content-type": "application/x-npy"}
        reply = ask("POST", f"{process.url}/predict/batch", content=body, headers=kind)
    assert reply.status_code == 400
    assert process.errors == ""


def test_json_line() -> None:
    made = json.loads(logs.JsonFormatter().format(record_of("a\nb", fields={"rows": 2, "odd": {1}})))
    assert made.pop("time")
    assert made == {"level": "info", "logger": "lstm_serve.x", "message": "a\nb", "rows": 2, "odd": "{1}"}


def test_an_exception_is_in_its_line() -> None:
    try:
        int("why")
    except ValueError:
        record = record_of(exc_info=sys.exc_info())
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]
    text = logs.TextFormatter().format(record)
    assert text.splitlines()[-1].startswith("ValueError: invalid literal")


def test_text_line() -> None:
    text = logs.TextFormatter().format(record_of(fields={"ms": 1.5, "rows": 2, "request_id": "abc", "path": "/x"}))
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    hello ms=1.5 rows=2 request_id=abc", text)
    assert logs.TextFormatter().format(record_of()).endswith("hello")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    straight = LogHandler.straight
    found, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, disabled = found.handlers[:], found.level, uvicorn.disabled
    yield found
    found.handlers[:], uvicorn.disabled = handlers, disabled
    found.setLevel(level)
    LogHandler.straight = straight


@contextmanager
def written() -> Iterator[tuple[int, int]]:
    """The ends of a pipe, the one that reads first: it does not wait, and gives a write each time."""
    reading, writing = os.pipe2(os.O_DIRECT)
    os.set_blocking(reading, False)
    os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def writes(reading: int) -> list[str]:
    """What has been written by now, write by write."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reading, PIPE_BUF):
            found.append(part.decode())
    return found


def read(reading: int) -> list[str]:
    """The lines that have been written by now."""
    return "".join(writes(reading)).splitlines()


@pytest.mark.parametrize(("terminal", "begin"), [(True, r"\d\d:\d\d:\d\d warning x$"), (False, r'\{"time"')])
@pytest.mark.usefixtures("root")
def test_a_terminal_gets_text_and_anything_else_json(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool, begin: str
) -> None:
    reading, writing = os.openpty() if terminal else os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        logs.configure()
        logging.getLogger("uvicorn.error").warning("x")
        logs.log_request("id", "GET", "/", 200, 0.1)
        said = b""
        while said.count(b"\n") < 2:
            said += reader.read(1000)
    warning, request = said.decode().splitlines()
    assert re.match(begin, warning)
    assert request.startswith("{") == warning.startswith("{")


@in_loop
async def test_the_lines_of_a_turn_are_written_together_and_none_waits_for_the_next() -> None:
    with written() as (reading, writing):
        lines = LogHandler(writing)
        for line in "abc":
            lines.put(line)
        assert writes(reading) == []
        await asyncio.sleep(0)
        assert writes(reading) == ["a\nb\nc\n"]
        lines.put("d")
        lines.handle(record_of("e"))
        lines.handle(logging.LogRecord("lstm_serve.x", logging.WARNING, "x.py", 1, "f", (), None))
        assert writes(reading) == ["d\ne\nf\n"]
        await asyncio.sleep(0)
        await asyncio.to_thread(lines.put, "from a thread")
        lines.put("the last")
        lines.flush()
        await asyncio.sleep(0)
        assert writes(reading) == ["from a thread\n", "the last\n"]


@in_loop
async def test_no_more_is_written_together_than_a_pipe_takes_whole() -> None:
    sent = ["x" * 200, "\u00e9" * 300, "x" * 9000] * 4
    with written() as (reading, writing):
        lines = LogHandler(writing)
        for line in sent:
            lines.put(line)
        await asyncio.sleep(0)
        found = writes(reading)
    assert "".join(found).splitlines() == sent
    assert all(len(one.encode()) <= PIPE_BUF for one in found)
    assert sum(one.endswith("\n") for one in found) < len(sent)


def test_without_a_loop_a_line_is_written_on_the_spot() -> None:
    with written() as (reading, writing):
        LogHandler(writing).handle(record_of("hello"))
        assert writes(reading) == ["hello\n"]


@pytest.mark.usefixtures("root")
def test_a_request_is_logged_the_same_with_a_record_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with written() as (reading, writing), os.fdopen(os.dup(writing), "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        logs.configure()
        logs.log_request("id", "GET", "/a b", 200, 0.25, rows=3)
        monkeypatch.setattr(LogHandler, "straight", None)
        logs.log_request("id", "GET", "/a b", 200, 0.25, rows=3)
        straight, record = (json.loads(line) for line in read(reading))
    assert straight.pop("time") <= record.pop("time")
    assert straight == record
    assert straight["message"] == "GET '/a b' 200"


@pytest.mark.parametrize("waits", [True, False])
@in_loop
async def test_a_full_pipe_is_not_waited_for_and_its_lines_stay_whole(root: logging.Logger, *, waits: bool) -> None:
    dropped = list[None]()
    with written() as (reading, writing):
        os.set_blocking(writing, waits)
        lines = LogHandler(writing, count=lambda: dropped.append(None))
        root.handlers[:] = [lines]
        sent = [f"{number:05} {'x' * (number * 7 % 6000)}" for number in range(2000)]
        for line in sent:
            lines.put(line, now=True)
        kept = len(sent) - len(dropped)
        assert 0 < kept < len(sent)
        found, last = "", f"{len(dropped)} lines of the log were dropped before this one: there was no room for them"
        while not found.endswith(f"{last}\n"):
            found += "".join(writes(reading))
            await asyncio.sleep(0.01)
    assert found.splitlines() == [*sent[:kept], last]


def test_lines_that_are_written_make_room_for_others() -> None:
    dropped = list[None]()
    with written() as (reading, writing):
        lines = LogHandler(writing, count=lambda: dropped.append(None))
        for _ in range(20):
            for _ in range(20):
                lines.put("x" * 4000)  # of which the last ones wait
            lines.put("y" * 100_000)
            while found := writes(reading):
                lines.flush()
        assert found == []
    assert dropped == []


def test_the_turn_to_write_is_passed_on_between_lines_alone() -> None:
    with written() as (reading, writing):
        lines, turns = LogHandler(writing), list[str]()

        def take() -> bool:
            turns.append("take")
            return True

        lines.take = take
        lines.give = lambda: turns.append("give")
        for line in ("x" * 200_000, "y"):
            lines.put(line)
        assert turns == ["take", "take"]
        found = ""
        while not found.endswith("y\n"):
            found += "".join(writes(reading))
            lines.flush()
    assert (turns.count("give"), turns[-1]) == (1, "give")


def test_a_full_disk_is_told_of_once_and_the_log_goes_on_when_there_is_room(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with written() as (reading, writing):
        lines = LogHandler(writing)
        with Path("/dev/full").open("wb") as full:
            disk = os.dup(writing)
            os.dup2(full.fileno(), writing)
            for line in "abc":
                lines.put(line)
            os.dup2(disk, writing)
            os.close(disk)
        said = capsys.readouterr()
        assert said.out == ""
        wrong = "lstm-serve: the log cannot be written: No space left on device. "
        assert said.err == f"{wrong}Its lines are kept, up to 1 MiB, then dropped, until it can\n"
        lines.put("d")
        assert read(reading) == list("abcd")
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_left_is_written_to_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = LogHandler(writing)
    for level in (logging.INFO, logging.ERROR, logging.INFO):
        lines.handle(logging.LogRecord("lstm_serve.x", level, "x.py", 1, "f", (), None))
    lines.close()
    os.close(writing)
    assert capsys.readouterr() == ("", "")


def filled(descriptor: int) -> None:
    """Fill a pipe."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b" " * PIPE_BUF)
    os.set_blocking(descriptor, True)


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment(LSTMSERVE_MODEL=str(ASKER / "k215_model.h5"), LSTMSERVE_PORT=str(port)),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    said = b""
    while b"running on" not in said:
        said += os.read(reading, 1 << 16)
    filled(writing)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:

        def dropped() -> float:
            lines = client.get("/metrics").text.splitlines()
            return next(
                float(line.split()[1]) for line in lines if line.startswith("lstmserve_log_lines_dropped_total")
            )

        assert dropped() == 0
        asked = f"GET /{'x' * 200} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {'x' * 128}\r\ntraceparent: {'x' * 200}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            while dropped() < 10:
                connection.sendall(asked.encode() * 100)
                answers = b""
                while answers.count(b"HTTP/1.1 404") < 100:
                    answers += connection.recv(1 << 16)
                assert client.get("/livez").status_code == 200
        command.terminate()
    assert command.wait(PATIENCE) == 0
    assert command.stderr is not None
    with command.stderr as errors:
        assert errors.read() == b""
    os.close(writing)
    with os.fdopen(reading, "rb") as rest:
        for line in rest.read().strip().splitlines():
            json.loads(line)
