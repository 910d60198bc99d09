"""A bound on what a library may allocate while it reads a stranger's file, for what no check can foresee."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lstm_serve.formats.system_limits import resource

STATM = Path("/proc/self/statm")


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Let this process grow by at most so many bytes of address space; more is a MemoryError or the library's own.

    The limit is the process', so other threads share the room. Where there is no /proc, nothing is bounded.
    """
    try:
        pages = int(STATM.read_text("ascii").split()[0])
    except OSError:
        pages = 0
    if not pages or resource is None:
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + most
    if before == resource.RLIM_INFINITY or limit < before:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
