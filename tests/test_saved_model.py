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


def sha256(arrays: dict[tuple[str, ...], list[Any]]) -> list[str]:
    return [hashlib.sha256(array.tobytes()).hexdigest() for layer in arrays.values() for array in layer]


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "tf215__hard"])
def test_the_arrays_are_those_of_get_weights_in_its_order(name: str) -> None:
    model = saved_model.read(GOLDEN / name)
    with np.load(GOLDEN / f"{name}.golden.npz") as golden:
        assert sha256(model.arrays) == golden["w_sha256"].tolist()
    listed = {layer["config"]["name"] for layer in model.config["config"]["layers"]}
    assert {path[0] for path, arrays in model.arrays.items() if arrays} <= listed


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
    assert model.config["class_name"] == class_name


def test_tuples_and_shapes_are_plain_lists() -> None:
    model = saved_model.read(GOLDEN / "tf215__hard")
    assert model.config["config"]["layers"][0]["config"]["batch_input_shape"] == [None, 20, 15]
    assert "__tuple__" not in json.dumps(model.config)


def test_a_bidirectional_has_its_forward_arrays_first() -> None:
    model = saved_model.read(GOLDEN / "tf2.5__i_mask_bi_seq_nt")
    assert model.arrays["masking_1",] == []
    shapes = [array.shape for array in model.arrays["bidirectional_3",]]
    assert shapes == [(3, 15), (5, 15), (2, 15)] * 2


def test_a_nested_model_is_laid_open() -> None:
    model = saved_model.read(GOLDEN / "tf2.15__k_nested_shared_nt")
    assert {path: len(arrays) for path, arrays in model.arrays.items()} == {
        ("input_1",): 0,
        ("input_2",): 0,
        ("shared",): 3,
        ("concatenate",): 0,
        ("sub", "dense_3"): 2,
        ("sub", "batch_normalization"): 4,
        ("dense_4",): 2,
    }


# What has no description of its layers, or none that can be told.


def test_an_exported_model_is_refused() -> None:
    with pytest.raises(MissingFact, match=r"model\.export\(\).*TensorFlow 2\.21\.0"):
        saved_model.read(GOLDEN / "k3.15__a_export")


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
    assert saved_model.read(folder).config == intact.config


def test_metadata_that_speaks_of_an_object_twice_is_refused(folder: Path) -> None:
    path = folder / "keras_metadata.pb"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UnreadableFile, match="does not belong"):
        saved_model.read(folder)


def test_empty_metadata_are_none(folder: Path) -> None:
    (folder / "keras_metadata.pb").write_bytes(b"")
    with pytest.raises(MissingFact):
        saved_model.read(folder)


def test_layers_without_a_name_or_of_one_name_are_refused(folder: Path) -> None:
    path = folder / "keras_metadata.pb"
    intact = path.read_bytes()
    path.write_bytes(intact.replace(b'{"name": "shared"', b'{"nome": "shared"'))
    with pytest.raises(UnreadableFile, match="layer-2 has no name of its own"):
        saved_model.read(folder)
    path.write_bytes(intact.replace(b'"input_2"', b'"input_1"'))
    with pytest.raises(UnreadableFile, match="layer-1 has no name of its own"):
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
