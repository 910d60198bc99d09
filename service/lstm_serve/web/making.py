"""What takes long to make and is the same for all: made in a thread, once for all who ask meanwhile."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def making(begun: asyncio.Task[T] | None, make: Callable[[], T]) -> asyncio.Task[T]:
    """Return the task that has begun to make it; a new one where there is none, or it has failed."""
    if begun is None or (begun.done() and (begun.cancelled() or begun.exception() is not None)):
        begun = asyncio.create_task(asyncio.to_thread(make))
    return begun
