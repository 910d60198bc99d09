"""What takes long to make and is the same for all: made in a thread, once for all who ask meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class MadeOnce(Generic[T]):
    """It, once somebody has asked for it."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Where `make` raises, whoever asks next tries again."""
        self._make = make
        self._made: T | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        """Return it. Raises as `make` does.

        Of those who have waited one goes on in each iteration of the event loop: were it all of them, a thousand
        answers would be written before the first one is counted.
        """
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made
