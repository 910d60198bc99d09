"""Models whose output is a model: what each Keras wrote, in each form, and wiring that no Keras writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import dense, functional, lstm, numbers, save, save_sequential
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile, Unsupported

FILES = sorted(
    file
    for golden in (*(GOLDEN / "nested").glob("*.golden.npz"), *(GOLDEN / "each_step").glob("*.golden.npz"))
    for ending in (".h5", ".keras", ".weights.h5", ".npz", "")
    if (file := golden.with_name(golden.name.removesuffix(".golden.npz") + ending)).exists()
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_what_the_keras_that_saved_it_answered(path: Path) -> None:
    golden = np.load(path.with_name(f"{path.name.partition('.')[0]}.golden.npz"))
    model = load_model(path, replay=False)
    np.testing.assert_allclose(model.predict(golden["x"]), golden["y"], atol=1e-6, rtol=0)


def test_every_form_of_each_keras_is_there() -> None:
    assert len([path for path in FILES if path.parent.name == "nested"]) == 6 * (5 + 4)
    assert len([path for path in FILES if path.parent.name == "each_step"]) == 2 * (5 + 4) + 2 * 2 - 1


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


@pytest.mark.parametrize(
    ("keras", "refused"), [("2.2.4", True), ("2.2.4-tf", True), ("1.2.2", True), ("2.15.0", False), ("3.15.0", False)]
)
def test_a_list_whose_order_no_version_tells_is_refused(tmp_path: Path, keras: str, *, refused: bool) -> None:
    names = ("first", "second")
    batch = [("BatchNormalization", {"name": name, "axis": -1, "epsilon": 1e-3}, ["x"]) for name in names]
    batch[1][2][:] = ["first"]
    inner = functional([("InputLayer", {"name": "x", "batch_input_shape": [None, 3]}, []), *batch])
    inner["config"]["name"] = "inner"
    outer = functional([("InputLayer", {"name": "in", "batch_input_shape": [None, 3]}, [])])
    outer["config"]["layers"].append({**inner, "name": "inner", "inbound_nodes": [[["in", 0, 0, {}]]]})
    outer["config"]["output_layers"] = [["inner", 1, 0]]
    (tmp_path / "m.json").write_text(json.dumps({**outer, "keras_version": keras, "backend": "tensorflow"}))
    np.savez(tmp_path / "m.npz", *[np.full(3, k + 1, np.float32) for k in range(8)])
    if refused:
        with pytest.raises(Unsupported, match=r"depends on the Keras that made it.*save_weights"):
            load_model(tmp_path / "m.npz")
    else:
        assert load_model(tmp_path / "m.npz").predict(np.zeros((1, 3))).shape == (1, 3)


def test_in_a_nested_model_a_vector_of_spectral_normalization_comes_after_what_is_trained(tmp_path: Path) -> None:
    first, second = dense(3, 4, name="first"), dense(2, 3, name="second")

    def loaded(name: str, layer: tuple[str, dict[str, Any]], vectors: list[Any]) -> Any:
        inner = functional(
            [
                ("InputLayer", {"name": "between", "batch_input_shape": [None, 4]}, []),
                (*layer, ["between"]),
                ("Dense", second[1], [layer[1]["name"]]),
            ]
        )
        class_name, config, arrays = lstm(name="lstm")
        outer = functional(
            [
                ("InputLayer", {"name": "in", "batch_input_shape": [None, 5, 3]}, []),
                (class_name, config, ["in"]),
                ("Functional", {**inner["config"], "name": "head"}, ["lstm"]),
            ]
        )
        groups = {"lstm": arrays, "head": [*first[2], *second[2], *vectors]}
        return load_model(save(tmp_path / name, outer, groups))

    x = numbers(2, 5, 3)
    held = {"name": "normalized", "layer": {"class_name": "Dense", "config": first[1]}}
    found = loaded("normalized.h5", ("SpectralNormalization", held), [numbers(1, 3)])
    plain = loaded("plain.h5", ("Dense", first[1]), [])
    np.testing.assert_allclose(found.predict(x), plain.predict(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
        *("Attention", "AdditiveAttention", "MultiHeadAttention", "Masking"),
    ],
)
def test_what_cannot_be_done_for_each_step_by_itself_is_refused(name: str, tmp_path: Path) -> None:
    held = {"name": "each", "layer": {"class_name": name, "config": {"name": "held"}}}
    layers: list[tuple[str, dict[str, Any], list[Any]]] = [("TimeDistributed", held, []), lstm(), dense()]
    with pytest.raises(Unsupported, match=rf"'each' holds a {name}, which is not supported for each time step"):
        load_model(save_sequential(tmp_path / "m.h5", layers))
