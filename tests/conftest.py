"""The fixtures that several modules share. What they are made of is in `serving`."""

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

# Before NumPy comes: the workers share the cores, and threads of BLAS that wait for each other take them for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Nothing is asked of the internet: each client would read all authorities that it is signed by, 50 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

from serving import ASKER, PATIENCE, Clients, Golden, Process, client_of, load_golden

# They assert, and are no modules of tests.
pytest.register_assert_rewrite("apps", "kinds", "native_requests", "open_inference", "scraping")

# A deadline is a wall clock's, which says nothing on a shared machine. CI tries the same examples each time; whoever
# runs the tests elsewhere, and `make fuzz`, look for new ones.
settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("here")

# Thousands of tests are objects that stay: garbage is not looked for among them, neither while they are made nor later.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


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
def served() -> Iterator[Clients]:
    """A client of a service with this model, by no settings: one for all tests that change nothing of it."""
    with ExitStack() as kept:
        yield cache(lambda model: kept.enter_context(client_of(model)))


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Inputs (16, 20, 15) and what Keras 2.1.5 answers to them (16, 5)."""
    return load_golden(ASKER / "k215_golden.npz")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A chain and its key, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    named = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(chain),
    ]
    subprocess.run([*made, *named], check=True, capture_output=True, timeout=PATIENCE)
    return chain, key
