"""Models whose output is a model: what each Keras wrote, in each form, and wiring that no Keras writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import GOLDEN, dense, functional, lstm, save

from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile

FILES = sorted(
    file
    for golden in (GOLDEN / "nested").glob("*.golden.npz")
    for ending in (".h5", ".keras", ".weights.h5", ".npz", "")
    if (file := golden.with_name(golden.name.removesuffix(".golden.npz") + ending)).exists()
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_what_the_keras_that_saved_it_answered(path: Path) -> None:
    golden = np.load(path.with_name(f"{path.name.partition('.')[0]}.golden.npz"))
    model = load_model(path, replay=False)
    np.testing.assert_allclose(model.predict(golden["x"]), golden["y"], atol=1e-6, rtol=0)


def test_every_form_of_each_keras_is_there() -> None:
    assert len(FILES) == 6 * (5 + 4)


def head(call: int) -> dict[str, Any]:
    """A model whose output is said to be that call of the model `head`, which is called once."""
    class_name, config, _ = lstm(name="lstm")
    inner = functional(
        [
            ("InputLayer", {"name": "between", "batch_input_shape": [None, 4]}, []),
            ("Dense", {"name": "dense", **dense()[1]}, ["between"]),
        ]
    )
    outer = functional(
        [
            ("InputLayer", {"name": "in", "batch_input_shape": [None, 5, 3]}, []),
            (class_name, config, ["in"]),
            ("Functional", {**inner["config"], "name": "head"}, ["lstm"]),
        ]
    )
    outer["config"]["output_layers"] = [["head", call, 0]]
    return outer


@pytest.mark.parametrize("call", [0, 1])
def test_an_output_is_numbered_from_0_or_from_1(tmp_path: Path, call: int) -> None:
    groups = {"lstm": lstm()[2], "head": dense()[2]}
    assert load_model(save(tmp_path / "m.h5", head(call), groups)).output_shape == (2,)


def test_a_call_of_the_output_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="'head', call 2, which is not there"):
        load_model(save(tmp_path / "m.h5", head(2), {}))
