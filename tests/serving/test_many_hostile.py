"""A folder of models of which some are hostile or odd: each is told by its name, and none harms another."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from scraping import scraped
from serving import SMALL, call, in_loop, started
from test_many_models import call_with_query, put, reread

from lstm_serve.serving import isolated_load
from lstm_serve.settings import Settings
from lstm_serve.telemetry.logs import JsonFormatter
from lstm_serve.web.app import create_app

LATIN_1 = os.fsdecode(b"Pumpe-K\xfchl")
SHOWN = r"Pumpe-K\udcfc" + "hl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("fan", "gear"):
        put(tmp_path / "models" / name / "model.h5", SMALL / "binary.h5")
    return tmp_path / "models"


@pytest.mark.parametrize("served", [True, False])
def test_a_name_that_is_not_utf8_is_shown_with_escapes(
    folder: Path, *, served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        (folder / LATIN_1).mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    if served:
        put(folder / LATIN_1 / "model.h5", SMALL / "binary.h5")
    caplog.set_level(logging.INFO)

    @in_loop
    async def test() -> None:
        app = create_app(Settings(model=folder))
        async with started(app):
            listed = (await call(app, "/models")).json["models"]
            assert {each["name"]: each["refused"] is None for each in listed}[SHOWN] == served
            ready = (await call_with_query(app, "/readyz", b"verbose")).json
            assert (SHOWN in ready.get("refused", {})) != served
            missing = await call(app, "/models/nosuch")
            assert (missing.status, SHOWN in missing.json["detail"]) == (404, served)
            assert (await call(app, "/v2/repository/index", b"{}")).status == 200
            body = json.dumps({"sequence": [[0.5] * 3] * 6}).encode()
            answer = await call(app, f"/models/{SHOWN}/predict", body)
            assert answer.status == (200 if served else 404)
            assert any(dict(labels).get("model") == SHOWN for _, labels in await scraped(app))
            shutil.rmtree(folder / LATIN_1)
            await reread(app, SHOWN)
            assert not any(dict(labels).get("model") == SHOWN for _, labels in await scraped(app))

    test()
    for record in caplog.records:
        assert json.loads(JsonFormatter().format(record))["level"] == record.levelname.lower()


def test_a_trial_gives_its_time_to_each_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before and after one that stalls are read; the true reason is told."""
    paths = [folder / name for name in ("a", "fan", "stalls", "gear", "large")]
    load = (
        "def load(path, **_):\n"
        "    time.sleep(2 if 'stalls' not in path else 600)\n"
        "    if 'large' in path: raise MemoryError\n"
    )
    setup = "import sys, time, types; sys.path[:] = sys.argv[2:]\n"
    stub = "sys.modules['lstm_serve.loading.load'] = types.SimpleNamespace(load_model=load)\n"
    monkeypatch.setattr(isolated_load, "TRIAL", f"{setup}{load}{stub}{isolated_load.TRIAL}")
    monkeypatch.setattr(isolated_load, "MAX_TRIAL_SECONDS", 5)
    fatal = isolated_load.find_fatal(Settings(model=folder), paths)
    assert {path.name: reason.rpartition(": ")[2] for path, reason in fatal.items()} == {
        "stalls": "reading it took more than 5 seconds",
        "large": "reading it needs more memory than there is for it",
    }


@in_loop
async def test_a_default_model_that_is_not_there_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(model=folder, default_model="pump"))
    assert any(r.levelname == "WARNING" and "default model pump is not served" in r.message for r in caplog.records)
    async with started(app):
        told = (await call(app, "/predict", b"{}")).json["detail"]
        assert all(f'"{name}"' in told for name in ("fan", "gear"))
