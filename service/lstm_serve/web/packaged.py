"""Files that come in a package, kept in memory: those of the pages."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from mimetypes import guess_type

from fastapi.responses import Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

PIECE = 1 << 16  # bytes


class Pieces(Response):
    """What is large, and the same for all, sent piece by piece, without a copy for who does not read.

    A file is in memory. The threads that would read it from disk for a thousand clients kept 150 MB.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for at in range(0, len(body), PIECE):
            more = at + PIECE < len(body)
            await send({"type": "http.response.body", "body": body[at : at + PIECE], "more_body": more})
            await asyncio.sleep(0)  # others have their turn


def file_of(package: str, name: str, headers: Mapping[str, str]) -> Callable[[Request], Awaitable[Response]]:
    """What answers with a package's file, to whom it is not there already; it is read when it is asked for first."""

    async def file(request: Request) -> Response:
        tag = _tag(package, name)
        told = {**headers, "etag": f'"{tag}"'}
        if _is_there(request, tag):
            return Response(status_code=304, headers=told)
        return Pieces(content(package, name), headers=told, media_type=guess_type(name)[0])

    return file


def _is_there(request: Request, tag: str) -> bool:
    """Whether a client has what has this tag, by If-None-Match: RFC 9110, 13.1.2."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag in re.findall('"([^"]*)"', given)


@lru_cache
def _tag(package: str, name: str) -> str:
    """What changes with the bytes of a package's file."""
    return hashlib.sha256(content(package, name)).hexdigest()[:32]


@lru_cache
def content(package: str, name: str) -> bytes:
    """The bytes of a package's file."""
    return (files(package) / name).read_bytes()
