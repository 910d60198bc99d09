import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import load_model
from service.errors import ModelError, WrongNumbers
from service.loading.card import Card, read

GOLDEN = Path(__file__).parent / "golden" / "asker"


def write(folder: Path, card: Any) -> Path:
    (folder / "m.card.json").write_text(card if isinstance(card, str) else json.dumps(card))
    return folder / "m.h5"


def test_every_field(tmp_path: Path) -> None:
    fields = {
        "name": "wear-3",
        "version": 3,
        "description": "How worn.",
        "classes": ["new", "old"],
        "features": ["speed", {"name": "load", "unit": "kN", "description": "on the bearing"}],
        "scaling": {"mean": [1, 2.5], "scale": [3, 4]},
        "threshold": 0.3,
        "timesteps": 20,
        "architecture": "m.json",
        "recurrent_activation": "sigmoid",
        "output_activation": "softmax",
        "metadata": {"anything": [1, {}]},
    }
    card = read(write(tmp_path, fields))
    assert card.version == "3"
    assert card.columns is not None
    assert [(column.name, column.unit) for column in card.columns] == [("speed", None), ("load", "kN")]
    assert card.scaling is not None
    assert (card.scaling.offset, card.scaling.divisor) == ([1, 2.5], [3, 4])
    assert fields.keys() == Card.model_fields.keys()


def test_min_and_max(tmp_path: Path) -> None:
    card = read(write(tmp_path, {"scaling": {"min": [-1, 2], "max": [3, 2.5]}}))
    assert card.scaling is not None
    assert (card.scaling.offset, card.scaling.divisor) == ([-1, 2], [4, 0.5])


def test_a_pipe_is_no_card(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.card.json")
    with pytest.raises(ModelError, match="no plain file"):
        read(tmp_path / "m.h5")


def test_no_card(tmp_path: Path) -> None:
    assert read(tmp_path / "m.h5") == Card()


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"labels": ["a"]}, "labels is not a field; did you mean classes?"),
        ({"clases": ["a"]}, "clases is not a field; did you mean classes?"),
        ({"zzz": 1}, "zzz is not a field; the fields are name, version"),
        ({"name": "a b"}, "name: expected letters, digits"),
        ({"version": "v3"}, "version: expected a whole number from 1 on"),
        ({"version": True}, "version: expected a whole number from 1 on"),
        ({"version": 0}, "version: expected a whole number from 1 on"),
        ({"features": [{"name": "x", "units": "k"}]}, "features.0: expected names, or objects with a name"),
        ({"features": ["a", "a"]}, "features: each name must be given once"),
        ({"classes": ["a", "a"]}, "classes: each name must be given once"),
        ({"scaling": {"min": [1, 2, 3], "max": [2, 3]}}, "scaling: the two lists of scaling are of different lengths"),
        ({"scaling": {"min": [1, 2], "max": [2, 1]}}, "scaling: no scale may be 0, and each max must be over its min"),
        ({"scaling": {"mean": [1], "scale": [0]}}, "scaling: no scale may be 0"),
        ({"scaling": {"mean": [1]}}, "scaling is either mean and scale, or min and max"),
        ({"scaling": {"std": [1]}}, "scaling.std: is not a field"),
        ({"classes": ["a", "b\x1b[31m"]}, "classes.1: holds control characters"),
        ({"architecture": 3}, "architecture: expected the name of a file"),
        ('{"classes": ["a", "b"], "version": 1, "classes": ["b", "a"]}', "'classes' is there twice"),
        ('{"metadata": {"a": {"b": 1, "b": 1}}}', "'b' is there twice"),
        ("[1]", "the card: Input should be an object"),
        ("{", "the card: Invalid JSON"),
        ('{"timesteps": NaN}', "timesteps"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, card: Any, said: str) -> None:
    with pytest.raises(ModelError, match=r"its card m\.card\.json is wrong") as caught:
        read(write(tmp_path, card))
    assert said in str(caught.value)


def test_a_card_too_large(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="larger than 4 MiB"):
        read(write(tmp_path, " " * (4 << 20) + "{}"))


def test_a_card_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.card.json").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "m.h5")


def test_scaling_goes_before_the_first_layer_and_is_replayed(tmp_path: Path) -> None:
    model = tmp_path / "m.h5"
    model.write_bytes((GOLDEN / "k215_model.h5").read_bytes())
    with np.load(GOLDEN / "k215_golden.npz") as golden:
        scaled, y = golden["x0"].astype(np.float64), golden["y0"]
    mean, scale = np.linspace(1000, 9000, 15), np.linspace(3, 40, 15)
    write(tmp_path, {"scaling": {"mean": mean.tolist(), "scale": scale.tolist()}})
    np.savez(tmp_path / "m.golden.npz", x=scaled * scale + mean, y=y)
    assert load_model(model).origin.verified
    np.savez(tmp_path / "m.golden.npz", x=scaled, y=y)
    with pytest.raises(WrongNumbers, match="x must be as it is before that, and y what Keras answered to x scaled"):
        load_model(model)
