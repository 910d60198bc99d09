import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_files as tf

from service.errors import MissingFact, ModelError, UnreadableFile, Unsupported
from service.loading import saved_model

GOLDEN = Path(__file__).parent / "golden" / "savedmodel"
FOLDERS = sorted(path.parent.name for path in GOLDEN.glob("tf*/saved_model.pb"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    return copied("tf2.15__k_nested_shared_nt", tmp_path)


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / "model"))


def sha256(arrays: dict[str, list[Any]]) -> list[str]:
    return [hashlib.sha256(array.tobytes()).hexdigest() for layer in arrays.values() for array in layer]


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "tf215__hard"])
def test_the_arrays_are_those_of_get_weights_in_its_order(name: str) -> None:
    model = saved_model.read(GOLDEN / name)
    with np.load(GOLDEN / f"{name}.golden.npz") as golden:
        assert sha256(model.arrays) == golden["w_sha256"].tolist()
    listed = {layer["config"]["name"] for layer in model.model_config["config"]["layers"]}
    assert {layer for layer, arrays in model.arrays.items() if arrays} <= listed


@pytest.mark.parametrize(
    ("name", "tensorflow", "keras", "class_name"),
    [
        ("tf2.0__c_gru_ra0", "2.0.4", "2.2.4-tf", "Sequential"),
        ("tf2.4__f_two_branches_nt", "2.4.4", "2.4.0", "Functional"),
        ("tf2.5__b_stack_bn_nt", "2.5.3", "2.5.0", "Sequential"),
        ("tf2.15__l_stateful_nt", "2.15.1", "2.15.0", "Sequential"),
    ],
)
def test_a_folder_says_who_wrote_it(name: str, tensorflow: str, keras: str, class_name: str) -> None:
    model = saved_model.read(GOLDEN / name)
    assert model.tensorflow == tensorflow
    assert model.keras.text == keras
    assert model.model_config["class_name"] == class_name


def test_tuples_and_shapes_are_plain_lists() -> None:
    model = saved_model.read(GOLDEN / "tf215__hard")
    assert model.model_config["config"]["layers"][0]["config"]["batch_input_shape"] == [None, 20, 15]
    assert "__tuple__" not in json.dumps(model.model_config)


def test_a_bidirectional_has_its_forward_arrays_first() -> None:
    model = saved_model.read(GOLDEN / "tf2.5__i_mask_bi_seq_nt")
    assert model.arrays["masking_1"] == []
    shapes = [array.shape for array in model.arrays["bidirectional_3"]]
    assert shapes == [(3, 15), (5, 15), (2, 15)] * 2


def test_a_nested_model_is_one_layer_with_what_was_counted_last() -> None:
    model = saved_model.read(GOLDEN / "tf2.15__k_nested_shared_nt")
    assert [array.shape for array in model.arrays["sub"]] == [(8, 3), (3,), (3,), (3,), (3,), (3,)]
    assert [len(arrays) for arrays in model.arrays.values()] == [0, 0, 3, 0, 6, 2]


def test_a_checkpoint_has_its_layers_in_order() -> None:
    arrays = saved_model.checkpoint(GOLDEN / "tf21__func_ck" / "ck")
    assert {name: [array.shape for array in layer] for name, layer in arrays.items()} == {
        "lstm": [(15, 24), (6, 24), (24,)],
        "gru": [(15, 15), (5, 15), (2, 15)],
        "dense": [(11, 4), (4,)],
    }


# What has no description of its layers, or none that can be told.


def test_an_exported_model_is_refused() -> None:
    with pytest.raises(MissingFact, match=r"model\.export\(\).*TensorFlow 2\.21\.0"):
        saved_model.read(GOLDEN / "k3.15__a_export")


def test_tensorflow_1_exported_the_json_beside(tmp_path: Path) -> None:
    model = tf.message((1, tf.message((5, "1.15.0"))))
    (tmp_path / "saved_model.pb").write_bytes(tf.message((1, 1), (2, model), (2, model), (2, model)))
    (tmp_path / "assets").mkdir()
    shutil.copy(GOLDEN / "tf21__func_ck" / "arch.json", tmp_path / "assets" / "saved_model.json")
    (tmp_path / "variables").mkdir()
    for part in (GOLDEN / "tf21__func_ck").glob("ck.*"):
        shutil.copy(part, tmp_path / "variables" / f"variables{part.name.removeprefix('ck')}")
    read = saved_model.read(tmp_path)
    assert read.tensorflow == "1.15.0"
    assert read.model_config["class_name"] == "Model"
    assert list(read.arrays) == ["lstm", "gru", "dense"]
    for damaged, said in ((b"\xff", "not UTF-8"), (b"[1]", "no object"), (b"{", "not valid JSON")):
        (tmp_path / "assets" / "saved_model.json").write_bytes(damaged)
        with pytest.raises(UnreadableFile, match=said):
            saved_model.read(tmp_path)


def described(root: dict[str, Any] | str) -> bytes:
    """A saved_model.pb whose root has this description, as TensorFlow wrote it before 2.5."""
    text = root if isinstance(root, str) else json.dumps(root)
    user = tf.message((1, "_tf_keras_model"), (3, text))
    objects = tf.message((1, tf.message((4, user))))
    return tf.message((2, tf.message((1, tf.message((5, "2.4.0"))), (7, objects))))


@pytest.mark.parametrize(
    ("root", "error", "said"),
    [
        ({"class_name": "Forecaster", "config": {}}, Unsupported, "class 'Forecaster', whose wiring is Python code"),
        ({"class_name": "Model", "config": {"layer was saved without config": True}}, Unsupported, "class 'Model'"),
        ({"class_name": ["x"] * 100, "config": []}, Unsupported, r"class \"\['x'"),
        ({}, Unsupported, "class 'None'"),
        ("[]", UnreadableFile, "is no object"),
        ("{", UnreadableFile, "not valid JSON"),
        ('{"a": NaN}', UnreadableFile, "NaN"),
        ('{"a": ' + "9" * 100_000 + "}", UnreadableFile, "not valid JSON"),
        ('{"config": ' + "[" * 200 + "]" * 200 + "}", UnreadableFile, "nested too deeply"),
        ("[" * 100_000, UnreadableFile, "nested too deeply"),
        ('"' + "a" * (5 << 20) + '"', UnreadableFile, "larger than 4 MiB"),
    ],
)
def test_a_description_that_is_no_model_of_layers_is_refused(
    tmp_path: Path, root: dict[str, Any] | str, error: type[ModelError], said: str
) -> None:
    (tmp_path / "saved_model.pb").write_bytes(described(root))
    with pytest.raises(error, match=said):
        saved_model.read(tmp_path)


def test_metadata_of_another_save_is_refused(folder: Path) -> None:
    shutil.copy(GOLDEN / "tf2.15__l_stateful_nt" / "keras_metadata.pb", folder)
    with pytest.raises(UnreadableFile, match=r"does not belong to saved_model\.pb.*empty folder"):
        saved_model.read(folder)


def test_metadata_beside_an_older_file_that_has_its_own_is_ignored(tmp_path: Path) -> None:
    folder = copied("tf2.4__k_names_nt", tmp_path)
    intact = saved_model.read(folder)
    shutil.copy(GOLDEN / "tf2.15__l_stateful_nt" / "keras_metadata.pb", folder)
    assert saved_model.read(folder).model_config == intact.model_config


def test_metadata_that_speaks_of_an_object_twice_is_refused(folder: Path) -> None:
    path = folder / "keras_metadata.pb"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UnreadableFile, match="does not belong"):
        saved_model.read(folder)


def test_empty_metadata_are_none(folder: Path) -> None:
    (folder / "keras_metadata.pb").write_bytes(b"")
    with pytest.raises(MissingFact):
        saved_model.read(folder)


def test_a_description_of_megabytes_is_refused(folder: Path) -> None:
    long = tf.message((4, "_tf_keras_network"), (5, '"' + "a" * (5 << 20) + '"'))
    (folder / "keras_metadata.pb").write_bytes(tf.message((1, long)))
    with pytest.raises(UnreadableFile, match="longer than 4 MiB"):
        saved_model.read(folder)


def test_weights_of_another_save_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "variables")
    shutil.copytree(GOLDEN / "tf2.15__l_stateful_nt" / "variables", folder / "variables")
    with pytest.raises(UnreadableFile, match="not of one save"):
        saved_model.read(folder)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("saved_model.pb", "saved_model.pb is missing"),
        ("variables", "folder variables is missing"),
        ("variables/variables.index", "variables.index is missing"),
        ("variables/variables.data-00000-of-00001", "holds the weights.*gitignore"),
    ],
)
def test_what_was_not_copied_is_said(folder: Path, parts: str, said: str) -> None:
    path = folder / parts
    path.rename(folder / "elsewhere")
    with pytest.raises(UnreadableFile, match=said):
        saved_model.read(folder)
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(UnreadableFile, match="link"):
        saved_model.read(folder)


def test_an_empty_saved_model_is_refused(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="holds no model"):
        saved_model.read(folder)


# Checkpoints by hand. An object is its edges and its array's key.

ONE = np.ones(1, "<f4").tobytes()
LEAF: tuple[dict[str, int], str] = ({"kernel": 1}, "")


def checkpoint(tmp_path: Path, *objects: tuple[dict[str, int], str]) -> dict[str, list[Any]]:
    stored, covered = tf.text(tf.graph(*objects))
    whole = tf.entry(covered, dtype=7, offset=4).replace(tf.message((5, len(covered))), tf.message((5, len(stored))))
    entries = {b"_CHECKPOINTABLE_OBJECT_GRAPH": whole}
    entries |= {key.encode(): tf.entry(ONE, shape=[1]) for _, key in objects if key}
    tf.write_bundle(tmp_path / "ck", entries, ONE + stored)
    return saved_model.checkpoint(tmp_path / "ck")


def test_layers_are_counted_not_sorted_as_text(tmp_path: Path) -> None:
    edges = {f"layer_with_weights-{k}": k + 1 for k in reversed(range(12))}
    layers = [({"kernel": 13 + k}, "") for k in range(12)]
    arrays = checkpoint(tmp_path, (edges, ""), *layers, *[({}, f"k{k}") for k in range(12)])
    # The names are all "x" here; one of them is taken, and the edge tells the others apart.
    assert list(arrays) == ["x", *(f"layer_with_weights-{k}" for k in range(1, 12))]


def test_a_model_in_a_checkpoint_of_its_own_making(tmp_path: Path) -> None:
    root = {"model": 1, "save_counter": 3}
    assert checkpoint(tmp_path, (root, ""), ({"layer_with_weights-0": 2}, ""), ({"bias": 3}, ""), ({}, "b"))["x"]


def test_stacked_cells_and_wrappers(tmp_path: Path) -> None:
    objects = [
        ({"layer_with_weights-0": 1}, ""),
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
    assert len(checkpoint(tmp_path, *objects)["x"]) == 3


@pytest.mark.parametrize(
    ("objects", "error", "said"),
    [
        ([({"lstm": 1, "head": 1}, ""), ({}, "")], Unsupported, "0 models .* its parts are lstm, head"),
        ([({"a": 1, "b": 2}, ""), ({"layer_with_weights-0": 3}, ""), ({"layer_with_weights-0": 3}, ""), ({}, "")],
         Unsupported, "2 models"),
        ([({}, "")], Unsupported, "its parts are nothing"),
        ([], UnreadableFile, "no object 0"),
        ([({"layer_with_weights-0": 5}, "")], UnreadableFile, "no object 5"),
        ([({"layer_with_weights-0": -1}, "")], UnreadableFile, "no object -1"),
        ([({"layer_with_weights-0": 1}, ""), ({"layer-0": 1}, "")], UnreadableFile, "in a circle"),
        ([({"layer_with_weights-0": 1}, ""), ({"cell": 0, "layer-0": 0, "layer-1": 1}, "")],
         UnreadableFile, "in a circle"),
        ([({"layer_with_weights-0": 1}, ""), *[({f"layer-{k}": n for k in range(50)}, "") for n in range(2, 15)],
          ({}, "")], UnreadableFile, "in a circle"),
    ],
)  # fmt: skip
def test_a_graph_that_is_no_model_of_layers_is_refused(
    tmp_path: Path, objects: list[tuple[dict[str, int], str]], error: type[ModelError], said: str
) -> None:
    with pytest.raises(error, match=said):
        checkpoint(tmp_path, *objects)


def test_two_parts_of_one_name_are_refused() -> None:
    edge = tf.message((1, tf.message((1, 0), (2, "a"))))
    graph = saved_model.Graph(tf.message((1, edge * 2)), "it")
    with pytest.raises(UnreadableFile, match="two parts named 'a'"):
        graph.children(0)


def test_a_graph_of_megabytes_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="larger than 4 MiB"):
        saved_model.Graph(bytes(5 << 20), "it")


def test_more_layers_than_are_read_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_model, "MAX_LAYERS", 3)
    with pytest.raises(UnreadableFile, match="more than 3 layers"):
        saved_model.read(folder)


def test_a_checkpoint_of_tensorflow_1_is_refused(tmp_path: Path) -> None:
    tf.write_bundle(tmp_path / "ck", {b"lstm/kernel": tf.entry(ONE, shape=[1])}, ONE)
    with pytest.raises(Unsupported, match=r"checkpoint of TensorFlow 1 \(tf.train.Saver\)"):
        saved_model.checkpoint(tmp_path / "ck")


# Damage.


def damages(data: bytes) -> list[bytes]:
    step = max(1, len(data) // 40)
    cut = [data[:length] for length in range(0, len(data), step)]
    flipped = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(0, len(data), step)]
    return [*cut, *flipped, data + data, data[::-1]]


@pytest.mark.parametrize("name", ["tf2.15__k_nested_shared_nt", "tf2.4__k_names_nt"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = copied(name, tmp_path)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        intact = path.read_bytes()
        refused = 0
        for damaged in damages(intact):
            path.write_bytes(damaged)
            try:
                saved_model.read(folder)
            except ModelError:
                refused += 1
        # Most of saved_model.pb and all of fingerprint.pb is never looked at.
        assert refused >= (60 if "variables" in path.name else 0)
        path.write_bytes(intact)
    saved_model.read(folder)
