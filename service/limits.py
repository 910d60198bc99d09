"""Limits that the system keeps for this process: of open files, memory, processor time. Windows keeps none of these."""

import importlib
import logging
from typing import Any

log = logging.getLogger(__name__)


def _resource() -> Any:  # noqa: ANN401 - a module, or None where there is none of the name
    try:
        return importlib.import_module("resource")
    except ImportError:
        return None


resource = _resource()


def lower(name: str, most: int) -> None:
    """Lower the limit of this name, RLIMIT_AS or another, unless it is lower already, or the system has none."""
    if resource is None:
        return
    what = getattr(resource, name)
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    _set(what, most, most)


def allow_files(connections: int) -> None:
    """Let this process open a file for each connection and each that it refuses; by default it is often 1024."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 100
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft and not _set(resource.RLIMIT_NOFILE, allowed, hard):
        allowed = soft
    if allowed < wanted:
        log.warning("%d connections were asked for, and %d open files are allowed (ulimit -n)", connections, allowed)


def _set(what: int, soft: int, hard: int) -> bool:
    """Whether the system has taken it: macOS has limits that getrlimit does not tell."""
    try:
        resource.setrlimit(what, (soft, hard))
    except (OSError, ValueError):
        return False
    return True
