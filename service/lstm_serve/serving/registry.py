"""Which models are served, by name and version."""

from lstm_serve.errors import UnknownModel
from lstm_serve.serving.deployment import Deployment


class Registry:
    """The deployments; there is one."""

    def __init__(self, deployment: Deployment) -> None:
        """Serve this one."""
        self._deployment = deployment

    def get(self, name: str | None = None, version: str | None = None) -> Deployment:
        """Return the deployment that a request means; None is whichever there is. Raises UnknownModel."""
        about = self._deployment.current.model.about
        if name is not None and name != about.name:
            raise UnknownModel(f'the model served here is "{about.name}"')
        if version is not None and version != about.version:
            raise UnknownModel(f'the version of "{about.name}" served here is {about.version}')
        return self._deployment
