import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow_files as tf
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.engine.types import Array
from lstm_serve.errors import MissingFact, ModelError, UnreadableFile, Unsupported
from lstm_serve.formats.folder import Folder
from lstm_serve.loading.config import architecture
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.files import checkpoint, saved_model

SAVED = GOLDEN / "savedmodel"


# One model has two inputs, and so no architecture.
FOLDERS = sorted(path.parent for path in SAVED.glob("tf*/saved_model.pb") if "nested_shared" not in str(path))

Stack = Sequence[tuple[str | None, Sequence[Array]]]


def read(prefix: Path) -> Contents:
    return checkpoint.read(Folder(prefix.parent), prefix.name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_by_order_the_layers_get_what_they_get_by_name(folder: Path) -> None:
    whole = saved_model.read(Folder(folder))
    layers = architecture.read(whole.config).layers
    by_order = read(folder / "variables" / "variables").assign(layers)
    for ours, theirs in zip(by_order, whole.assign(layers), strict=True):
        assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]


def test_save_weights_with_the_json_beside() -> None:
    model = load_model(SAVED / "tf21__func_ck" / "ck")
    assert model.origin.file == "ck.index"
    assert model.origin.format == "TensorFlow checkpoint"
    assert model.origin.keras == "2.3.0-tf"
    with np.load(SAVED / "tf21__func_ck.golden.npz") as golden:
        np.testing.assert_allclose(model.predict(golden["x"]), golden["y"], atol=1e-5, rtol=0)
    assert load_model(SAVED / "tf21__func_ck").origin == model.origin
    assert load_model(SAVED / "tf21__func_ck" / "ck.index").origin == model.origin


def test_weights_alone_are_refused_until_a_person_says_what_they_do_not(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "tf215__hard" / "variables", tmp_path / "ck")
    with pytest.raises(MissingFact, match="output_activation"):
        load_model(tmp_path / "ck", recurrent_activation="hard_sigmoid_keras_2")
    model = load_model(tmp_path / "ck", recurrent_activation="hard_sigmoid_keras_2", output_activation="softmax")
    with np.load(SAVED / "tf215__hard.golden.npz") as golden:
        np.testing.assert_allclose(model.predict(golden["x"]), golden["y"], atol=1e-5, rtol=0)


def test_with_a_layer_of_no_weights_only_the_json_helps(tmp_path: Path) -> None:
    assert read(SAVED / "tf21__func_ck" / "ck").stack is None
    for part in (SAVED / "tf21__func_ck").glob("ck.[di]*"):
        shutil.copy(part, tmp_path)
    with pytest.raises(MissingFact, match=r"to_json\(\)"):
        load_model(tmp_path / "ck")


# Checkpoints by hand. An object is its edges and its array's key.

ONE = np.ones(1, "<f4").tobytes()


def written(tmp_path: Path, *objects: tuple[dict[str, int], str]) -> Stack:
    tf.write_checkpoint(tmp_path / "ck", *objects)
    contents = read(tmp_path / "ck")
    assert contents.config is None
    assert contents.stack is not None
    return contents.stack


def test_layers_are_counted_not_sorted_as_text(tmp_path: Path) -> None:
    edges = {f"layer-{k}": k + 1 for k in reversed(range(12))}
    layers = [({"kernel": 13 + k}, "") for k in range(12)]
    stack = written(tmp_path, (edges, ""), *layers, *[({}, f"layer_{k}/kernel") for k in range(12)])
    assert [name for name, _ in stack] == [f"layer_{k}" for k in range(12)]


def test_a_model_in_a_checkpoint_of_its_own_making(tmp_path: Path) -> None:
    root = {"model": 1, "save_counter": 3}
    ((name, arrays),) = written(tmp_path, (root, ""), ({"layer-0": 2}, ""), ({"bias": 3}, ""), ({}, "mean"))
    assert name is None  # TensorFlow calls it plainly "mean", which names no layer
    assert [array.tolist() for array in arrays] == [[1]]


def test_stacked_cells_and_wrappers(tmp_path: Path) -> None:
    objects: list[tuple[dict[str, int], str]] = [
        ({"layer-0": 1}, ""),
        ({"layer": 2}, ""),
        ({"cell": 3}, ""),
        ({"cells": 4}, ""),
        ({"0": 5, "1": 6, "variables": 0}, ""),
        ({"kernel": 7}, ""),
        ({"bias": 8, "kernel": 9}, ""),
        ({}, "a"),
        ({}, "b"),
        ({}, "c"),
    ]
    ((name, arrays),) = written(tmp_path, *objects)
    assert name is None
    assert len(arrays) == 3


@pytest.mark.parametrize(
    ("objects", "error", "said"),
    [
        ([({"lstm": 1, "head": 1}, ""), ({}, "")], Unsupported, "0 models .* its parts are lstm, head"),
        ([({"a": 1, "b": 2}, ""), ({"layer-0": 3}, ""), ({"layer-0": 3}, ""), ({}, "")],
         Unsupported, "2 models"),
        ([({}, "")], Unsupported, "its parts are nothing"),
        ([], UnreadableFile, "no object 0"),
        ([({"layer-0": 5}, "")], UnreadableFile, "no object 5"),
        ([({"layer-0": -1}, "")], UnreadableFile, "no object -1"),
        ([({"layer-0": 1}, ""), ({"layer-0": 1}, "")], UnreadableFile, "in a circle"),
        ([({"layer-0": 1}, ""), ({"cell": 0, "layer": 1}, "")],
         UnreadableFile, "in a circle"),
        ([({"layer-0": 1}, ""), *[({f"layer-{k}": n for k in range(50)}, "") for n in range(2, 15)],
          ({}, "")], UnreadableFile, "in a circle"),
    ],
)  # fmt: skip
def test_a_graph_that_is_no_model_of_layers_is_refused(
    tmp_path: Path, objects: list[tuple[dict[str, int], str]], error: type[ModelError], said: str
) -> None:
    with pytest.raises(error, match=said):
        written(tmp_path, *objects)


def test_two_parts_of_one_name_are_refused() -> None:
    edge = tf.message((1, tf.message((1, 0), (2, "a"))))
    graph = checkpoint.ObjectGraph(tf.message((1, edge * 2)), "it")
    with pytest.raises(UnreadableFile, match="two parts named 'a'"):
        graph.children(0)


def test_a_graph_of_megabytes_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="larger than 4 MiB"):
        checkpoint.ObjectGraph(bytes(5 << 20), "it")


def test_a_checkpoint_of_tensorflow_1_is_refused(tmp_path: Path) -> None:
    tf.write_bundle(tmp_path / "ck", {b"lstm/kernel": tf.entry(ONE, shape=[1])}, ONE)
    with pytest.raises(Unsupported, match=r"checkpoint of TensorFlow 1 \(tf.train.Saver\)"):
        read(tmp_path / "ck")


def test_more_layers_than_are_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_LAYERS", 3)
    with pytest.raises(UnreadableFile, match="at most 3 are read"):
        read(SAVED / "tf21__func_ck" / "ck")
