"""Functions that wait for what may hang, a mount or a pipe: off the event loop, and with a limit in time."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """Runs one function at a time in a thread of its own.

    A thread that hangs cannot be ended. It is left behind, no other is begun beside it, and the process does not wait
    for it when it ends, as it would for an executor's.
    """

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.busy = False

    async def run(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns.

        Raises what it raises, or TimeoutError where that took longer, where one that did is still running, or where no
        thread could be started.
        """
        if self.busy:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: Callable[[], None]) -> None:
            if not done.done():
                result()

        def work() -> None:
            result: Callable[[], None]
            try:
                result = functools.partial(done.set_result, function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever awaits it is told
                result = functools.partial(done.set_exception, error)
            self.busy = False
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result)

        self.busy = True
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:  # the system has no thread left, for now
            self.busy = False
            raise TimeoutError from None
        async with asyncio.timeout(seconds):  # before Python 3.12 wait_for may lose that its task was cancelled
            return await done
