"""Requests at the edge of HTTP/1.1, as other implementations read them: h11, and HAProxy where it is installed.

Two that see other requests in the same bytes are the beginning of request smuggling. So what one of them refuses the
service refuses as well, and where both go on, they see as many requests.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest
from chaos import HAPROXY, haproxy
from serving import ASKER, PATIENCE, Process, read_all

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /nothing HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
ODD = {
    "plain": GET + b"\r\n",
    "body": POST + b"Content-Length: 5\r\n\r\nhello",
    "body of a GET": GET + b"Content-Length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunk extension": CHUNKED + b'\r\n5;a="b"\r\nhello\r\n0;c\r\n\r\n',
    "trailers": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "trailer with a length": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "blank line first": b"\r\n" + GET + b"\r\n",
    "empty value": GET + b"A:\r\n\r\n",
    "blanks around a value": GET + b"A: \t b \t\r\n\r\n",
    "latin-1 in a value": GET + b"A: \xe9\r\n\r\n",
    "absolute form": b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form without path": b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "length twice, the same": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length twice in one": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "length twice, other": POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "length with an underscore": POST + b"Content-Length: 0_5\r\n\r\nhello",
    "empty length": POST + b"Content-Length: \r\n\r\nhello",
    "endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "length and chunks": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "blank before a colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "blank in a name": GET + b"A b: c\r\n\r\n",
    "no name": GET + b": c\r\n\r\n",
    "no colon": GET + b"abc\r\n\r\n",
    "folded": GET + b"A: b\r\n c\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "blank before the first": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    "zero in a value": GET + b"A: b\x00c\r\n\r\n",
    "return in a value": GET + b"A: b\rc\r\n\r\n",
    "feeds alone": GET.replace(b"\r\n", b"\n") + b"\n",
    "one feed alone": GET + b"A: b\n\r\n",
    "return alone": GET + b"A: b\r\r\n\r\n",
    "coding in capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
    "coding of another": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding with gzip": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding with a comma": POST + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "coding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "size with a sign": CHUNKED + b"\r\n+5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "size with blanks": CHUNKED + b"\r\n5  \r\nhello\r\n0\r\n\r\n",
    "blank before a size": CHUNKED + b"\r\n 5\r\nhello\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\n\r\nhello\r\n0\r\n\r\n",
    "endless size": CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"\r\n5\r\nhello!\r\n0\r\n\r\n",
    "feed after a size": CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "feed after a chunk": CHUNKED + b"\r\n5\r\nhello\n0\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "host twice": GET + b"Host: x\r\n\r\n",
    "blanks in the line": b"GET  /livez  HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab in the line": b"GET\t/livez\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "blank in the target": b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /livez\r\nHost: x\r\n\r\n",
    "version 1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "version 2": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    "version of two digits": b"GET /livez HTTP/1.10\r\nHost: x\r\n\r\n",
    "version in small letters": b"GET /livez http/1.1\r\nHost: x\r\n\r\n",
    "method in small letters": b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown method": b"ABCD /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "method with a colon": b"GE:T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "latin-1 in the target": b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "zero in the target": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    with Process(ASKER / "k215_model.h5") as running:
        yield running


def answers(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", data)]


def read_by_h11(data: bytes) -> int | None:
    """How many requests it sees; None where it refuses one."""
    connection, count = h11.Connection(h11.SERVER), 0
    connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.EndOfMessage):
            count += 1
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return count
            connection.start_next_cycle()
        elif event is h11.NEED_DATA:
            return count


# RFC 9112 lets a server read these (2.2, 3), and HAProxy does; h11 is stricter.
LENIENT = {"blank line first", "blanks in the line"}


@pytest.mark.parametrize("name", ODD)
def test_what_h11_refuses_is_refused_or_one_of_two(process: Process, name: str) -> None:
    ours = answers(process.raw(ODD[name] + LAST))
    assert ours[-1] in {200, 400}
    if 400 not in ours:
        seen = read_by_h11(ODD[name] + LAST)
        assert (seen is None) == (name in LENIENT)
        assert len(ours) == (2 if seen is None else seen)


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed (Debian: haproxy)")
def test_haproxy_sees_no_other_requests(process: Process, tmp_path: Path) -> None:
    with haproxy(tmp_path, [process.port]) as front:
        for name, odd in ODD.items():
            ours = answers(process.raw(odd + LAST))
            with socket.create_connection(("127.0.0.1", front), PATIENCE) as connection:
                connection.sendall(odd + LAST)
                theirs = answers(read_all(connection))
            assert 400 in ours or ours == theirs, name


def test_a_url_of_a_host_alone_is_that_of_its_root(process: Process) -> None:
    for target in (b"http://x", b"http://x?a=b"):
        head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert process.raw(head % target).split(b"\r\n")[0] == process.raw(head % b"/").split(b"\r\n")[0]
    assert not any('"level":"error"' in line for line in process.lines)
