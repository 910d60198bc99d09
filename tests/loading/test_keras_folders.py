"""Models that Keras 3 saved as a folder, `model.save(path, zipped=False)`: the members of a .keras file, as files."""

import codecs
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN, Golden, in_loop

from lstm_serve import load_model
from lstm_serve.errors import ModelError, UnreadableFile, WrongNumbers
from lstm_serve.serving import isolated_load
from lstm_serve.serving.reload import fingerprint
from lstm_serve.settings import Settings

ZIP = GOLDEN / "asker" / "k3_model.keras"
PARTS = ("config.json", "metadata.json", "model.weights.h5")


def unpacked(folder: Path) -> Path:
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    (folder / "assets").mkdir()  # Keras leaves an empty one
    return folder


def test_it_answers_what_the_zip_answers(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(3, 20, 15)).astype(np.float32)
    model = load_model(unpacked(tmp_path / "m"))
    assert np.array_equal(model.predict(x), load_model(ZIP).predict(x))
    assert (model.origin.format, model.origin.keras, model.origin.file) == (".keras folder", "3.15.1", "m")


@pytest.mark.parametrize(
    ("there", "given", "called"),
    [("wear", "wear", ("wear", "1")), ("wear/3", "wear", ("wear", "3")), ("m.keras", "m.keras", ("m.keras", "1"))],
)
def test_card_and_golden_predictions_lie_beside_it(
    tmp_path: Path, golden: Golden, there: str, given: str, called: tuple[str, str]
) -> None:
    folder = unpacked(tmp_path / there)
    x, _ = golden
    y = load_model(ZIP).predict(x)
    np.savez(folder.with_name(f"{folder.name}.golden.npz"), x=x, y=y)
    folder.with_name(f"{folder.name}.card.json").write_text(json.dumps({"classes": list("abcde")}))
    model = load_model(tmp_path / given)
    assert model.origin.golden_rows == len(x)
    assert model.about.classes == tuple("abcde")
    assert (model.about.name, model.about.version) == called
    np.savez(folder.with_name(f"{folder.name}.golden.npz"), x=x, y=y + 0.1)
    with pytest.raises(WrongNumbers):
        load_model(tmp_path / given)


def test_its_texts_may_begin_with_a_mark(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "m")
    for name in PARTS[:2]:
        (folder / name).write_bytes(codecs.BOM_UTF8 + (folder / name).read_bytes())
    assert load_model(folder).output_shape == (5,)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_no_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFile, match="name the folder that it is in"):
        load_model(unpacked(tmp_path / "m") / name)


def linked(folder: Path) -> None:
    (folder / "config.json").rename(folder / "elsewhere")
    (folder / "config.json").symlink_to("elsewhere")


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no version": (lambda folder: (folder / "metadata.json").write_text("{}"), "does not say its keras_version"),
    "a config in another encoding": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff"),
        "config.json is not",
    ),
    "a config that is large": (lambda folder: (folder / "config.json").write_bytes(b" " * (5 << 20)), "larger than 4"),
    "weights cut short": (lambda folder: os.truncate(folder / "model.weights.h5", 5000), "cut short"),
    "a link": (linked, "symbolic link"),
}


@pytest.mark.parametrize("case", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_refused(tmp_path: Path, case: tuple[Callable[[Path], object], str]) -> None:
    damage, reason = case
    damage(folder := unpacked(tmp_path / "m"))
    with pytest.raises(ModelError, match=reason) as refused:
        load_model(folder)
    assert str(refused.value).startswith(str(folder))


def test_a_change_of_each_part_is_seen(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "m")
    seen = {fingerprint(folder)}
    for name in PARTS:
        (folder / name).write_bytes(b"")
        seen.add(fingerprint(folder))
    assert len(seen) == 4


@in_loop
async def test_it_is_read_aside_before_it_replaces_another(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "m")
    await isolated_load.try_aside(Settings(model=folder))
    os.truncate(folder / "model.weights.h5", 5000)
    with pytest.raises(ModelError, match="cut short"):
        await isolated_load.try_aside(Settings(model=folder))
