"""Series in Redis, seen from outside: they outlive processes, and what the store cannot do is said, never half done."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from redis_process import RedisProcess, needs_redis
from serving import PATIENCE, SMALL, Process, until

from lstm_serve import load_model

MODEL = load_model(SMALL / "binary.h5")
STEPS, FEATURES = (size or 0 for size in MODEL.input_shape)
ROWS = np.random.default_rng(5).normal(size=(4 * STEPS, FEATURES)).astype(np.float32)
WANTED = MODEL.predict_series(ROWS)[:, 0]
PASSWORD = "the-secret-of-the-store"  # noqa: S105 - of a test's own server

Headers = dict[str, str]

pytestmark = [needs_redis, pytest.mark.long]


def append(
    client: httpx.Client, stop: int, count: int = 1, name: str = "a", headers: Headers | None = None
) -> httpx.Response:
    body = {"rows": ROWS[stop - count : stop].tolist(), "seq": stop - 1}
    return client.post(f"/series/{name}/rows", json=body, headers=headers)


def answered(response: httpx.Response, stop: int) -> None:
    assert response.status_code == 200, response.text
    assert abs(response.json()["answer"]["probability"] - WANTED[stop - STEPS]) < 2e-6


def verbose(client: httpx.Client) -> object:
    ready = client.get("/readyz?verbose")
    assert ready.status_code == 200
    return ready.json()["series_store"]


@contextlib.contextmanager
def served(
    redis: RedisProcess, model: Path = SMALL / "binary.h5", /, **variables: str
) -> Iterator[tuple[Process, httpx.Client]]:
    with (
        Process(model, LSTMSERVE_SERIES_STORE=redis.url, **variables) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        yield process, client
    told = "".join(process.lines) + process.errors
    assert PASSWORD not in told
    assert "series of rows end" not in told


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path, PASSWORD) as process:
        yield process


def test_another_process_goes_on(redis: RedisProcess) -> None:
    keys = {"LSTMSERVE_API_KEYS": "one-of-the-keys-of-callers,another-of-their-keys"}
    mine = {"authorization": "Bearer one-of-the-keys-of-callers"}
    with served(redis, **keys) as (_, client):
        answered(append(client, STEPS, STEPS, headers=mine), STEPS)
    with served(redis, **keys) as (first, client), served(redis, **keys) as (_, other):
        again = append(other, STEPS, STEPS, headers=mine)
        answered(again, STEPS)
        assert again.json()["duplicate"] is True
        for stop in range(STEPS + 1, 3 * STEPS):
            answered(append((client, other)[stop % 2], stop, headers=mine), stop)
        yours = {"authorization": "Bearer another-of-their-keys"}
        assert other.get("/series/a", headers=yours).status_code == 404
        assert append(other, 1, headers=yours).json()["rows"] == 1
        for each in (client, other):
            until(partial(_has_two, each, mine))
        assert other.delete("/series/a", headers=mine).status_code == 204
        assert client.get("/series/a", headers=mine).status_code == 404
        assert first.popen.poll() is None


def _has_two(client: httpx.Client, headers: Headers) -> bool:
    return 'lstmserve_series{model="binary"} 2.0' in client.get("/metrics", headers=headers).text


def test_away_and_back(redis: RedisProcess) -> None:
    with served(redis) as (process, client):
        answered(append(client, STEPS, STEPS), STEPS)
        assert verbose(client) is True
        redis.__exit__()
        for refused in (append(client, STEPS + 1), client.get("/series/a"), client.delete("/series/a")):
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:lstm-serve:store-unavailable")
            assert refused.headers["retry-after"]
        many = {"rows": [{"series": "a", "seq": 1, "row": ROWS[0].tolist()}]}
        assert client.post("/series/rows", json=many).status_code == 503
        assert verbose(client) is False
        assert client.post("/predict", json={"sequence": ROWS[:STEPS].tolist()}).status_code == 200
        with redis:
            process.wait_for("answers again")
            answered(append(client, STEPS + 1), STEPS + 1)
            told = [line for line in process.lines if "store of series" in line]
            assert len(told) == 2
            redis.client.script_flush()
            answered(append(client, STEPS + 2), STEPS + 2)
            redis.client.flushall()  # as if it were started anew without its files
            anew = append(client, STEPS + 3).json()
            assert (anew["rows"], anew["ready"], anew["answer"]) == (1, False, None)


def test_slow(redis: RedisProcess) -> None:
    """An append that came too late to be answered is there, and a repeat has its answer."""
    with served(redis) as (process, client):
        answered(append(client, STEPS, STEPS), STEPS)
        redis.client.client_pause(int(PATIENCE * 1000), all=False)
        assert append(client, STEPS + 1).status_code == 503
        assert verbose(client) is False
        redis.client.client_unpause()
        process.wait_for("answers again")
        answered(append(client, STEPS + 1), STEPS + 1)
        assert client.get("/series/a").json()["seq"] == STEPS


def test_full(redis: RedisProcess) -> None:
    with served(redis) as (process, client):
        answered(append(client, STEPS, STEPS), STEPS)
        redis.client.config_set("maxmemory-policy", "noeviction")
        redis.client.config_set("maxmemory", "1")
        assert append(client, STEPS + 1).status_code == 503
        assert append(client, STEPS, STEPS, name="b").status_code == 503
        many = {"rows": [{"series": name, "seq": STEPS, "row": ROWS[STEPS].tolist()} for name in ("a", "b")]}
        assert client.post("/series/rows", json=many).status_code == 503
        assert verbose(client) is False
        assert client.get("/series/a").json()["seq"] == STEPS - 1
        assert client.get("/series/b").status_code == 404
        assert client.delete("/series/b").status_code == 204
        without_seq = client.post("/series/a/rows", json={"rows": ROWS[:1].tolist()})
        assert without_seq.status_code == 409  # for which nothing is written
        assert verbose(client) is False
        redis.client.config_set("maxmemory", "0")
        process.wait_for("answers again")
        assert verbose(client) is True
        answered(append(client, STEPS + 1), STEPS + 1)
        assert len([line for line in process.lines if "store of series" in line]) == 2


def test_a_card_by_which_rows_or_numbers_mean_something_else_begins_the_series_anew(
    redis: RedisProcess, tmp_path: Path
) -> None:
    model = Path(shutil.copy(SMALL / "binary.h5", tmp_path / "m.h5"))
    first = {"name": "m", "features": ["a", "b", "c"], "description": "one"}
    swapped = {**first, "features": ["b", "a", "c"]}
    for seq, (card, anew) in enumerate(
        (
            (first, False),
            ({**first, "description": "another", "features": [{"name": "a", "unit": "V"}, "b", "c"]}, False),
            (swapped, True),
            ({**swapped, "series": {"seq": "time"}}, True),
        ),
        STEPS - 1,
    ):
        (tmp_path / "m.card.json").write_text(json.dumps(card))
        with served(redis, model) as (_, client):
            if card is first:
                append(client, STEPS, STEPS)
            answer = client.post("/series/a/rows", json={"rows": ROWS[STEPS - 1 : STEPS].tolist(), "seq": seq}).json()
            assert (answer.get("reset"), answer["rows"]) == (("model", 1) if anew else (None, STEPS))
    assert b"lstmserve:{m}:a" in redis.client.scan_iter()


@pytest.mark.parametrize("url", ["http://x", "redis://h:port", "redis://:secret@h?unknown_option=1"])
def test_an_url_that_is_none(url: str) -> None:
    process = Process(SMALL / "binary.h5", LSTMSERVE_SERIES_STORE=url)
    assert process.ended() != 0
    told = "".join(process.lines) + process.errors
    assert "LSTMSERVE_SERIES_STORE: expected redis://" in told
    assert "secret" not in told
