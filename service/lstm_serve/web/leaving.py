"""Whether a client is still there, while the answer to its request, or its turn, is waited for."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def unless_left(what: Awaitable[T], receive: Receive) -> T:
    """What is waited for; cancelled where the client leaves before. Raises ClientDisconnect then."""
    waited = asyncio.ensure_future(what)

    async def leaving() -> None:
        await client_left(receive)
        waited.cancel()

    watch = asyncio.ensure_future(leaving())
    try:
        return await waited
    except asyncio.CancelledError:
        if watch.done():
            raise ClientDisconnect from None
        raise
    finally:
        watch.cancel()


async def client_left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
