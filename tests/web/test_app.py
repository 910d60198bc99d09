"""The app in process: faults that no client can cause, limits, and what the model's card adds."""

import asyncio
import gzip
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps import app_of, deployment_of, queued, row_of, state_of, with_echo
from fastapi import FastAPI
from native_requests import GOOD, ROW, many, one
from serving import ASKER, PATIENCE, SMALL, call, in_loop, load_golden, started

from lstm_serve.errors import ModelError, WrongNumbers
from lstm_serve.serving import deployment as deployment_module
from lstm_serve.serving.turns import MOST_WAITING
from lstm_serve.web.boundary import Boundary
from lstm_serve.web.dialects import native
from lstm_serve.web.nested_lists import LARGE


def infer(**parameters: int) -> bytes:
    data = np.ravel(ROW).tolist()
    tensor = {"name": "x", "shape": [1, 20, 15], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


# Faults.


@in_loop
async def test_a_forward_pass_that_raises_is_a_500_that_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = app_of()
    with_echo(app).fail.add(0.5)
    async with started(app):
        bad, good = await asyncio.gather(
            call(app, "/predict", row_of(0.5), headers={"x-request-id": "abc"}), call(app, "/predict", row_of(0.25))
        )
    assert (bad.status, good.status) == (500, 200)
    assert bad.json == {
        "type": "urn:lstm-serve:internal",
        "title": "Internal error",
        "status": 500,
        "detail": "the forward pass failed",
        "request_id": "abc",
    }
    assert "Fault" in caplog.text


@in_loop
async def test_an_output_that_is_not_finite_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app = app_of()
    with_echo(app).nan.add(0.5)
    async with started(app):
        bad, good = await asyncio.gather(call(app, "/predict", row_of(0.5)), call(app, "/predict", row_of(0.25)))
        batch = await call(app, "/predict/batch", many([[[0.5] * 15] * 20, ROW]))
    assert (bad.status, good.status, batch.status) == (500, 200, 500)
    assert bad.json["type"] == "urn:lstm-serve:not-finite"
    assert bad.json["request_id"] == bad.headers["x-request-id"]
    assert f"request {bad.json['request_id']} failed: the model answered NaN or infinity" in caplog.text


@in_loop
async def test_a_fault_of_ours_is_in_the_log_under_the_id_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("inside")

    app = app_of()
    monkeypatch.setattr(native, "answers", fault)
    async with started(app):
        answer = await call(app, "/predict", GOOD)
    assert (answer.status, answer.json["type"]) == (500, "urn:lstm-serve:internal")
    assert "inside" not in answer.body.decode()
    assert f"request {answer.json['request_id']} failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@in_loop
async def test_a_fault_after_half_an_answer_closes_the_connection() -> None:
    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    app = app_of()
    boundary: Any = Boundary(half, state_of(app))
    with pytest.raises(ZeroDivisionError):
        await call(boundary, "/")


@in_loop
async def test_a_dead_batching_task_is_told_by_the_health_checks() -> None:
    app = app_of()
    async with started(app):
        task = deployment_of(app).queue._task
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        alive, ready = await call(app, "/livez"), await call(app, "/readyz")
        answer = await call(app, "/predict", GOOD)
    assert (alive.status, alive.json) == (500, {"status": "failing"})
    assert (ready.status, ready.json) == (503, {"status": "failing"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["detail"] == "the service cannot compute"


# Limits.


@in_loop
async def test_a_full_queue_is_a_429_at_once() -> None:
    app = app_of(max_queue_rows=4, max_rows=4, max_batch_rows=2)
    async with started(app):
        job = queued(app, 1, 2, 3, 4)
        answer = await call(app, "/predict", GOOD)
        assert not job.future.done()
        assert len(await job.future) == 4
        assert (await call(app, "/predict", GOOD)).status == 200
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json["detail"] == "4 rows are waiting; at most 4 may"


@in_loop
async def test_marks_in_the_names_make_no_rows(tmp_path: Path) -> None:
    names = ["a [m/s2]", "b {[", "c [["]
    app = app_of(beside(tmp_path, "binary", {"features": names}), max_queue_rows=4, max_rows=4)
    step = dict.fromkeys(names, 0.5)
    deployment = deployment_of(app)
    steps, features = [size or 0 for size in deployment.current.model.input_shape]
    body = many([[step] * steps])
    async with started(app):
        x = np.zeros((3, steps, features), np.float32)
        deployment.queue.submit(deployment.current.model, x, time.monotonic() + PATIENCE)
        assert (await call(app, "/predict/batch", body)).status == 200


@in_loop
async def test_bytes_in_flight_are_bounded_and_given_back() -> None:
    app = app_of(max_inflight_bytes=len(GOOD))
    budget = state_of(app).budget
    async with started(app):
        for body, status in ((GOOD, 200), (GOOD + b" ", 429), (b"[]", 422), (b"", 400), (GOOD, 200)):
            answer = await call(app, "/predict", body)
            assert answer.status == status
            assert budget.bytes == deployment_of(app).requests == 0
        assert (await call(app, "/predict", GOOD, headers={"content-type": "text/plain"})).status == 415
        assert budget.bytes == 0


@in_loop
async def test_a_large_body_that_is_refused_gives_its_turn_back() -> None:
    app = app_of()
    async with started(app):
        for body, status in ((b" " * (LARGE + 1), 400), (many([[[0]]] * LARGE), 413), (GOOD + b" " * LARGE, 200)):
            assert (await call(app, "/predict/batch" if status == 413 else "/predict", body)).status == status
            assert not state_of(app).turns.lock.locked()


@in_loop
async def test_stopping_refuses_and_says_so() -> None:
    app = app_of()
    async with started(app):
        state_of(app).draining = True
        ready = await call(app, "/readyz", headers={})
        assert ready.status == 503
        await deployment_of(app).close()
        answer = await call(app, "/predict", GOOD)
    assert (answer.status, answer.json["detail"]) == (503, "the service is stopping")


@in_loop
async def test_who_leaves_while_waiting_is_not_computed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = app_of(max_batch_rows=1)
    layer, left = with_echo(app), asyncio.Event()
    async with started(app):
        layer.calls.clear()
        job = queued(app, 1, 2, 3)
        request = asyncio.ensure_future(call(app, "/predict", row_of(9), left=left))
        await asyncio.sleep(0)
        left.set()
        answer = await request
        await job.future
    assert (answer.status, answer.body) == (0, b"")
    assert [x[0, 0, 0] for x in layer.calls] == [1, 2, 3]
    assert caplog.records[-1].getMessage() == "POST /predict 499"


@in_loop
async def test_of_who_leaves_no_sequence_is_computed_of_whichever_length() -> None:
    app = app_of(SMALL / "free.h5", max_batch_rows=1)
    layer, left = with_echo(app), asyncio.Event()
    deployment = deployment_of(app)
    model = deployment.current.model
    features = model.input_shape[-1] or 0
    async with started(app):
        layer.calls.clear()
        before = np.repeat(np.array([1, 2, 3], np.float32), 4 * features).reshape(3, 4, features)
        job = deployment.queue.submit(model, before, time.monotonic() + PATIENCE)
        body = json.dumps({"sequences": [[[9] * features] * steps for steps in (2, 3, 4)]}).encode()
        request = asyncio.ensure_future(call(app, "/predict/batch", body, left=left))
        await asyncio.sleep(0)
        left.set()
        await request
        await job.future
        assert await deployment.queue.is_idle(time.monotonic() + PATIENCE)
    assert [x[0, 0, 0] for x in layer.calls] == [1, 2, 3]


@in_loop
async def test_who_leaves_before_the_body_has_come_is_let_go() -> None:
    app = app_of()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("there is nobody to answer")

    async with started(app):
        await app(
            {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}, receive, send
        )
    assert state_of(app).budget.bytes == 0


@in_loop
async def test_what_waits_and_is_cancelled_by_the_server_is_a_503() -> None:
    app = app_of(max_batch_rows=1)
    async with started(app):
        job = queued(app, 1, 2, 3)
        request = asyncio.ensure_future(call(app, "/predict", GOOD))
        await asyncio.sleep(0)
        request.cancel()
        answer = await request
        await job.future
    assert (answer.status, answer.json["detail"]) == (503, "the service is stopping")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/predict", GOOD, [], 200),
        ("/predict", GOOD, [(b"x-request-timeout-ms", b"7200000")], 200),
        ("/predict", GOOD, [(b"x-request-timeout-ms", b"1800000")], 504),
        ("/v2/models/k215_model/infer", infer(), [], 200),
        ("/v2/models/k215_model/infer", infer(timeout=7_200_000_000), [], 200),
        ("/v2/models/k215_model/infer", infer(timeout=1_800_000_000), [], 504),
    ],
)
@in_loop
async def test_the_deadline_runs_from_the_end_of_the_body_and_the_clients_own_from_its_beginning(
    path: str, body: bytes, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    app, state = app_of(), dict[str, Any]()
    parts = [body[:100], body[100:]]
    answer: list[Any] = []

    async def receive() -> Any:
        state["arrived"] -= 1800  # so long takes each part, by the request's own clock
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answer.append(message)

    async with started(app):
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        await app({**scope, "state": state}, receive, send)
    assert answer[0]["status"] == status, answer
    assert "jobs" not in state  # an idle connection keeps the rest of it
    assert state_of(app).budget.bytes == 0


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", GOOD, {"x-request-timeout-ms": "7200000"}),
        ("/v2/models/k215_model/infer", infer(timeout=7_200_000_000), {}),
    ],
)
@in_loop
async def test_no_client_gives_itself_longer_than_the_service_does(
    path: str, body: bytes, headers: dict[str, str]
) -> None:
    app = app_of(deadline_seconds=1e-9)
    async with started(app):
        assert (await call(app, path, body, headers=headers)).status == 504


@in_loop
async def test_a_body_in_parts_is_refused_once_they_are_too_many_together() -> None:
    app = app_of(max_body_bytes=100)
    parts, answer = [b" " * 60] * 3, list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answer.append(message)

    async with started(app):
        await app(
            {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}, receive, send
        )
    assert (answer[0]["status"], len(parts), state_of(app).budget.bytes) == (413, 1, 0)


@in_loop
async def test_a_compressed_body_is_not_inflated_where_too_many_large_ones_wait() -> None:
    app, packed = app_of(), gzip.compress(GOOD + b" " * LARGE)
    async with started(app):
        state_of(app).turns.waiting = MOST_WAITING
        refused = await call(app, "/predict", packed, headers={"content-encoding": "gzip"})
        assert (refused.status, state_of(app).budget.bytes) == (429, 0)
        state_of(app).turns.waiting = 0
        assert (await call(app, "/predict", packed, headers={"content-encoding": "gzip"})).status == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@in_loop
async def test_a_client_that_leaves_while_its_large_body_waits_keeps_nothing(encoding: str) -> None:
    app, left, body = app_of(), asyncio.Event(), GOOD + b" " * LARGE
    async with started(app):
        turns = state_of(app).turns
        await turns.lock.acquire()
        sent = gzip.compress(body) if encoding == "gzip" else body
        request = asyncio.create_task(call(app, "/predict", sent, headers={"content-encoding": encoding}, left=left))
        for _ in range(9):
            await asyncio.sleep(0)
        assert turns.waiting == 1
        left.set()
        assert (await request).status == 0
        assert (state_of(app).budget.bytes, turns.waiting) == (0, 0)


@pytest.mark.parametrize("bad", ["fail", "nan"])
@in_loop
async def test_one_bad_run_of_several_fails_the_request_and_leaves_nothing_behind(
    bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(SMALL / "steps.h5")
    getattr(with_echo(app), bad).add(0.5)
    body = many([[[0.5] * 3] * 4, [[0.25] * 3] * 5, [[0.5] * 3] * 6])
    async with started(app):
        answer = await call(app, "/predict/batch", body)
        async with asyncio.timeout(PATIENCE):
            while deployment_of(app).queue.queued_rows:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.001)
    assert answer.status == 500
    assert "never retrieved" not in caplog.text


@in_loop
async def test_a_slow_model_is_computed_in_a_thread_with_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_module, "LONGEST_ON_THE_LOOP", 0.0)
    threaded = app_of()
    monkeypatch.undo()
    answers = []
    for app in (threaded, app_of()):
        async with started(app):
            answers.append(await asyncio.gather(*(call(app, "/predict", row_of(k / 10)) for k in range(8))))
    assert deployment_of(threaded).queue.executor is not None
    for a, b in zip(*answers, strict=True):
        assert np.allclose(a.json["probabilities"], b.json["probabilities"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("stem", "threaded"), [("steps", True), ("binary", False)])
def test_a_model_of_free_length_is_computed_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
    stem: str,
    threaded: bool,  # noqa: FBT001 - a case
) -> None:
    monkeypatch.setattr(deployment_module, "LONGEST_ON_THE_LOOP", float("inf"))  # however quick it is, or slow
    deployment = deployment_of(app_of(SMALL / f"{stem}.h5"))
    assert (None in deployment.current.model.input_shape) == threaded
    assert (deployment.queue.executor is not None) == threaded


# Paths.


@in_loop
async def test_a_path_that_was_found_last_takes_post_alone() -> None:
    app = app_of()
    async with started(app):
        for _ in range(2):
            for method in ("GET", "DELETE"):
                answer = await call(app, "/predict", method=method)
                assert (answer.status, answer.json["detail"]) == (405, "this path takes POST")
            assert "probabilities" in (await call(app, "/predict", GOOD)).json


# The card and the golden predictions.


def beside(tmp_path: Path, stem: str, card: dict[str, Any]) -> Path:
    """A copy of a small model with this card beside it, and with its golden predictions."""
    for name in (f"{stem}.h5", f"{stem}.golden.npz"):
        shutil.copy(SMALL / name, tmp_path)
    (tmp_path / f"{stem}.card.json").write_text(json.dumps(card))
    return tmp_path / f"{stem}.h5"


async def answers_of(app: FastAPI, x: Any) -> list[Any]:
    async with started(app):
        answer = await call(app, "/predict/batch", many(np.asarray(x).tolist()))
    assert answer.status == 200, answer.body
    found: list[Any] = answer.json["predictions"]
    return found


@in_loop
async def test_labels_names_and_version_of_the_card(tmp_path: Path) -> None:
    card = {
        "name": "pump",
        "version": "3",
        "description": "Whether the pump fails.",
        "classes": ["runs", "fails"],
        "features": ["heat", {"name": "flow", "unit": "l/s"}, "noise"],
        "metadata": {"by": "us"},
    }
    app = app_of(beside(tmp_path, "binary", card))
    with np.load(SMALL / "binary.golden.npz") as golden:
        answers = await answers_of(app, golden["x"])
        assert [a["label"] for a in answers] == [("runs", "fails")[int(p >= 0.5)] for p in golden["y"][:, 0]]
    about = (await call(app, "/model")).json
    assert (about["name"], about["version"], about["classes"]) == ("pump", "3", ["runs", "fails"])
    assert about["features"][1] == {"name": "flow", "unit": "l/s", "description": None}
    assert about["metadata"] == {"by": "us"}
    assert "heat, flow, noise" in json.dumps(app.openapi())


@in_loop
async def test_time_steps_by_the_names_of_the_card(tmp_path: Path) -> None:
    names = ["T24", "flow l/s", "b~é"]
    app = app_of(beside(tmp_path, "binary", {"features": names}))
    with np.load(SMALL / "binary.golden.npz") as golden:
        x = golden["x"]
    by_name = [[dict(reversed([*zip(names, step, strict=True)])) for step in row] for row in x.tolist()]
    async with started(app):
        answers = (await call(app, "/predict/batch", many(x.tolist()))).json["predictions"]
        batch = await call(app, "/predict/batch", many(by_name))
        alone = await call(app, "/predict", one(by_name[0]))
        either = await call(app, "/invocations", one(by_name[0]))
        by_name[1][2] = {"T24": 1, "b~é": "x"}
        wrong = await call(app, "/predict/batch", many(by_name))
        of_v1 = await call(app, "/v1/models/binary:predict", json.dumps({"instances": by_name[:1]}).encode())
        plain = await call(app, "/predict", one([[1, 2, 3], [1, "x", 3], *x[0, 2:].tolist()]))
    assert batch.json == {"predictions": answers}
    assert alone.json == either.json == answers[0]
    assert wrong.json["errors"] == [
        {"detail": "lacks flow l/s, which the model's card names", "pointer": "#/sequences/1/2"},
        {"detail": "expected a number, got a string", "pointer": "#/sequences/1/2/b~0%C3%A9"},
    ]
    assert (of_v1.status, plain.json["errors"][0]["pointer"]) == (400, "#/sequence/1/1")


@in_loop
async def test_labels_of_a_classifier(tmp_path: Path) -> None:
    app = app_of(beside(tmp_path, "free", {"classes": ["a", "b", "c"]}))
    with np.load(SMALL / "free.golden.npz") as golden:
        answers = await answers_of(app, golden["x"])
        assert [a["label"] for a in answers] == ["abc"[k] for k in golden["y"].argmax(axis=1)]


@pytest.mark.parametrize("form", ["mean and scale", "min and max"])
@in_loop
async def test_the_scaling_of_the_card_is_done_first(tmp_path: Path, form: str) -> None:
    mean, scale = np.array([100.0, -3.0, 0.25]), np.array([50.0, 0.5, 2.0])
    scaling = (
        {"mean": mean.tolist(), "scale": scale.tolist()}
        if form == "mean and scale"
        else {"min": mean.tolist(), "max": (mean + scale).tolist()}
    )
    path = beside(tmp_path, "values", {"scaling": scaling})
    with np.load(SMALL / "values.golden.npz") as golden:
        x, y = golden["x"] * scale + mean, golden["y"]
    with pytest.raises(WrongNumbers):
        app_of(path)  # the golden predictions are still those of the model without it
    np.savez(tmp_path / "values.golden.npz", x=x, y=y)
    app = app_of(path)
    answers = await answers_of(app, x)
    assert np.allclose([a["values"] for a in answers], y, rtol=0, atol=1e-5)
    assert deployment_of(app).current.model.origin.verified


@pytest.mark.parametrize(
    ("stem", "card", "said"),
    [
        ("binary", {"classes": ["a", "b", "c"]}, "names 3 classes; the model's output has 2"),
        ("values", {"classes": ["a", "b"]}, "names 2 classes; the model answers plain values"),
        ("binary", {"features": ["a"]}, "names 1 features, the model has 3"),
        ("binary", {"scaling": {"mean": [1], "scale": [1]}}, "scales 1 features, the model has 3"),
        ("binary", {"scaling": {"mean": [1, 2, 3], "scale": [1, 0, 1]}}, "no scale may be 0"),
        ("binary", {"clases": ["a", "b"]}, "clases"),
        ("binary", {"timesteps": 7}, "timesteps = 7, the file says 6"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, stem: str, card: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        app_of(beside(tmp_path, stem, card))


@in_loop
async def test_weights_alone_are_served_with_what_they_do_not_tell() -> None:
    app = app_of(ASKER / "k215_weights.h5", recurrent_activation="hard_sigmoid_keras_2", output_activation="softmax")
    x, y = load_golden(ASKER / "k215_golden.npz")
    async with started(app):
        answer = await call(app, "/predict", one(x[0].tolist()))
    assert np.abs(np.array(answer.json["probabilities"]) - y[0]).max() <= 1e-5
