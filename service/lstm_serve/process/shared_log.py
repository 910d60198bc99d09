"""One log of several processes: who writes holds a lock, so that no line ends up within another."""

import fcntl
import functools

from lstm_serve.telemetry.lines import Lines


def share(lines: Lines, lock: int) -> None:
    """Write only while this process has the lock on a file, which ends with the process that has it."""
    lines.take = functools.partial(_take, lock)
    lines.give = functools.partial(fcntl.lockf, lock, fcntl.LOCK_UN)


def _take(lock: int) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
