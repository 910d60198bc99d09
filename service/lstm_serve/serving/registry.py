"""Which models are served, by name and version."""

import logging
import os

from lstm_serve.errors import SettingsError, UnknownModel
from lstm_serve.loading.repository import is_several
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.settings import PREFIX, Settings

log = logging.getLogger(__name__)

MOST_NAMED = 200  # characters of the names that an error tells
# What is called otherwise where the model is named.
UNDER_A_NAME = {"/model": "", "/invocations": "/predict"}


class Registry:
    """The deployments by name, which of them is meant where none is named, and why others are not there."""

    def __init__(self, default: str | None, *, several: bool) -> None:
        """There is none yet. `several` says that there may be more than one."""
        self.deployments: dict[str, Deployment] = {}
        self.refused: dict[str, str] = {}  # of models that are not served at all
        self.several = several
        self._default = default

    @property
    def default(self) -> Deployment | None:
        """The deployment that a request means that names none: the only model's, or that of the settings."""
        if self._default is None and len(self.deployments) + len(self.refused) == 1:
            return next(iter(self.deployments.values()), None)
        return self.deployments.get(self._default or "")

    def add(self, deployment: Deployment) -> None:
        """Serve it under its name."""
        self.deployments[deployment.name] = deployment
        self.refused.pop(deployment.name, None)

    def get(self, name: str | None = None, path: str = "/predict") -> Deployment:
        """Return the deployment of a name; None is the default one's. Raises UnknownModel.

        `path` is what was asked for, if without a name.
        """
        found = self.default if name is None else self.deployments.get(name)
        if found is not None:
            return found
        if name is None:
            by_name = f"/models/{{name}}{UNDER_A_NAME.get(path, path)}"
            raise UnknownModel(
                f"several models are served here, and which one this path means is not set: {self._named()} go by "
                f"{by_name}, or one is named by LSTMSERVE_DEFAULT_MODEL"
                if self._default is None
                else f"the default model {self._default} is not served: {self.refused.get(self._default, 'not there')}"
                f"; {self._named()} go by {by_name}"
            )
        if name in self.refused:
            raise UnknownModel(f'the model "{name}" is not served; /readyz?verbose and the log say why')
        if not self.several:
            raise UnknownModel(f"the model served here is {self._named()}")
        raise UnknownModel(f"the models served here are {self._named()}")

    def find(self, name: str | None, version: str | None, path: str) -> tuple[Deployment, Served]:
        """Return the deployment that a request of a path means, and what answers it. Raises UnknownModel."""
        deployment = self.get(name, path)
        if version is None:
            return deployment, deployment.current
        if (served := deployment.versions.get(version)) is None:
            what, verb = ("versions", "are") if len(deployment.versions) > 1 else ("version", "is")
            there = " and ".join(deployment.numbers)
            raise UnknownModel(f'the {what} of "{deployment.name}" served here {verb} {there}')
        return deployment, served

    def reasons(self) -> dict[str, str]:
        """Return by its name why a model is not served, or not as its files are now."""
        refused = {name: one.refused for name, one in [*self.deployments.items()] if one.refused is not None}
        return {**self.refused, **refused}

    def wake_listeners(self) -> None:
        """Let all who listen to series look again: whether they still may has changed."""
        for deployment in self.deployments.values():
            deployment.watch.wake_all()

    @property
    def title(self) -> str:
        """What is served, for a heading."""
        return "several models" if self.several else next(iter(self.deployments))

    def _named(self) -> str:
        names = ", ".join(f'"{name}"' for name in sorted(self.deployments))
        return names if len(names) <= MOST_NAMED else f"{names[:MOST_NAMED]}... ({len(self.deployments)})"


def registry_of(settings: Settings) -> Registry:
    """Return the registry, empty yet, for what the settings name: one model, or several, as the path's content says.

    Raises SettingsError where a setting is of the one or of the others alone.
    """
    several = is_several(settings.model)
    of_one = [name for name in ("name", "recurrent_activation", "output_activation") if getattr(settings, name)]
    if several and of_one:
        raise SettingsError(
            f"{PREFIX}{of_one[0].upper()} is of one model, and {settings.model} has several: a card says it of each"
        )
    if settings.default_model is not None and not several:
        raise SettingsError(f"{PREFIX}DEFAULT_MODEL is of several models, and {settings.model} is one")
    if os.access(settings.model, os.R_OK):  # else loading it says what is wrong
        log.info(
            "%s is %s", settings.model, "a folder of models: each is served by its name" if several else "one model"
        )
    return Registry(settings.default_model, several=several)
