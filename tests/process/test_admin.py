"""Health and metrics on a port of their own."""

import contextlib
import re
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from native_requests import GOOD
from serving import ASKER, PATIENCE, Process, ask, read_all

from lstm_serve.process import admin
from lstm_serve.process.admin import MAX_CONNECTIONS, Admin
from lstm_serve.serving.health import READY

MODEL = ASKER / "k215_model.h5"


def admin_url(process: Process) -> str:
    return f"http://127.0.0.1:{process.wait_for(r'health and metrics on http://127.0.0.1:([0-9]+)')[1]}"


def test_a_full_house_hides_no_health() -> None:
    with (
        Process(MODEL, LSTMSERVE_ADMIN_PORT="0", LSTMSERVE_MAX_CONNECTIONS="1", LSTMSERVE_API_KEYS="k" * 20) as process,
        process.connect() as held,
    ):
        held.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (b"k" * 20))
        url = admin_url(process)
        assert ask("GET", f"{url}/livez").json() == {"status": "ok"}
        ready = ask("GET", f"{url}/readyz?verbose").json()
        assert ready == {
            "status": "ok",
            "checks": {"model": True, "batching": True, "accepting": True, "loop": True},
        }
        metrics = ask("GET", f"{url}/metrics")
        assert "lstmserve_queue_rows" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain")
        held.sendall(b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(GOOD), GOOD))
        assert read_all(held).startswith(b"HTTP/1.1 200 ")


def test_it_tells_what_the_other_port_tells(tmp_path: Path) -> None:
    model = tmp_path / "model.h5"
    shutil.copy(MODEL, model)
    with Process(model, LSTMSERVE_ADMIN_PORT="0", LSTMSERVE_SERIES_STORE="redis://127.0.0.1:1/0") as process:
        rows = {"rows": [[0.5] * 15]}
        assert ask("POST", f"{process.url}/series/a/rows", json=rows).status_code == 503
        model.write_bytes(b"damaged")
        process.signal(signal.SIGHUP)
        process.wait_for("answered by what is loaded")
        for path in ("/livez", "/readyz"):
            here, there = (ask("GET", f"{url}{path}?verbose").json() for url in (admin_url(process), process.url))
            assert here.pop("checks") == {**there.pop("checks"), "loop": True}
            assert here == there
            assert (here["status"], here["series_store"]) == ("ok", False)
            assert "model.h5" in here["refused"]


def test_series_expire_on_the_loop_while_they_are_counted_in_its_thread() -> None:
    ttl = {"LSTMSERVE_SERIES_TTL_SECONDS": "0.001"}
    with (
        Process(MODEL, LSTMSERVE_ADMIN_PORT="0", **ttl) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        url = admin_url(process)

        def counted() -> list[str]:
            text = ask("GET", f"{url}/metrics").text
            return re.findall(r"(?m)^lstmserve_series(?:_expired_total)?\{.*\} (.+)$", text)

        for k in range(0, 200, 10):
            body = {"rows": [{"series": f"s{k + number}", "row": [0.5] * 15} for number in range(10)]}
            assert [each["rows"] for each in client.post("/series/rows", json=body).json()["results"]] == [1] * 10
            counted()
        end = time.monotonic() + PATIENCE
        while sorted(counted()) != ["0.0", "200.0"]:  # without another row
            assert time.monotonic() < end, counted()
            time.sleep(0.1)


def test_it_tells_of_the_drain() -> None:
    with Process(MODEL, LSTMSERVE_ADMIN_PORT="0", LSTMSERVE_DRAIN_SECONDS="60") as process:
        url = admin_url(process)
        process.signal(signal.SIGTERM)
        process.wait_for("stopping in 60 s")
        for path in READY:
            assert ask("GET", f"{url}{path}").status_code == 503
        assert ask("GET", f"{url}/livez").status_code == 200
        process.signal(signal.SIGTERM)
        assert process.ended() == 128 + signal.SIGTERM


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_is_no_fault(workers: str) -> None:
    paths = {"/livez": 200, "/readyz": 503, "/metrics": 200}
    with (
        Process(MODEL, LSTMSERVE_ADMIN_PORT="0", LSTMSERVE_WORKERS=workers) as process,
        ThreadPoolExecutor(2 * len(paths)) as pool,
    ):
        port = int(admin_url(process).rpartition(":")[2])

        def until_it_ends(path: str) -> set[int]:
            answered = set[int]()
            with contextlib.suppress(OSError, IndexError):  # no answer: it has ended
                while True:
                    head = asked(("127.0.0.1", port), f"GET {path} HTTP/1.1\r\n\r\n".encode())
                    answered.add(int(head.split()[1]))
            return answered

        asking = [pool.submit(until_it_ends, path) for path in 2 * [*paths]]
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
        for path, answered in zip(2 * [*paths], asking, strict=True):
            assert answered.result() <= {200, paths[path]}
    assert not any(record["level"] == "error" for record in process.records)
    assert not process.errors


def test_a_port_that_is_taken(service: Process) -> None:
    process = Process(MODEL, LSTMSERVE_ADMIN_PORT=str(service.port))
    assert process.ended() == 3
    assert any("--admin-port takes another" in record["message"] for record in process.records)
    assert "Traceback" not in process.errors + "".join(process.lines)


BEATS = {"loop": True}


@pytest.fixture(scope="module")
def alone() -> Any:
    """The listener, in this process; the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    health = {"/livez": (lambda: BEATS, 500), "/raises": (dict[str, bool]().copy, 503)}
    Admin(health, dict, lambda: ("a/b", b"c")).start(listener)
    return listener.getsockname()


def asked(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(data)
        return read_all(connection)


def test_a_loop_that_hangs_is_told(alone: tuple[str, int]) -> None:
    ask = b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n"
    assert asked(alone, ask).startswith(b"HTTP/1.1 200 OK\r\n")
    BEATS["loop"] = False
    try:
        came = asked(alone, ask)
    finally:
        BEATS["loop"] = True
    assert came.startswith(b"HTTP/1.1 500 ")
    assert came.endswith(b'{"status":"failing","checks":{"loop":false}}')


@pytest.mark.parametrize(
    ("request_line", "status"), [(b"HEAD /livez", 200), (b"GET /nothing", 404), (b"POST /livez", 405), (b"", 405)]
)
def test_other_requests(alone: tuple[str, int], request_line: bytes, status: int) -> None:
    assert asked(alone, request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


def test_what_is_asked_otherwise_is_answered_as_http_has_it(alone: tuple[str, int]) -> None:
    head, _, body = asked(alone, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert (b"\r\ncontent-length: 15\r\n" in head, body) == (True, b"")
    assert b"\r\nallow: GET, HEAD\r\n" in asked(alone, b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n")


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request takes too long."""
    monkeypatch.setattr(admin, "SECONDS", PATIENCE)


@pytest.mark.usefixtures("_patient")
def test_half_requests_keep_nobody_out(alone: tuple[str, int]) -> None:
    with contextlib.ExitStack() as held:
        half = [held.enter_context(socket.create_connection(alone, PATIENCE)) for _ in range(2 * MAX_CONNECTIONS)]
        for connection in half:
            with contextlib.suppress(ConnectionError):  # it had to go meanwhile
                connection.sendall(b"GET /li")
        assert asked(alone, b"GET /livez HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        # Who has waited longest has made room; who is answered takes none.
        assert not any(map(is_open, half[:MAX_CONNECTIONS]))
        assert all(map(is_open, half[MAX_CONNECTIONS + 1 :]))
        for _ in range(MAX_CONNECTIONS):
            assert asked(alone, b"GET /livez HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert is_open(half[-1])


def test_half_a_request_is_not_waited_for(alone: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "SECONDS", 0.01)
    assert asked(alone, b"GET /li") == b""


def test_too_long_a_head_is_not_read(alone: tuple[str, int]) -> None:
    with contextlib.suppress(ConnectionError):
        assert asked(alone, b"x" * 20_000) == b""


@pytest.mark.parametrize(("host", "more"), [("a" * 64, {}), ("a..b", {"LSTMSERVE_ADMIN_PORT": "0"})])
def test_a_host_that_is_no_name(host: str, more: dict[str, str]) -> None:
    process = Process(MODEL, LSTMSERVE_HOST=host, **more)
    assert process.ended() == 3
    assert any(record["message"].startswith("cannot listen on ") for record in process.records)
    assert "Traceback" not in process.errors + "".join(process.lines)
