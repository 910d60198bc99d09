"""Changing the model while it is served: on SIGHUP, or when its files have changed and settled.

    files -> read aside in a child process -> loaded, golden predictions replayed, warmed up in a thread -> swapped in

Whatever goes wrong on the way leaves the old model serving, and is told in the log, by /readyz?verbose and by a metric.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from lstm_serve.engine.activations import SIGMOID, SOFTMAX
from lstm_serve.engine.operations.pointwise import Unscaling
from lstm_serve.errors import Incompatible, ModelError, SettingsError, UnreadableFile
from lstm_serve.model.model import About, Model
from lstm_serve.serving import isolated_load
from lstm_serve.serving.aside import Aside
from lstm_serve.serving.deployment import Live, Loaded, load
from lstm_serve.settings import PREFIX, Settings

log = logging.getLogger(__name__)

MAX_TRIAL_SECONDS = 300
MAX_SECONDS = 30  # of what is read besides: more than keys in a pipe are waited for
MAX_REASON = 1000
MAX_FILES = 10_000

# What a damaged file makes of the library that reads it.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}

# The same code as this process runs, wherever it was started from.
TRIAL = (
    "import sys; sys.path[:] = sys.argv[2:]; from lstm_serve.serving.isolated_load import main; "
    "sys.exit(main(sys.argv[1]))"
)

Fingerprint = tuple[tuple[str, int, int, int, int, int], ...]


class Rereadable(Protocol):
    """What is read again with the model, off the event loop, and then used."""

    def read(self) -> Any:  # noqa: ANN401 - its own
        """Return what `use` takes. Raises SettingsError where it cannot be had."""

    def use(self, read: Any) -> None:  # noqa: ANN401 - its own
        """Let it count from now on."""


class Reloader:
    """Watches for a new model and puts it into `live`; what `others` read is read again with it."""

    def __init__(self, live: Live, seen: Fingerprint, others: Mapping[str, Rereadable] | None = None) -> None:
        """`seen` is the fingerprint of the files from before `live` has loaded them, `others` are by what they read."""
        self._live = live
        self._others = {what: (each, Aside()) for what, each in (others or {}).items()}
        self._path = live.settings.model
        self._tried = seen
        self._asked = asyncio.Event()
        self._reading = Aside()  # and each of the others has its own: where one hangs, another may not

    def ask(self) -> None:
        """Have the files read, changed or not."""
        log.info("reading %s again", self._path)
        self._asked.set()

    async def watch(self) -> None:
        """Until cancelled: change the model when asked, or once a change of its files is the same for two polls."""
        seconds = self._live.settings.reload_seconds or None
        before = self._tried
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), seconds)
            now = await self._fingerprint()
            changed = now != self._tried and now == before
            if changed and not self._asked.is_set():
                log.info("reading %s again: it has changed", self._path)
            if changed or self._asked.is_set():
                self._asked.clear()
                await self._change(now)
            before = now

    async def _change(self, now: Fingerprint) -> None:
        self._tried = now
        for what, (each, reading) in self._others.items():
            await self._reread(what, each, reading)
        try:
            self._live.use(await self._load(now))
            log.info("replaced: requests are answered by %s as it is now", self._path)
        except ModelError as error:
            self._live.refuse(str(error)[:MAX_REASON])
        except Exception:
            log.exception("a new model could not be loaded")
            self._live.refuse("a fault of the service; the log has it")

    async def _reread(self, what: str, each: Rereadable, reading: Aside) -> None:
        wrong = "%s stay as they were: %s"
        try:
            each.use(await reading.run(MAX_SECONDS, each.read))
            log.info("%s were read again", what)
        except SettingsError as error:
            log.error(wrong, what, error)  # noqa: TRY400 - it says it all
        except TimeoutError:
            log.error(wrong, what, f"reading them takes more than {MAX_SECONDS} seconds")  # noqa: TRY400 - the same

    async def _fingerprint(self) -> Fingerprint:
        """That of now; where it cannot be had, that of no files."""
        try:
            return await self._reading.run(MAX_SECONDS, fingerprint, self._path)
        except TimeoutError:
            return ()

    async def _load(self, now: Fingerprint) -> Loaded:
        await try_aside(self._live.settings)
        try:
            # A thread of its own: what it has worked with is freed when it ends.
            loaded = await self._reading.run(MAX_TRIAL_SECONDS, load, self._live.settings)
        except TimeoutError:
            raise _took_too_long(self._path) from None
        if await self._fingerprint() != now:
            raise UnreadableFile(f"{self._path}: has changed while it was read")
        expect_same(loaded.model, self._live.model)
        return loaded


def fingerprint(path: Path) -> Fingerprint:
    """What tells of a change of a model's files, symbolic links followed: of each its name, identity, size and times.

    They are what begins as the model's own name does, all JSON beside it, where a card may name any as architecture,
    and if the model is a folder what is in it.
    """
    first = path.name.partition(".")[0]
    try:
        beside = [file for file in path.parent.iterdir() if file.name.startswith(first) or file.suffix == ".json"]
        within = list(islice(path.rglob("*"), MAX_FILES)) if path.is_dir() else []
    except OSError:
        return ()
    return tuple(sorted(found for file in beside + within if (found := _status(file)) is not None))


def _status(path: Path) -> tuple[str, int, int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # `cp -p` and `rsync --inplace -t` set the time of the last change to that of their source, but not of the status.
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


async def try_aside(settings: Settings) -> None:
    """Read the model in a child process with limits. Raises ModelError where that does not succeed."""
    path = settings.model
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            TRIAL,
            json.dumps({"path": str(path), **settings.told}),
            *sys.path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # What is in a damaged file need not meet a key.
            env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        )
    except OSError as error:
        raise ModelError(
            f"{path}: no process could be started to read it: {error.strerror}. Have it read again once there is room"
        ) from None
    try:
        said, _ = await asyncio.wait_for(child.communicate(), MAX_TRIAL_SECONDS)
    except TimeoutError:
        raise _took_too_long(path) from None
    finally:
        if child.returncode is None:
            child.kill()
            with contextlib.suppress(TimeoutError):  # what hangs in the kernel is not ended
                await asyncio.wait_for(child.wait(), MAX_SECONDS)
    if child.returncode == 0:
        return
    reason = said.decode("utf-8", "replace")
    raise ModelError(reason or f"{path}: reading it {_ended(child.returncode or 0)}")


def _took_too_long(path: Path) -> ModelError:
    return UnreadableFile(f"{path}: reading it took more than {MAX_TRIAL_SECONDS} seconds")


def _ended(status: int) -> str:
    """How a process ended, and whether that is the file's fault."""
    if -status in CRASHES:
        return f"ended a process by {signal.Signals(-status).name}: it is damaged"
    if -status == signal.SIGXCPU:
        return f"took more than {isolated_load.MAX_CPU_SECONDS} seconds of a processor"
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return (
        f"ended a process {how}, which need not be the file's fault: see whether memory has run out (the kernel's log "
        "tells of it) or open files (ulimit -n), then have it read again"
    )


def expect_same(new: Model, old: Model) -> None:
    """Raise Incompatible where clients of the old model could not be clients of the new one.

    A first card may name classes and features.
    """
    about, before = new.about, old.about
    if old.origin.verified and not new.origin.verified:
        raise Incompatible(
            "the model being served is verified, and the new one is not: it has no golden predictions beside it. Put "
            "them there, or start the service anew"
        )
    for what, came, expected in (
        ("name", about.name, before.name),
        ("kind", new.kind, old.kind),
        ("input shape", new.input_shape, old.input_shape),
        ("input type (float64 where its card has scaling)", new.input_dtype, old.input_dtype),
        ("number of ids", new.id_limit, old.id_limit),
        ("output shape", new.output_shape, old.output_shape),
        ("output scaling", _unscaled(new), _unscaled(old)),
        ("output as probabilities", _probable(new), _probable(old)),
        ("classes", about.classes, about.classes if before.classes is None else before.classes),
        ("features", _names(about), _names(about) if before.features is None else _names(before)),
    ):
        if came != expected:
            raise Incompatible(
                f"what clients rely on has changed, its {what}: {_in_short(expected)} before, {_in_short(came)} now. "
                "Start the service anew for another model"
            )


def _unscaled(model: Model) -> bool:
    return any(isinstance(node.operation, Unscaling) for node in model.nodes)


def _probable(model: Model) -> bool:
    return model.last_activation in {SOFTMAX, SIGMOID}


def _names(about: About) -> tuple[str, ...] | None:
    return None if about.features is None else tuple(feature.name for feature in about.features)


def _in_short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
