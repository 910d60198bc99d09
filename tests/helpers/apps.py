"""The app in process, and what is put into it from inside."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from echo import Echo
from fastapi import FastAPI
from native_requests import one
from serving import ASKER, PATIENCE

from lstm_serve.model.graph import INPUT, Node, Source
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.jobs import Job
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

MODEL = ASKER / "k215_model.h5"


def app_of(model: Path = MODEL, **settings: Any) -> FastAPI:
    return create_app(Settings(model=model, **settings))


def deployment_of(app: FastAPI) -> Deployment:
    found: Deployment = app.state.registry.get()
    return found


def state_of(app: FastAPI) -> ServingState:
    found: ServingState = app.state.serving
    return found


def with_echo(app: FastAPI) -> Echo:
    """Put a layer that can be told to fail before the model's own; it is given twice the input."""
    layer, deployment = Echo(), deployment_of(app)
    model = deployment.current.model
    nodes = [Node(op, tuple(Source(k + 1, output) for k, output in inputs)) for op, inputs in model.nodes]
    deployment.current = Served.of(replace(model, nodes=(Node(layer, (Source(INPUT),)), *nodes)))
    return layer


def row_of(number: float) -> bytes:
    return one([[number] * 15] * 20)


def queued(app: FastAPI, *numbers: float) -> Job:
    """Rows that wait in the queue, without a request of their own."""
    deployment = deployment_of(app)
    x = np.array([[[number] * 15] * 20 for number in numbers], np.float32)
    return deployment.queue.submit(deployment.current.model, x, time.monotonic() + PATIENCE)
