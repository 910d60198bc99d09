"""The fixtures that several modules share. What they are made of is in `serving`."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from serving import ASKER, PATIENCE, Process

# A deadline is a wall clock's, which says nothing on a shared machine. CI tries the same examples each time; whoever
# runs the tests elsewhere, and `make fuzz`, look for new ones.
settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("here")

Golden = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def service() -> Iterator[Process]:
    """The service, with the classifier that Keras 2.1.5 saved."""
    with Process(ASKER / "k215_model.h5") as process:
        yield process


@pytest.fixture(scope="session")
def client(service: Process) -> Iterator[httpx.Client]:
    """A client that keeps its connections to `service`."""
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as found:
        yield found


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Inputs (16, 20, 15) and what Keras 2.1.5 answers to them (16, 5)."""
    return load_golden(ASKER / "k215_golden.npz")


def load_golden(path: Path) -> Golden:
    with np.load(path) as arrays:
        return arrays["x0"], arrays["y0"]
