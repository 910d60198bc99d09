"""How a request's body is read: whole and inflated, and given up as soon as it is over a limit."""

import asyncio
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from lstm_serve.errors import QueueFull, TooLarge
from lstm_serve.serving.memory_budget import TOLD_SECONDS, TOO_MANY, Held, Upload
from lstm_serve.serving.state import ServingState
from lstm_serve.serving.turns import Turn
from lstm_serve.web.inflate import inflate
from lstm_serve.web.leaving import unless_left
from lstm_serve.web.nested_lists import LARGE

SCATTERED = 1 << 22  # bytes that are free in small pieces, after which they are given back where much is in flight


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, serving: ServingState) -> bytes:
    """The body as it came; its bytes are in flight until the caller releases them.

    Raises TooLarge, QueueFull for too many bytes in flight, or ClientDisconnect.
    """
    limit, declared = serving.settings.max_body_bytes, int(headers.get(b"content-length", 0))
    if declared > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are read")
    raw, more = await _part(receive)
    if more:
        try:
            return await _rest(raw, receive, serving, declared or limit)
        except QueueFull:
            raw = b""  # and the parts go with the error
        await asyncio.sleep(TOLD_SECONDS)
        raise QueueFull(TOO_MANY)
    _expect_size(len(raw), limit)
    serving.budget.hold(len(raw))
    return raw


async def inflated(raw: bytes, request: Request, serving: ServingState, held: Held, turn: Turn) -> bytes:
    """What the body holds; its bytes are `held` now. One that is large has its turn then.

    Raises TooLarge, QueueFull for too many bytes in flight or large bodies, DeadlinePassed, UnknownType, Malformed, or
    ClientDisconnect.
    """
    limit, encoding = serving.settings.max_body_bytes, request.scope["state"]["headers"].get(b"content-encoding")
    if encoding is None or not raw or (encoding := encoding.strip().lower()) == b"identity":
        if len(raw) > LARGE:
            await unless_left(turn.begin(), request.receive)
        return raw
    try:
        plain = inflate(raw, encoding, min(limit, LARGE))
    except TooLarge:
        if limit <= LARGE:
            raise
        serving.turns.check_room()
        await unless_left(turn.begin(), request.receive)
        plain = inflate(raw, encoding, limit)
    held.become(len(plain))
    return plain


async def _rest(part: bytes, receive: Receive, serving: ServingState, expected: int) -> bytes:
    """The whole body, of which a part has come, and no more than `expected` bytes should."""
    parts, came, more = [part], len(part), True
    inflight, limit = serving.budget, serving.settings.max_body_bytes
    async with Upload(inflight, serving.settings.deadline_seconds) as upload:
        await upload.hold(came, expected)
        while more:
            part, more = await _part(receive)
            came += len(part)
            _expect_size(came, limit)
            await upload.hold(len(part), expected)
            parts.append(part)
    raw = b"".join(parts)
    if inflight.freed > SCATTERED and inflight.bytes > inflight.limit / 2:
        # What the parts took is free, but in pieces that no large body fits into: it would stay beside all of those.
        # With less in flight there is room for both, and a body would cost an eighth more.
        parts.clear()
        inflight.trim()
    return raw


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """What has come of the body, and whether there is more to come. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _expect_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"the body is over {limit} bytes; at most so many are read")
