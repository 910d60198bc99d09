"""A folder of models in one process: found in each layout, answered by name and version, each reloaded by itself."""

import asyncio
import contextlib
import io
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from jsonschema_rs import Draft202012Validator
from kerasfiles import save_embedding, scaled_copy
from load import Question, asking, questions
from open_inference import check, tensor
from scraping import one_of, scraped
from serving import ASKER, PATIENCE, SMALL, Answered, Process, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.cli import main
from lstm_serve.errors import ModelError, SettingsError
from lstm_serve.model.model import Model
from lstm_serve.serving import isolated_load, reload
from lstm_serve.serving.deployment import Deployment, Loaded, NamedFiles, load
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

pytestmark = pytest.mark.long

NPY = {"content-type": "application/x-npy", "accept": "application/x-npy"}


def put(path: Path, source: Path, golden: Path | None = None) -> Path:
    """A model's file and its golden predictions at another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
    golden = golden or source.with_suffix(".golden.npz")
    if golden.exists():
        shutil.copy(golden, path.with_suffix(".golden.npz"))
    return path


def version_of(folder: Path, number: int, factor: float | None = None) -> Path:
    """A version of the classifier, verified; with a factor its answers are others."""
    folder = folder / str(number)
    folder.mkdir(parents=True)
    path = scaled_copy(folder / "model.h5", factor or 1.0)
    with np.load(ASKER / "k215_golden.npz") as golden:
        np.savez(folder / "model.golden.npz", x=golden["x0"], y=load_model(path).predict(golden["x0"]))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of six kinds, in every layout."""
    root = tmp_path / "models"
    root.mkdir()
    for number, factor in ((1, 1.0), (2, 0.5), (10, 2.0)):
        version_of(root / "engine", number, factor)
    put(root / "pump" / "1" / "binary.h5", SMALL / "binary.h5")
    (root / "pump" / "config.pbtxt").write_text('name: "pump"\nplatform: "keras"\n')
    put(root / "fan.h5", SMALL / "values.h5")
    put(root / "gear" / "tagger.h5", SMALL / "steps.h5")
    put(root / "free.h5", SMALL / "free.h5")
    put(root / "k3.keras", ASKER / "k3_model.keras", ASKER / "k3_golden.npz")
    save_embedding(root / "ids.h5", 9)
    (root / "ids.card.json").write_text('{"name": "words"}')
    return root


FILES = {
    "engine": "engine/10/model.h5",
    "pump": "pump/1/binary.h5",
    "fan": "fan.h5",
    "gear": "gear/tagger.h5",
    "free": "free.h5",
    "k3": "k3.keras",
    "words": "ids.h5",
}


def rows_for(model: Model) -> Any:
    chance = np.random.default_rng(1)
    shape = (3, *(size or 7 for size in model.input_shape))
    return chance.integers(0, model.id_limit, shape) if model.id_limit else chance.random(shape).astype(np.float32)


def npy(x: Any) -> bytes:
    np.save(file := io.BytesIO(), x)
    return file.getvalue()


async def asked(app: FastAPI, at: str, x: Any) -> dict[str, Any]:
    """What the native path, v1 and v2 answer to the same rows, with a name or a name and a version."""
    native = await call(app, f"/models/{at}/predict/batch", npy(x), headers=NPY)
    v1 = await call(app, f"/v1/models/{at}:predict", json.dumps({"instances": x.tolist()}).encode())
    datatype = "INT32" if x.dtype.kind == "i" else "FP32"
    v2 = await call(app, f"/v2/models/{at}/infer", json.dumps({"inputs": [tensor(x, datatype)]}).encode())
    assert (native.status, v1.status, v2.status) == (200, 200, 200), (native.body, v1.body, v2.body)
    check("inference_response", v2.json)
    found = {"native": np.load(io.BytesIO(native.body)), "v1": np.array(v1.json["predictions"])}
    output = v2.json["outputs"][0]
    found["v2"] = np.array(output["data"]).reshape(output["shape"])
    digests = {answer.headers["x-model-sha256"] for answer in (native, v1, v2)}
    assert len(digests) == 1
    return {**found, "digest": digests.pop(), "name": v2.json["model_name"], "version": v2.json["model_version"]}


@in_loop
async def test_each_model_is_answered_by_its_name_and_version_in_each_dialect(folder: Path) -> None:
    app = create_app(Settings(model=folder))
    async with started(app):
        for name, file in FILES.items():
            model = load_model(folder / file)
            x = rows_for(model)
            found = await asked(app, name, x)
            for dialect in ("native", "v1", "v2"):
                np.testing.assert_allclose(found[dialect], model.predict(x), atol=1e-6, err_msg=f"{name} {dialect}")
            assert (found["digest"], found["name"]) == (model.origin.digest, name)
        for number in ("1", "2", "10"):
            model = load_model(folder / "engine" / number)
            x = rows_for(model)
            found = await asked(app, f"engine/versions/{number}", x)
            np.testing.assert_allclose(found["native"], model.predict(x), atol=1e-6)
            assert (found["digest"], found["version"]) == (model.origin.digest, number)
        assert (await asked(app, "engine", x))["version"] == "10"

        listed = (await call(app, "/models")).json["models"]
        assert [each["name"] for each in listed] == sorted(FILES)
        assert {each["name"]: each["versions"] for each in listed}["engine"] == ["1", "2", "10"]
        assert not any(each["default"] or each["refused"] for each in listed)
        for path in ("/v1/models", "/v2/models"):
            assert (await call(app, path)).json == {"models": sorted(FILES)}
        index = (await call(app, "/v2/repository/index", b"{}")).json
        assert [(entry["name"], entry["version"]) for entry in index if entry["name"] == "engine"] == [
            ("engine", "1"),
            ("engine", "2"),
            ("engine", "10"),
        ]
        assert {entry["state"] for entry in index} == {"READY"}
        metadata = (await call(app, "/v2/models/engine")).json
        assert metadata["versions"] == ["1", "2", "10"]
        for path, versions in (("engine", ["10", "2", "1"]), ("engine/versions/2", ["2"])):
            status = (await call(app, f"/v1/models/{path}")).json["model_version_status"]
            assert [entry["version"] for entry in status] == versions


@in_loop
async def test_each_model_says_what_it_takes_and_its_schemas_hold(folder: Path) -> None:
    app = create_app(Settings(model=folder))
    async with started(app):
        for name, file in FILES.items():
            model = load_model(folder / file)
            details = (await call(app, f"/models/{name}")).json
            assert (details["name"], details["kind"]) == (name, model.kind)
            assert details["input_shape"] == list(model.input_shape)
            schemas = details["paths"]["predict/batch"]
            body = {"sequences": rows_for(model).tolist()}
            answer = await call(app, f"/models/{name}/predict/batch", json.dumps(body).encode())
            for schema, value in ((schemas["request"], body), (schemas["answer"], answer.json)):
                assert Draft202012Validator(schema).is_valid(value), name
            assert not Draft202012Validator(schemas["request"]).is_valid({"sequences": [1]})
            assert ("predict/series" in details["paths"]) == model.has_time_axis
        document = app.openapi()
        assert "/models/{model_name}/predict" in document["paths"]
        assert not any("engine" in path for path in document["paths"])


def wrong(answer: Answered, status: int) -> str:
    assert answer.status == status, answer.body
    return str(answer.json.get("detail") or answer.json["error"])


@in_loop
async def test_a_path_without_a_name_is_the_default_models(folder: Path) -> None:
    x = rows_for(load_model(folder / "pump"))
    body = json.dumps({"sequences": x.tolist()}).encode()
    for path in ("/predict/batch", "/invocations"):
        app = create_app(Settings(model=folder))
        async with started(app):
            told = wrong(await call(app, path, body), 404)
            assert all(f'"{name}"' in told for name in FILES)
            assert "LSTMSERVE_DEFAULT_MODEL" in told
            assert "/models/{name}/predict" in told
            assert '"pump"' in wrong(await call(app, "/model"), 404)
            assert " go by /models/{name}, or" in wrong(await call(app, "/model"), 404)
            assert " go by /models/{name}/drift, or" in wrong(await call(app, "/drift"), 404)
            assert " go by /models/{name}/series/{series}, or" in wrong(await call(app, "/series/d1"), 404)
            assert '"pump"' in wrong(await call(app, "/models/valve/predict", body), 404)
            assert "1 and 2 and 10" in wrong(await call(app, "/models/engine/versions/3/predict", body), 404)
        app = create_app(Settings(model=folder, default_model="pump"))
        async with started(app):
            assert (await call(app, path, body)).headers["x-model-sha256"] == load_model(folder / "pump").origin.digest
            assert (await call(app, "/model")).json["name"] == "pump"
            assert app.openapi()["components"]["schemas"]["PredictRequest"]["properties"]["sequence"]


@in_loop
async def test_series_are_a_models_own(folder: Path) -> None:
    app = create_app(Settings(model=folder))
    async with started(app):
        for name in ("engine", "pump"):
            model = load_model(folder / FILES[name])
            x = rows_for(model)
            rows = json.dumps({"rows": x[0].tolist()}).encode()
            answer = await call(app, f"/models/{name}/series/d1/rows", rows)
            assert (answer.status, answer.json["ready"]) == (200, True)
            assert (await call(app, f"/models/{name}/series/d1")).json["rows"] == model.input_shape[0]
        series = json.dumps({"series": x[0].tolist()}).encode()
        assert (await call(app, "/models/pump/predict/series", series)).json["rows"] == [model.input_shape[0]]
        assert (await call(app, "/models/pump/explain", json.dumps({"sequence": x[0].tolist()}).encode())).status == 200
        assert (await call(app, "/models/fan/series/d1")).status == 404
        assert (await call(app, "/models/pump/series/d1", method="DELETE")).status == 204
        assert (await call(app, "/models/engine/series/d1")).status == 200
        samples = await scraped(app)
        assert one_of(samples, "series", model="engine") == 1
        assert one_of(samples, "rows_total", model="engine") == 1
        assert one_of(samples, "rows_total", model="pump") == 2
        assert one_of(samples, "model_info", **info(load_model(folder / "pump"), "pump")) == 1


def info(model: Model, name: str) -> dict[str, str]:
    origin = model.origin
    hashes = {"sha256": origin.sha256, "digest": origin.digest}
    verified = str(origin.verified).lower()
    return {"model": name, "version": "1", **hashes, "keras": origin.keras or "", "verified": verified}


def bad_two_of_a_name(root: Path) -> None:
    put(root / "pump.keras", ASKER / "k3_model.keras")


def bad_version(root: Path) -> None:
    put(root / "engine" / "v3" / "model.h5", ASKER / "k215_model.h5")


def broken(root: Path) -> None:
    (root / "valve.h5").write_bytes(b"\x89HDF\r\n\x1a\n, and no more")


def text(root: Path) -> None:
    (root / "valve.h5").write_text("version https://git-lfs.github.com/spec/v1")


def link_out(root: Path) -> None:
    (root / "valve.h5").unlink(missing_ok=True)
    put(root.parent / "elsewhere.h5", SMALL / "binary.h5")
    (root / "valve.h5").symlink_to("../elsewhere.h5")


def link_in_a_folder(root: Path) -> None:
    put(root.parent / "elsewhere.h5", SMALL / "binary.h5")
    (root / "valve").mkdir()
    (root / "valve" / "model.h5").symlink_to(root.parent / "elsewhere.h5")


def card_that_is_a_link(root: Path) -> None:
    put(root / "valve" / "model.h5", SMALL / "binary.h5")
    (root.parent / "secret.json").write_text("{}")
    (root / "valve" / "model.card.json").symlink_to(root.parent / "secret.json")


def empty(root: Path) -> None:
    (root / "valve").mkdir()
    (root / "lost+found").mkdir(mode=0)  # of the file system, which is no model


def two_in_one(root: Path) -> None:
    put(root / "valve" / "a.h5", SMALL / "binary.h5")
    put(root / "valve" / "b.h5", SMALL / "values.h5")


def versions_beside_a_model(root: Path) -> None:
    put(root / "valve" / "model.h5", ASKER / "k215_model.h5")
    put(root / "valve" / "10" / "model.h5", SMALL / "binary.h5")
    put(root / "valve" / "2" / "model.h5", SMALL / "binary.h5")
    (root / "valve" / "2024").mkdir()  # of something else


def broken_version(root: Path) -> None:
    broken(root)
    (root / "engine" / "11").mkdir()
    (root / "valve.h5").rename(root / "engine" / "11" / "model.h5")


def text_as_a_version(root: Path) -> None:
    (root / "engine" / "11").mkdir()
    (root / "engine" / "11" / "model.h5").write_text("x")


def text_in_a_folder(root: Path) -> None:
    (root / "valve").mkdir()
    (root / "valve" / "model.keras").write_text("x")
    (root / "valve" / ".model.h5").write_text("x")  # that is being copied


BAD: dict[Callable[[Path], None], tuple[str, str, bool]] = {
    bad_two_of_a_name: ("pump", "pump, pump.keras are all called pump", False),
    bad_version: ("engine", "no version, which is a number from 1 on: v3", True),
    broken: ("valve", "valve.h5: ", False),
    text: ("valve", "pointer of Git LFS", False),
    link_out: ("valve", "out of the folder", False),
    link_in_a_folder: ("valve", "leads out of the folder of models", False),
    card_that_is_a_link: ("valve", "leads out of the folder of models", False),
    empty: ("valve", "a folder without a model or a version", False),
    two_in_one: ("valve", "is a folder with 2 models (a.h5, b.h5); name one of them, or give each a folder", False),
    versions_beside_a_model: ("valve", "not served, since a model lies beside it: version 2, 10. Move", True),
    broken_version: ("engine", "11/model.h5: ", True),
    text_as_a_version: ("engine", "engine/11/model.h5: is no model", True),
    text_in_a_folder: ("valve", "valve/model.keras: is no model", False),
}


@pytest.mark.parametrize("make", BAD)
def test_what_is_not_served_is_named_and_the_others_are_served(
    folder: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    make(folder)
    name, words, served = BAD[make]

    @in_loop
    async def test() -> None:
        app = create_app(Settings(model=folder))
        async with started(app):
            ready = await call(app, "/readyz?verbose")
            ready = (await call_with_query(app, "/readyz", b"verbose")).json
            assert ready["status"] == "ok"
            assert [*ready["refused"]] == [name]
            assert words in ready["refused"][name]
            assert str(folder.parent) not in ready["refused"][name]
            assert any(name in record.message and words in record.message for record in caplog.records)
            samples = await scraped(app)
            assert one_of(samples, "model_reload_successful", model=name) == 0
            assert ("model_reload_successful", frozenset({("model", name)})) in samples
            listed = {each["name"]: each for each in (await call(app, "/models")).json["models"]}
            assert words in listed[name]["refused"]
            assert (listed[name]["version"] is not None) == served
            body = json.dumps({"sequence": [[0.5] * 15] * 20}).encode()
            assert (await call(app, f"/models/{name}/predict", body)).status == (200 if served else 404)
            others = [other for other in FILES if other != name]
            for other in others:
                await asked(app, other, rows_for(load_model(folder / FILES[other])))
            index = {entry["name"]: entry for entry in (await call(app, "/v2/repository/index", b"")).json}
            assert (index[name]["state"] == "READY") == served

    test()


@in_loop
async def test_a_version_beside_the_file_of_a_model_that_is_given_alone_is_named(tmp_path: Path) -> None:
    versions_beside_a_model(tmp_path)
    app = create_app(Settings(model=tmp_path / "valve"))
    async with started(app):
        (listed,) = (await call(app, "/models")).json["models"]
        assert "not served, since a model lies beside it: version 2, 10. Move" in listed["refused"]
        assert (await call(app, "/predict", b'{"sequence": %s}' % json.dumps([[0.5] * 15] * 20).encode())).status == 200


async def call_with_query(app: FastAPI, path: str, query: bytes) -> Answered:
    """As `call`, with a query."""

    async def with_query(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "query_string": query}, receive, send)

    return await call(with_query, path)  # type: ignore[arg-type]


def test_inspect_lists_what_would_be_served(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["inspect", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert "engine 10: classes, (20, 15) -> (5,), verified; answers\n" in listed
    assert "engine 2: classes, (20, 15) -> (5,), verified; where it is asked for\n" in listed
    assert "words 1: classes, " in listed
    assert listed.endswith("\n7 models would be served\n")
    for make in (broken, bad_two_of_a_name, bad_version, link_out):
        make(folder)
    assert main.main(["inspect", str(folder)]) == 3
    listed = capsys.readouterr().out
    assert "valve: not served: is a link" in listed
    assert listed.count("pump, pump.keras are all called pump") == 1
    assert "engine: no version, which is a number from 1 on: v3" in listed
    assert "engine 10: " in listed
    assert listed.endswith("\n6 models would be served\n")
    with pytest.raises(SystemExit):
        main.main(["inspect", str(folder), "--output-activation", "softmax"])
    assert (
        "an activation is of one model, and this folder has several: a card says it of each\n"
        in capsys.readouterr().err
    )


def test_one_that_ends_the_process_that_reads_it_ends_not_the_service(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = (
        "lambda path, **_: os.kill(os.getpid(), 11 if 'fan' in path else 9) if 'fan' in path or 'gear' in path else 0"
    )
    trial = (
        f"import os, sys; sys.path[:] = sys.argv[2:]; from lstm_serve.loading import load; load.load_model = {kill}\n"
    )
    monkeypatch.setattr(isolated_load, "TRIAL", trial + isolated_load.TRIAL)
    registry = create_app(Settings(model=folder)).state.registry
    assert sorted(registry.refused) == ["fan", "gear"]
    assert "fan.h5: reading it ended a process by SIGSEGV: it is damaged" in registry.refused["fan"]
    assert "need not be the file's fault" in registry.refused["gear"]
    assert sorted(registry.deployments) == sorted(FILES.keys() - {"fan", "gear"})


def test_versions_of_a_lone_model_are_each_kept_and_a_damaged_one_ends_not_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        path = version_of(tmp_path / "engine", number)
        path.with_suffix(".card.json").write_text('{"version": "7"}')  # as it is copied from one to the next
    kill = "lambda path, **_: os.kill(os.getpid(), 11) if path.endswith('3') else 0"
    trial = (
        f"import os, sys; sys.path[:] = sys.argv[2:]; from lstm_serve.loading import load; load.load_model = {kill}\n"
    )
    monkeypatch.setattr(isolated_load, "TRIAL", trial + isolated_load.TRIAL)
    deployment = create_app(Settings(model=tmp_path / "engine")).state.registry.get()
    assert sorted(deployment.versions) == ["1", "2"]
    assert deployment.current.model.about.version == "2"
    assert "reading it ended a process by SIGSEGV: it is damaged" in str(deployment.refused)


def test_a_folder_of_which_nothing_can_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without a model in it"):
        create_app(Settings(model=tmp_path))
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n, and no more")
    with pytest.raises(ModelError, match=r"(?s)a\.h5.*b\.h5"):
        create_app(Settings(model=tmp_path))


def test_settings_of_one_model_or_of_several_alone(folder: Path) -> None:
    for wrong_one in ({"name": "a"}, {"output_activation": "softmax"}):
        with pytest.raises(SettingsError, match="is of one model"):
            create_app(Settings(model=folder, **wrong_one))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="LSTMSERVE_DEFAULT_MODEL is of several"):
        create_app(Settings(model=folder / "fan.h5", default_model="fan"))


@in_loop
async def test_a_single_model_is_called_as_the_setting_says(tmp_path: Path) -> None:
    path = put(tmp_path / "model.h5", SMALL / "binary.h5")
    (tmp_path / "model.card.json").write_text('{"name": "pump", "version": "3"}')
    app = create_app(Settings(model=path, name="blower-7"))
    async with started(app):
        found = await asked(app, "blower-7", rows_for(load_model(path)))
        assert (found["name"], found["version"]) == ("blower-7", "3")
        assert "blower-7" in wrong(await call(app, "/models/pump/predict", b"{}"), 404)
        await reread(app, "blower-7")
        assert (await call(app, "/models/blower-7")).status == 200


async def reread(app: FastAPI, name: str) -> Deployment:
    """Have the files read again, until that is done."""
    reloader = app.state.reloader
    reloader.ask()
    async with asyncio.timeout(PATIENCE):
        await reloader.settled.wait()
    found: Deployment | None = app.state.registry.deployments.get(name)
    return found  # type: ignore[return-value]


def test_a_start_warns_of_a_version_that_would_have_taken_no_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("1", "2"):
        (tmp_path / "pump" / version).mkdir(parents=True)
        put(tmp_path / "pump" / version / "model.h5", ASKER / "k215_model.h5", tmp_path / "none")
    with np.load(ASKER / "k215_golden.npz") as golden:
        np.savez(tmp_path / "pump/1/model.golden.npz", x=golden["x0"], y=golden["y0"])
    create_app(Settings(model=tmp_path))
    assert "pump: version 2 answers now, which would not have taken the place of version 1" in caplog.text


@in_loop
async def test_versions_and_models_come_and_go(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(Settings(model=folder))
    with np.load(ASKER / "k215_golden.npz") as golden:
        x = golden["x0"][:3]
    async with started(app):
        others = {name: app.state.registry.get(name).current for name in FILES if name != "engine"}
        version_of(folder / "engine", 11, 3.0)
        await reread(app, "engine")
        assert (await asked(app, "engine", x))["version"] == "11"
        assert (await asked(app, "engine/versions/10", x))["version"] == "10"
        (late := folder / "engine" / "12").mkdir()
        put(late / "model.h5", ASKER / "k215_model.h5", tmp_path / "none")
        deployment = await reread(app, "engine")
        assert "version 12: the model being served is verified, and the new one is not" in str(deployment.refused)
        assert (await asked(app, "engine", x))["version"] == "11"
        with np.load(ASKER / "k215_golden.npz") as golden:
            np.savez(late / "model.golden.npz", x=golden["x0"], y=np.roll(golden["y0"], 1))
        deployment = await reread(app, "engine")
        assert "misses its golden predictions" in str(deployment.refused)
        shutil.rmtree(late)
        shutil.rmtree(folder / "engine" / "1")
        deployment = await reread(app, "engine")
        assert deployment.refused is None
        assert caplog.messages[-2:] == ["engine: version 1 is not there any more", "all of its files are served"]
        assert sorted(deployment.versions, key=int) == ["2", "10", "11"]
        shutil.rmtree(folder / "engine" / "11")  # the one that answers: the one before takes its place
        await reread(app, "engine")
        assert (await asked(app, "engine", x))["version"] == "10"
        assert {name: app.state.registry.get(name).current for name in others} == others

        put(folder / "new" / "1" / "model.h5", SMALL / "binary.h5")
        (folder / "fan.h5").unlink()
        await reread(app, "new")
        await asked(app, "new", rows_for(load_model(folder / "new")))
        assert (await call(app, "/models/fan")).status == 404
        assert "fan" not in (await call(app, "/metrics")).body.decode().split("model_reload_successful")[-1]
        put(folder / "new.keras", ASKER / "k3_model.keras")  # what is served stays
        deployment = await reread(app, "new")
        assert "are all called new" in str(deployment.refused)
        await asked(app, "new", rows_for(load_model(folder / "new")))


@in_loop
async def test_other_versions_answer_while_one_is_still_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(model=folder))
    go_on, really = threading.Event(), load

    def slow(settings: Settings, source: NamedFiles) -> Loaded:
        if source.version == "2":
            go_on.wait(PATIENCE)
        return really(settings, source)

    monkeypatch.setattr(reload, "load", slow)
    async with started(app):
        try:
            deployment = app.state.registry.get("engine")
            version_of(folder / "engine", 11, 3.0)
            scaled_copy(folder / "engine" / "2" / "model.h5")
            (folder / "engine" / "2" / "model.golden.npz").unlink()
            app.state.reloader.ask()
            while deployment.current.model.about.version != "11":  # noqa: ASYNC110 - set by another task
                await asyncio.sleep(0.01)
            for version in ("1", "2", "10", "11"):
                assert (await call(app, f"/v2/models/engine/versions/{version}")).status == 200, version
        finally:
            go_on.set()
        async with asyncio.timeout(PATIENCE):
            await app.state.reloader.settled.wait()
        assert sorted(deployment.versions, key=int) == ["1", "2", "10", "11"]


@in_loop
async def test_what_has_taken_a_request_finishes_it_when_the_model_goes(folder: Path) -> None:
    app = create_app(Settings(model=folder))
    async with started(app):
        deployment = app.state.registry.get("pump")
        body = json.dumps({"sequences": rows_for(deployment.current.model).tolist()}).encode()
        came = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            async def later() -> Any:
                await came.wait()
                return await receive()

            await app(scope, later, send)

        asking = asyncio.create_task(call(slow, "/models/pump/predict/batch", body))  # type: ignore[arg-type]
        while not deployment.requests:  # noqa: ASYNC110 - an attribute, set by another task
            await asyncio.sleep(0)
        shutil.rmtree(folder / "pump")
        await reread(app, "pump")
        assert (await call(app, "/models/pump/predict/batch", body)).status == 404
        came.set()
        assert (await asking).status == 200
        async with asyncio.timeout(PATIENCE):
            while app.state.reloader._retiring:  # noqa: ASYNC110 - it ends by itself
                await asyncio.sleep(0.01)
        assert not deployment.queue.alive
        assert b'model="pump"' not in (await call(app, "/metrics")).body  # what the last request counted neither


class Answers(list[Question]):
    """Requests whose right answers are those of every model that is in `y` when they are asked for."""

    def __init__(self, x: Any, y: dict[str, Any], at: str) -> None:
        super().__init__(questions(x, dict(y), at=at))
        self._made = x, y, at

    def __getitem__(self, index: Any) -> Any:
        x, y, at = self._made
        if len(super().__getitem__(0).wanted) != len(y):
            self[:] = questions(x, dict(y), at=at)
        return super().__getitem__(index)


CHANGES = int(os.environ.get("CHANGES", "8"))


@in_loop
async def test_under_load_each_answer_is_of_a_version_that_was_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Versions come and go, and another model's file changes in its place; nothing is lost."""
    root = tmp_path_factory.mktemp("load")
    x = np.random.default_rng(1).normal(size=(40, 20, 15)).astype(np.float32)
    version_of(root / "engine", 1)
    scaled_copy(root / "fan.h5")
    y: dict[str, dict[str, Any]] = {"engine": {}, "fan": {}}

    def learn(name: str, path: Path) -> None:
        model = load_model(path)
        y[name][model.origin.digest] = model.predict(x)

    learn("engine", root / "engine" / "1")
    learn("fan", root / "fan.h5")
    with Process(root, LSTMSERVE_ACCESS_LOG="false") as process:
        async with contextlib.AsyncExitStack() as stack:
            tallies = {}
            for name, models in y.items():
                asked = Answers(x, models, f"/models/{name}")
                tallies[name] = await stack.enter_async_context(asking(process.port, asked, 3, pause=0.005))
            for change in range(2, CHANGES + 2):
                factor = 1 + change / 50
                if change % 3:
                    path = await asyncio.to_thread(version_of, root / ".next", change, factor)
                    learn("engine", path)
                    path.parent.rename(root / "engine" / str(change))
                    if (old := root / "engine" / str(change - 3)).exists():
                        shutil.rmtree(old)
                else:
                    learn("fan", scaled_copy(root / ".fan.h5", factor))
                    (root / ".fan.h5").replace(root / "fan.h5")
                process.signal(signal.SIGHUP)
                await asyncio.to_thread(process.wait_for, "replaced: requests", change - 1)
                changed = "engine" if change % 3 else "fan"
                newest = [*y[changed]][-1]
                async with asyncio.timeout(PATIENCE):
                    while not tallies[changed].by_model[newest]:  # noqa: ASYNC110 - the callers wait too
                        await asyncio.sleep(0.01)
    assert process.popen.returncode == 0
    of_one = ("loaded ", "not verified: ", "replaced: ", "engine: version ")
    assert {line["model"] for line in process.records if line["message"].startswith(of_one)} == {*y}
    for name, tally in tallies.items():
        assert not tally.wrong, tally.wrong[:3]
        assert all(tally.by_model[digest] > 0 for digest in y[name])


@in_loop
async def test_a_change_of_one_model_is_no_change_of_another(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor of the JSON beside it, of which any other might be an architecture."""
    app = create_app(Settings(model=folder))
    async with started(app):
        with caplog.at_level(logging.INFO):
            await reread(app, "fan")
        assert caplog.messages[-1] == f"nothing in {folder} has changed"
        before = {name: one.current for name, one in app.state.registry.deployments.items()}
        (folder / "fan.card.json").write_text('{"description": "new"}')
        await reread(app, "fan")
        changed = [name for name, one in app.state.registry.deployments.items() if one.current is not before[name]]
        assert changed == ["fan"]
