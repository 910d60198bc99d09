"""Compressed request bodies, inflated within a bound."""

import zlib

from service.errors import Malformed, TooLarge, UnknownType

ENCODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
# Of zlib: tell gzip and zlib apart by their headers.
EITHER = 47


def inflate(raw: bytes, encoding: bytes, limit: int) -> bytes:
    """What a body holds that is compressed as its Content-Encoding says.

    Raises UnknownType, TooLarge once more than `limit` bytes would be held, or Malformed. One member alone is taken:
    thousands of tiny ones in a row would each cost as much as a large one.
    """
    if encoding not in ENCODINGS:
        raise UnknownType("expected the content encoding gzip or deflate, or none")
    stream = zlib.decompressobj(EITHER)
    try:
        plain = stream.decompress(raw, limit + 1)
    except zlib.error:
        raise Malformed("the body is damaged, or not compressed as its Content-Encoding says") from None
    if len(plain) > limit:
        raise TooLarge(f"the body holds more than {limit} bytes once it is inflated; at most so many are read")
    if not stream.eof or stream.unused_data:
        raise Malformed("the compressed body ends too early, or goes on after its end")
    return plain
