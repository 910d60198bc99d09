"""Changing models while they are served: on SIGHUP, or when files have changed and settled; each by itself.

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
from lstm_serve.formats.text import printable
from lstm_serve.loading.repository import ListedModel, list_models
from lstm_serve.model.files import around
from lstm_serve.serving.aside import Aside
from lstm_serve.serving.deployment import Deployment, Loaded, NamedFiles, load
from lstm_serve.serving.isolated_load import MAX_TRIAL_SECONDS, find_fatal, took_too_long, try_aside
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.serving.upkeep import Fingerprint, Fingerprints, Upkeep
from lstm_serve.telemetry.logs import log_of_model

log = logging.getLogger(__name__)

MAX_SECONDS = 30  # of what is read besides: more than keys in a pipe are waited for

# By the name of each model, where it lies, and what tells of a change of each of its versions.
Seen = dict[str, tuple[ListedModel, Fingerprints]]


class Rereadable(Protocol):
    """What is read again with the model, off the event loop, and then used."""

    def read(self) -> Any:  # noqa: ANN401 - its own
        """Return what `use` takes. Raises SettingsError where it cannot be had."""

    def use(self, read: Any) -> None:  # noqa: ANN401 - its own
        """Let it count from now on."""


class Reloader:
    """Loads what is served, and watches for what is new; what `others` read is read again with it."""

    def __init__(
        self, registry: Registry, serving: ServingState, others: Mapping[str, Rereadable] | None = None
    ) -> None:
        """Load each model that is there, once. Raises ModelError where none can be served."""
        self._registry, self._serving, self._settings = registry, serving, serving.settings
        self._others = {what: (each, Aside()) for what, each in (others or {}).items()}
        self._path = self._settings.model
        self._asked = asyncio.Event()
        self._all_of_it = False  # asked for, changed or not
        self.settled = asyncio.Event()  # whether what was asked for is done
        self._reading = Aside()  # and each of the others has its own: where one hangs, another may not
        self._retiring = set[asyncio.Task[None]]()
        self._kept = dict[str, Upkeep]()
        self._before = look(self._path, several=registry.several)
        paths = [path for listed, _ in self._before.values() for path in listed.versions.values()]
        fatal = find_fatal(self._settings, paths) if len(paths) > 1 else {}
        for name, (listed, seen) in self._before.items():
            self._kept[name] = kept = Upkeep(registry, serving, listed)
            for version in kept.due(listed, seen, all_of_it=True):
                try:
                    if (reason := fatal.get(listed.versions[version])) is not None:
                        raise UnreadableFile(reason)
                    kept.take(version, load(self._settings, kept.source(version)))
                except ModelError as error:
                    if not registry.several and len(listed.versions) == 1:
                        raise
                    kept.refuse(version, str(error))
            kept.settle()
            kept.warn_of_change()
        if not registry.deployments:
            raise ModelError("; ".join(registry.refused.values()))
        if registry.default is None and (default := self._settings.default_model) is not None:
            log.warning("the default model %s is not served: paths without a name are 404", printable(default))

    @property
    def reads(self) -> bool:
        """Whether a thread still reads, also one that is waited for no more."""
        return self._reading.busy or any(reading.busy for _, reading in self._others.values())

    def ask(self) -> None:
        """Have the files read, changed or not."""
        log.info("reading %s again", self._path)
        self._all_of_it = True
        self.look()

    def look(self) -> None:
        """Have it looked now whether the files have changed."""
        self.settled.clear()
        self._asked.set()

    async def watch(self) -> None:
        """Until cancelled: change a model when asked, or once a change of its files is the same for two polls.

        Of several, asking has those read that have changed, or are not served as they are.
        """
        seconds = self._settings.reload_seconds or None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._asked.wait()
            asked, self._all_of_it = self._all_of_it, False
            self._asked.clear()
            try:
                await self._pass(asked=asked)
            except Exception:
                log.exception("the models were not all read again, by a fault of the service; have them read again")
            if not self._asked.is_set():
                self.settled.set()

    async def _pass(self, *, asked: bool) -> None:
        """Look once, and change what is due."""
        now = await self._look()
        due = [name for name in {**self._kept, **now} if self._is_due(name, now, asked=asked)]
        if due and not asked:
            log.info("reading %s again: it has changed", ", ".join(filter(None, due)) or self._path)
        elif asked and not due:
            log.info("nothing in %s has changed", self._path)
        if due or asked:
            for what, (each, reading) in self._others.items():
                await self._reread(what, each, reading)
        for name in due:
            await self._change(name, now)
        self._before = now

    def _is_due(self, name: str, now: Seen, *, asked: bool) -> bool:
        kept, found = self._kept.get(name), now.get(name)
        if asked and (kept is None or kept.refused or not self._registry.several):
            return True
        changed = kept is None or found is None or (kept.listed, kept.seen) != found
        return changed and (asked or found == self._before.get(name))

    async def _change(self, name: str, now: Seen) -> None:
        """Bring a model to what its files are now."""
        if name not in now:
            del self._kept[name]
            self._registry.refused.pop(name, None)
            self._serving.metrics.forget(name)
            if (deployment := self._registry.deployments.pop(name, None)) is not None:
                log_of_model(log, name).info("%s is not there any more, and is not served", name)
                self._retiring.add(task := asyncio.create_task(self._retire(deployment)))
                task.add_done_callback(self._retiring.discard)
            return
        listed, seen = now[name]
        kept = self._kept.setdefault(name, Upkeep(self._registry, self._serving, listed))
        for version in kept.due(listed, seen, all_of_it=not self._registry.several):
            new = kept.deployment is None
            try:
                kept.take(version, await self._load(kept.source(version), seen[version]))
                if new and kept.deployment is not None:
                    kept.deployment.start()
            except ModelError as error:
                kept.refuse(version, str(error))
            except Exception:
                log.exception("a new model could not be loaded")
                kept.refuse(version, "a fault of the service; the log has it")
        kept.settle()

    async def _retire(self, deployment: Deployment) -> None:
        await deployment.retire()
        if deployment.name not in self._kept:  # what its last requests have counted
            self._serving.metrics.forget(deployment.name)

    async def _reread(self, what: str, each: Rereadable, reading: Aside) -> None:
        wrong = "%s stay as they were: %s"
        try:
            each.use(await reading.run(MAX_SECONDS, each.read))
            self._registry.wake_listeners()
            log.info("%s were read again", what)
        except SettingsError as error:
            log.error(wrong, what, error)  # noqa: TRY400 - it says it all
        except TimeoutError:
            log.error(wrong, what, f"reading them takes more than {MAX_SECONDS} seconds")  # noqa: TRY400 - the same

    async def _look(self) -> Seen:
        """What is there now; where that cannot be told, what was there before."""
        try:
            return await self._reading.run(MAX_SECONDS, look, self._path, several=self._registry.several)
        except (OSError, ModelError) as error:  # and TimeoutError, which says nothing
            log.error("the models stay as they are: %s", str(error) or "the folder is not read in time")  # noqa: TRY400
            return self._before

    async def _load(self, source: NamedFiles, now: Fingerprint) -> Loaded:
        await try_aside(self._settings, source.path)
        try:
            # A thread of its own: what it has worked with is freed when it ends.
            loaded = await self._reading.run(MAX_TRIAL_SECONDS, load, self._settings, source)
            after = await self._reading.run(MAX_SECONDS, fingerprint, source.path)
        except TimeoutError:
            raise took_too_long(source.path) from None
        if after != now:
            raise UnreadableFile(f"{source.path}: has changed while it was read")
        return loaded


def look(path: Path, *, several: bool) -> Seen:
    """Return what a path stands for, one model or several, as it is now. Raises UnreadableFile."""
    return {
        listed.name or "": (listed, {version: fingerprint(files) for version, files in listed.versions.items()})
        for listed in list_models(path, several=several)
    }


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
