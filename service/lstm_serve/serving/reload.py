"""Changing the model while it is served: on SIGHUP, or when its files have changed and settled.

    files -> read aside in a child process -> loaded, golden predictions replayed, warmed up in a thread -> swapped in

Whatever goes wrong on the way leaves the old model serving, and is told in the log, by /readyz?verbose and by a metric.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lstm_serve.errors import ModelError, SettingsError, UnreadableFile
from lstm_serve.model.files import around
from lstm_serve.serving.aside import Aside
from lstm_serve.serving.compatibility import expect_same
from lstm_serve.serving.deployment import Deployment, Loaded, load
from lstm_serve.serving.isolated_load import MAX_TRIAL_SECONDS, took_too_long, try_aside
from lstm_serve.settings import Settings

log = logging.getLogger(__name__)

MAX_SECONDS = 30  # of what is read besides: more than keys in a pipe are waited for
MAX_REASON = 1000

Fingerprint = tuple[tuple[str, int, int, int, int, int], ...]


class Rereadable(Protocol):
    """What is read again with the model, off the event loop, and then used."""

    def read(self) -> Any:  # noqa: ANN401 - its own
        """Return what `use` takes. Raises SettingsError where it cannot be had."""

    def use(self, read: Any) -> None:  # noqa: ANN401 - its own
        """Let it count from now on."""


class Reloader:
    """Watches for a new model and has it activated; what `others` read is read again with it."""

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        seen: Fingerprint,
        others: Mapping[str, Rereadable] | None = None,
    ) -> None:
        """`seen` is the fingerprint of the files from before they were loaded, `others` are by what they read."""
        self._deployment, self._settings = deployment, settings
        self._others = {what: (each, Aside()) for what, each in (others or {}).items()}
        self._path = settings.model
        self._tried = seen
        self._asked = asyncio.Event()
        self._reading = Aside()  # and each of the others has its own: where one hangs, another may not

    def ask(self) -> None:
        """Have the files read, changed or not."""
        log.info("reading %s again", self._path)
        self._asked.set()

    async def watch(self) -> None:
        """Until cancelled: change the model when asked, or once a change of its files is the same for two polls."""
        seconds = self._settings.reload_seconds or None
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
            self._deployment.activate(await self._load(now))
            log.info("replaced: requests are answered by %s as it is now", self._path)
        except ModelError as error:
            self._deployment.record_rejection(str(error)[:MAX_REASON])
        except Exception:
            log.exception("a new model could not be loaded")
            self._deployment.record_rejection("a fault of the service; the log has it")

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
        await try_aside(self._settings)
        try:
            # A thread of its own: what it has worked with is freed when it ends.
            loaded = await self._reading.run(MAX_TRIAL_SECONDS, load, self._settings)
        except TimeoutError:
            raise took_too_long(self._path) from None
        if await self._fingerprint() != now:
            raise UnreadableFile(f"{self._path}: has changed while it was read")
        expect_same(loaded.model, self._deployment.current.model)
        return loaded


def fingerprint(path: Path) -> Fingerprint:
    """What tells of a change of a model's files: of each its name, identity, size and times. Links are followed."""
    try:
        files = around(path)
    except OSError:
        return ()
    return tuple(sorted(found for file in files if (found := _status(file)) is not None))


def _status(path: Path) -> tuple[str, int, int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # `cp -p` and `rsync --inplace -t` set the time of the last change to that of their source, but not of the status.
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
