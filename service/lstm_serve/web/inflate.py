"""Compressed request bodies, inflated within a bound."""

import zlib

from lstm_serve.errors import Malformed, TooLarge, UnknownType

ENCODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
GZIP_MAGIC = b"\x1f\x8b"
# `wbits` of zlib: a gzip member, or a zlib stream, by its own header.
GZIP, ZLIB = 31, 15
# So much of the compressed body is given to zlib at once: what comes after a member's end, zlib copies.
PIECE = 1 << 16
# A member costs 5 us however little it holds, so there may be as many as bgzip's (64 KiB each) four times over.
FEW_MEMBERS, BYTES_A_MEMBER = 8, 1 << 14

DAMAGED = "the body is damaged, or not compressed as its Content-Encoding says"
CUT = "the compressed body ends too early, or goes on after its end"


def inflate(raw: bytes, encoding: bytes, limit: int) -> bytes:
    """What a body holds that is compressed as its Content-Encoding says.

    Members of gzip follow one another (RFC 1952, 2.2); a zlib stream (RFC 1950) stands alone. Which it is, the body's
    first bytes say: clients mix up the names. Raises UnknownType, TooLarge once more than `limit` bytes would be held,
    or Malformed.
    """
    if encoding not in ENCODINGS:
        raise UnknownType("expected the content encoding gzip or deflate, or none")
    most = FEW_MEMBERS + limit // BYTES_A_MEMBER if raw.startswith(GZIP_MAGIC) else 1
    parts: list[bytes] = []
    at = held = members = 0
    while at < len(raw) or not members:
        if members == most:
            raise Malformed(CUT if most == 1 else f"the compressed body has more than {most} members; send it as one")
        members += 1
        stream = zlib.decompressobj(ZLIB if most == 1 else GZIP)
        while not stream.eof:
            piece = raw[at : at + PIECE]
            if not piece:
                raise Malformed(CUT)
            try:
                parts.append(stream.decompress(piece, limit + 1 - held))
            except zlib.error:
                raise Malformed(DAMAGED if members == 1 else CUT) from None
            held += len(parts[-1])
            if held > limit:
                raise TooLarge(f"the body holds more than {limit} bytes once it is inflated; at most so many are read")
            at += len(piece) - len(stream.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
