"""How the process starts and stops."""

import signal
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from kerasfiles import dense, lstm, save_sequential
from native_requests import GOOD, many
from serving import ASKER, COMMAND, PATIENCE, ROOT, SMALL, Process, ask, read_all, until

from lstm_serve.process.server import welcome
from lstm_serve.settings import Settings

MODEL = ASKER / "k215_model.h5"
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(GOOD)
HALF = len(GOOD) // 2


def half_sent(process: Process) -> socket.socket:
    """A connection whose request has been accepted and has not come whole."""
    connection = process.connect()
    connection.sendall(HEAD + GOOD[:HALF])
    # One that came later and is answered: the half request has been seen.
    assert ask("GET", f"{process.url}/livez").status_code == 200
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    drain = "5" if number == signal.SIGINT else "0"
    with Process(MODEL, LSTMSERVE_DRAIN_SECONDS=drain) as process, process.connect():
        process.signal(number)
        assert process.ended() == 0
    assert process.errors == ""
    # A Ctrl-C waits for no drain.
    assert f"{number.name}: stopping in 0 s" in [record["message"] for record in process.records]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no shell")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_needs_no_standard_input_and_no_standard_error(workers: str) -> None:
    command = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *COMMAND]
    with Process(MODEL, command, LSTMSERVE_WORKERS=workers) as process:
        assert ask("POST", f"{process.url}/predict", content=GOOD).status_code == 200
        process.signal(signal.SIGTERM)
        assert process.ended() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="which files a process has open is told by /proc")
def test_it_ends_while_a_model_is_read_again(tmp_path: Path) -> None:
    # HDF5 has a lock, which the thread that reads may hold as the interpreter ends.
    path = save_sequential(tmp_path / "deep.h5", [lstm(), *(dense(units=4) for _ in range(400))], [2, 3])
    with Process(path, LSTMSERVE_DRAIN_SECONDS="0") as process:
        descriptors = Path("/proc", str(process.popen.pid), "fd")
        process.signal(signal.SIGHUP)
        until(lambda: any(is_of(path, descriptor) for descriptor in descriptors.iterdir()), every=0.001)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    assert process.errors == ""


def is_of(path: Path, descriptor: Path) -> bool:
    """Whether an open file is this one; it may be closed by now."""
    try:
        return descriptor.readlink() == path
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="macOS lets 128 wait")
def test_hundreds_wait_to_be_accepted(service: Process) -> None:
    # Who finds no room would try again after a second; to one that is stopped, in vain.
    with ExitStack() as connected:
        service.signal(signal.SIGSTOP)
        try:
            connections = [connected.enter_context(service.connect()) for _ in range(300)]
        finally:
            service.signal(signal.SIGCONT)
        for connection in connections:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_what_was_accepted_is_finished() -> None:
    with Process(MODEL) as process, half_sent(process) as connection:
        process.signal(signal.SIGTERM)
        process.wait_for("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            process.connect()
        connection.sendall(GOOD[HALF:])
        answer = read_all(connection)
        assert process.ended() == 0
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in answer
    assert b'"predicted_class"' in answer
    assert process.errors == ""


def test_during_the_drain_it_answers_and_is_not_ready_until_a_second_signal_ends_it() -> None:
    batch = many(np.full((1000, 20, 15), 0.5).tolist())
    answers: list[httpx.Response] = []

    def post(url: str) -> None:
        answers.append(ask("POST", f"{url}/predict/batch", content=batch))

    with Process(MODEL, LSTMSERVE_DRAIN_SECONDS="3600") as process:
        with httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
            assert "connection" not in client.get("/readyz").headers
            process.signal(signal.SIGTERM)
            process.wait_for("stopping in 3600 s")
            threads = [threading.Thread(target=post, args=(process.url,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            ready = client.get("/readyz?verbose")
            assert (ready.status_code, ready.json()["checks"]["accepting"]) == (503, False)
            assert client.get("/livez").status_code == 200
            one = client.post("/predict", content=GOOD)
            assert (one.status_code, one.headers["connection"]) == (200, "close")
            for thread in threads:
                thread.join(PATIENCE)
        with half_sent(process):  # which a second signal does not wait for
            process.signal(signal.SIGTERM)
            assert process.ended() == 128 + signal.SIGTERM
    assert [len(answer.json()["predictions"]) for answer in answers] == [1000] * 3
    assert process.errors == ""


def test_a_ctrl_c_in_the_drain_ends_it_at_once() -> None:
    with Process(MODEL, LSTMSERVE_DRAIN_SECONDS="60") as process, half_sent(process):
        process.signal(signal.SIGTERM)
        process.wait_for("stopping in 60 s")
        process.signal(signal.SIGINT)
        assert process.ended() == 128 + signal.SIGINT


def test_what_does_not_finish_within_the_grace_is_answered_503() -> None:
    with Process(MODEL, LSTMSERVE_GRACE_SECONDS="1") as process, half_sent(process) as connection:
        process.signal(signal.SIGTERM)
        answer = read_all(connection)
        assert process.ended() == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"urn:lstm-serve:unavailable" in answer
    assert "Traceback" not in process.errors + "".join(process.lines)


def fails(model: Path, **variables: str) -> Process:
    """A process that does not come to serve: one message, and exit status 3."""
    process = Process(model, **variables)
    assert process.ended() == 3
    assert not any("running on" in line for line in process.lines)
    assert "Traceback" not in process.errors
    return process


def test_a_model_that_is_not_there() -> None:
    process = fails(Path("nothing.h5"))
    assert "nothing.h5: there is no such file" in process.errors.splitlines()[-1]
    assert not any("is one model" in line for line in process.lines)


def test_a_model_that_misses_its_golden_predictions(tmp_path: Path) -> None:
    (tmp_path / "binary.h5").write_bytes((SMALL / "binary.h5").read_bytes())
    with np.load(SMALL / "binary.golden.npz") as golden:
        np.savez(tmp_path / "binary.golden.npz", x=golden["x"], y=golden["y"] + np.float32(0.01))
    said = fails(tmp_path / "binary.h5").errors.splitlines()[-1]
    assert "misses its golden predictions in binary.golden.npz by up to 0.01" in said


def test_a_port_in_use(service: Process) -> None:
    process = fails(MODEL, LSTMSERVE_PORT=str(service.port))
    assert process.errors == ""
    said = f"cannot listen on 127.0.0.1:{service.port}: Address already in use; --host and --port take others"
    assert said in [record["message"] for record in process.records]
    assert "Traceback" not in "".join(process.lines)


@pytest.mark.parametrize(
    ("settings", "docs", "first"),
    [
        ({}, "http://127.0.0.1:7/docs", "curl http://127.0.0.1:7/model"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:7/docs", "curl http://127.0.0.1:7/model"),
        ({"host": "::"}, "http://[::1]:7/docs", "curl http://[::1]:7/model"),
        ({"host": "fe80::1"}, "http://[fe80::1]:7/docs", "curl http://[fe80::1]:7/model"),
        (
            {"api_keys": "secret", "tls_certfile": "cert.pem"},
            "https://127.0.0.1:7/docs (it needs a key, unless --open-docs)",
            "curl -H 'Authorization: Bearer KEY' https://127.0.0.1:7/model",
        ),
    ],
)
def test_a_person_is_told_where_to_begin(settings: dict[str, str], docs: str, first: str) -> None:
    told = welcome(Settings(model=MODEL, **settings), 7)  # type: ignore[arg-type]
    assert told == [f"the API, to read and to try: {docs}", f"a first request: {first}"]
    example = ROOT / "models" / "turbofan.example.json"
    told = welcome(Settings(model=ROOT / "models" / "turbofan.h5"), 7)
    assert told[1] == f"a first request: curl -d @{example} http://127.0.0.1:7/predict"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_every_address_there_is_is_that_of_both_families() -> None:
    with Process(MODEL, LSTMSERVE_HOST="::") as process:
        for address in ("127.0.0.1", "[::1]"):
            assert ask("GET", f"http://{address}:{process.port}/readyz").status_code == 200
        also = fails(MODEL, LSTMSERVE_HOST="::", LSTMSERVE_PORT=str(process.port))
    assert any("already in use" in record["message"] for record in also.records)
    assert process.popen.returncode == 0
