"""Who may call: API keys and TLS, over a real socket."""

import contextlib
import json
import logging
import os
import re
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from apps import app_of
from serving import ASKER, PATIENCE, ROOT, Process, ask, call, in_loop, started

from lstm_serve.errors import SettingsError
from lstm_serve.settings import Settings, read
from lstm_serve.web import api_keys
from lstm_serve.web.api_keys import MAX_FILE_BYTES, Keys
from lstm_serve.web.boundary import open_paths

MODEL = ASKER / "k215_model.h5"
GOOD = json.dumps({"sequence": [[0.1] * 15] * 20}).encode()
FIRST, SECOND, THIRD = "first-key-0123456789", "second-key-9876543210", "third~key/+=._-0123"
HEALTH = ["/livez", "/readyz", "/health", "/healthz"]
DOCS = ["/docs", "/openapi.json"]


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {key}"}


def settings(**variables: str) -> Settings:
    return read({"LSTMSERVE_MODEL": "m.h5", **{f"LSTMSERVE_{k.upper()}": v for k, v in variables.items()}}, {})


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, httpx.Client, Path]]:
    """A service with one key of the environment and one of a file."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"{SECOND}\n\n")
    with (
        Process(MODEL, LSTMSERVE_API_KEYS=FIRST, LSTMSERVE_API_KEYS_FILE=str(file)) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        yield process, client, file
    assert not any(key in line for key in (FIRST, SECOND, THIRD) for line in process.lines)
    assert process.errors == ""


def test_without_a_key(closed: tuple[Process, httpx.Client, Path]) -> None:
    _, client, _ = closed
    for path in ("/predict", "/predict/batch", "/model", "/metrics", *DOCS, "/nothing", "/v1/models/x", "/v2"):
        response = client.request("POST" if "predict" in path else "GET", path, content=GOOD)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        body = response.json()
        if path.startswith("/v"):
            assert body.keys() == {"error"}
        else:
            assert response.headers["content-type"] == "application/problem+json"
            assert body["type"] == "urn:lstm-serve:unauthorized"
    for path in HEALTH:
        assert client.get(path).status_code == 200


def test_with_a_key(closed: tuple[Process, httpx.Client, Path]) -> None:
    _, client, _ = closed
    for key in (FIRST, SECOND):
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert client.post("/predict", content=GOOD, headers=bearer(key, scheme)).status_code == 200
    assert client.get("/metrics", headers=bearer(FIRST)).status_code == 200
    assert client.get("/openapi.json", headers=bearer(FIRST)).status_code == 200
    assert client.get("/nothing", headers=bearer(FIRST)).status_code == 404


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", FIRST, f"Basic {FIRST}", f"Bearer {FIRST}x", f"Bearer {FIRST[:-1]}", "Bearer \xe9",
     f"Bearer {FIRST.upper()}", f"Bearer {FIRST},{SECOND}", f"Bearer {FIRST} {SECOND}", "Bearer " + "x" * 8000],
)  # fmt: skip
def test_with_another(closed: tuple[Process, httpx.Client, Path], authorization: str) -> None:
    _, client, _ = closed
    response = client.post("/predict", content=GOOD, headers=[(b"authorization", authorization.encode("latin-1"))])
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    bearer_key = authorization.removeprefix("Bearer ") if re.fullmatch(r"Bearer [!-~]+", authorization) else None
    said = "expected the header Authorization: Bearer <key>"
    if bearer_key is not None:
        said = "the key in the header Authorization is none of those that are valid here"
        assert bearer_key not in response.text
    assert response.json()["detail"] == said
    assert FIRST not in response.text


def test_who_has_no_key_is_not_told_which_model_is_served(closed: tuple[Process, httpx.Client, Path]) -> None:
    _, client, _ = closed
    served = "/v2/models/k215_model"
    for headers in ({}, bearer(THIRD)):
        assert client.get(f"{served}/ready", headers=headers).status_code == 200
        for path in ("/v2/models/x/ready", "/v2/models/x/versions/1/ready", f"{served}/versions/7/ready"):
            response = client.get(path, headers=headers)
            assert (response.status_code, response.json()) == (404, {"error": "no such model is served here"})
    said = client.get("/v2/models/x/ready", headers=bearer(FIRST)).json()["error"]
    assert said == 'the model served here is "k215_model"'


def test_refusals_are_counted_and_the_file_is_read_again(closed: tuple[Process, httpx.Client, Path]) -> None:
    process, client, file = closed
    assert client.get("/model").status_code == 401
    metrics = client.get("/metrics", headers=bearer(FIRST)).text
    assert any(line.startswith('lstmserve_rejected_total{reason="unauthorized"}') for line in metrics.splitlines())
    file.write_text(f"{THIRD}\r\n{SECOND}")
    process.signal(signal.SIGHUP)
    process.wait_for("the keys were read again")
    assert client.get("/model", headers=bearer(THIRD)).status_code == 200
    assert client.get("/model", headers=bearer(SECOND)).status_code == 200
    file.write_text("\n")
    process.signal(signal.SIGHUP)
    process.wait_for("the keys stay as they were: .* holds no key")
    assert client.get("/model", headers=bearer(THIRD)).status_code == 200
    file.write_text(f"{SECOND}\n")
    process.signal(signal.SIGHUP)
    process.wait_for("the keys were read again", 2)
    assert client.get("/model", headers=bearer(THIRD)).status_code == 401


@in_loop
async def test_open_metrics_and_docs() -> None:
    app = app_of(MODEL, api_keys=FIRST, open_metrics=True, open_docs=True)
    async with started(app):
        assert (await call(app, "/metrics")).status == 200
        assert (await call(app, "/", headers={"accept": "text/html"})).status == 200
        document = (await call(app, "/openapi.json")).json
        assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
        assert document["paths"]["/predict"]["post"]["security"] == [{"key": []}]
        assert document["paths"]["/metrics"]["get"]["security"] == []
        assert document["paths"]["/readyz"]["get"]["security"] == []
        assert (await call(app, "/model")).status == 401


def test_keys_that_cannot_be() -> None:
    for given, words in (
        ("", "holds no key"),
        (" , ,", "holds no key"),
        ("good,two words", "key 2 in"),
        ("ké", "key 1"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            Keys(settings(api_keys=given))
        assert "words" not in str(caught.value)
        assert "é" not in str(caught.value)


def test_key_files_that_cannot_be(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, words in ((missing, "No such file"), (tmp_path, "Is a directory"), (binary, "is text in UTF-16")):
        with pytest.raises(SettingsError, match=words):
            Keys(settings(api_keys_file=str(path)))


def test_a_file_of_keys_over_its_limit_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = [secrets.token_hex(32) for _ in range(MAX_FILE_BYTES // 65 + 1)]
    last = made[-1][: MAX_FILE_BYTES - 65 * (len(made) - 1)]
    path.write_text("\n".join(made)[:MAX_FILE_BYTES])
    read = Keys(settings(api_keys_file=str(path)))
    for key, good in ((made[0], True), (last, True), (made[-1], False), (secrets.token_hex(32), False)):
        assert read.admit(f"Bearer {key}".encode()) is good
    for text in ("\n".join(made), "k" * MAX_FILE_BYTES + "é"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=f"is over {MAX_FILE_BYTES} bytes"):
            read.read()
    assert read.admit(f"Bearer {made[0]}".encode())


def test_a_key_is_compared_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[bool]()

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append(given == expected)
        return compared[-1]

    read = Keys(settings(api_keys=",".join(f"{FIRST}-{number}" for number in range(1000))))
    monkeypatch.setattr("hmac.compare_digest", compare)
    for key in (f"{FIRST}-999", f"{FIRST}-1000"):
        read.admit(f"Bearer {key}".encode())
    assert compared == [True, False]


@pytest.mark.parametrize("begin", ["\ufeff", ""])
def test_a_file_of_keys_as_windows_writes_it(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(f"{begin}{FIRST}\r\n{SECOND}\r\n".encode())
    read = Keys(settings(api_keys_file=str(path)))
    assert read.admit(f"Bearer {FIRST}".encode())
    assert read.admit(f"Bearer {SECOND}".encode())


def test_short_keys_are_warned_of_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    Keys(settings(api_keys=f"{FIRST},0123456789abcdef"))
    assert caplog.records == []
    read = Keys(settings(api_keys=f"{FIRST},0123456789abcde,x"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 of 3 keys in LSTMSERVE_API_KEYS have fewer than 16 characters, the first of them key 2:" in caplog.text
    assert "0123456789abcde" not in caplog.text
    assert read.admit(b"Bearer x")


def test_a_pipe_as_the_file_of_keys_stops_nothing(tmp_path: Path) -> None:
    """As an agent for secrets offers it, or a shell's <(...)."""
    path = tmp_path / "keys"
    os.mkfifo(path)

    def opened() -> int:
        """The pipe, once the service has begun to read it."""
        while process.popen.poll() is None:
            with contextlib.suppress(OSError):  # nobody reads it
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.01)
        raise AssertionError("the service has ended")

    def feed(pipe: int, key: str) -> None:
        os.write(pipe, f"{key}\n".encode())
        os.close(pipe)

    process = Process(MODEL, LSTMSERVE_API_KEYS_FILE=str(path))
    feed(opened(), FIRST)
    with process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        assert client.get("/model", headers=bearer(FIRST)).status_code == 200
        process.signal(signal.SIGHUP)
        pipe = opened()
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert client.get("/model", headers=bearer(FIRST)).status_code == 200
        feed(pipe, SECOND)
        process.wait_for("the keys were read again")
        assert client.get("/model", headers=bearer(FIRST)).status_code == 401
        assert client.get("/model", headers=bearer(SECOND)).status_code == 200
        process.signal(signal.SIGHUP)
        with os.fdopen(opened(), "w"):
            process.signal(signal.SIGTERM)
            assert process.ended() == 0


def test_a_pipe_of_keys_that_nobody_writes_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_SECONDS", 0.1)
    path = tmp_path / "keys"
    os.mkfifo(path)
    with pytest.raises(SettingsError, match=r"nothing came from it in 0\.1 seconds"):
        Keys(settings(api_keys_file=str(path)))


def test_series_of_keys_that_begin_alike_have_different_owners() -> None:
    shared = FIRST[:16].ljust(16, "x")
    keys = Keys(settings(api_keys=f"{shared}-of-one,{shared}-of-another"))
    owners = {keys.owner(f"Bearer {shared}{end}".encode()) for end in ("-of-one", "-of-another")}
    assert len(owners) == 2
    assert keys.owner(f"bearer  {shared}-of-one ".encode()) in owners


def test_secrets_do_not_show() -> None:
    chosen = settings(api_keys=FIRST)
    assert FIRST not in repr(chosen)
    assert FIRST not in chosen.model_dump_json()
    command = [sys.executable, "-m", "lstm_serve", "serve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "--api-keys-file" in shown.stdout
    assert "--api-keys " not in shown.stdout


def test_tls_and_its_health_check(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    variables = {"LSTMSERVE_TLS_CERTFILE": str(chain), "LSTMSERVE_TLS_KEYFILE": str(key)}

    def check(environ: dict[str, str]) -> int:
        command = [sys.executable, "-I", "-S", str(ROOT / "deploy" / "healthcheck.py")]
        return subprocess.run(command, env=environ, capture_output=True, timeout=PATIENCE, check=False).returncode

    with Process(MODEL, **variables) as process:
        port = {"LSTMSERVE_PORT": str(process.port)}
        assert check(variables | port) == 0
        assert check(port) == 1  # without TLS
        trusting = ssl.create_default_context(cafile=str(chain))
        with httpx.Client(base_url=f"https://127.0.0.1:{process.port}", verify=trusting, timeout=PATIENCE) as client:
            assert client.post("/predict", content=GOOD).status_code == 200
            assert client.post("/predict", content=b"").status_code == 400
    assert process.popen.returncode == 0
    assert check(variables | port) == 1


def test_a_new_certificate_is_read_on_sighup_and_a_wrong_one_is_not(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    with Process(MODEL, LSTMSERVE_TLS_CERTFILE=str(chain), LSTMSERVE_TLS_KEYFILE=str(key)) as process:
        before = ssl.get_server_certificate(("127.0.0.1", process.port), timeout=PATIENCE)
        good = key.read_bytes()
        key.write_text("no key")
        process.signal(signal.SIGHUP)
        process.wait_for(
            r"the TLS certificate stays as it was, what is there now \(.*\) cannot be used: no PEM, or the key"
        )
        assert ssl.get_server_certificate(("127.0.0.1", process.port), timeout=PATIENCE) == before
        key.write_bytes(good)
        made = ["openssl", "req", "-x509", "-key", str(key), "-days", "2", "-subj", "/CN=new", "-out", str(chain)]
        subprocess.run(made, check=True, capture_output=True)
        process.signal(signal.SIGHUP)
        process.wait_for("the TLS certificate was read again")
        after = ssl.get_server_certificate(("127.0.0.1", process.port), timeout=PATIENCE)
        assert after == chain.read_text() != before


def test_half_handshakes_take_places_and_lock_nobody_out(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    variables = {"LSTMSERVE_TLS_CERTFILE": str(chain), "LSTMSERVE_TLS_KEYFILE": str(key)}
    with Process(MODEL, LSTMSERVE_MAX_CONNECTIONS="10", **variables) as process, contextlib.ExitStack() as held:
        for _ in range(50):
            held.enter_context(process.connect()).sendall(b"\x16\x03\x01\x02\x00\x01")
        trusting = ssl.create_default_context(cafile=str(chain))
        url = f"https://127.0.0.1:{process.port}"
        assert ask("POST", f"{url}/predict", content=GOOD, verify=trusting).status_code == 200
        ended = re.search(
            r'connections_ended_total\{state="handshake"\} (\S+)',
            ask("GET", f"{url}/metrics", verify=trusting).text,
        )
        assert ended is not None
        assert float(ended[1]) >= 40


def test_a_handshake_that_does_not_come_is_not_waited_for(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    variables = {
        "LSTMSERVE_TLS_CERTFILE": str(chain),
        "LSTMSERVE_TLS_KEYFILE": str(key),
        "LSTMSERVE_HEADER_SECONDS": "1",
    }
    with Process(MODEL, **variables) as process, process.connect() as silent:
        assert silent.recv(1) == b""


def test_tls_that_cannot_be(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    with pytest.raises(SettingsError, match="TLS_KEYFILE is of no use without"):
        settings(tls_keyfile=str(key))
    missing = str(tmp_path / "missing")
    for variables, reason in (
        ({"LSTMSERVE_TLS_CERTFILE": missing}, f"({missing}) cannot be used: No such file"),
        ({"LSTMSERVE_TLS_CERTFILE": str(key)}, f"({key}) cannot be used: no PEM, or the key"),
        ({"LSTMSERVE_TLS_CERTFILE": str(chain), "LSTMSERVE_TLS_KEYFILE": str(chain)}, f"({chain}, {chain}) cannot be"),
    ):
        process = Process(MODEL, **variables)
        assert process.ended() != 0
        assert f"the TLS certificate or its key {reason}" in process.errors


def test_a_health_route_of_a_cloud_needs_no_key() -> None:
    assert "/up" in open_paths(settings(health_route="/up"))
    assert open_paths(settings()) == open_paths(settings(open_metrics="false"))
