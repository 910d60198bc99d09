"""Golden predictions that were not made as they should be: what is said, and what to do."""

from pathlib import Path

import numpy as np
import pytest
from kinds import BINARY, X, made

from lstm_serve import load_model
from lstm_serve.errors import ModelError, UnreadableFile, WrongNumbers


def said(path: Path, kind: type[ModelError]) -> str:
    with pytest.raises(kind) as caught:
        load_model(path)
    return str(caught.value)


def test_a_miss_without_a_card_says_where_scaling_goes(tmp_path: Path) -> None:
    path = made(tmp_path, BINARY)
    golden = tmp_path / "m.golden.npz"
    np.savez(golden, x=X * 1000, y=load_model(path).predict(X))
    scaling = "No card was found (m.card.json): if you scaled the data before training, that goes there"
    assert scaling not in said(path, WrongNumbers)
    (tmp_path / "m.card.json").unlink()
    assert said(path, WrongNumbers).endswith(scaling)


def test_answers_of_another_rank(tmp_path: Path) -> None:
    path = made(tmp_path, BINARY)
    np.savez(tmp_path / "m.golden.npz", x=X, y=load_model(path).predict(X)[:, 0])
    assert said(path, WrongNumbers).endswith("give y as model.predict(x) returns it")


def test_other_names_are_told(tmp_path: Path) -> None:
    path = made(tmp_path, BINARY)
    np.savez(tmp_path / "m.golden.npz", inputs=X, x=X)
    assert "it should hold the arrays x and y, and holds inputs, x: y = model.predict(x); np.savez" in said(
        path, UnreadableFile
    )


def test_an_npy_under_the_name_of_an_npz(tmp_path: Path) -> None:
    path = made(tmp_path, BINARY)
    with (tmp_path / "m.golden.npz").open("wb") as file:
        np.save(file, X)
    assert "it is an .npy, of one array, where an .npz of x and y was expected" in said(path, UnreadableFile)
