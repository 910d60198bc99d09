"""GET /drift: whether what comes in is still like the training."""

from typing import Any

import numpy as np
from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import NotWatched
from lstm_serve.model import watched
from lstm_serve.model.model import Model
from lstm_serve.model.profile import Column, Profile, psi
from lstm_serve.serving.deployment import Deployment
from lstm_serve.serving.drift import MOST_MODELS, STATES, Drift, DriftState, JudgedWindow
from lstm_serve.serving.registry import Registry
from lstm_serve.web.dialects.model_path import MODEL, Documented, meant, parameters
from lstm_serve.web.openapi import problem_responses
from lstm_serve.web.schemas import Schema


class FeatureDrift(Schema):
    """A feature: where it is over its limit in two windows in turn it has drifted, from half of it on it is watched."""

    name: str
    state: DriftState
    psi: float | None = Field(description="population stability index; null before a window was full")
    psi_limit: float
    wasserstein_sd: float | None = Field(description="in standard deviations of the training; null where that is 0")
    wasserstein_sd_limit: float
    out_of_range: float | None = Field(description="the share of rows that the training never reached")
    edges: list[float] = Field(description="what parts the bins; a value at an edge is in the bin above it")
    expected: list[float] = Field(description="the share of each bin in the training")
    seen: list[float] | None = Field(description="the share of each bin in the last full window")


class Shares(Schema):
    """What the model answered in the training, and in the last full window."""

    labels: list[str] | None = None
    psi: float | None
    expected: list[float]
    seen: list[float] | None


class DriftAnswer(Schema):
    """What came in, against the profile of the training: the state is that of the feature that is farthest off."""

    state: DriftState
    rows: int = Field(description="rows counted since the model is served")
    window: int = Field(description="rows of a window; none is judged before it is full")
    filled: int = Field(description="rows of the window that is being filled")
    profile_rows: int = Field(description="rows of training data that the profile is of")
    features: list[FeatureDrift]
    classes: Shares | None = Field(description="of the answers; told, not judged")
    entropy: Shares | None = Field(description="of the answers in tenths, 0 of a certain answer; told, not judged")


def router(registry: Registry, documented: Documented) -> APIRouter:
    """The route, and that of a model's name."""
    routes = APIRouter(tags=["model"])

    async def drift(request: Request) -> DriftAnswer:
        """Whether what comes in is still like the training."""
        deployment, _ = meant(registry, request)
        found = watching(deployment)
        found.flush()
        return drift_answer(deployment.current.model, found)

    for prefix in ("", MODEL):
        routes.add_api_route(
            f"{prefix}/drift",
            drift,
            summary="Whether what comes in is still like the training",
            responses=problem_responses(401, 404, 500),
            openapi_extra=parameters(documented.of(prefix), prefix),
        )
    return routes


def watching(deployment: Deployment) -> Drift:
    """What watches a model's input. Raises NotWatched."""
    if deployment.drift is not None:
        return deployment.drift
    model = deployment.current.model
    if reason := watched.why_not(model):
        raise NotWatched(f"the input of this model cannot be watched: {reason}")
    if model.profile is not None:
        raise NotWatched(f"{MOST_MODELS} other models are watched, and no more can be")
    raise NotWatched(
        f"there is no {deployment.files.profile.name}. Make it of the training data, beside the model: lstm-serve "
        f"profile {deployment.files.model.name} TRAIN.csv; then have the service read it (SIGHUP, or a new start)"
    )


def drift_answer(model: Model, drift: Drift) -> DriftAnswer:
    """The answer."""
    profile, last = drift.profile, drift.judged
    limits = profile.limits(drift.size)
    classes = model.about.classes
    spoken = None if last is None else last.spoken
    return DriftAnswer(
        state=drift.state,
        rows=drift.rows,
        window=drift.size,
        filled=drift.filled,
        profile_rows=profile.rows,
        features=[
            _feature(k, column, [float(limit[k]) for limit in limits], last) for k, column in enumerate(profile.columns)
        ],
        classes=_shares(profile, 0, spoken, None if classes is None else [*classes]),
        entropy=_shares(profile, 1, spoken),
    )


def _feature(k: int, column: Column, limits: list[float], last: JudgedWindow | None) -> FeatureDrift:
    figures: dict[str, Any] = dict.fromkeys(("psi", "wasserstein_sd", "out_of_range", "seen"))
    if last is not None:
        figures = {
            "psi": float(last.psi[k]),
            "wasserstein_sd": float(last.wasserstein[k]) if column.sd else None,
            "out_of_range": float(last.out_of_range[k]),
            "seen": last.shares[k, : len(column.shares)].tolist(),
        }
    return FeatureDrift(
        name=column.name,
        state="few" if last is None else STATES[int(last.states[k])],
        psi_limit=limits[0],
        wasserstein_sd_limit=limits[1],
        edges=[*column.edges],
        expected=[*column.shares],
        **figures,
    )


def _shares(
    profile: Profile, which: int, spoken: tuple[AnyArray, ...] | None, labels: list[str] | None = None
) -> Shares | None:
    if profile.spoken is None:
        return None
    expected = profile.spoken[which]
    if spoken is None:
        return Shares(labels=labels, psi=None, expected=expected.tolist(), seen=None)
    seen = spoken[which]
    return Shares(
        labels=labels,
        psi=float(psi(seen, expected)),
        expected=expected.tolist(),
        seen=(seen / np.maximum(seen.sum(), 1)).tolist(),
    )
