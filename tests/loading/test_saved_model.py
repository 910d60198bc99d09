import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

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
from lstm_serve.loading.files import saved_model

SAVED = GOLDEN / "savedmodel"

FOLDERS = sorted(path.parent.name for path in SAVED.glob("tf*/saved_model.pb"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    return copied("tf2.15__k_nested_shared_nt", tmp_path)


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAVED / name, tmp_path / "model"))


def read(path: Path) -> Contents:
    return saved_model.read(Folder(path))


def arrays_of(contents: Contents) -> dict[tuple[str, ...], list[Array]]:
    """The arrays by path, also of a model that no architecture is made of."""
    return cast("partial[Any]", contents.assign).keywords["arrays"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "tf215__hard"])
def test_the_arrays_are_those_of_get_weights_in_its_order(name: str) -> None:
    model = read(SAVED / name)
    with np.load(SAVED / f"{name}.golden.npz") as golden:
        came = [hashlib.sha256(array.tobytes()).hexdigest() for layer in arrays_of(model).values() for array in layer]
        assert came == golden["w_sha256"].tolist()
    listed = {layer["config"]["name"] for layer in model.config["config"]["layers"]}
    assert {path[0] for path, arrays in arrays_of(model).items() if arrays} <= listed


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
    model = read(SAVED / name)
    assert model.format == f"SavedModel of TensorFlow {tensorflow}"
    assert model.keras.text == keras
    assert model.config["class_name"] == class_name


def test_tuples_and_shapes_are_plain_lists() -> None:
    model = read(SAVED / "tf215__hard")
    assert model.config["config"]["layers"][0]["config"]["batch_input_shape"] == [None, 20, 15]
    assert "__tuple__" not in json.dumps(model.config)


def test_a_bidirectional_has_its_forward_arrays_first() -> None:
    model = read(SAVED / "tf2.5__i_mask_bi_seq_nt")
    assert arrays_of(model)["masking_1",] == []
    shapes = [array.shape for array in arrays_of(model)["bidirectional_3",]]
    assert shapes == [(3, 15), (5, 15), (2, 15)] * 2


def test_a_nested_model_is_laid_open() -> None:
    model = read(SAVED / "tf2.15__k_nested_shared_nt")
    assert {path: len(arrays) for path, arrays in arrays_of(model).items()} == {
        ("input_1",): 0,
        ("input_2",): 0,
        ("shared",): 3,
        ("concatenate",): 0,
        ("sub", "dense_3"): 2,
        ("sub", "batch_normalization"): 4,
        ("dense_4",): 2,
    }


@pytest.mark.parametrize(
    ("tensorflow", "keras", "expected"),
    [("2.1.4", "2.3.0-tf", False), ("2.2.3", "2.3.0-tf", True), ("2.0.4", "2.2.4-tf", None), ("2.4.4", "2.4.0", None)],
)
def test_the_exact_tensorflow_tells_what_masks_did(
    tmp_path: Path, tensorflow: str, keras: str, *, expected: bool | None
) -> None:
    root = {"class_name": "Sequential", "config": {"layers": []}, "keras_version": keras}
    model = tf.saved_model(tensorflow, ({"layer-0": 1}, json.dumps(root)), ({}, '{"name": "a"}'))
    (tmp_path / "saved_model.pb").write_bytes(model)
    (tmp_path / "variables").mkdir()
    tf.write_checkpoint(tmp_path / "variables" / "variables", ({"layer-0": 1}, ""), ({"kernel": 2}, ""), ({}, "k"))
    assert read(tmp_path).keras.build_input_shape is expected
    assert {path: len(arrays) for path, arrays in arrays_of(read(tmp_path)).items()} == {("a",): 1}


# What has no description of its layers, or none that can be told.


def test_an_exported_model_is_refused_without_its_json(tmp_path: Path) -> None:
    folder = copied("k3.15__small_export", tmp_path)
    with pytest.raises(MissingFact, match=r"model: the file holds weights alone.*to_json\(\)"):
        load_model(folder)


def test_an_exported_model_with_its_json_beside(tmp_path: Path) -> None:
    folder = copied("k3.15__small_export", tmp_path)
    shutil.copy(SAVED / "k3.15__small_export.json", tmp_path / "model.json")
    model = load_model(folder)
    assert model.origin.format == "SavedModel of TensorFlow 2.21.0"
    with np.load(SAVED / "k3.15__small_export.golden.npz") as golden:
        np.testing.assert_allclose(model.predict(golden["x0"]), golden["y0"], atol=1e-5, rtol=0)


def test_a_module_that_is_no_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "special__tf2.1_three_shards_ck", tmp_path / "variables")
    for part in (tmp_path / "variables").iterdir():
        part.rename(part.with_name(part.name.replace("dev", "variables")))
    (tmp_path / "saved_model.pb").write_bytes(tf.saved_model("2.1.4"))
    with pytest.raises(Unsupported, match="holds no model of Keras"):
        read(tmp_path)


def test_tensorflow_1_exported_the_json_beside(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(tf.saved_model("1.15.0") * 3)
    (tmp_path / "assets").mkdir()
    shutil.copy(SAVED / "tf21__func_ck" / "ck.json", tmp_path / "assets" / "saved_model.json")
    (tmp_path / "variables").mkdir()
    for part in (SAVED / "tf21__func_ck").glob("ck.*"):
        shutil.copy(part, tmp_path / "variables" / f"variables{part.name.removeprefix('ck')}")
    contents = read(tmp_path)
    assert contents.format == "SavedModel of TensorFlow 1.15.0"
    assert contents.config["class_name"] == "Model"
    layers = architecture.read(contents.config).layers
    assert [len(arrays) for arrays in contents.assign(layers)] == [3, 3, 0, 2]
    for damaged, said in ((b"\xff", "not UTF-8"), (b"[1]", "no object"), (b"{", "not valid JSON")):
        (tmp_path / "assets" / "saved_model.json").write_bytes(damaged)
        with pytest.raises(UnreadableFile, match=said):
            read(tmp_path)


@pytest.mark.parametrize(
    ("root", "error", "said"),
    [
        ({"class_name": "Forecaster", "config": {}}, Unsupported, "class 'Forecaster', whose wiring is Python code"),
        ({"class_name": "Model", "config": {"layer was saved without config": True}}, Unsupported, "class 'Model'"),
        ({"class_name": ["x"] * 100, "config": []}, Unsupported, r"class \"\['x'"),
        ({}, Unsupported, "class 'None'"),
        ("[]", UnreadableFile, "is no object"),
        ("{", UnreadableFile, "not valid JSON"),
        ('{"a": NaN}', Unsupported, "of the class 'None'"),
        ('{"a": ' + "9" * 100_000 + "}", UnreadableFile, "not valid JSON"),
        ('{"config": ' + "[" * 200 + "]" * 200 + "}", UnreadableFile, "nested too deeply"),
        ("[" * 100_000, UnreadableFile, "nested too deeply"),
        ('"' + "a" * (5 << 20) + '"', UnreadableFile, "larger than 4 MiB"),
    ],
)
def test_a_description_that_is_no_model_of_layers_is_refused(
    tmp_path: Path, root: dict[str, Any] | str, error: type[ModelError], said: str
) -> None:
    description = root if isinstance(root, str) else json.dumps(root)
    (tmp_path / "saved_model.pb").write_bytes(tf.saved_model("2.4.0", ({}, description)))
    with pytest.raises(error, match=said):
        read(tmp_path)


def test_metadata_of_another_save_is_refused(folder: Path) -> None:
    shutil.copy(SAVED / "tf2.15__l_stateful_nt" / "keras_metadata.pb", folder)
    with pytest.raises(UnreadableFile, match=r"does not belong to saved_model\.pb.*empty folder"):
        read(folder)


def test_metadata_beside_an_older_file_that_has_its_own_is_ignored(tmp_path: Path) -> None:
    folder = copied("tf2.4__k_names_nt", tmp_path)
    intact = read(folder)
    shutil.copy(SAVED / "tf2.15__l_stateful_nt" / "keras_metadata.pb", folder)
    assert read(folder).config == intact.config


def test_metadata_that_speaks_of_an_object_twice_is_refused(folder: Path) -> None:
    path = folder / "keras_metadata.pb"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UnreadableFile, match="does not belong"):
        read(folder)


def test_empty_metadata_are_none(folder: Path) -> None:
    # Without traces there is no list of all variables either, as an export has it.
    (folder / "keras_metadata.pb").write_bytes(b"")
    with pytest.raises(Unsupported, match="holds no model of Keras"):
        read(folder)


def test_layers_without_a_name_or_of_one_name_are_refused(folder: Path) -> None:
    path = folder / "keras_metadata.pb"
    intact = path.read_bytes()
    path.write_bytes(intact.replace(b'{"name": "shared"', b'{"nome": "shared"'))
    with pytest.raises(UnreadableFile, match="layer-2 has no name of its own"):
        read(folder)
    path.write_bytes(intact.replace(b'"input_2"', b'"input_1"'))
    with pytest.raises(UnreadableFile, match="layer-1 has no name of its own"):
        read(folder)


def test_a_description_of_megabytes_is_refused(folder: Path) -> None:
    long = tf.message((4, "_tf_keras_network"), (5, '"' + "a" * (5 << 20) + '"'))
    (folder / "keras_metadata.pb").write_bytes(tf.message((1, long)))
    with pytest.raises(UnreadableFile, match="longer than 4 MiB"):
        read(folder)


def test_weights_of_another_save_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "variables")
    shutil.copytree(SAVED / "tf2.15__l_stateful_nt" / "variables", folder / "variables")
    with pytest.raises(UnreadableFile, match="not of one save"):
        read(folder)


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
        read(folder)
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(UnreadableFile, match="link"):
        read(folder)


def test_an_empty_saved_model_is_refused(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="holds no model"):
        read(folder)


# The whole way, from a path to a Model.

SERVED = [name for name in FOLDERS if name != "tf2.15__k_nested_shared_nt"]


@pytest.mark.parametrize("name", SERVED)
def test_answers_what_the_keras_that_saved_it_answered(name: str) -> None:
    model = load_model(SAVED / name, replay=False)
    with np.load(SAVED / f"{name}.golden.npz") as golden:
        x, y = (golden[key if key in golden else f"{key}0"] for key in ("x", "y"))
    np.testing.assert_allclose(model.predict(x), y, atol=1e-5, rtol=1e-5)


def test_a_folder_is_called_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "best-0.95"
    shutil.copytree(SAVED / "tf2.4__k_names_nt", folder)
    (tmp_path / "best-0.95.card.json").write_text('{"description": "the better one"}')
    (tmp_path / "best-0.card.json").write_text('{"description": "another"}')
    for given in (folder, f"{folder}/"):
        model = load_model(given)
        assert model.about.name == model.origin.file == "best-0.95"
        assert model.about.description == "the better one"
    monkeypatch.chdir(folder)
    assert load_model(".").about == load_model(folder).about


def test_a_folder_of_versions_gives_the_highest(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "tf2.4__k_names_nt", tmp_path / "2")
    shutil.copytree(SAVED / "tf215__hard", tmp_path / "10")
    assert load_model(tmp_path).origin.file == "10"


def test_a_model_called_on_each_of_two_inputs() -> None:
    model = load_model(SAVED / "tf2.15__k_nested_shared_nt")
    with np.load(SAVED / "tf2.15__k_nested_shared_nt.golden.npz") as golden:
        came = model.predict([golden[name] for name in ("x0", "x1")])
        np.testing.assert_allclose(came, golden["y0"], atol=1e-6)


def test_a_stateful_layer_starts_from_zeros_and_says_so() -> None:
    model = load_model(SAVED / "tf2.15__l_stateful_nt", replay=False)
    (assumed,) = model.origin.assumed
    assert "stateful" in assumed
    assert "reset_states()" in assumed


def test_the_sha256_is_of_all_files_that_were_read(tmp_path: Path) -> None:
    folder = copied("tf2.5__b_stack_bn_nt", tmp_path)
    names = ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert load_model(folder).origin.sha256 == expected
    (folder / "README.md").write_text("not of the model")
    assert load_model(folder).origin.sha256 == expected


def test_the_golden_predictions_lie_beside_the_folder(tmp_path: Path) -> None:
    folder = copied("tf215__hard", tmp_path)
    assert not load_model(folder).origin.verified
    shutil.copy(SAVED / "tf215__hard.golden.npz", tmp_path / "model.golden.npz")
    assert load_model(folder).origin.verified


# Damage.


def damages(data: bytes) -> list[bytes]:
    step = max(1, len(data) // 15)
    cut = [data[:length] for length in range(0, len(data), step)]
    flipped = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(0, len(data), step)]
    return [*cut, *flipped, data + data, data[::-1]]


@pytest.mark.parametrize("name", ["tf2.21__frozen_in_nested_nt", "tf2.4__k_names_nt"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = copied(name, tmp_path)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        intact = path.read_bytes()
        refused = 0
        for damaged in damages(intact):
            path.write_bytes(damaged)
            try:
                load_model(folder)
            except ModelError:
                refused += 1
        # Most of saved_model.pb and all of fingerprint.pb is never looked at.
        assert refused >= (25 if "variables" in path.name else 0)
        path.write_bytes(intact)
    load_model(folder)


def _objects_of_tiny_fields() -> bytes:
    return tf.message((2, tf.message((7, tf.message((1, b"\x18\x01" * 20_000)) * 5))))


def _lists_in_lists() -> bytes:
    return tf.saved_model("2.4.0", ({}, '{"config": [' + "[]," * 50_000 + "[]]}"))


def _very_many_ways_to_one_object() -> bytes:
    root = {"class_name": "Sequential", "config": {"layers": []}, "keras_version": "2.4.0"}
    edges = {f"layer-{k}": 1 for k in range(2000)}
    return tf.saved_model("2.4.0", (edges, json.dumps(root)), ({"layer-0": 0, **{f"x{k}": 0 for k in range(2000)}}, ""))


@pytest.mark.parametrize(
    "made",
    [_objects_of_tiny_fields, _lists_in_lists, _very_many_ways_to_one_object],
)
def test_a_crafted_file_costs_little(folder: Path, made: Callable[[], bytes]) -> None:
    (folder / "saved_model.pb").write_bytes(made())
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            load_model(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20
