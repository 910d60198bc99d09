"""One log of several processes: who writes holds a lock, so that no line ends up within another."""

import fcntl
import functools

from lstm_serve.telemetry.log_handler import LogHandler


def share(handler: LogHandler, lock: int) -> None:
    """Write only while this process has the lock on a file, which ends with the process that has it."""
    handler.take = functools.partial(_take, lock)
    handler.give = functools.partial(fcntl.lockf, lock, fcntl.LOCK_UN)


def _take(lock: int) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
