"""GET /drift and its metrics: what is counted, when it is judged, and what is told where nothing is."""

import io
import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from apps import app_of, deployment_of, state_of
from native_requests import refused
from numpy.typing import NDArray
from profiles import FEATURES, carded, profile_of, train_of, write
from scraping import Samples, one_of, parsed
from serving import PATIENCE, SMALL, Process, call, client_of, in_loop, started

from lstm_serve import load_model
from lstm_serve.cli.main import main
from lstm_serve.model.profile import psi
from lstm_serve.serving.deployment import load
from lstm_serve.serving.drift import MOST_MODELS
from lstm_serve.settings import Settings

Rows = NDArray[np.float64]
STEPS = load_model(SMALL / "binary.h5").input_shape[0] or 0
WINDOW = 1000
TRAIN = train_of(5000)
NPY = {"content-type": "application/x-npy"}


def profiled(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    model = carded(folder)
    assert main(["profile", str(model), str(write(folder / "train.csv", TRAIN))]) == 0
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return profiled(tmp_path_factory.mktemp("m"))


@pytest.fixture
def client(model: Path) -> Iterator[httpx.Client]:
    with client_of(model, LSTMSERVE_DRIFT_ROWS=str(WINDOW)) as client:
        yield client


def drift(client: httpx.Client) -> Any:
    return client.get("/drift").raise_for_status().json()


def sequences(rows: Rows) -> list[Any]:
    """Each ends in one of the rows; the steps before it are nothing like the training."""
    before = np.full((len(rows), STEPS - 1, len(FEATURES)), 1e6)
    found: list[Any] = np.concatenate([before, rows[:, np.newaxis]], axis=1).tolist()
    return found


def send(client: httpx.Client, rows: Rows) -> None:
    for start in range(0, len(rows), 500):
        client.post("/predict/batch", json={"sequences": sequences(rows[start : start + 500])}).raise_for_status()


def bins(samples: Samples, features: Sequence[str] = FEATURES) -> NDArray[np.int64]:
    name = "input_bin_total"
    return np.array(
        [[int(one_of(samples, name, model="m", feature=of, bin=str(k))) for k in range(10)] for of in features]
    )


def test_rows_are_judged_window_by_window(client: httpx.Client) -> None:
    """Few before one is full, watched after one that is off, drifted after two, and back."""
    assert drift(client)["state"] == "few"
    assert drift(client)["features"][0]["psi"] is None
    good, bad = train_of(5 * WINDOW, seed=5), train_of(2 * WINDOW, seed=6)
    bad[:, 0] += 1.0  # half a standard deviation
    send(client, good[: WINDOW - 1])
    assert drift(client)["state"] == "few"
    send(client, good[WINDOW - 1 : 2 * WINDOW])
    found = drift(client)
    assert (found["state"], found["rows"], found["filled"]) == ("ok", 2 * WINDOW, 0)
    send(client, bad[:WINDOW])
    assert [each["state"] for each in drift(client)["features"]] == ["watch", "ok", "ok"]
    send(client, bad[WINDOW:])
    found = drift(client)
    assert found["state"] == "drifted"
    assert [each["state"] for each in found["features"]] == ["drifted", "ok", "ok"]
    seen = bad[WINDOW:].astype(np.float32)
    profile = profile_of(TRAIN.astype(np.float32))
    counts = profile.counts(seen)
    figures = psi(counts, np.round(profile.shares, 6))
    np.testing.assert_allclose([each["psi"] for each in found["features"]], figures, atol=1e-9)
    np.testing.assert_allclose(found["features"][0]["wasserstein_sd"], 0.5, atol=0.1)
    assert found["features"][2]["wasserstein_sd"] is None
    np.testing.assert_allclose(found["features"][0]["seen"], counts[0] / WINDOW)
    assert found["classes"]["seen"][0] + found["classes"]["seen"][1] == pytest.approx(1)
    samples = parsed(client.get("/metrics").text)
    assert one_of(samples, "drift_state", model="m", feature="a") == 2
    assert one_of(samples, "drift_psi", model="m", feature="a") == found["features"][0]["psi"]
    assert one_of(samples, "input_out_of_range_ratio", model="m", feature="a") == found["features"][0]["out_of_range"]
    every = np.concatenate([good[: 2 * WINDOW], bad]).astype(np.float32)
    assert bins(samples).tolist() == profile.counts(every).tolist()
    expected = [one_of(samples, "input_bin_expected", model="m", feature="b", bin=str(k)) for k in range(10)]
    np.testing.assert_allclose(expected, profile.shares[1], atol=1e-6)
    send(client, good[2 * WINDOW : 3 * WINDOW])
    assert drift(client)["state"] == "ok"


def test_each_row_counts_once_whichever_way_it_comes(client: httpx.Client, model: Path) -> None:
    rows = train_of(60, seed=7)
    for row in sequences(rows[:5]):
        client.post("/predict", json={"sequence": row}).raise_for_status()
    client.post("/v1/models/m:predict", json={"instances": sequences(rows[5:7])}).raise_for_status()
    client.post("/predict/series", json={"series": rows[: STEPS + 9].tolist()}).raise_for_status()
    expected = [*rows[:7], *rows[STEPS - 1 : STEPS + 9]]
    # Of a series each row, those too that have no window yet, and repeats not.
    for start, stop in ((0, 20), (10, 25), (10, 25), (25, 26)):
        body = {"seq": stop - 1, "rows": rows[start:stop].tolist()}
        client.post("/series/one/rows?answers=all", json=body).raise_for_status()
    expected += [*rows[:26]]
    items = [{"series": name, "seq": seq, "row": rows[30 + seq].tolist()} for seq in range(3) for name in ("x", "y")]
    for _ in range(2):
        client.post("/series/rows", json={"rows": items}).raise_for_status()
    expected += [rows[30 + seq] for seq in range(3) for _ in range(2)]
    # What is refused, explained or looked at counts for nothing.
    client.post("/predict", json={"sequence": [[1]]})
    client.post("/explain", json={"sequence": sequences(rows[:1])[0]}).raise_for_status()
    client.get("/series/one").raise_for_status()
    of_try = {"x-drift": "off"}
    client.post("/predict", json={"sequence": sequences(rows[:1])[0]}, headers=of_try).raise_for_status()
    client.post("/predict/series", json={"series": rows.tolist()}, headers=of_try).raise_for_status()
    client.post("/series/two/rows", json={"rows": rows.tolist()}, headers=of_try).raise_for_status()
    items = [{"series": "z", "row": rows[0].tolist()}]
    client.post("/series/rows", json={"rows": items}, headers=of_try).raise_for_status()
    wrong = client.post("/predict", json={"sequence": sequences(rows[:1])[0]}, headers={"x-drift": "no"})
    assert "expected `off` in the header X-Drift" in refused(wrong, 400)
    assert drift(client)["rows"] == len(expected)
    profile = load_model(model).profile
    assert profile is not None
    counts = profile.counts(np.array(expected).astype(np.float32))
    assert bins(parsed(client.get("/metrics").text)).tolist() == counts.tolist()


def test_the_counters_of_two_processes_add_up_to_those_of_one(client: httpx.Client, model: Path) -> None:
    rows = train_of(2 * WINDOW, seed=8)
    rows[:, 0] += np.linspace(0, 3, 2 * WINDOW)
    sums = np.zeros((3, 10), np.int64)
    with Process(model) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as other:
        for each, part in ((client, rows[::2]), (other, rows[1::2])):
            send(each, part)
            drift(each)
            sums += bins(parsed(each.get("/metrics").text))
    profile = load_model(model).profile
    assert profile is not None
    alone = psi(profile.counts(rows.astype(np.float32)), profile.shares)
    np.testing.assert_allclose(psi(sums, profile.shares), alone, atol=1e-9)


def test_without_a_profile_it_says_how_to_make_one(tmp_path: Path) -> None:
    """And once it is there, a reload follows it; one that is wrong is not served."""
    model = carded(tmp_path)
    with Process(model) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        for path in ("/drift", "/models/m/drift"):
            assert "lstm-serve profile m.h5 TRAIN.csv" in refused(client.get(path), 404, "not-watched")
        profiled(tmp_path)
        process.signal(signal.SIGHUP)
        process.wait_for("its profile is of 5000 rows")
        assert client.get("/models/m/drift").json()["profile_rows"] == 5000
        send(client, TRAIN[:30])
        assert drift(client)["rows"] == 30
        process.signal(signal.SIGHUP)
        process.wait_for("its profile is of 5000 rows", 2)
        assert drift(client)["rows"] == 0
        assert bins(parsed(client.get("/metrics").text))[0].sum() == 30  # a counter never falls
        (tmp_path / "m.profile.json").write_text("{}")
        process.signal(signal.SIGHUP)
        process.wait_for("answered by what is loaded: .*its profile m.profile.json is wrong")
        assert client.get("/drift").json()["profile_rows"] == 5000
        (tmp_path / "m.profile.json").unlink()
        process.signal(signal.SIGHUP)
        process.wait_for("loaded m.h5", 4)
        refused(client.get("/drift"), 404, "not-watched")
        assert "input_bin" not in "".join(name for name, _ in parsed(client.get("/metrics").text))


@in_loop
async def test_at_most_ten_models_are_watched(model: Path, tmp_path: Path) -> None:
    for k in range(MOST_MODELS + 1):
        (tmp_path / f"m{k:02}").mkdir()
        for path in model.parent.glob("m.*"):
            shutil.copy(path, tmp_path / f"m{k:02}")
    app = app_of(tmp_path)
    async with started(app):
        found = [await call(app, f"/models/m{k:02}/drift") for k in range(MOST_MODELS + 1)]
    assert sorted(each.status for each in found) == [*[200] * MOST_MODELS, 404]
    (left,) = (each for each in found if each.status == 404)
    assert "10 other models are watched" in left.json["detail"]


@in_loop
async def test_what_waits_is_counted_soon(model: Path) -> None:
    """Also where nothing else comes, and nobody asks."""
    app = app_of(model)
    async with started(app):
        found = deployment_of(app).drift
        assert found is not None
        body = json.dumps({"sequence": sequences(TRAIN[:1])[0]}).encode()
        assert (await call(app, "/predict", body)).status == 200
        assert (found.rows, found._timer is not None) == (0, True)
        found._timer.cancel()  # type: ignore[union-attr]
        found._on_time()
        assert (found.rows, found._timer) == (1, None)


@in_loop
async def test_what_waits_for_a_model_that_was_replaced_is_not_counted_for_the_other(model: Path) -> None:
    app = app_of(model)
    async with started(app):
        deployment, counts = deployment_of(app), state_of(app).metrics.bins.counts
        before = deployment.drift
        assert before is not None
        body = json.dumps({"sequence": sequences(TRAIN[:1])[0]}).encode()
        assert (await call(app, "/predict", body)).status == 200
        deployment.activate(load(Settings(model=model)))
        for _ in range(2):
            assert (await call(app, "/predict", body)).status == 200
        assert deployment.drift is not None
        deployment.drift.flush()
        before.flush()
        assert sum(counts.values()) == 2 * len(FEATURES)


@in_loop
async def test_what_asks_an_older_version_is_not_counted_for_the_newest(model: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        shutil.copytree(model.parent, tmp_path / "m" / version)
    app = app_of(tmp_path / "m")
    body = json.dumps({"instances": sequences(TRAIN[:1])}).encode()
    async with started(app):
        drift = app.state.registry.get("m").drift
        for version, rows in (("1", 0), ("2", 1)):
            assert (await call(app, f"/v1/models/m/versions/{version}:predict", body)).status == 200
            drift.flush()
            assert drift.rows == rows


@in_loop
async def test_training_data_is_training_data_in_every_precision(tmp_path: Path) -> None:
    """Where the card scales, rows stay float64 as they come: 8.1 of float32 is not 8.1, and counts as the same."""
    x = train_of(WINDOW)
    x[:, 1] = np.where(np.arange(WINDOW) % 2, 8.1, 8.3)
    steps = np.repeat(x[:, np.newaxis], STEPS, axis=1)
    npy = {dtype: io.BytesIO() for dtype in ("f4", "f8")}
    for dtype, file in npy.items():
        np.save(file, steps.astype(dtype))
    (tmp_path / "train.npy").write_bytes(npy["f4"].getvalue())
    tensor = {"name": "input", "datatype": "FP32", "shape": steps.shape, "data": steps.astype("f4").ravel().tolist()}
    bodies = [
        *[("/predict/batch", file.getvalue(), NPY) for file in npy.values()],
        ("/predict/batch", json.dumps({"sequences": steps.tolist()}).encode(), {}),
        ("/v2/models/m/infer", json.dumps({"inputs": [tensor]}).encode(), {}),
    ]
    model, csv = carded(tmp_path), write(tmp_path / "train.csv", x)
    card = {"features": FEATURES, "scaling": {"mean": [10, 8, 518], "scale": [2, 1, 1]}}
    model.with_suffix(".card.json").write_text(json.dumps(card))
    for train in (csv, tmp_path / "train.npy"):
        assert main(["profile", str(model), str(train), "--force"]) == 0
        app = app_of(model, drift_rows=WINDOW)
        async with started(app):
            for path, body, headers in bodies:
                assert (await call(app, path, body, headers=headers)).status == 200
                found = (await call(app, "/drift")).json
                assert found["filled"] == 0
                assert [(each["state"], each["out_of_range"]) for each in found["features"]] == [("ok", 0)] * 3
