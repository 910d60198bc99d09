"""Rows as they come, over HTTP: each answer is that of its window, whatever is repeated, lost or reloaded."""

import contextlib
import itertools
import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from apps import app_of
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasfiles import dense, lstm, save_sequential
from numpy.typing import NDArray
from redis_process import STORES, served_from
from scraping import one_of, parsed
from serving import PATIENCE, SMALL, Process, call, client_of, in_loop, started

from lstm_serve import load_model

MODEL = load_model(SMALL / "binary.h5")
STEPS, FEATURES = (size or 0 for size in MODEL.input_shape)
Rows = NDArray[np.float32]
NUMBERS = itertools.count()


def carded(folder: Path, name: str = "m", **card: object) -> Path:
    shutil.copy(SMALL / "binary.h5", folder / f"{name}.h5")
    (folder / f"{name}.card.json").write_text(json.dumps({"features": ["a", "b", "c"], **card}))
    return folder / f"{name}.h5"


@pytest.fixture(scope="module", params=STORES)
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with served_from(request.param, carded(tmp_path_factory.mktemp("m")), tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(scope="module")
def client(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], httpx.Client]]:
    """Clients, by name, of models that differ in their card or form, all in one service."""
    folder = tmp_path_factory.mktemp("several")
    for name, rules in (("last", {"gap": "last"}), ("reset", {"gap": "reset"}), ("time", {"seq": "time"})):
        carded(folder, name, series=rules)
    for name in ("free", "cut"):
        save_sequential(folder / f"{name}.h5", [lstm(), dense()], [None, 3])
    (folder / "cut.card.json").write_text('{"timesteps": 5}')
    arrays = [np.full((FEATURES, 1), 2, np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32)]
    layer = ("SimpleRNN", {"units": 1, "activation": "linear"}, arrays)
    save_sequential(folder / "overflows.h5", [layer], [2, 3])
    with Process(folder) as process, contextlib.ExitStack() as opened:
        yield lambda name: opened.enter_context(httpx.Client(base_url=f"{process.url}/models/{name}", timeout=PATIENCE))


def rows_of(count: int, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def expected(rows: Rows) -> list[float | None]:
    """The answer to each row, None for those before the first window."""
    if len(rows) < STEPS:
        return [None] * len(rows)
    return [None] * (STEPS - 1) + list(map(float, MODEL.predict_series(rows)[:, 0]))


def same(answers: list[Any], wanted: list[float | None]) -> None:
    assert [each is None for each in answers] == [each is None for each in wanted]
    found = [each["probability"] for each in answers if each is not None]
    np.testing.assert_allclose(found, [each for each in wanted if each is not None], rtol=0, atol=2e-6)


def metric_of(client: httpx.Client, name: str, **labels: str) -> float:
    return one_of(parsed(client.get("/metrics").text), name, model="m", **labels)


def append(client: httpx.Client, name: str, rows: Rows, seq: int | None = None, query: str = "") -> httpx.Response:
    body = {"rows": rows.tolist(), **({} if seq is None else {"seq": seq})}
    return client.post(f"/series/{name}/rows{query}", json=body)


def test_a_device_sends_a_row_at_a_time(client: httpx.Client) -> None:
    rows = rows_of(STEPS + 5)
    wanted = expected(rows)
    for k, row in enumerate(rows):
        answer = append(client, "one", row[np.newaxis], k)
        kept = min(k + 1, STEPS)
        told = {"seq": k, "rows": kept, "ready": kept == STEPS}
        if kept < STEPS:
            told["missing"] = STEPS - kept
        assert {name: value for name, value in answer.json().items() if name != "answer"} == told
        assert answer.headers["x-model-sha256"] == MODEL.origin.digest
        same([answer.json()["answer"]], wanted[k : k + 1])
    state = client.get("/series/one").json()
    assert (state["seq"], state["rows"], state["ready"], state["age_seconds"] >= 0) == (
        len(rows) - 1,
        STEPS,
        True,
        True,
    )
    same([state["answer"]], wanted[-1:])
    assert client.delete("/series/one").status_code == 204
    assert client.delete("/series/one").status_code == 204
    assert client.get("/series/one").status_code == 404


chunks = st.lists(st.tuples(st.integers(1, 2 * STEPS), st.integers(0, 3 * STEPS)), min_size=1, max_size=12)


@settings(max_examples=20)  # test_store.py has more, of the store itself
@given(chunks=chunks, seed=st.integers(0, 99))
def test_random_chunks_and_repeats_give_what_predict_gives(
    client: httpx.Client, chunks: list[tuple[int, int]], seed: int
) -> None:
    name = f"random-{next(NUMBERS)}"  # each example is a series of its own
    rows, there = rows_of(sum(count for count, _ in chunks), seed), 0
    wanted = expected(rows)
    for count, back in chunks:
        start = max(0, there - back)
        stop = max(there, min(there + count, len(rows)))
        answer = append(client, name, rows[start:stop], stop - 1, "?answers=all").json()
        assert (answer["seq"], answer.get("duplicate", False)) == (stop - 1, stop == there)
        there = stop
        for k, each in zip(range(start, stop), answer["answers"], strict=True):
            if each is None:
                assert wanted[k] is None or k < stop - STEPS  # its window is not kept any more
            else:
                same([each], [wanted[k]])
    same([client.get(f"/series/{name}").json()["answer"]], wanted[there - 1 : there])


def test_many_devices_in_one_request(client: httpx.Client) -> None:
    rows = {f"m{k}": rows_of(STEPS + 3, k) for k in range(5)}
    order = [(name, k) for k in range(STEPS + 3) for name in rows]
    found: dict[str, list[Any]] = {name: [] for name in rows}
    for start in range(0, len(order), 7):
        some = order[start : start + 7]
        items = [{"series": name, "seq": k, "row": rows[name][k].tolist()} for name, k in some]
        results = client.post("/series/rows", json={"rows": items}).json()["results"]
        for (name, k), result in zip(some, results, strict=True):
            assert result["seq"] == k
            found[name].append(result["answer"])
    for name, answers in found.items():
        same(answers, expected(rows[name]))


def test_of_many_one_that_is_wrong_is_told_in_its_place(client: httpx.Client) -> None:
    good = {"series": "w", "seq": 0, "row": [1, 2, 3]}
    named = {"series": "w", "seq": 1, "row": {"c": 3, "a": 1, "b": 2}}
    wrong: list[Any] = [
        {"series": "rows", "row": [1, 2, 3]},
        {"series": "w", "seq": -1, "row": [1, 2, 3]},
        {"series": "w", "seq": 9, "row": [1, 2]},
        {"series": "w", "seq": 9, "row": [1, 2, 3]},
        {"series": "w", "row": [1, 2, 3]},
        {"series": "w", "seq": 2, "row": {"a": 1}},
        {"series": "w", "seq": 2, "row": [1, 2, 1e39]},
        5,
    ]
    results = client.post("/series/rows", json={"rows": [good, *wrong, named]}).json()["results"]
    assert [result.get("status") for result in results] == [None, 422, 422, 422, 409, 409, 422, 422, 422, None]
    assert results[1]["errors"][0]["pointer"] == "#/rows/1/series"
    assert results[3]["errors"][0]["pointer"] == "#/rows/3/row"
    assert (results[4]["expected"], results[4]["got"]) == (1, 9)
    assert results[-1]["seq"] == 1


def test_of_many_no_more_is_appended_once_the_deadline_has_passed(client: httpx.Client) -> None:
    items = [{"series": f"late-{k}", "seq": 0, "row": [1, 2, 3]} for k in range(2)]
    late = client.post("/series/rows", json={"rows": items}, headers={"x-request-timeout-ms": "0"})
    assert (late.status_code, late.json()["type"]) == (504, "urn:lstm-serve:deadline-passed")
    assert client.get("/series/late-0").status_code == 404


@pytest.mark.parametrize(
    "beside", ["", ', {"series": "!", "row": [1]}', ', "text"', ', {"series": "w", "row": ["1", 2, 3]}']
)
@pytest.mark.parametrize("twice", ['"seq": 2, "seq": 2, "row": [1, 2, 3]', '"row": [1, 2, 3], "row": [4, 5, 6]'])
def test_of_many_a_key_that_is_there_twice(client: httpx.Client, twice: str, beside: str) -> None:
    refused = client.post("/series/rows", content=f'{{"rows": [{{"series": "twice", {twice}}}{beside}]}}')
    assert (refused.status_code, client.get("/series/twice").status_code) == (422, 404)
    item = '{"series": "twice", "row": [1, 2, 3]}'
    lost = f'{{"rows": [{item}], "rows": [{item}{beside}]}}'
    assert client.post("/series/rows", content=lost).status_code == 422


def test_a_row_on_which_the_model_overflows_fails_its_own_answers_alone(
    named: Callable[[str], httpx.Client],
) -> None:
    client, bad, one = named("overflows"), [3e38] * 3, {"rows": [[1, 2, 3]]}
    for k in range(9):
        client.post(f"/series/s{k}/rows", json=one)
    for row, statuses in ((bad, [500, 500]), ([1, 2, 3], [500, 500]), ([1, 2, 3], [None, None])):
        items = [{"series": f"s{k}", "row": row if k in {3, 6} else [1, 2, 3]} for k in range(9)]
        items.insert(5, {"series": "new", "row": [1, 2, 3]})
        answer = client.post("/series/rows", json={"rows": items})
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [results[k].get("status") for k in (3, 7)] == statuses
        good = [k for k in range(10) if k not in {3, 5, 7}]
        assert [results[k]["answer"] for k in good] == [{"values": [12.0]}] * len(good)
        if statuses[0]:
            assert results[3]["type"] == "urn:lstm-serve:not-finite"
            assert results[3]["request_id"] == answer.headers["x-request-id"]
    each = client.post("/series/s0/rows?answers=all", json={"rows": [[1, 2, 3], bad, [1, 2, 3], [1, 2, 3]]}).json()
    assert [found.get("status") for found in each["answers"]] == [None, 500, 500, None]
    refused = client.post("/series/s0/rows", json={"rows": [bad]})
    assert (refused.status_code, refused.json()["type"]) == (500, "urn:lstm-serve:not-finite")
    assert client.get("/series/s0").status_code == 500
    assert client.post("/series/s0/rows", json={"rows": [[1, 2, 3]] * 2}).json()["answer"] == {"values": [12.0]}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"rows": [[1, 2, 3], [1, 2, null]], "seq": 1}', 422, "expected a number, got null"),
        *(
            (
                f'{{"rows": [[1, 2, 3]], "seq": {seq}}}',
                422,
                f"expected a whole number from 0 to {2**53}, the last row's",
            )
            for seq in (-1, 2**53 + 1, 2**64)
        ),
        ('{"rows": [[1, 2, 3], [1, 2, 3]], "seq": 0}', 422, "expected the number of the last of 2 rows, 1 or more"),
        ('{"rows": [[1, 2, 3]], "seqs": [1]}', 422, "expected the keys rows, seq, got 1 more"),
        ('{"rows": [[1, 2, 3]], "seq": 0, "seq": 1}', 422, "expected each of the keys rows, seq once"),
        ('{"rows": []}', 422, "expected at least one of the rows, got 0"),
        (
            '{"rows": [1, 2.5, 3]}',
            422,
            "expected at least one of the rows, got the features of one: wrap it in another list",
        ),
    ],
)
def test_a_bad_row_fails_its_request_whole(client: httpx.Client, body: str, status: int, said: str) -> None:
    answer = client.post("/series/bad/rows", content=body)
    assert (answer.status_code, answer.json()["detail"]) == (status, said)
    assert client.get("/series/bad").status_code == 404


def test_conflicts(client: httpx.Client) -> None:
    rows = rows_of(3)
    append(client, "c", rows, 2)
    gap = append(client, "c", rows[:1], 7)
    assert (gap.status_code, gap.json()["expected"], gap.json()["got"]) == (409, 3, 7)
    assert gap.json()["detail"] == "4 rows are missing before these"
    assert append(client, "c", rows[:1], 4).json()["detail"] == "1 row is missing before these"
    assert append(client, "c", rows[::-1], 2).status_code == 409
    assert append(client, "c", rows).json()["detail"].startswith("a series has `seq`")
    assert append(client, "c", rows, 2, "?answers=some").status_code == 422
    assert (
        append(client, "c", rows, 2, "?answer=all").json()["detail"].startswith("expected in the query `answers` alone")
    )
    many = client.post("/series/rows?answers=all", json={"rows": [{"series": "d", "row": [1, 2, 3]}]})
    assert (many.status_code, many.json()["detail"]) == (422, "expected no query, got another name")
    assert client.get("/series/c/events?input=true").status_code == 422
    first = append(client, "no-seq", rows).json()
    assert (first["seq"], first["note"]) == (None, "without `seq` a row that is sent again is appended again")
    assert append(client, "no-seq", rows).json()["rows"] == min(6, STEPS)


@pytest.mark.parametrize("name", ["rows", "events", "a b", "%C3%A4", "x" * 129, "%2F"])
def test_an_id_that_is_none(client: httpx.Client, name: str) -> None:
    assert append(client, name, rows_of(1), 0).status_code in {404, 422}
    assert client.get(f"/series/{name}").status_code in {404, 405, 422}


def test_an_id_of_a_megabyte(process: Process, client: httpx.Client) -> None:
    head = b"POST /series/" + b"x" * (1 << 20) + b"/rows HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    with contextlib.suppress(ConnectionError):  # it may hang up while the id comes
        assert b" 200 " not in process.raw(head)
    assert client.get("/readyz").status_code == 200


def test_a_million_rows_in_a_request(client: httpx.Client) -> None:
    body = b'{"rows":[' + b",".join([b"[1]"] * 520_000) + b"]}"
    assert client.post("/series/flood/rows", content=body).status_code == 413
    body = b'{"rows":[' + b",".join([b"{}"] * 690_000) + b"]}"
    assert client.post("/series/rows", content=body).status_code in {413, 422}
    assert client.post("/series/flood/rows", json={"rows": [[1, 2, 3]] * 1025}).status_code == 413


def test_the_cards_rules(named: Callable[[str], httpx.Client]) -> None:
    rows = rows_of(3 * STEPS)
    client = named("last")
    append(client, "s", rows[:STEPS], STEPS - 1)
    answer = append(client, "s", rows[STEPS : STEPS + 1], STEPS + 1).json()
    assert answer["filled"] == 1
    filled = np.concatenate([rows[:STEPS], rows[STEPS - 1 : STEPS], rows[STEPS : STEPS + 1]])
    same([answer["answer"]], expected(filled)[-1:])
    client = named("reset")
    append(client, "s", rows[:STEPS], STEPS - 1)
    answer = append(client, "s", rows[:1], 99).json()
    assert (answer["reset"], answer["rows"], answer["answer"]) == ("gap", 1, None)
    client = named("time")
    nanoseconds = append(client, "s", rows[:1], 1_764_288_000_000_000_000)
    assert nanoseconds.json()["detail"].endswith("in milliseconds or microseconds: nanoseconds are more than that")
    times = [1_700_000_000 + 7 * k for k in range(STEPS)]
    answer = client.post("/series/s/rows", json={"rows": rows[:STEPS].tolist(), "seqs": times}).json()
    same([answer["answer"]], expected(rows[:STEPS])[-1:])
    assert append(client, "s", rows[:1], times[-1] + 1000).json()["ready"]
    assert append(client, "s", rows[:2], times[-1] + 2000).status_code == 422
    assert client.post("/series/s/rows", json={"rows": [[1, 2, 3]] * 2, "seqs": [5, 5]}).status_code == 422


def test_a_model_of_free_length_needs_timesteps(named: Callable[[str], httpx.Client], tmp_path: Path) -> None:
    refused = append(named("free"), "s", rows_of(1), 0)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lstm-serve:no-window")
    assert named("free").get("/series/s").status_code == 409
    client = named("cut")
    answer = append(client, "s", rows_of(5), 4).json()["answer"]
    wanted = load_model(save_sequential(tmp_path / "m.h5", [lstm(), dense()], [None, 3])).predict(
        rows_of(5)[np.newaxis]
    )
    np.testing.assert_allclose(answer["probabilities"], wanted[0], atol=2e-6)


def test_full_and_idle(tmp_path: Path) -> None:
    path = carded(tmp_path)
    with client_of(path, LSTMSERVE_SERIES_MAX="3") as client:
        statuses = [append(client, f"s{k}", rows_of(1), 0) for k in range(5)]
        assert [answer.status_code for answer in statuses] == [200, 200, 200, 429, 429]
        assert statuses[-1].json()["type"] == "urn:lstm-serve:series-full"
        assert append(client, "s0", rows_of(1), 1).status_code == 200
        assert metric_of(client, "series_refused_total", reason="series-full") == 2
        assert metric_of(client, "series") == 3
        assert metric_of(client, "series_rows_total") == 4
    with client_of(path, LSTMSERVE_SERIES_TTL_SECONDS="0.001") as client:
        append(client, "s", rows_of(1), 0)
        while metric_of(client, "series_expired_total") == 0:
            time.sleep(0.05)
        assert client.get("/series/s").status_code == 404


@pytest.mark.parametrize("first", ["predict", "append"])
@in_loop
async def test_a_route_of_the_settings_beside_paths_of_its_form(tmp_path: Path, first: str) -> None:
    app = app_of(carded(tmp_path), predict_route="/series/a/rows")
    asked = [("predict", {"instances": [rows_of(STEPS).tolist()]}), ("append", {"rows": rows_of(1).tolist()})]
    async with started(app):
        for what, body in [each for each in asked if each[0] == first] + asked + asked:
            path = f"/series/{'a' if what == 'predict' else 'b'}/rows"
            answer = await call(app, path, json.dumps(body).encode())
            assert (answer.status, {"predict": "predictions", "append": "rows"}[what] in answer.json) == (200, True)


def test_keys_do_not_see_each_others_series(tmp_path: Path) -> None:
    keys = ["first-key-0123456789", "second-key-9876543210"]
    with client_of(carded(tmp_path), LSTMSERVE_API_KEYS=",".join(keys)) as client:
        mine, yours = ({"authorization": f"Bearer {key}"} for key in keys)
        body = {"rows": [[1, 2, 3]], "seq": 0}
        assert client.post("/series/s/rows", json=body).status_code == 401
        assert client.post("/series/s/rows", json=body, headers=mine).status_code == 200
        assert client.get("/series/s", headers=yours).status_code == 404
        assert client.delete("/series/s", headers=yours).status_code == 204
        item = {"rows": [{"series": "s", "seq": 7, "row": [4, 5, 6]}]}
        results = client.post("/series/rows", json=item, headers=yours).json()["results"]
        assert (results[0]["seq"], results[0]["rows"]) == (7, 1)
        answer = client.post("/series/s/rows", json={"rows": [[4, 5, 6]], "seq": 8}, headers=yours).json()
        assert (answer["seq"], answer["rows"]) == (8, 2)
        assert client.get("/series/s", headers=mine).json()["seq"] == 0
        assert client.delete("/series/s", headers=mine).status_code == 204
        assert client.get("/series/s", headers=yours).json()["seq"] == 8


def test_no_row_is_lost_or_doubled_through_repeats_and_a_reload(tmp_path: Path) -> None:
    path = carded(tmp_path)
    chance = random.Random(1)  # noqa: S311 - of a test
    rows = {f"d{k}": rows_of(60, k) for k in range(4)}
    with Process(path) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        sent = dict.fromkeys(rows, 0)
        for step in range(200):
            name = chance.choice([*rows])
            start = max(0, sent[name] - chance.randrange(4))
            stop = min(60, sent[name] + chance.randrange(4))
            if stop <= start:
                continue
            if step == 100:
                (tmp_path / "m.card.json").write_text('{"features": ["a", "b", "c"], "description": "another"}')
                process.signal(signal.SIGHUP)
                process.wait_for("replaced")
            answer = append(client, name, rows[name][start:stop], stop - 1)
            if chance.random() < 0.3:  # the client has not heard the answer
                answer = append(client, name, rows[name][start:stop], stop - 1)
            sent[name] = max(sent[name], stop)
            assert answer.json()["seq"] == sent[name] - 1
            same([answer.json()["answer"]], [expected(rows[name][:stop])[-1]])
        appended = metric_of(client, "series_rows_total")
        assert appended == sum(sent.values())
        process.signal(signal.SIGTERM)
        process.wait_for("4 series of rows end, as m is not served any more")
