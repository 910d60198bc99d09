"""What a client may do to a connection, byte by byte, and that nothing accepted is lost. Over real sockets."""

import contextlib
import gzip
import json
import os
import re
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from load import request
from serving import ASKER, COMMAND, PATIENCE, Process, ask, read_all, until

pytestmark = pytest.mark.long

MODEL = ASKER / "k215_model.h5"
BODY = json.dumps({"sequence": [[0.1] * 15] * 20}).encode()
GOOD = request("/predict", BODY)
LAST = request("/predict", BODY, "Connection: close\r\n")
SLOW = request("/predict/batch", json.dumps({"sequences": [[[0.1] * 15] * 20] * 1024}).encode())


LIMITS = {
    "LSTMSERVE_MAX_CONNECTIONS": "10",
    "LSTMSERVE_MAX_HEADER_BYTES": "4096",
    "LSTMSERVE_MAX_INFLIGHT_BYTES": "100000",
    "LSTMSERVE_MAX_BODY_BYTES": "100000",
    "LSTMSERVE_MAX_QUEUE_ROWS": "1024",
}


def timed(header: str, body: str, keep_alive: str) -> dict[str, str]:
    names = ("HEADER_SECONDS", "BODY_SECONDS", "KEEP_ALIVE_SECONDS")
    return {f"LSTMSERVE_{name}": value for name, value in zip(names, (header, body, keep_alive), strict=True)}


@pytest.fixture(scope="module")
def hasty() -> Iterator[Process]:
    """A service with low limits and short times: for what does not come."""
    with Process(MODEL, **LIMITS, **timed("1", "1", "2")) as process:
        yield process
    assert process.popen.returncode == 0


@pytest.fixture(scope="module")
def limited() -> Iterator[Process]:
    """A service with low limits and long times, however long a busy machine takes to send what it is to take."""
    with Process(MODEL, **LIMITS, **timed("3600", "3600", "3600")) as process:
        yield process
    assert process.popen.returncode == 0


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def counted(process: Process, reason: str) -> float:
    text = ask("GET", f"{process.url}/metrics").text
    found = re.search(rf'^lstmserve_rejected_total\{{reason="{reason}"\}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def come(connection: socket.socket) -> bytes:
    """What has come on a connection that is closed, or reset, after it."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            came += part
    return came


# Time.


CHUNKED = b'POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"seq'
UNFINISHED: dict[str, tuple[bytes, list[int]]] = {
    "nothing": (b"", []),
    "a line": (b"POST /predict HTT", [408]),
    "headers": (GOOD[:60], [408]),
    "a body": (GOOD[:-1], [408]),
    "a chunk": (CHUNKED, [408]),
    "the next headers": (GOOD + GOOD[:60], [200, 408]),
    "the next body": (GOOD + GOOD[:-1], [200, 408]),
    "another request": (GOOD, [200]),
    "what follows a blank line": (GOOD + b"\r\n", [200]),
}


def test_what_does_not_come_is_not_waited_for(hasty: Process) -> None:
    before = counted(hasty, "too-slow")
    waiting = {}
    for name, (sent, _) in UNFINISHED.items():
        waiting[name] = hasty.connect()
        waiting[name].sendall(sent)
    came = {name: statuses(read_all(connection)) for name, connection in waiting.items()}
    for connection in waiting.values():
        connection.close()
    assert came == {name: answered for name, (_, answered) in UNFINISHED.items()}
    assert counted(hasty, "too-slow") == before + sum(answered.count(408) for answered in came.values())


def test_a_body_that_does_not_come_is_a_408_in_the_log_too(hasty: Process) -> None:
    assert statuses(hasty.raw(request("/predict", BODY, "X-Request-Id: late\r\n")[:-1])) == [408]
    assert hasty.wait_for('"request_id":"late".*"status":408')


def test_what_is_refused_below_the_app_has_an_id_and_a_line_too(hasty: Process) -> None:
    for sent, status in ((GOOD[:60], 408), (b"GET / HTTP/1.1\r\nx: " + b"x" * 5000, 431), (GOOD[:-1], 408)):
        (given,) = re.findall(rb"x-request-id: (\S+)\r\n", hasty.raw(sent))
        line = json.loads(hasty.wait_for(rf'.*"request_id":"{given.decode()}".*')[0])
        assert line["status"] == status


def test_who_leaves_before_pipelined_answers_leaves_no_error(limited: Process) -> None:
    with limited.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request("/predict", BODY, "X-Request-Id: left\r\n") * 20)
    limited.wait_for('"request_id":"left"')
    assert statuses(limited.raw(LAST)) == [200]
    assert not any('"level":"error"' in line for line in limited.lines)


def drip(connection: socket.socket, data: bytes) -> None:
    """Send it again and again until the service has closed the connection; that it does not is a failure."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            connection.sendall(data)
            time.sleep(0.1)
        except OSError:
            return
    pytest.fail("the connection is still open")


@pytest.mark.parametrize("early", [b"POST /nothing HTTP/1.1", b"POST /predict HTTP/1.1"])
def test_a_body_that_drips_after_its_answer_is_not_waited_for(hasty: Process, early: bytes) -> None:
    head = early + b"\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    with hasty.connect() as connection:
        connection.sendall(head)
        drip(connection, b" ")


def test_blank_lines_do_not_keep_a_connection(hasty: Process) -> None:
    with hasty.connect() as connection:
        connection.sendall(GOOD)
        drip(connection, b"\r\n")


PAGE = request("/openapi.json")
LAST_PAGE = request("/openapi.json", None, "Connection: close\r\n")


def test_who_reads_slowly_gets_everything() -> None:
    with Process(MODEL, LSTMSERVE_BODY_SECONDS="3") as process, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.connect(("127.0.0.1", process.port))
        connection.sendall(PAGE * 70 + LAST_PAGE)
        parts = []
        while part := connection.recv(1 << 15):
            parts.append(part)
            time.sleep(0.02)
    assert statuses(b"".join(parts)) == [200] * 71


@pytest.mark.parametrize("last", [LAST_PAGE, b"what is not HTTP\r\n\r\n"], ids=["closed", "refused"])
def test_who_does_not_read_is_not_waited_for(hasty: Process, last: bytes) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(10):  # as many as there may be
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            connection.connect(("127.0.0.1", hasty.port))
            connection.sendall(PAGE * 90 + last)
        end = time.monotonic() + PATIENCE
        while statuses(hasty.raw(LAST)) != [200]:
            assert time.monotonic() < end
            time.sleep(0.1)


COSTLY = gzip.compress(
    json.dumps({"sequences": [[[1] * 15] * 20] * 1024}, separators=(",", ":")).encode()[:-5] + b"null]]]}"
)


def test_large_bodies_leave_turns_to_others(service: Process) -> None:
    """Few bytes that are much work: compressed, and wrong in their last number."""
    sent = request("/predict/batch", COSTLY, "Content-Encoding: gzip\r\n")
    with contextlib.ExitStack() as held, httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        assert client.get("/livez").status_code == 200
        attackers = [held.enter_context(service.connect()) for _ in range(20)]
        for connection in attackers:
            connection.sendall(sent * 2)
        answered, refused = 0, 0
        while refused < 40:
            readable, _, _ = select.select(attackers, [], [], 0)
            refused += sum(connection.recv(1 << 16).count(b"HTTP/1.1 422") for connection in readable)
            assert client.get("/livez").status_code == 200
            answered += 1
        assert answered >= 20


# Size and number.


def test_a_refusal_can_be_read_while_the_body_is_still_sent(limited: Process) -> None:
    for path, status in (("/predict", 413), ("/nothing", 404)):
        for _ in range(10):
            came = limited.raw(request(path, b" " * 6_000_000, "Connection: close\r\n"))
            assert statuses(came) == [status]
            assert came.endswith(b"}")


def test_headers_at_and_over_their_limit(limited: Process) -> None:
    before = counted(limited, "headers-too-large")
    assert statuses(limited.raw(request("/predict", BODY, f"X: {'x' * 3900}\r\nConnection: close\r\n"))) == [200]
    for headers in (f"X: {'x' * 4096}\r\n", "X: y\r\n" * 1100, f"{'x' * 5000}: y\r\n"):
        assert statuses(limited.raw(request("/predict", BODY, headers))) == [431]
        assert statuses(limited.raw(GOOD + request("/predict", BODY, headers) + GOOD)) == [200, 431]
    assert statuses(limited.raw(b"GET /" + b"x" * 5000)) == [431]
    assert statuses(limited.raw(b"CONNECT /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")) == [431]
    assert counted(limited, "headers-too-large") == before + 8
    assert not any(record["level"] == "error" for record in limited.records)


@pytest.mark.parametrize("size", [1, 1000, 3000, 100_000])
def test_headers_are_as_long_in_many_packets_as_in_one(limited: Process, size: int) -> None:
    for count, status in ((400, 200), (500, 431)):
        data = request("/predict", BODY, "".join(f"x{k:03}: y\r\n" for k in range(count)) + "Connection: close\r\n")
        with limited.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(data), size):
                connection.sendall(data[at : at + size])
            assert statuses(read_all(connection)) == [status]


CHUNKED_WHOLE = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n"


@pytest.mark.parametrize("path", [b"/predict", b"/nothing"])
@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 100, b"a" * 600])
def test_trailers_have_an_end(limited: Process, path: bytes, trailers: bytes) -> None:
    before = counted(limited, "headers-too-large"), counted(limited, "too-slow")
    with limited.connect() as connection, httpx.Client(base_url=limited.url, timeout=PATIENCE) as client:
        connection.sendall(CHUNKED_WHOLE % (path, len(BODY), BODY))
        with contextlib.suppress(ConnectionError):  # what is refused already is closed
            for _ in range(20):
                connection.sendall(trailers)
                client.get("/livez")  # so that it comes by itself
        assert statuses(come(connection)) == [431 if path == b"/predict" else 404]
    assert (counted(limited, "headers-too-large"), counted(limited, "too-slow")) == (before[0] + 1, before[1])


def test_trailers_are_no_headers(limited: Process) -> None:
    trailers = b"X-Request-Timeout-Ms: 0\r\nX-Request-Id: trailer\r\n\r\n"
    came = limited.raw(CHUNKED_WHOLE % (b"/predict", len(BODY), BODY) + trailers + LAST)
    assert statuses(came) == [200, 200]
    assert b"trailer" not in came


def test_too_many_connections(limited: Process) -> None:
    """Who is new takes the place of who has waited longest: for a body, or where none does, for nothing."""
    before = ended(limited)

    def idle() -> socket.socket:
        connection = limited.connect()
        connection.sendall(GOOD)
        assert connection.recv(12) == b"HTTP/1.1 200"
        return connection

    held = [idle() for _ in range(10)]
    assert statuses(limited.raw(LAST)) == [200]
    assert b"HTTP/1.1" not in read_all(held[0])
    half = limited.connect()
    half.sendall(GOOD[:-1])
    while not select.select([half], [], [], 0)[0]:  # for a while it may just be on its way, and others go
        held.append(idle())
        assert statuses(limited.raw(LAST)) == [200]
        time.sleep(0.1)
    assert statuses(read_all(half)) == [503]
    for connection in (half, *held):
        connection.close()
    assert ended(limited)["idle"] > before["idle"]
    assert ended(limited)["body"] == before["body"] + 1


def ended(process: Process) -> Counter[str]:
    """How many connections were ended, by what they waited for."""
    text = ask("GET", f"{process.url}/metrics").text
    found = re.findall(r'^lstmserve_connections_ended_total\{state="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return Counter({state: int(float(count)) for state, count in found})


@pytest.mark.parametrize("sent", [b"", b"G", GOOD[:-1], GOOD + GOOD[:40]], ids=["nothing", "a byte", "a body", "next"])
def test_half_requests_lock_nobody_out(sent: bytes) -> None:
    with Process(MODEL, LSTMSERVE_MAX_CONNECTIONS="20") as process, contextlib.ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(process.connect())
            connection.sendall(sent)
            if sent.startswith(GOOD):  # until it is answered, its place is well used
                assert connection.recv(1)
        for _ in range(5):
            assert statuses(process.raw(LAST)) == [200]
        assert ended(process).total() >= 80


def test_few_files_are_few_connections() -> None:
    command = ["bash", "-c", 'ulimit -n 64; exec "$@"', "sh", *COMMAND]
    with Process(MODEL, command=command) as process, contextlib.ExitStack() as held:
        process.wait_for("at most 32 connections, not 1000: 64 open files are allowed")
        for _ in range(200):
            held.enter_context(process.connect())
        for _ in range(5):
            assert statuses(process.raw(LAST)) == [200]


def test_a_next_request_is_not_begun_before_the_last_answer_is_out() -> None:
    with Process(MODEL) as process, contextlib.ExitStack() as held:
        status = Path(f"/proc/{process.popen.pid}/status")
        ask("GET", f"{process.url}/openapi.json")
        before = resident(status)
        for _ in range(300):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", process.port))
            connection.sendall(PAGE * 60)
        for _ in range(5):
            assert statuses(process.raw(LAST)) == [200]
            assert resident(status) < before + 60


BUNDLE = request("/docs/swagger-ui-bundle.js")
LONG_HEADS = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (k, b"a" * 90) for k in range(300))


@pytest.mark.parametrize(
    "sent", [BUNDLE * 5, GOOD * 60, LONG_HEADS, SLOW[:400_000]], ids=["docs", "posts", "heads", "body"]
)
def test_a_flood_at_once_takes_the_budget_and_little_more(sent: bytes) -> None:
    with Process(MODEL, LSTMSERVE_MAX_INFLIGHT_BYTES=str(4 << 20)) as process, contextlib.ExitStack() as held:
        ask("GET", f"{process.url}/docs/swagger-ui-bundle.js")
        status = Path(f"/proc/{process.popen.pid}/status")
        before = resident(status)
        os.kill(process.popen.pid, signal.SIGSTOP)  # so that all of them are there in one iteration of the loop
        for _ in range(100):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", process.port))
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(sent)
        behind = held.enter_context(process.connect())
        behind.sendall(LAST)
        os.kill(process.popen.pid, signal.SIGCONT)
        assert statuses(read_all(behind)) == [200]
        for _ in range(5):
            assert statuses(process.raw(LAST)) == [200]
            assert resident(status) < before + 30
        until(lambda: ended(process).total() + counted(process, "queue-full") > 0)
        assert resident(status) < before + 30


def test_who_sends_slowly_makes_room_for_the_others(limited: Process) -> None:
    before = counted(limited, "queue-full")
    held = []
    for _ in range(6):
        connection = limited.connect()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n"
        connection.sendall(head + b" " * 29_999)
        held.append(connection)
        assert statuses(limited.raw(LAST)) == [200]
    answers = [read_all(connection) for connection in held[:3]]
    for connection in held[3:]:
        connection.sendall(b" ")
        answers.append(read_all(connection))
    assert [statuses(answer) for answer in answers] == [[429]] * 3 + [[400]] * 3
    assert b"retry-after: 1\r\n" in answers[0]
    for connection in held:
        connection.close()
    assert counted(limited, "queue-full") == before + 3


def test_bodies_that_wait_behind_other_requests_are_not_read_on() -> None:
    """A hundred requests, and a body without end after them: each answer let a quarter of a MiB more of it in."""
    body = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    with Process(MODEL) as process:
        status = Path(f"/proc/{process.popen.pid}/status")
        before = resident(status)
        for _ in range(3):
            held = [process.connect() for _ in range(8)]
            unsent = {connection: memoryview(PAGE * 90 + body + b" " * (32 << 20)) for connection in held}
            end = time.monotonic() + 1
            while time.monotonic() < end:
                for connection in select.select([], held, [], 0.1)[1]:
                    unsent[connection] = unsent[connection][connection.send(unsent[connection], socket.MSG_DONTWAIT) :]
            most = resident(status)
            for connection in held:
                connection.close()
            assert most - before < 60
        assert statuses(process.raw(LAST)) == [200]
        assert process.errors == ""


def resident(status: Path) -> int:
    """The MiB that a process holds."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0]) >> 10


# Order: answers come as the requests did.


def test_pipelined_requests_are_answered_in_order(service: Process) -> None:
    many = [request("/predict", BODY, f"X-Request-Id: n{k}\r\n") for k in range(50)]
    came = service.raw(b"".join(many) + LAST)
    assert statuses(came) == [200] * 51
    assert re.findall(rb"x-request-id: n(\d+)", came) == [b"%d" % k for k in range(50)]


def test_however_many_are_pipelined(service: Process) -> None:
    came = service.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 5000 + LAST)
    assert statuses(came) == [200] * 5001
    assert came.count(b"connection: close") == 1


@pytest.mark.parametrize("last", [b"1.0\r\nConnection: keep-alive", b"1.1\r\nHost: x\r\nConnection: close"])
def test_nothing_after_the_last_request_is_looked_at(service: Process, last: bytes) -> None:
    """Each was begun, and wrote to a connection that was closed for writing."""
    for _ in range(3):
        assert statuses(service.raw(b"GET /livez HTTP/%s\r\n\r\n" % last * 5000)) == [200]
    assert statuses(service.raw(LAST)) == [200]
    assert not any('"level":"error"' in line for line in service.lines)


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0, x"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_nothing_is_upgraded(limited: Process, protocol: str, size: int) -> None:
    """The body of `curl --http2 -d` is a body, and no request of its own."""
    headers = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n"
    data = request("/predict", BODY, headers) + request("/livez", None, headers) + request("/predict", GOOD, headers)
    with limited.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data + LAST), size):
            connection.sendall((data + LAST)[at : at + size])
        assert statuses(read_all(connection)) == [200, 200, 400, 200]
    assert not any("websockets" in line for line in limited.lines)


@pytest.mark.parametrize(("target", "status"), [("/predict", 405), ("x:80", 400)])
def test_nothing_is_connected(limited: Process, target: str, status: int) -> None:
    assert statuses(limited.raw(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + GOOD)) == [status]


def test_a_trailer_may_end_the_connection(limited: Process) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    came = limited.raw(head + b"%x\r\n%s\r\n0\r\nConnection: close\r\n\r\n" % (len(BODY), BODY))
    assert statuses(came) == [200]
    assert came.count(b"connection: close") == 1


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Host: x\r\nHost: x\r\n",
        b"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: identity\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ],
)
def test_odd_framing_is_refused(service: Process, headers: bytes) -> None:
    came = service.raw(b"POST /predict HTTP/1.1\r\n" + headers + b"\r\n0\r\n\r\n" + GOOD)
    assert statuses(came) == [400]
    assert b"connection: close" in came


def test_http_1_0_needs_no_host_and_has_no_chunks(service: Process) -> None:
    assert statuses(service.raw(b"GET /livez HTTP/1.0\r\n\r\n")) == [200]
    chunked = b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert statuses(service.raw(chunked)) == [400]


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
def test_other_versions_of_http_are_refused(limited: Process, version: bytes) -> None:
    assert statuses(limited.raw(GOOD.replace(b"HTTP/1.1", b"HTTP/" + version))) == [400]
    assert statuses(limited.raw(GOOD + GOOD.replace(b"HTTP/1.1", b"HTTP/" + version))) == [200, 400]


def test_what_is_not_http_after_an_early_answer_is_no_error(limited: Process) -> None:
    early = b"POST /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: early\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(limited.raw(early)) == [400]
    assert '"status":400' in limited.wait_for('.*"request_id":"early".*')[0]
    assert not any('"level":"error"' in line for line in limited.lines)


def test_what_waits_behind_answers_that_are_read_slowly_is_answered_and_counted_once() -> None:
    with Process(MODEL, LSTMSERVE_BODY_SECONDS="2", LSTMSERVE_HEADER_SECONDS="2") as process, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        slow.settimeout(PATIENCE)
        slow.connect(("127.0.0.1", process.port))
        slow.sendall(PAGE * 70 + GOOD * 20 + GOOD[:-1])
        came = b""
        while part := slow.recv(1 << 15):
            came += part
            time.sleep(0.01)
        assert statuses(came) == [200] * 90 + [408]
        assert counted(process, "too-slow") == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"\x16\x03\x01 rubbish\r\n\r\n",
        b"POST /predict HTTP/9.9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nbad header\r\n\r\n",
        GOOD.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX"),
    ],
)
def test_what_cannot_be_read_does_not_take_the_answers_before_it(limited: Process, broken: bytes) -> None:
    assert statuses(limited.raw(GOOD + GOOD + broken + GOOD))[:2] == [200, 200]
    with limited.connect() as connection:
        connection.sendall(broken + GOOD)
        assert statuses(read_all(connection))[0] == 400
    assert statuses(limited.raw(LAST)) == [200]


# Stopping.


def test_what_has_come_is_answered_when_the_service_stops() -> None:
    """SIGTERM while requests compute, are half sent, or have only begun."""
    with Process(MODEL, LSTMSERVE_BODY_SECONDS="3600", LSTMSERVE_GRACE_SECONDS="3600") as process:
        idle, computing, pipelined, half_body, half_head = (process.connect() for _ in range(5))
        idle.sendall(GOOD)
        assert idle.recv(12) == b"HTTP/1.1 200"
        for connection, sent in ((half_body, GOOD[:-1]), (half_head, GOOD[:40]), (computing, SLOW)):
            connection.sendall(sent)
        pipelined.sendall(SLOW + GOOD * 3)
        process.signal(signal.SIGTERM)
        process.wait_for("SIGTERM: stopping")
        half_body.sendall(GOOD[-1:])
        assert statuses(read_all(computing)) == [200]
        assert statuses(read_all(pipelined)) == [200] * 4
        assert statuses(read_all(half_body)) == [200]
        assert statuses(read_all(half_head)) == [503]
        read_all(idle)
        assert process.ended() == 0
        for connection in (idle, computing, pipelined, half_body, half_head):
            connection.close()


def test_while_it_drains_each_answer_ends_its_connection() -> None:
    with Process(MODEL, LSTMSERVE_DRAIN_SECONDS="60") as process:
        kept = process.connect()
        kept.sendall(GOOD)
        assert kept.recv(12) == b"HTTP/1.1 200"
        process.signal(signal.SIGTERM)
        process.wait_for("SIGTERM: stopping")
        kept.sendall(GOOD + GOOD)
        came = read_all(kept)
        kept.close()
        assert statuses(came)[-2:] == [200, 200]
        assert came.count(b"connection: close") == 1
        ready = ask("GET", f"{process.url}/readyz")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert ask("GET", f"{process.url}/livez").status_code == 200
        process.signal(signal.SIGTERM)
        assert process.ended() == 128 + signal.SIGTERM


def test_a_client_that_never_finishes_does_not_keep_the_service() -> None:
    with Process(MODEL, LSTMSERVE_BODY_SECONDS="3600", LSTMSERVE_GRACE_SECONDS="1") as process:
        half = process.connect()
        half.sendall(GOOD[:-1])
        ask("GET", process.url + "/livez")
        process.signal(signal.SIGTERM)
        assert statuses(read_all(half)) == [503]
        assert process.ended() == 0
        half.close()


# Weight: a large body that cannot be good is not parsed.


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/predict", b'{"sequence":[%s0]}' % (b"[]," * 100_000), 422, "got 100001 lists"),
        ("/predict", b'{"sequence":[%s0]}' % (b"1," * 200_000), 422, "200001 numbers"),
        ("/predict", b'{"sequence":[%s0]}' % (b'"",' * 100_000), 422, "100001 texts"),
        ("/predict", b'{"sequence":[%s0]}' % (b"{}," * 100_000), 422, "100001 objects"),
        ("/predict/batch", b'{"sequences":[%s0]}' % (b"[]," * 100_000), 413, "at most 1024 sequences"),
        ("/predict/batch", b'{"sequences":[%s0]}' % (b"{}," * 100_000), 422, "100001 objects"),
        ("/predict", b'{"sequence":%s' % (b"[" * 300_000), 400, "not every list and object in it is closed"),
        ("/predict", BODY.ljust(2 << 20), 200, "probabilities"),
    ],
    ids=["lists", "numbers", "texts", "objects", "sequences", "objects in a batch", "open lists", "blanks"],
)
def test_a_large_body_is_weighed(service: Process, path: str, content: bytes, status: int, words: str) -> None:
    response = ask("POST", service.url + path, content=content)
    assert response.status_code == status
    assert words in response.text
    assert len(response.content) < 4096
