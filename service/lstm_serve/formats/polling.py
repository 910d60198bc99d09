"""Whether a file descriptor has something to read, or room to write; Windows, which does not tell, is taken to have."""

import os
import select
from collections.abc import Callable

# To open what may be a pipe or a terminal: neither waited for, nor made ours.
NOT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
# What a pipe with room takes whole: https://man7.org/linux/man-pages/man7/pipe.7.html
PIPE_BUF: int = getattr(select, "PIPE_BUF", 512)

Ready = Callable[[float], bool]


def readable(descriptor: int) -> Ready:
    """Return what waits up to so many seconds for something to read, or for the end, and says whether it came."""
    return _ready(descriptor, "POLLIN")


def writable(descriptor: int) -> Ready:
    """Return what waits up to so many seconds for room to write, and says whether it is there: in a pipe, of PIPE_BUF.

    Where nobody reads any more there is room too: the write says so.
    """
    return _ready(descriptor, "POLLOUT")


def _ready(descriptor: int, event: str) -> Ready:
    if not hasattr(select, "poll"):
        return lambda _: True
    poll = select.poll()
    poll.register(descriptor, getattr(select, event))
    return lambda seconds: bool(poll.poll(seconds * 1000))
