"""A model that is replaced while a request is under way: what has taken the request goes on with it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kerasfiles import scaled_copy
from serving import PATIENCE, call, in_loop, started

from lstm_serve.serving.deployment import Deployment, Loaded, NamedFiles, load
from lstm_serve.settings import Settings
from lstm_serve.telemetry.metrics import Metrics
from lstm_serve.web.app import create_app
from lstm_serve.web.dialects import native
from lstm_serve.web.dialects.v1 import routes as v1
from lstm_serve.web.dialects.v2 import routes as v2

ROWS = np.random.default_rng(5).random((2, 20, 15)).round(3)
TENSOR = {"name": "x", "shape": [2, 20, 15], "datatype": "FP32", "data": ROWS.ravel().tolist()}

DIALECTS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "/predict/batch": (native, {"sequences": ROWS.tolist()}),
    "/v1/models/model:predict": (v1, {"instances": ROWS.tolist()}),
    "/v2/models/model/infer": (v2, {"inputs": [TENSOR]}),
}


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Loaded]:
    """A model's file, and another model that may take its place."""
    (other := tmp_path / "other").mkdir()
    return scaled_copy(tmp_path / "model.h5"), load(Settings(model=scaled_copy(other / "model.h5", 3.0)))


@pytest.mark.parametrize("after", [False, True], ids=["decoded", "computed"])
@pytest.mark.parametrize("path", DIALECTS)
def test_a_request_is_answered_by_the_model_that_it_was_decoded_for(
    models: tuple[Path, Loaded], monkeypatch: pytest.MonkeyPatch, path: str, *, after: bool
) -> None:
    (first, other), (dialect, content) = models, DIALECTS[path]
    compute: Callable[..., Awaitable[Any]] = dialect.predicted

    @in_loop
    async def test() -> None:
        app = create_app(Settings(model=first))
        deployment: Deployment = app.state.registry.get()

        async def replaced(*args: Any) -> Any:
            if not after:
                deployment.activate(other)
            parts = await compute(*args)
            deployment.activate(other)
            return parts

        body = json.dumps(content).encode()
        async with started(app):
            before = await call(app, path, body)
            with monkeypatch.context() as patch:
                patch.setattr(dialect, "predicted", replaced)
                during = await call(app, path, body)
            afterwards = await call(app, path, body)
        digest = "x-model-sha256"
        assert (during.status, during.json, during.headers[digest]) == (200, before.json, before.headers[digest])
        assert afterwards.json != before.json
        assert afterwards.headers[digest] == other.model.origin.digest

    test()


@in_loop
async def test_an_older_version_that_was_read_again_answers_as_it_is_now(models: tuple[Path, Loaded]) -> None:
    settings, (first, other) = Settings(model=models[0]), models
    newest = load(settings, NamedFiles(first, "m", "10"))
    deployment = Deployment(newest, settings, Metrics())
    before, after = (load(settings, NamedFiles(path, "m", "9")) for path in (first, other.files.model))
    deployment.keep([before, newest])
    served = deployment.versions["9"]
    deployment.keep([before, newest])
    assert deployment.versions["9"] is served  # with all that was made of it
    deployment.keep([after, newest])
    assert deployment.versions["9"].model is after.model
    assert deployment.numbers == ["9", "10"]
    deployment.keep([newest])
    assert deployment.versions == {"10": deployment.current}


@in_loop
async def test_a_file_is_read_once_it_is_the_same_for_two_looks(models: tuple[Path, Loaded]) -> None:
    first, other = models
    app = create_app(Settings(model=first))

    async def look() -> bytes:
        app.state.reloader.look()
        async with asyncio.timeout(PATIENCE):
            await app.state.reloader.settled.wait()
        deployment = app.state.registry.get()
        assert deployment.refused is None  # no half of a file was read
        digest: bytes = deployment.current.digest
        return digest

    async with started(app):
        before, data = await look(), other.files.model.read_bytes()
        for copied in (data[: len(data) // 2], data):
            first.write_bytes(copied)
            assert await look() == before
        assert await look() == other.model.origin.digest.encode()


NAMES = [f"s{k}" for k in range(15)]
STEPS = [[dict(zip(NAMES, step, strict=True)) for step in row] for row in ROWS.tolist()]
# Each path whose body may name a step's features, with a body that does.
NAMED: dict[str, dict[str, Any]] = {
    "/predict": {"sequence": STEPS[0]},
    "/predict/batch": {"sequences": STEPS},
    "/predict/series": {"series": STEPS[0]},
    "/series/pump/rows": {"rows": STEPS[0]},
    "/series/rows": {"rows": [{"series": "fan", "row": STEPS[0][0]}]},
    "/explain": {"sequence": STEPS[0]},
    "/trace": {"sequence": STEPS[0]},
    "/invocations": {"sequences": STEPS},
}


@in_loop
async def test_names_of_a_first_card_count_as_soon_as_its_model_is_served(tmp_path: Path) -> None:
    path = scaled_copy(tmp_path / "model.h5")
    app = create_app(Settings(model=path))
    deployment: Deployment = app.state.registry.get()
    (tmp_path / "model.card.json").write_text(json.dumps({"features": NAMES}))

    async def taken(url: str) -> bool:
        answer = await call(app, url, json.dumps(NAMED[url]).encode())
        return answer.status == 200 and "status" not in answer.json.get("results", [{}])[0]

    async with started(app):
        assert [url for url in NAMED if await taken(url)] == []
        deployment.activate(load(Settings(model=path)))
        assert [url for url in NAMED if await taken(url)] == [*NAMED]


@in_loop
async def test_the_name_of_no_model_is_a_404_whatever_the_body(tmp_path: Path) -> None:
    app = create_app(Settings(model=scaled_copy(tmp_path / "model.h5")))
    async with started(app):
        for path in ("/v1/models/other:predict", "/v2/models/other/infer", "/v2/models/model/versions/2/infer"):
            answer = await call(app, path, b"[")
            assert answer.status == 404
            assert "served here is" in answer.json["error"]
            assert app.state.serving.budget.bytes == 0
