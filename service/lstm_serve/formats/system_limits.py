"""Limits that the system keeps for this process: of open files, memory, processor time. Windows keeps none of these."""

import importlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def _resource() -> Any:  # noqa: ANN401 - a module, or None where there is none of the name
    try:
        return importlib.import_module("resource")
    except ImportError:
        return None


resource = _resource()
# For the model's files, and for connections that come before others have gone.
SPARE_FILES = 200


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy: those it may run on, or the quota of its control groups.

    A part of a core is none, as a process for it would be throttled, but there is always one. `root` is that of the
    files of the system.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, *_quotas(root), math.inf)))


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each control group above this process has, where there is a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/scheduler/sched-bwc.html (v1).
    In a container its own group is at the root, whatever its path is outside.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mounted / "cpu" if controllers else mounted
        own = base / path.lstrip("/")
        for group in (own, *own.parents[: len(own.parents) - len(base.parents)]):
            told = _read(group / "cpu.max").split()
            if controllers:
                told = [*_read(group / "cpu.cfs_quota_us").split(), *_read(group / "cpu.cfs_period_us").split()]
            if len(told) == 2 and told[0].isdecimal():
                yield int(told[0]) / int(told[1])


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""


def lower_limit(name: str, most: int) -> None:
    """Lower the limit of this name, RLIMIT_AS or another, unless it is lower already, or the system has none."""
    if resource is None:
        return
    what = getattr(resource, name)
    _, hard = resource.getrlimit(what)
    # At the hard limit of processor time comes SIGKILL, which does not say why.
    most, above = (most, most + 1) if hard == resource.RLIM_INFINITY else (min(most, hard), min(most + 1, hard))
    _set(what, most, above)


def allow_more_seconds(seconds: int) -> None:
    """End this process by SIGXCPU where it takes so many seconds of a processor more than it has by now."""
    if resource is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _set(resource.RLIMIT_CPU, soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)


def seconds_of_children() -> float:
    """Return the processor time of the children that have ended, in seconds."""
    if resource is None:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(used.ru_utime + used.ru_stime)


def allow_files(connections: int) -> tuple[int, int]:
    """Let this process open a file for each connection, by default it is often 1024, and some more.

    Gives how many connections there may be, and how many may wait to be accepted.
    """
    if resource is None:
        return connections, SPARE_FILES // 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft and not _set(resource.RLIMIT_NOFILE, allowed, hard):
        allowed = soft
    allowed = max(allowed, soft)
    spare = min(SPARE_FILES, allowed // 2)
    if allowed - spare < connections:
        connections, asked = allowed - spare, connections
        log.warning(
            "at most %d connections, not %d: %d open files are allowed (ulimit -n)", connections, asked, allowed
        )
    return connections, spare // 2


def _set(what: int, soft: int, hard: int) -> bool:
    """Whether the system has taken it: macOS has limits that getrlimit does not tell."""
    try:
        resource.setrlimit(what, (soft, hard))
    except (OSError, ValueError):
        return False
    return True
