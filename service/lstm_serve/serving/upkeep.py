"""One model of those that are served, kept as its files are: which of its versions are loaded, and which answers.

The newest answers that can be loaded and take the place of the one before; the others that are there are kept.
"""

import logging
from collections.abc import Mapping

from lstm_serve.errors import ModelError
from lstm_serve.formats.text import printable
from lstm_serve.loading.repository import ListedModel
from lstm_serve.serving.compatibility import expect_same
from lstm_serve.serving.deployment import Deployment, Loaded, NamedFiles, without_folders
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.telemetry.logs import log_of_model

log = logging.getLogger(__name__)

MAX_REASON = 1000

Version = str | None
Fingerprint = tuple[tuple[str, int, int, int, int, int], ...]
Fingerprints = Mapping[Version, Fingerprint]


class Upkeep:
    """What is loaded of a listed model, and the deployment that answers with it."""

    def __init__(self, registry: Registry, serving: ServingState, listed: ListedModel) -> None:
        """Nothing is loaded yet."""
        self._registry, self._serving = registry, serving
        self.listed, self.seen = listed, dict[Version, Fingerprint]()
        self.deployment: Deployment | None = None
        self._loaded: dict[Version, Loaded] = {}
        self._wrong: dict[Version, str] = {}  # by version, why it is not served as its files are

    @property
    def refused(self) -> bool:
        """Whether something of it is not served as its files are."""
        return bool(self._wrong or self.listed.wrong)

    def due(self, listed: ListedModel, seen: Fingerprints, *, all_of_it: bool) -> list[Version]:
        """Note the model and its files as they are now, and return which of its versions are to be loaded."""
        before, self.listed, self.seen = self.seen, listed, dict(seen)
        for known in (self._loaded, self._wrong):
            for version in [*known]:
                if version not in listed.versions:
                    del known[version]
                    if known is self._loaded and version and listed.versions:
                        self._log.info("%s: version %s is not there any more", self.name, version)
        return [
            version
            for version in listed.versions
            if all_of_it or seen.get(version) != before.get(version) or version in self._wrong
        ]

    def source(self, version: Version) -> NamedFiles:
        """Return the files of a version."""
        name = self.listed.name or self._serving.settings.name
        return NamedFiles(self.listed.versions[version], name, version, self.listed.root)

    def take(self, version: Version, loaded: Loaded) -> None:
        """Serve a version that was loaded, where it is the newest one that there is, in place of the one before.

        Raises Incompatible where it cannot take that place.
        """
        newer = next((known for known in self.listed.versions if known in self._loaded or known == version), version)
        if newer == version:
            self._answer_with(version, loaded)
        self._loaded[version] = loaded
        self._wrong.pop(version, None)

    def refuse(self, version: Version, reason: str) -> None:
        """Note why a version is not served as its files are; what was loaded of it before goes on."""
        self._wrong[version] = _of(version, reason)[:MAX_REASON]

    def settle(self) -> None:
        """Let the newest version that is loaded answer, keep the others, and say what is wrong; once all are tried."""
        wrong = [f"{self.listed.path}: {self.listed.wrong}"] if self.listed.wrong else []
        wrong += self._wrong.values()
        newest = next((version for version in self.listed.versions if version in self._loaded), None)
        if newest in self._loaded and self.deployment is not None:
            try:
                self._answer_with(newest, self._loaded[newest])  # where the one that did is gone
            except ModelError as error:
                wrong.append(_of(newest, str(error)))
        name = self.name
        if self.deployment is None:
            reason = printable("; ".join(wrong))[:MAX_REASON]
            self._registry.refused[name] = without_folders(reason, self._serving.settings.model)
            self._serving.metrics.refused(name)
            self._log.error("%s is not served: %s", name, reason)
            return
        self.deployment.keep(self._loaded.values())
        if wrong:
            self.deployment.record_rejection(printable("; ".join(wrong))[:MAX_REASON])
        elif self.deployment.refused is not None:
            self.deployment.forget_rejection()

    def warn_of_change(self) -> None:
        """Say, after the start, where a version answers that could not have taken the place of the one before it."""
        newest, before = ([version for version in self.listed.versions if version in self._loaded] + [None, None])[:2]
        if before is None:
            return
        try:
            expect_same(self._loaded[newest].model, self._loaded[before].model)
        except ModelError as error:
            self._log.warning(
                "%s: version %s answers now, which would not have taken the place of version %s while that was served: "
                "%s",
                self.name,
                newest,
                before,
                error,
            )

    @property
    def name(self) -> str:
        """How the model is called."""
        unnamed = printable(self.listed.path.name) if self.deployment is None else self.deployment.name
        return self.listed.name or unnamed

    @property
    def _log(self) -> logging.LoggerAdapter[logging.Logger]:
        return log_of_model(log, self.name)

    def _answer_with(self, version: Version, loaded: Loaded) -> None:
        if self.deployment is None:
            self.deployment = Deployment(loaded, self._serving.settings, self._serving.metrics, self._serving.redis)
            self._registry.add(self.deployment)
        elif loaded.model is not self.deployment.current.model:
            expect_same(loaded.model, self.deployment.current.model)
            self.deployment.activate(loaded)
            path = printable(str(self.listed.versions[version]))
            self._log.info("replaced: requests are answered by %s as it is now", path)


def _of(version: Version, reason: str) -> str:
    """The reason, and of which version it is, where there may be several."""
    return reason if version is None else f"version {version}: {reason}"
