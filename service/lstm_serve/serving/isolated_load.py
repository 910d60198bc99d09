"""A model file is read in a child process, which can be lost, before it is read in this one."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from lstm_serve.errors import ModelError, UnreadableFile
from lstm_serve.serving.children import PROGRAM, how_ended, python
from lstm_serve.serving.isolated_child import MAX_CPU_SECONDS
from lstm_serve.settings import PREFIX, Settings

MAX_TRIAL_SECONDS = 300  # of one model
MAX_KILL_SECONDS = 30

# What a damaged file makes of the library that reads it.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}

TRIAL = PROGRAM.format("lstm_serve.serving.isolated_child")


def find_fatal(settings: Settings, paths: Sequence[Path]) -> dict[Path, str]:
    """Read models in a child process, one after the other, and return of those that end or stall it how they do.

    Before a folder of models is loaded: one that is damaged must not keep the others from being served.
    """
    found: dict[Path, str] = {}
    rest = deque(paths)
    while rest:
        told = json.dumps({"paths": [*map(str, rest)], **settings.told})
        try:
            child = subprocess.Popen(  # noqa: S603 - this Python
                _command(told),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_env(),
            )
        except OSError:
            return found  # there is no room for a process: loading them says what there is to say
        with child:
            while rest:
                line, late = _next_line(child)
                if not line.endswith(b"\n"):
                    break
                path = rest.popleft()
                if reason := line.strip().decode():
                    found[path] = f"{path}: {reason}"
        if rest:
            path = rest.popleft()
            found[path] = str(took_too_long(path)) if late else f"{path}: reading it {_ended(child.returncode)}"
    return found


def _next_line(child: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """The next line that a child writes, less where it ends, and whether it was ended as none came in time."""
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    clock = threading.Timer(MAX_TRIAL_SECONDS, end)
    clock.start()
    try:
        return cast("IO[bytes]", child.stdout).readline(), late.is_set()
    finally:
        clock.cancel()


async def try_aside(settings: Settings, path: Path | None = None) -> None:
    """Read a model in a child process with limits. Raises ModelError where that does not succeed."""
    path = path or settings.model
    try:
        child = await asyncio.create_subprocess_exec(
            *_command(json.dumps({"path": str(path), **settings.told})),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_env(),
        )
    except OSError as error:
        raise ModelError(
            f"{path}: no process could be started to read it: {error.strerror}. Have it read again once there is room"
        ) from None
    try:
        async with asyncio.timeout(MAX_TRIAL_SECONDS):
            said, _ = await child.communicate()
    except TimeoutError:
        raise took_too_long(path) from None
    finally:
        if child.returncode is None:
            child.kill()
            with contextlib.suppress(TimeoutError):  # what hangs in the kernel is not ended
                async with asyncio.timeout(MAX_KILL_SECONDS):
                    await child.wait()
    if child.returncode == 0:
        return
    reason = said.decode("utf-8", "replace")
    raise ModelError(reason or f"{path}: reading it {_ended(child.returncode or 0)}")


def _command(told: str) -> list[str]:
    return python(TRIAL, told)


def _env() -> dict[str, str]:
    """The environment, without what a damaged file need not meet: keys."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def took_too_long(path: Path) -> ModelError:
    """Return the error of a model that is not read in time."""
    return UnreadableFile(f"{path}: reading it took more than {MAX_TRIAL_SECONDS} seconds")


def _ended(status: int) -> str:
    """How a process ended, and whether that is the file's fault."""
    if -status in CRASHES:
        return f"ended a process {how_ended(status)}: it is damaged"
    if -status == signal.SIGXCPU:
        return f"took more than {MAX_CPU_SECONDS} seconds of a processor"
    return (
        f"ended a process {how_ended(status)}, which need not be the file's fault: see whether memory has run out "
        "(the kernel's log tells of it) or open files (ulimit -n), then have it read again"
    )
