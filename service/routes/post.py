"""How every POST is handled: one short way from bytes to bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from service.batching import Job
from service.engine.activations import Array
from service.engine.model import Model
from service.errors import Malformed, QueueFull, TooLarge, UnknownType
from service.live import Live
from service.routes import JSON, respond
from service.schemas import Body


class Answer(NamedTuple):
    """The bytes of a JSON answer, and the model that gave it."""

    content: bytes
    model: Model


Endpoint = Callable[[Body, Request], Awaitable[Answer]]


class PostRoute(APIRoute):
    """A POST whose endpoint takes a validated body and the request, and gives an Answer.

    FastAPI makes the OpenAPI document of the endpoint's types as of any other's. What it does around a call (130 us of
    dependencies and of validating once more) is left out: `handle` calls the endpoint itself.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, parse, call, answer. What goes wrong is raised, and answered in `middleware`."""
        if scope["method"] != "POST":
            raise HTTPException(405, "this path takes POST", {"Allow": "POST"})
        live: Live = scope["app"].state.live
        request = Request(scope, receive)
        live.batcher.check_room(1)
        raw = await read_body(scope["state"]["headers"], receive, live)
        size = len(raw)
        try:
            if live.batcher.queued_rows:
                live.batcher.check_room(rows_at_a_glance(raw, live.model))
            body = self._body_type.parse(raw)
            del raw  # it may wait long for its answer
            answer = await cast("Endpoint", self.endpoint)(body, request)
        finally:
            live.inflight_bytes -= size
        await respond(send, 200, answer.content, [JSON, (b"x-model-sha256", answer.model.origin.sha256.encode())])

    @property
    def _body_type(self) -> type[Body]:
        return cast("type[Body]", self.body_field.field_info.annotation)  # type: ignore[union-attr]


def rows_at_a_glance(raw: bytes, model: Model) -> int:
    """About how many sequences a body has, by its lists: under overload a refusal must cost less than an answer."""
    lists = 0
    for size in reversed(model.input_shape):
        if size is None:
            return 1
        lists = lists * size + 1 if lists else 1
    return max(1, (raw.count(b"[") - 1) // lists)


async def read_body(headers: dict[bytes, bytes], receive: Receive, live: Live) -> bytes:
    """The whole body, counted in `live.inflight_bytes`. Raises before more than the limit is held.

    Raises TooLarge, QueueFull for too many bytes in flight, UnknownType, Malformed for none, or ClientDisconnect.
    """
    limit, declared = live.settings.max_body_bytes, headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise TooLarge(f"the body has {int(declared)} bytes; at most {limit} are read")
    parts: list[bytes] = []
    held = 0
    try:
        async for part in _parts(receive):
            parts.append(part)
            held += len(part)
            live.inflight_bytes += len(part)
            _check_limits(held, live)
        raw = b"".join(parts)
        _expect_json(headers, raw)
    except BaseException:
        live.inflight_bytes -= held
        raise
    return raw


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _check_limits(held: int, live: Live) -> None:
    if held > live.settings.max_body_bytes:
        raise TooLarge(f"the body is over {live.settings.max_body_bytes} bytes; at most so many are read")
    if live.inflight_bytes > live.settings.max_inflight_bytes:
        raise QueueFull("too many bytes are being read and answered at once")


def _expect_json(headers: dict[bytes, bytes], raw: bytes) -> None:
    if not raw:
        raise Malformed("the body is empty; expected JSON")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnknownType("the body is compressed; expected it plain")
    declared = headers.get(b"content-type")
    if declared is None or declared == b"application/json":
        return
    kind = declared.split(b";", 1)[0].strip().lower()
    if kind in {b"application/json", b"text/json"} or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return
    # curl's -d declares a form.
    if kind == b"application/x-www-form-urlencoded" and raw.lstrip()[:1] == b"{":
        return
    raise UnknownType("expected the content type application/json")


async def computed(jobs: Sequence[Job], request: Request) -> list[Array]:
    """What the jobs of one request give, and their times into the request's state.

    While a job waits behind others its client is watched, so that rows nobody waits for any more are not computed.
    """
    try:
        return [await (_watched(job, request.receive) if job.waits else job.future) for job in jobs]
    finally:
        for job in jobs:
            job.abandon()
        request.scope["state"].update(
            rows=sum(len(job.x) for job in jobs),
            queue_seconds=jobs[0].queue_seconds,
            compute_seconds=sum(job.compute_seconds for job in jobs),
        )


async def _watched(job: Job, receive: Receive) -> Array:
    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        job.future.cancel()

    watch = asyncio.ensure_future(leaving())
    try:
        return await job.future
    except asyncio.CancelledError:
        if watch.done():
            raise ClientDisconnect from None
        raise
    finally:
        watch.cancel()
