"""What liveness and readiness depend on, by name, and what else is told of them."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_serve.serving.registry import Registry
    from lstm_serve.serving.state import ServingState

READY = ("/readyz", "/health", "/healthz", "/ping")  # the paths that say it
# Without a sign of life for so long the event loop hangs.
STALLED_SECONDS = 5.0


def liveness(registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for the process to work, as the event loop sees it."""
    return {"batching": all(deployment.queue.works for deployment in [*registry.deployments.values()])}


def liveness_from_outside(serving: "ServingState", registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for the process to work, as another thread sees it."""
    return {**liveness(registry), "loop": time.monotonic() - serving.beat < STALLED_SECONDS}


def readiness(serving: "ServingState", registry: "Registry") -> dict[str, bool]:
    """Return what has to be good for requests to be sent here."""
    return {"model": True, **liveness(registry), "accepting": not serving.draining}


def details(serving: "ServingState", registry: "Registry") -> dict[str, Any]:
    """Return what is told beside the checks, of which nothing depends on it, as far as there is something to tell.

    `series_store` is whether the store of series answers, `refused` why the newest files are not what is served.
    """
    found: dict[str, Any] = {} if serving.redis is None else {"series_store": not serving.redis.away}
    if reasons := registry.reasons():
        found["refused"] = reasons if registry.several else next(iter(reasons.values()))
    return found


def told_together(tellings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is told of several workers: a store answers that answers all; they read the same files."""
    all_of_them = [*tellings]
    found = {name: value for one in all_of_them for name, value in one.items()}
    if "series_store" in found:
        found["series_store"] = all(one["series_store"] for one in all_of_them)
    return found


def content(checks: Mapping[str, bool], more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the body of an answer; with the checks, and `more`, where that is asked for."""
    status = {"status": "ok" if all(checks.values()) else "failing"}
    return status if more is None else {**status, "checks": dict(checks), **more}


def is_ready(serving: "ServingState", registry: "Registry") -> bool:
    """Return whether requests may be sent here."""
    return all(readiness(serving, registry).values())
