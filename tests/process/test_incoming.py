"""What comes on a connection is cut into pieces of which none goes beyond the end of a request."""

from typing import Any

from httptools import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from lstm_serve.process.incoming import PIECE, Incoming
from lstm_serve.process.transport import body_length

LINES = st.lists(st.sampled_from([b"a: b\r\n", b"x: \r\n", b"long: " + b"y" * PIECE + b"\r\n"]), max_size=3).map(
    b"".join
)
BODIES = st.one_of(
    st.lists(st.sampled_from([b"\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x", b"z" * PIECE])).map(b"".join),
    st.binary(max_size=40),
)


def whole(body: bytes, lines: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n%s" % (lines, len(body), body)


def chunked(chunks: list[bytes], lines: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%s0\r\n%s\r\n" % (parts, lines)


REQUESTS = st.one_of(
    st.builds(whole, BODIES, LINES),
    st.builds(chunked, st.lists(BODIES, max_size=3), LINES),
    LINES.map(lambda lines: b"\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n%s\r\n" % lines),
)


class Reading:
    """A parser, and what it has found."""

    def __init__(self) -> None:
        self.parser: Any = HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.left = self.ends = 0

    def on_message_begin(self) -> None:
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.left = body_length("1.1", self.headers)

    def on_body(self, body: bytes) -> None:
        self.left = max(0, self.left - len(body))

    def on_message_complete(self) -> None:
        self.ends += 1


@given(st.lists(REQUESTS, min_size=1, max_size=4), st.lists(st.integers(0, 200), max_size=6))
@example([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] * 2, [26])
@example([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] * 2, [27])
def test_no_piece_goes_beyond_the_end_of_a_request(requests: list[bytes], sizes: list[int]) -> None:
    data, incoming, reading = b"".join(requests), Incoming(), Reading()
    ends = {len(b"".join(requests[: count + 1])) for count in range(len(requests))}
    taken = b""
    for size in [*sizes, len(data)]:
        come, data = data[:size], data[size:]
        incoming.add(come)
        while incoming.waiting:
            before, kept = reading.ends, incoming.waiting
            piece = incoming.take(reading.left)
            assert 0 < len(piece) <= PIECE
            assert incoming.waiting == kept - len(piece)
            reading.parser.feed_data(piece)
            taken += piece
            assert reading.ends - before == (len(taken) in ends)
        assert incoming.size < 4
    assert taken == b"".join(requests)
    assert reading.ends == len(requests)


def test_a_body_that_is_dropped_is_taken_at_once_and_no_more_than_it() -> None:
    head, rest, incoming = whole(b"z" * (5 * PIECE), b""), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", Incoming()
    incoming.add(head + rest)
    body = 5 * PIECE
    assert len(incoming.take(0)) == len(head) - body
    assert incoming.take(body) == b"z" * PIECE
    assert incoming.take(body - PIECE, body - PIECE) == b"z" * (body - PIECE)
    assert incoming.take(0) == rest
