"""The log: one JSON object a line, one line a request, no input in it."""

import asyncio
import errno
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from select import PIPE_BUF
from typing import Any

import httpx
import pytest
from serving import ASKER, PATIENCE, Process, call, in_loop, started
from test_app import app_of, queued, row_of, with_echo
from test_http import MARK, many, one

from service import logs
from service.app import create_app
from service.settings import Settings

INPUT = 0.8436512
ROW = [[INPUT] * 15] * 20


def record_of(message: str = "hello", **more: Any) -> logging.LogRecord:
    record = logging.LogRecord("service.x", logging.INFO, "x.py", 1, message, (), None)
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
    assert {"uvicorn.error", "service.live", "service.access", "service.server"} <= {r["logger"] for r in records}
    assert any(r["message"] == "Invalid HTTP request received." for r in records)
    requests = [record for record in records if record["logger"] == "service.access"]
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
    record = caplog.records[-1].request  # type: ignore[attr-defined]
    assert record["queue_ms"] >= 20
    assert record["compute_ms"] > 0
    assert record["queue_ms"] != record["compute_ms"]
    assert record["ms"] >= record["queue_ms"] + record["compute_ms"]


@in_loop
async def test_a_traceparent_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = app_of()
    for length, kept in ((200, 200), (201, 200), (5000, 200)):
        await call(app, "/nowhere", headers={"traceparent": "a" * length})
        assert caplog.records[-1].request["traceparent"] == "a" * kept  # type: ignore[attr-defined]


def test_json_line() -> None:
    made = json.loads(logs.JsonLines().format(record_of("a\nb", request={"rows": 2, "odd": {1}})))
    assert made.pop("time")
    assert made == {"level": "info", "logger": "service.x", "message": "a\nb", "rows": 2, "odd": "{1}"}


def test_an_exception_is_in_its_line() -> None:
    try:
        int("why")
    except ValueError:
        record = record_of(exc_info=sys.exc_info())
    line = logs.JsonLines().format(record)
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]
    text = logs.Text().format(record)
    assert text.splitlines()[-1].startswith("ValueError: invalid literal")


def test_text_line() -> None:
    text = logs.Text().format(record_of(request={"ms": 1.5, "rows": 2, "request_id": "abc", "path": "/x"}))
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    hello ms=1.5 rows=2 request_id=abc", text)
    assert logs.Text().format(record_of()).endswith("hello")


class Terminal(io.StringIO):
    """Standard output that a person reads along."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    straight = logs.Lines.straight
    found, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, disabled = found.handlers[:], found.level, uvicorn.disabled
    yield found
    found.handlers[:], uvicorn.disabled = handlers, disabled
    found.setLevel(level)
    logs.Lines.straight = straight


@pytest.mark.parametrize(("stream", "begin"), [(Terminal, r"\d\d:\d\d:\d\d warning x$"), (io.StringIO, r'\{"time"')])
def test_a_terminal_gets_text_and_anything_else_json(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger, stream: type[io.StringIO], begin: str
) -> None:
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    root.handlers[:] = []
    logs.configure()
    logging.getLogger("uvicorn.error").warning("x")
    logs.log_request("id", "GET", "/", 200, 0.1)
    warning, request = out.getvalue().splitlines()
    assert re.match(begin, warning)
    assert request.startswith("{") == warning.startswith("{")


class Writes(io.StringIO):
    """A stream that knows what was written, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return super().write(text)


@in_loop
async def test_the_lines_of_a_turn_are_written_together_and_none_waits_for_the_next() -> None:
    out = Writes()
    lines = logs.Lines(out)
    for line in "abc":
        lines.put(line)
    assert out.calls == []
    await asyncio.sleep(0)
    assert out.calls == ["a\nb\nc\n"]
    await asyncio.sleep(0)
    assert len(out.calls) == 1
    lines.put("d")
    lines.handle(record_of("e"))
    out.calls.clear()
    lines.handle(logging.LogRecord("service.x", logging.WARNING, "x.py", 1, "f", (), None))
    assert out.calls == ["d\ne\nf\n"]
    await asyncio.sleep(0)
    await asyncio.to_thread(lines.put, "from a thread")
    lines.put("the last")
    lines.flush()
    assert out.getvalue() == "a\nb\nc\nd\ne\nf\nfrom a thread\nthe last\n"


@in_loop
async def test_no_more_is_written_together_than_a_pipe_takes_whole() -> None:
    out = Writes()
    lines = logs.Lines(out)
    sent = ["x" * 200, "\u00e9" * 300, "x" * 9000] * 20
    for line in sent:
        lines.put(line)
    await asyncio.sleep(0)
    assert out.getvalue().splitlines() == sent
    assert len(out.calls) < len(sent)
    assert all(len(call.encode()) <= PIPE_BUF or call.count("\n") == 1 for call in out.calls)


def test_without_a_loop_a_line_is_written_on_the_spot() -> None:
    out = Writes()
    logs.Lines(out).handle(record_of("hello"))
    assert out.calls == ["hello\n"]


@pytest.mark.usefixtures("root")
def test_a_request_is_logged_the_same_with_a_record_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    logs.configure()
    logs.log_request("id", "GET", "/a b", 200, 0.25, rows=3)
    monkeypatch.setattr(logs.Lines, "straight", None)
    logs.log_request("id", "GET", "/a b", 200, 0.25, rows=3)
    straight, record = (json.loads(line) for line in out.getvalue().splitlines())
    assert straight.pop("time") <= record.pop("time")
    assert straight == record
    assert straight["message"] == "GET '/a b' 200"


class Failing(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


def test_what_cannot_be_written_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.Lines(Failing(OSError(errno.ENOSPC, "disk full"))).put("the line")
    said = capsys.readouterr().err
    assert "disk full" in said
    assert "the line" in said


def test_a_reader_that_has_left_is_written_to_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        lines = logs.Lines(stream)
        for level in (logging.INFO, logging.ERROR, logging.INFO):
            lines.handle(logging.LogRecord("service.x", level, "x.py", 1, "f", (), None))
    assert capsys.readouterr() == ("", "")
