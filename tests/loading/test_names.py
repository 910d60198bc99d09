"""What lies beside a model under a name that is not read is told, or refuses the model."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from kerasfiles import dense, lstm
from kinds import made
from serving import ASKER, GOLDEN, in_loop, started

from lstm_serve import load_model
from lstm_serve.cli import main
from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.repository import is_several
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

CARD = {"scaling": {"mean": [1, 2, 3], "scale": [4, 5, 6]}}


def model(folder: Path, name: str = "m.h5") -> Path:
    return made(folder, [lstm(), dense(2, activation="linear")]).rename(folder / name)


def bare(folder: Path, name: str = "m.h5") -> Path:
    path = model(folder)
    (folder / "m.card.json").unlink(missing_ok=True)
    return path.rename(folder / name)


@pytest.mark.parametrize(
    "name", ["m.h5.card.json", "m.Card.json", "m.card.JSON", "M.card.json", "M.H5.CARD.JSON", "card.json", "Card.json"]
)
@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_misnamed_card_refuses_the_model(tmp_path: Path, name: str, form: str) -> None:
    path = bare(tmp_path)
    (tmp_path / name).write_text(json.dumps(CARD))
    with pytest.raises(UnreadableFile, match=rf"there is {name}, a card .* Call it m\.card\.json"):
        load_model(path if form == "file" else tmp_path)
    (tmp_path / name).rename(tmp_path / "m.card.json")
    assert load_model(path).input_dtype == np.float64


def test_what_another_model_owns_is_no_look_alike(tmp_path: Path) -> None:
    path = bare(tmp_path, "M.h5")
    shutil.copy(path, tmp_path / "m.h5")
    (tmp_path / "m.card.json").write_text(json.dumps(CARD))
    shutil.copy(path, tmp_path / "M.h5.h5")
    (tmp_path / "M.h5.card.json").write_text(json.dumps(CARD))
    assert load_model(path).input_dtype == np.float32
    (tmp_path / "M.h5.h5").unlink()
    with pytest.raises(UnreadableFile, match=r"M\.h5\.card\.json, a card"):
        load_model(path)


def test_a_card_in_the_folder_that_is_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "wear"
    shutil.copytree(GOLDEN / "savedmodel" / "tf215__hard", folder)
    for name in ("card.json", "wear.card.json"):
        (folder / name).write_text('{"description": "its card"}')
        with pytest.raises(UnreadableFile, match=rf"there is wear/{name}, a card .* Call it wear\.card\.json"):
            load_model(folder)
        (folder / name).unlink()


def test_what_may_be_anything_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = bare(tmp_path)
    (tmp_path / "card.json").write_text('{"suit": "hearts"}')
    np.savez(tmp_path / "m.h5.golden.npz", x=np.zeros(1))
    with caplog.at_level(logging.WARNING):
        assert not load_model(path).origin.verified
    assert caplog.messages == [
        "there is card.json, which is not read: if it is a card of m.h5, call it m.card.json",
        "there is m.h5.golden.npz, which is not read: if it is golden predictions of m.h5, call it m.golden.npz",
    ]


@pytest.mark.parametrize("name", ["golden.npz", "k3_golden.npz"])
def test_golden_predictions_under_another_name_are_no_second_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = bare(tmp_path)
    shutil.copy(ASKER / "k3_golden.npz", tmp_path / name)
    with caplog.at_level(logging.WARNING):
        assert load_model(tmp_path).origin.file == path.name
    told = "there is golden.npz, which is not read: if it is golden predictions of m.h5, call it m.golden.npz"
    assert caplog.messages == [told] * (name == "golden.npz")
    np.savez(tmp_path / name, x=np.zeros(1), y=np.zeros(1))
    assert not is_several(tmp_path)
    with pytest.raises(UnreadableFile, match="holds inputs and the answers to them, x and y; name the model that they"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("name", ["b.weights.json", "b.weights.h5.json", "B.json"])
def test_a_misnamed_architecture_refuses_the_weights(tmp_path: Path, name: str) -> None:
    path = shutil.copy(ASKER / "k3_model.weights.h5", tmp_path / "b.weights.h5")
    said = "a history"
    (tmp_path / name).write_text(json.dumps(said))
    shutil.copy(ASKER / "k3_arch.json", tmp_path / "b.json")
    assert load_model(path).parameters
    (tmp_path / name).unlink()
    (tmp_path / "b.json").rename(tmp_path / name)
    with pytest.raises(UnreadableFile, match=rf"there is {name}, an architecture .* Call it b\.json"):
        load_model(path)


@in_loop
async def test_the_log_names_the_card_and_the_golden_predictions(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("named")
    path = bare(folder)
    caplog.set_level(logging.INFO)
    async with started(create_app(Settings(model=path))):
        assert f"it has no card: there is no {folder / 'm.card.json'}" in caplog.messages
    x = np.zeros((1, 5, 3), np.float32)
    np.savez(folder / "m.golden.npz", x=x, y=load_model(path).predict(x))
    (folder / "m.card.json").write_text("{}")
    async with started(create_app(Settings(model=path))):
        assert f"its card is {folder / 'm.card.json'}" in caplog.messages
        assert f"it reproduces 1 golden predictions in {folder / 'm.golden.npz'} to 0.0e+00" in caplog.messages


def test_inspect_names_what_would_be_read_and_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bare(tmp_path)
    (tmp_path / "card.json").write_text("3")
    assert main.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "card        none: there is no file m.card.json (there is card.json, which is not read)\n" in said
