"""POST /trace: computed behind predictions, in bounds, and true where the answer is no number."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps import app_of, row_of, state_of, with_echo
from kerasfiles import functional, lstm, numbers, save
from native_requests import GOOD
from serving import PATIENCE, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.explain.numpy_program import lines
from lstm_serve.explain.trace import report
from lstm_serve.model.model import Model
from lstm_serve.scoring.inputs import Sequences, UnitSequences


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no trace ends."""
    event, traced = threading.Event(), Model.traced

    def held(model: Model, x: Any) -> Any:
        assert event.wait(PATIENCE)
        return traced(model, x)

    monkeypatch.setattr(Model, "traced", held)
    yield event
    event.set()


@pytest.mark.parametrize("bad", ["nan", "fail"])
@in_loop
async def test_a_failure_is_that_of_a_prediction(bad: str) -> None:
    app = app_of()
    getattr(with_echo(app), bad).add(0.5)
    async with started(app):
        predicted, traced = [await call(app, path, row_of(0.5)) for path in ("/predict", "/trace")]
        assert (traced.status, traced.json["type"]) == (predicted.status, predicted.json["type"])
        assert traced.status == 500
        assert (await call(app, "/trace", row_of(0.25))).status == 200


@in_loop
async def test_no_other_request_waits_for_it_and_its_size_is_counted(free: threading.Event) -> None:
    app = app_of()
    budget = state_of(app).budget
    large = b" " * (1 << 17) + GOOD
    async with started(app):
        traced = asyncio.create_task(call(app, "/trace", large))
        while budget.bytes in {0, len(large)}:  # noqa: ASYNC110 - it tells nobody that it is read
            await asyncio.sleep(0)
        counted = budget.bytes
        assert (await call(app, "/predict", large)).status == 200
        assert not traced.done()
        free.set()
        answer = await traced
        assert answer.status == 200
        assert counted > len(answer.body)
        assert budget.bytes == 0


@in_loop
async def test_who_waits_for_too_long_is_told(free: threading.Event) -> None:
    app = app_of()
    async with started(app):
        answer = await call(app, "/trace", GOOD, headers={"x-request-timeout-ms": "1"})
        assert answer.status == 504
        free.set()
        assert (await call(app, "/trace", GOOD)).status == 200


@in_loop
async def test_one_that_is_larger_than_what_there_is_room_for_is_refused() -> None:
    app = app_of(max_inflight_bytes=1 << 16, max_body_bytes=1 << 16)
    async with started(app):
        assert (await call(app, "/predict", GOOD)).status == 200
        assert (await call(app, "/trace", GOOD)).status == 429
        assert state_of(app).budget.bytes == 0


@in_loop
async def test_of_a_model_whose_layer_gives_its_states_the_answer_may_be_one(tmp_path: Path) -> None:
    class_name, options, arrays = lstm()
    entry = {"name": "x", "batch_input_shape": [None, 5, 3]}
    encoder = functional(
        [
            ("InputLayer", entry, []),
            (class_name, {**options, "name": "a", "return_state": True, "return_sequences": True}, ["x"]),
        ]
    )
    encoder["config"]["output_layers"] = [["a", 0, 2]]
    path = save(tmp_path / "encoder.h5", encoder, {"a": arrays})
    model, x = load_model(path), numbers(1, 5, 3)
    async with started(app := app_of(path)):
        answer = await call(app, "/trace", json.dumps({"sequence": x[0].tolist()}).encode())
    assert answer.status == 200
    np.testing.assert_allclose(answer.json["answer"]["values"], model.predict(x)[0], rtol=0, atol=1e-6)
    told = report(model, Sequences((UnitSequences(x, [1]),), "sequence"), loading="load_model('encoder.h5')")
    assert told.split("answer\n")[1].split() == ["values:", *np.array2string(model.predict(x)[0], precision=6).split()]
    assert "it answers a state" in " ".join(lines(model, path, {}, "load_model('encoder.h5')"))
