"""Series of stateful models: a row is answered as Keras does, called with one row after the other."""

import json
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from event_stream import listening
from kerasfiles import save_sequential, scaled_copy
from numpy.typing import NDArray
from open_inference import tensor
from redis_process import STORES, RedisProcess, needs_redis, served_from
from scraping import one_of, parsed
from serving import GOLDEN, PATIENCE, Process, client_of

from lstm_serve import load_model
from lstm_serve.model.carry import Carrying

STATEFUL = GOLDEN / "stateful"
Array = NDArray[np.float32]
STEMS = {"k3": ".keras", "tf215": ".h5"}


def calls(name: str) -> tuple[Array, Array]:
    """What Keras was given, (calls, batch, timesteps, features), and what it answered."""
    with np.load(STATEFUL / f"{name}.calls.npz") as arrays:
        return arrays["x"], arrays["y"]


@pytest.fixture(scope="module", params=STORES)
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with served_from(request.param, STATEFUL, tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(scope="module")
def client(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        yield client


def append(client: httpx.Client, path: str, rows: Any, seq: int | None = None, query: str = "") -> httpx.Response:
    body = {"rows": np.asarray(rows).tolist(), **({} if seq is None else {"seq": seq})}
    return client.post(f"{path}/rows{query}", json=body)


def numbers(answer: Any) -> Any:
    return answer["probabilities"] if "probabilities" in answer else answer["values"]


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("keras", STEMS)
@pytest.mark.parametrize("name", ["last", "each"])
def test_python_call_by_call(keras: str, name: str) -> None:
    (x, y), model = calls(f"{keras}__{name}"), load_model(STATEFUL / f"{keras}__{name}{STEMS[keras]}")
    carrying = Carrying.of(model)
    assert carrying is not None
    state = carrying.stepper.start(x.shape[1])
    for given, wanted in zip(x, y, strict=True):
        ys, state = carrying.unpacked(carrying.forward(carrying.packed(given, state)))
        same(ys[:, -1] if name == "last" else ys[:, :, 0], wanted)
    assert not np.allclose(model.predict(x[1]), y[1], atol=1e-3)  # after reset_states()


@pytest.mark.parametrize("keras", STEMS)
@pytest.mark.parametrize("name", ["last", "each"])
def test_http_call_by_call(client: httpx.Client, keras: str, name: str) -> None:
    x, y = calls(f"{keras}__{name}")
    at = f"/models/{keras}__{name}"
    assert client.get(at).json()["series"] == "carry"
    for unit in range(x.shape[1]):
        seq = -1
        for given, wanted in zip(x[:, unit], y[:, unit], strict=True):
            seq += len(given)
            answer = append(client, f"{at}/series/unit-{unit}", given, seq).json()
            assert (answer["seq"], answer["rows"], answer["ready"]) == (seq, seq + 1, True)
            found = numbers(answer["answer"])
            same(found, wanted if name == "last" else wanted[-1:])
        state = client.get(f"{at}/series/unit-{unit}").json()
        assert (state["rows"], state["answer"]) == (seq + 1, answer["answer"])
    rows, every = (
        x[:, 0].reshape(-1, x.shape[-1]),
        append(client, f"{at}/series/all", x[:, 0].reshape(-1, 3), 11, "?answers=all"),
    )
    for k, row in enumerate(rows):
        one = append(client, f"{at}/series/one-by-one", [row], k).json()["answer"]
        same(numbers(one), numbers(every.json()["answers"][k]))
        if name == "each":
            same(numbers(one), y[:, 0].reshape(-1, y.shape[-1])[k : k + 1])


def test_many_series_in_one_request(client: httpx.Client) -> None:
    x, y = calls("k3__each")
    order = [(call, step, unit) for call in range(3) for step in range(4) for unit in range(2)]
    for start in (0, 10):  # of each series several rows
        some = order[start : start + (10 if start == 0 else 14)]
        items: list[Any] = [
            {"series": f"many-{unit}", "seq": 4 * call + step, "row": x[call, unit, step].tolist()}
            for call, step, unit in some
        ]
        items.insert(3, {"series": "many-0", "seq": 99, "row": [1, 2, 3]})
        items.insert(5, {"series": "!", "row": [1]})
        results = client.post("/models/k3__each/series/rows", json={"rows": items}).json()["results"]
        assert [results.pop(5)["status"], results.pop(3)["status"]] == [422, 409]
        for (call, step, unit), result in zip(some, results, strict=True):
            same(numbers(result["answer"]), y[call, unit, step : step + 1])


def test_repeats_and_gaps(client: httpx.Client) -> None:
    (x, y), at = calls("k3__last"), "/models/k3__last/series/again"
    rows = x[:, 0].reshape(-1, 3)
    first = append(client, at, rows[:4], 3).json()
    again = append(client, at, rows[:4], 3).json()
    assert again == {**first, "duplicate": True}
    older = append(client, at, rows[1:2], 1).json()
    assert (older["duplicate"], older["rows"], older["answer"] == first["answer"]) == (True, 4, False)
    gap = append(client, at, rows[5:6], 5)
    assert (gap.status_code, gap.json()["expected"], gap.json()["got"]) == (409, 4, 5)
    assert append(client, at, rows[:4] + 1, 3).status_code == 409
    overlapping = append(client, at, rows[2:8], 7, "?answers=all").json()
    same(numbers(overlapping["answers"][-1]), y[1, 0])
    assert overlapping["answers"][1] == first["answer"]
    assert client.delete(at).status_code == 204
    anew = append(client, at, rows[:4], 3).json()
    assert anew == first


def test_a_repeat_of_many_rows_has_the_answers_that_are_kept(client: httpx.Client) -> None:
    at, rows = "/models/k3__each/series/long", np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)
    first = append(client, at, rows, 99, "?answers=all").json()["answers"]
    again = append(client, at, rows, 99, "?answers=all").json()["answers"]
    assert again[:36] == [None] * 36
    assert again[36:] == first[36:]


def test_what_does_not_carry_is_refused_by_name(client: httpx.Client) -> None:
    for keras in STEMS:
        at = f"/models/{keras}__mixed"
        assert client.get(at).json()["series"] is None
        refused = append(client, f"{at}/series/s", np.ones((1, 3)), 0)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:lstm-serve:no-carry")
        assert "starts anew at each call, beside a stateful one" in refused.json()["detail"]
        assert client.get(f"{at}/series/s").status_code == 409
        assert client.get(f"{at}/series/s/events").json()["type"] == "urn:lstm-serve:no-carry"


@pytest.mark.parametrize("name", ["last", "each"])
def test_each_answer_is_told_to_who_listens(client: httpx.Client, name: str) -> None:
    at, rows = f"/models/k3__{name}/series/told", np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)
    first = append(client, at, rows[:3], 2, "?answers=all").json()
    with listening(f"{client.base_url}{at}/events?inputs=true") as stream:
        told = stream.take(3)
        assert [event.data["answer"] for event in told] == first["answers"]
        np.testing.assert_array_equal(np.array([event.data["row"] for event in told], np.float32), rows[:3])
        answered = [append(client, at, rows[k : k + 1], k).json() for k in range(3, 6)]
        assert [event.data | {"row": None} for event in stream.take(3)] == [each | {"row": None} for each in answered]
    every = append(client, at, rows[6:], 99, "?answers=all").json()["answers"]
    with listening(f"{client.base_url}{at}/events", "5") as stream:
        gap, *told = stream.take(65)
        assert (gap.name, gap.data) == ("gap", {"after": 5, "next": 36})
        assert [event.data["answer"] for event in told] == every[30:]
        assert [(event.data["rows"], event.id) for event in told] == [(k + 1, str(k)) for k in range(36, 100)]
        client.delete(at)
        assert [event.name for event in stream.rest()] == ["end"]


@pytest.mark.parametrize("name", ["last", "each"])
def test_tritons_sequences(client: httpx.Client, name: str) -> None:
    x, y = calls(f"k3__{name}")
    for call in range(3):
        flags = {"sequence_start": call == 0, "sequence_end": call == 2}
        body = {"inputs": [tensor(x[call, :1])], "parameters": {"sequence_id": 7, **flags}}
        content = client.post(f"/v2/models/k3__{name}/infer", json=body).json()
        found = content["outputs"][0]
        assert found["shape"] == [1, *y.shape[2:]]
        same(np.reshape(found["data"], found["shape"]), y[call, :1])
    assert client.get(f"/models/k3__{name}/series/7").status_code == 404


def test_what_is_counted(client: httpx.Client) -> None:
    def told(name: str, **labels: str) -> float:
        return one_of(parsed(client.get("/metrics").text), name, model="tf215__each", **labels)

    at, before = "/models/tf215__each/series/counted", told("series_rows_total")
    append(client, at, np.ones((5, 3)), 4)
    append(client, at, np.ones((5, 3)), 4)
    assert told("series_rows_total") - before == 5
    assert told("series_duplicates_total") >= 5


def carded(folder: Path, name: str = "m", **card: object) -> Path:
    shutil.copy(STATEFUL / "tf215__last.h5", folder / f"{name}.h5")
    (folder / f"{name}.card.json").write_text(json.dumps(card))
    return folder / f"{name}.h5"


def one_after_the_other(rows: Array) -> Array:
    """What is answered to each of rows, from states of 0."""
    carrying = Carrying.of(load_model(STATEFUL / "tf215__last.h5"))
    assert carrying is not None
    packed = carrying.packed(rows[np.newaxis], carrying.stepper.start(1))
    ys: Array = carrying.unpacked(carrying.forward(packed)).ys[0]
    return ys


def test_the_cards_rules(tmp_path: Path) -> None:
    rows = calls("tf215__last")[0].reshape(-1, 3)
    for gap in ("last", "reset"):
        carded(tmp_path, gap, series={"gap": gap})
    with client_of(tmp_path) as client:
        client.base_url = client.base_url.join("/models/last")
        append(client, "/series/s", rows[:2], 1)
        answer = append(client, "/series/s", rows[2:3], 104).json()
        assert (answer["filled"], answer["rows"]) == (102, 105)
        filled = np.concatenate([rows[:2], rows[1:2].repeat(102, axis=0), rows[2:3]])
        same(numbers(answer["answer"]), one_after_the_other(filled)[-1])
        again = append(client, "/series/s", rows[1:2], 103, "?answers=all").json()
        same(numbers(again["answers"][0]), one_after_the_other(filled)[-2])
        refused = append(client, "/series/s", rows[:1], 10**15)
        assert (refused.status_code, "stands for 1024 at most" in refused.json()["detail"]) == (409, True)
        client.base_url = client.base_url.join("/models/reset")
        append(client, "/series/s", rows[:2], 1)
        answer = append(client, "/series/s", rows[2:4], 9).json()
        assert (answer["reset"], answer["rows"]) == ("gap", 2)
        same(numbers(answer["answer"]), one_after_the_other(rows[2:4])[-1])


def test_a_reload_to_another_model_begins_series_anew(tmp_path: Path) -> None:
    rows = calls("tf215__last")[0].reshape(-1, 3)
    path = carded(tmp_path)
    with Process(path) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        append(client, "/series/s", rows[:4], 3)
        append(client, "/series/none", rows[:4])
        (tmp_path / "m.card.json").write_text('{"description": "of the same numbers"}')
        process.signal(signal.SIGHUP)
        process.wait_for("replaced")
        on = append(client, "/series/s", rows[4:5], 4).json()
        assert (on["rows"], "reset" in on) == (5, False)
        same(numbers(on["answer"]), one_after_the_other(rows[:5])[-1])
        scaled_copy(path, 2, STATEFUL / "tf215__last.h5")
        process.signal(signal.SIGHUP)
        process.wait_for("replaced", 2)
        assert client.get("/series/s").json() | {"age_seconds": 0} == {
            "seq": 4,
            "rows": 0,
            "ready": True,
            "age_seconds": 0,
            "answer": None,
        }
        repeat = append(client, "/series/s", rows[4:5], 4).json()
        assert (repeat["duplicate"], repeat["answer"], "reset" in repeat) == (True, None, False)
        with listening(f"{process.url}/series/s/events") as stream:
            told = stream.take(5)
            assert [(event.data["rows"], event.data["answer"]) for event in told] == [(0, None)] * 5
            begun = append(client, "/series/s", rows[3:6], 5, "?answers=all").json()
            assert [event.name for event in stream.rest()] == ["end"]
        assert (begun["reset"], begun["rows"], begun["answers"][:2]) == ("model", 1, [None, None])
        fresh = append(client, "/series/fresh", rows[5:6], 0).json()
        assert begun["answers"][2] == fresh["answer"]
        none = append(client, "/series/none", rows[5:6]).json()
        assert (none["reset"], none["rows"], none["answer"]) == ("model", 1, fresh["answer"])
        assert "reset" not in append(client, "/series/s", rows[6:7], 6).json()


def test_a_row_on_which_the_model_overflows_is_not_kept(tmp_path: Path) -> None:
    arrays = [np.full((3, 1), 2, np.float32), np.ones((1, 1), np.float32), np.zeros(1, np.float32)]
    options = {"units": 1, "activation": "linear", "stateful": True}
    path = save_sequential(tmp_path / "m.h5", [("SimpleRNN", options, arrays)], [None, 3])
    bad, row = [3e38] * 3, [1, 2, 3]
    with client_of(path) as client:  # its length is free
        assert append(client, "/series/s", [row], 0).json()["answer"] == {"values": [12.0]}
        for rows in ([bad], [row, bad], [bad, row]):
            refused = append(client, "/series/s", rows, len(rows))
            assert (refused.status_code, refused.json()["type"]) == (500, "urn:lstm-serve:not-finite")
        items = [{"series": name, "seq": k, "row": given} for name, k, given in (("s", 1, bad), ("t", 0, row))]
        results = client.post("/series/rows", json={"rows": items}).json()["results"]
        assert (results[0]["type"], results[1]["answer"]) == ("urn:lstm-serve:not-finite", {"values": [12.0]})
        assert append(client, "/series/new", [bad], 0).status_code == 500
        assert client.get("/series/new").status_code == 404
        found = append(client, "/series/s", [row] * 200, 200, "?answers=all").json()["answers"]
        assert [each["values"] for each in found] == [[12.0 * k] for k in range(2, 202)]


@needs_redis
def test_two_processes_and_the_next_one_go_on_with_a_state_and_other_weights_do_not(tmp_path: Path) -> None:
    rows, path = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32), carded(tmp_path)
    wanted = one_after_the_other(rows)
    with RedisProcess(tmp_path) as redis:
        variables = {"LSTMSERVE_SERIES_STORE": redis.url}
        with client_of(path, **variables) as one, client_of(path, **variables) as other:
            for k in range(30):
                found = append((one, other)[k % 2], "/series/s", rows[k : k + 1], k).json()
                assert (found["rows"], "reset" in found) == (k + 1, False)
                same(numbers(found["answer"]), wanted[k])
                again = append((other, one)[k % 2], "/series/s", rows[k : k + 1], k).json()
                assert again == found | {"duplicate": True}
            with ThreadPoolExecutor(8) as pool:  # both at once: the later one begins again from what is there then
                asked = [pool.submit(append, (one, other)[k % 2], "/series/both", rows[:1]) for k in range(16)]
                answered = sorted((each.result().json() for each in asked), key=lambda found: found["rows"])
            assert [found["rows"] for found in answered] == [*range(1, 17)]
            same([numbers(found["answer"]) for found in answered], one_after_the_other(rows[:1].repeat(16, axis=0)))
        with client_of(path, **variables) as client:
            same(numbers(append(client, "/series/s", rows[30:31], 30).json()["answer"]), wanted[30])
            assert client.get("/series/s").json()["rows"] == 31
            redis.client.hset("lstmserve:{m}:both", "carried", b"another")
            assert append(client, "/series/both", rows[:1]).json()["reset"] == "damaged"
        scaled_copy(path, 2, STATEFUL / "tf215__last.h5")
        with client_of(path, **variables) as client:
            found = append(client, "/series/s", rows[31:32], 31).json()
            assert (found["reset"], found["rows"]) == ("model", 1)
            assert append(client, "/series/s", rows[30:31], 30).status_code == 409
