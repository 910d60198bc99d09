import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ASKER

from lstm_serve import load_model
from lstm_serve.errors import ModelError, WrongNumbers
from lstm_serve.loading.sidecars import card as cards
from lstm_serve.loading.sidecars.card import Card, SeriesCard
from lstm_serve.model.files import ModelFiles


def read(model: Path) -> Card:
    return cards.read(ModelFiles.of(model))


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
        "output_scaling": {"min": [0], "max": [10]},
        "threshold": 0.3,
        "inputs": {"sensors": {"name": "readings", "features": ["speed"], "scaling": {"mean": 1, "scale": 2}}},
        "outputs": {"state": {"name": "wear", "classes": ["new", "old"], "threshold": 0.4}},
        "timesteps": 20,
        "architecture": "m.json",
        "recurrent_activation": "sigmoid",
        "output_activation": "softmax",
        "hidden_activation": "relu",
        "return_sequences": False,
        "mask_zero": True,
        "series": {"seq": "counter", "gap": "reset"},
        "metadata": {"anything": [1, {}]},
    }
    card = read(write(tmp_path, fields))
    assert card.version == "3"
    assert card.columns is not None
    assert [(column.name, column.unit) for column in card.columns] == [("speed", None), ("load", "kN")]
    assert card.scaling is not None
    assert (card.scaling.offset, card.scaling.divisor) == ([1, 2.5], [3, 4])
    assert (card.series.seq, card.series.gap) == ("counter", "reset")
    assert fields.keys() == Card.model_fields.keys()


X = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("scaling", "formula"),
    [
        ({"mean": [-1.5], "scale": [-4]}, lambda x: (x + 1.5) / -4),
        ({"center": [2], "scale": [0.5]}, lambda x: (x - 2) / 0.5),
        ({"mean": 1003.1, "scale": 30}, lambda x: (x - 1003.1) / 30),
        ({"min": 10, "max": 30, "range": [-1, 1]}, lambda x: (x - 10) / 20 * 2 - 1),
        ({"min": [-1], "max": [3]}, lambda x: (x + 1) / 4),
        ({"min": [-1], "max": [3], "range": [-1, 1]}, lambda x: (x + 1) / 4 * 2 - 1),
        ({"min": [10], "max": [30], "range": [0.1, 0.9]}, lambda x: (x - 10) / 20 * 0.8 + 0.1),
        # As scikit-learn scales a column that never changed.
        ({"min": [7], "max": [7], "range": [-1, 1]}, lambda x: (x - 7) * 2 - 1),
    ],
)
def test_forms_of_scaling(scaling: dict[str, Any], formula: Callable[[float], float]) -> None:
    card = Card.model_validate({"scaling": scaling})
    assert card.scaling is not None
    ((offset,), (divisor,)) = card.scaling.offset, card.scaling.divisor

    @given(x=X)
    def check(x: float) -> None:
        assert (x - offset) / divisor == pytest.approx(formula(x), rel=1e-12, abs=1e-12)

    check()


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    (tmp_path / "m.card.json").write_bytes(b'\xef\xbb\xbf{"version": 3, "classes": ["\xc3\xa4", "b"]}')
    assert (read(path).version, read(path).classes) == ("3", ["ä", "b"])
    (tmp_path / "m.card.json").write_bytes(b'\xef\xbb\xbf{"version": 3, "version": 4}')
    with pytest.raises(ModelError, match="'version' is there twice"):
        read(path)
    (tmp_path / "m.card.json").write_text('{"version": 3}', "utf-16")
    with pytest.raises(ModelError, match="text in UTF-16; save it as UTF-8"):
        read(path)


def test_a_link_to_nothing_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "m.card.json").symlink_to("gone.json")
    with pytest.raises(ModelError, match="it is a link to a file that is not there"):
        read(tmp_path / "m.h5")


@pytest.mark.parametrize("field", Card.model_fields)
@pytest.mark.parametrize("wrong", [0, -1.5, 1e30, True, "", "\x00", "a" * 2000, [], [1, 2], [None], [{}], {}, {"x": 1}])
def test_what_is_wrong_is_said_in_our_words(tmp_path: Path, field: str, wrong: Any) -> None:
    path = write(tmp_path, {field: wrong})
    with contextlib.suppress(ModelError):  # some of these are right somewhere
        read(path)
        return
    with pytest.raises(ModelError) as caught:
        read(path)
    said = str(caught.value)
    assert f"is wrong: {field}" in said
    for theirs in ("Input should", "Field required", "String should", "List should", "Extra inputs", "should match"):
        assert theirs not in said


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
        ({"scaling": {"min": [1, 2], "max": [2, 1]}}, "scaling: no scale may be 0, and no max may be under its min"),
        ({"scaling": {"mean": [1], "scale": [0]}}, "scaling: no scale may be 0"),
        ({"scaling": {"mean": [1]}}, "scaling: expected mean and scale (as a StandardScaler has them)"),
        (
            {"scaling": {"center": [1]}},
            "center and scale (a RobustScaler), or min and max (a MinMaxScaler), with range",
        ),
        ({"scaling": {"min": [1], "max": [2], "range": [1, 1]}}, "range goes with min and max, and is two numbers"),
        ({"scaling": {"mean": [1], "scale": [2], "range": [0, 1]}}, "range goes with min and max"),
        ({"scaling": {"min": [-1e308], "max": [1e308]}}, "the numbers of scaling leave the range of float32"),
        ({"scaling": {"mean": [-1e300], "scale": [1]}}, "the numbers of scaling leave the range of float32"),
        ({"scaling": {"mean": [0], "scale": [1e-300]}}, "the numbers of scaling leave the range of float32"),
        ({"output_scaling": {"mean": [0], "scale": [1e39]}}, "the numbers of scaling leave the range of float32"),
        ({"scaling": {"std": [1]}}, "scaling.std is not a field; did you mean scale? It is mean and scale"),
        ({"scaling": {"mean_": [1]}}, "scaling.mean_ is not a field; did you mean mean? It is mean and scale"),
        ({"scaling": {"data_min_": [1]}}, "scaling.data_min_ is not a field; did you mean min?"),
        ({"scaling": {"feature_range": [0, 1]}}, "did you mean range?"),
        (
            {"scaling": {"zzz": [1]}},
            "scaling.zzz is not a field; the fields are mean, center, scale, min, max, range. It is mean",
        ),
        ({"output_scaling": {"std": [1]}}, "output_scaling.std is not a field; did you mean scale?"),
        ({"scaling": "robust"}, "scaling: expected an object with mean and scale"),
        ({"scaling": {"mean": [1, "2"], "scale": [1, 2]}}, "wrong: scaling.mean.1: expected a finite number"),
        ('{"scaling": {"mean": [NaN, 1], "scale": [1, 1]}}', "wrong: scaling.mean.0: expected a finite number"),
        (
            '{"output_scaling": {"mean": -Infinity, "scale": 1}}',
            "wrong: output_scaling.mean.0: expected a finite number",
        ),
        ({"scaling": {"mean": True, "scale": 1}}, "wrong: scaling.mean: expected a list of numbers"),
        ({"scaling": {"min": 0, "max": 1, "range": 2}}, "wrong: scaling.range: expected a list of numbers"),
        ({"scaling": {"mean": 1, "scale": [1, 2]}}, "scaling: the two lists of scaling are of different lengths"),
        ('{"metadata": %s}' % ('{"a":' * 300 + "1" + "}" * 300), "the card: is nested too deeply"),
        ({"threshold": 1.5}, "threshold: expected a number above 0, and at most 1"),
        ({"classes": ["a", "b\x1b[31m"]}, "classes.1: holds control characters"),
        ({"architecture": 3}, "architecture: expected the name of a file"),
        ('{"classes": ["a", "b"], "version": 1, "classes": ["b", "a"]}', "'classes' is there twice"),
        ('{"metadata": {"a": {"b": 1, "b": 1}}}', "'b' is there twice"),
        ("[1]", "the card: expected an object, such as"),
        ("{", "the card: is not valid JSON, EOF"),
        ('{"timesteps": NaN}', "timesteps"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, card: Any, said: str) -> None:
    with pytest.raises(ModelError, match=r"its card m\.card\.json is wrong") as caught:
        read(write(tmp_path, card))
    assert said in str(caught.value)


def test_what_is_wrong_with_each_item_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read(write(tmp_path, {"classes": [0, 1, 2], "scaling": {"mean": ["a", "b"], "scale": [1, 2]}}))
    said = str(caught.value).partition("is wrong: ")[2]
    assert said == 'classes.0: expected a text, such as "0"; scaling.mean.0: expected a finite number'


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ({"gap": "fill"}, 'series.gap: expected "refuse", "reset" or "last"'),
        ({"seq": 7}, 'series.seq: expected "counter" or "time"'),
        ("last", 'series: expected an object with seq, "counter" or "time", and gap'),
        ({"gaps": "last"}, "series.gaps is not a field; did you mean gap?"),
        (
            {"seq": "time", "gap": "last"},
            "series: of rows that are numbered by time nothing tells a gap: leave gap out",
        ),
    ],
)
def test_what_is_wrong_with_the_rules_of_series(tmp_path: Path, series: object, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(write(tmp_path, {"series": series}))
    assert said in str(caught.value)


def test_null_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    assert read(write(tmp_path, dict.fromkeys(Card.model_fields))).model_dump() == Card().model_dump()
    by_time = {"series": {"seq": "time", "gap": None}}
    assert read(write(tmp_path, by_time)).series == SeriesCard(seq="time")
    assert read(write(tmp_path, {"series": {"seq": None, "gap": None}})).series == SeriesCard()


def test_a_card_too_large(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="larger than 4 MiB"):
        read(write(tmp_path, " " * (4 << 20) + "{}"))


def test_a_card_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.card.json").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "m.h5")


def test_scaling_goes_before_the_first_layer_and_is_replayed(tmp_path: Path) -> None:
    model = tmp_path / "m.h5"
    model.write_bytes((ASKER / "k215_model.h5").read_bytes())
    with np.load(ASKER / "k215_golden.npz") as golden:
        scaled, y = golden["x0"].astype(np.float64), golden["y0"]
    mean, scale = np.linspace(1000, 9000, 15), np.linspace(3, 40, 15)
    write(tmp_path, {"scaling": {"mean": mean.tolist(), "scale": scale.tolist()}})
    np.savez(tmp_path / "m.golden.npz", x=scaled * scale + mean, y=y)
    assert load_model(model).origin.verified
    np.savez(tmp_path / "m.golden.npz", x=scaled, y=y)
    with pytest.raises(WrongNumbers, match="x must be as it is before that, and y what Keras answered to x scaled"):
        load_model(model)
