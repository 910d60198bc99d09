"""A byte-order mark, as PowerShell and Notepad write it, before every text that belongs to a model."""

import codecs
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from kerasfiles import numbers
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.formats.text import decode

ASKER = GOLDEN / "asker"


@pytest.mark.parametrize("data", ["é", "", "{}"])
def test_text_is_the_same_with_and_without_the_mark(data: str) -> None:
    assert decode(data.encode()) == decode(codecs.BOM_UTF8 + data.encode()) == data


def test_one_mark_alone_is_let_go() -> None:
    assert decode(codecs.BOM_UTF8 * 2) == "\ufeff"


def marked(path: Path, data: bytes) -> Path:
    path.write_bytes(codecs.BOM_UTF8 + data)
    return path


def test_architecture_beside_weights(tmp_path: Path) -> None:
    shutil.copy(ASKER / "k3_weights_arr.npz", tmp_path / "m.npz")
    marked(tmp_path / "m.json", (ASKER / "k3_arch.json").read_bytes())
    assert load_model(tmp_path / "m.npz").input_shape == (20, 15)


def test_a_list_of_arrays(tmp_path: Path) -> None:
    shapes = [(3, 16), (4, 16), (16,), (4, 2), (2,)]
    arrays = [numbers(*shape).tolist() for shape in shapes]
    path = marked(tmp_path / "w.json", json.dumps(arrays).encode())
    model = load_model(path, recurrent_activation="sigmoid", output_activation="softmax")
    assert model.output_shape == (2,)


def test_the_texts_in_a_zip(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(ASKER / "k3_model.keras") as source,
        zipfile.ZipFile(tmp_path / "m.keras", "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, (codecs.BOM_UTF8 if name.endswith(".json") else b"") + source.read(name))
    x = numbers(2, 20, 15)
    expected = load_model(ASKER / "k3_model.keras").predict(x)
    assert np.array_equal(load_model(tmp_path / "m.keras").predict(x), expected)
