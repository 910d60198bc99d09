"""BLAS told to compute in one thread while a model of this package does, in a process that is somebody else's.

A step's products are small: the threads that BLAS shares them among wait for each other, at 40 times the processor's
time. The limit is the process' own where BLAS has one pool of threads. So the passes that overlap are counted: the
first in limits, the last out restores.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController

_lock = threading.Lock()
_inside = 0
_limited: list[tuple[Any, int]] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS compute in the calling thread alone, within a block."""
    shared, own = _libraries()
    before = [(library, library.get_num_threads()) for library in own]
    for library in own:
        library.set_num_threads(1)
    _enter(shared)
    try:
        yield
    finally:
        _leave()
        for library, threads in before:
            library.set_num_threads(threads)


@cache
def _libraries() -> tuple[list[Any], list[Any]]:
    """The BLAS libraries in this process: those with one pool of threads, and those with one for each caller.

    To find them takes longer than a pass does.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in found if getattr(library, "threading_layer", None) == "openmp"]
    return [library for library in found if library not in own], own


def _enter(shared: list[Any]) -> None:
    global _inside  # noqa: PLW0603 - the pool is the process' own
    with _lock:
        if not _inside:
            for library in shared:
                threads = library.get_num_threads()
                library.set_num_threads(1)
                # Unless there was nothing to limit, or the user's own thread holds the pool at another number.
                if threads != library.get_num_threads() == 1:
                    _limited.append((library, threads))
            OpenBLASController.clear_controlling_thread()  # or no other thread could restore
        _inside += 1


def _leave() -> None:
    global _inside  # noqa: PLW0603 - the pool is the process' own
    with _lock:
        _inside -= 1
        if _inside:
            return
        while _limited:
            library, threads = _limited.pop()
            library.set_num_threads(threads)
        OpenBLASController.clear_controlling_thread()
