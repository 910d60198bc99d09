"""How a request's body is read: whole and inflated, and given up as soon as it is over a limit."""

from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import TooLarge
from service.inflate import inflate
from service.inflight import Inflight, Upload
from service.live import Live


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, live: Live) -> bytes:
    """The body; its bytes are in flight until the caller releases them.

    Raises TooLarge, QueueFull for too many bytes in flight, UnknownType or Malformed for a compression, or
    ClientDisconnect.
    """
    limit, declared = live.settings.max_body_bytes, headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise TooLarge(f"the body has {int(declared)} bytes; at most {limit} are read")
    raw, more = await _part(receive)
    if more:
        raw = await _rest(raw, receive, live.inflight, limit)
    else:
        _expect_size(len(raw), limit)
        live.inflight.hold(len(raw))
    encoding = headers.get(b"content-encoding")
    if encoding is not None and raw and (encoding := encoding.strip().lower()) != b"identity":
        size = len(raw)
        try:
            raw = inflate(raw, encoding, limit)
            live.inflight.hold(len(raw))
        finally:
            live.inflight.release(size)
    return raw


async def _rest(part: bytes, receive: Receive, inflight: Inflight, limit: int) -> bytes:
    """The whole body, of which a part has come."""
    parts = [part]
    async with Upload(inflight) as upload:
        upload.hold(len(part))
        more = True
        while more:
            part, more = await _part(receive)
            _expect_size(upload.size + len(part), limit)
            upload.hold(len(part))
            parts.append(part)
    return b"".join(parts)


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """What has come of the body, and whether there is more to come. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _expect_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"the body is over {limit} bytes; at most so many are read")
