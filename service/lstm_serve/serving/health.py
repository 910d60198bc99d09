"""What liveness and readiness depend on, by name."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstm_serve.serving.registry import Registry
    from lstm_serve.serving.state import ServingState

READY = ("/readyz", "/health", "/healthz", "/ping")  # the paths that say it
# Without a sign of life for so long the event loop hangs.
STALLED_SECONDS = 5.0


def liveness(registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for the process to work, as the event loop sees it."""
    return {"batching": all(deployment.queue.alive for deployment in [*registry.deployments.values()])}


def liveness_from_outside(serving: "ServingState", registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for the process to work, as another thread sees it."""
    return {**liveness(registry), "loop": time.monotonic() - serving.beat < STALLED_SECONDS}


def readiness(serving: "ServingState", registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for requests to be sent here."""
    return {"model": True, **liveness(registry), "accepting": not serving.draining}


def is_ready(serving: "ServingState", registry: "Registry") -> bool:
    """Return whether requests may be sent here."""
    return all(readiness(serving, registry).values())
