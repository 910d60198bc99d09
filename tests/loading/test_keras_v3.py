"""The `.keras` zip: its three layouts, and its dangers."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import ModelError, UnreadableFile, Unsupported
from lstm_serve.loading.weights.assign import snake_case

SOURCE = GOLDEN / "features" / "tf215__bi_gru.keras"
NESTED = GOLDEN / "keras3" / "nested.keras"


def members(source: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def rearranged(source: Path, path: Path, rename: Callable[[list[str]], list[str]], *, flat: bool = False) -> Path:
    """A .keras file whose arrays lie under other names; `flat` joins them with backslashes, as Windows did."""
    contents = members(source)
    target = io.BytesIO()
    with h5py.File(io.BytesIO(contents["model.weights.h5"])) as old, h5py.File(target, "w") as new:
        found: dict[str, Any] = {}
        old.visititems(lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
        for name, array in found.items():
            *parts, variables, number = rename(name.split("/"))
            new["/".join(["\\".join(parts) if flat else "/".join(parts), variables, number])] = array
    return zipped(path, contents | {"model.weights.h5": target.getvalue()})


def same(path: Path, source: Path) -> None:
    golden = np.load(source.with_name(f"{source.name}.golden.npz"))
    np.testing.assert_allclose(load_model(path).predict(golden["x0"]), golden["y0"], atol=1e-5)


def test_the_layout_of_tensorflow_2_14(tmp_path: Path) -> None:
    def rename(parts: list[str]) -> list[str]:
        return ["_layer_checkpoint_dependencies" if part == "layers" else part for part in parts]

    same(rearranged(SOURCE, tmp_path / "m.keras", rename), SOURCE)


def test_the_numbers_of_tensorflow_2_12_step_by_two(tmp_path: Path) -> None:
    def rename(parts: list[str]) -> list[str]:
        return ["bidirectional_2" if part == "bidirectional_1" else part for part in parts]

    assert any("bidirectional_1/" in name for name in names_in(SOURCE))
    same(rearranged(SOURCE, tmp_path / "m.keras", rename), SOURCE)


def test_the_separators_of_windows(tmp_path: Path) -> None:
    path = rearranged(SOURCE, tmp_path / "m.keras", lambda parts: parts, flat=True)
    assert any("\\" in name for name in names_in(path))
    same(path, SOURCE)


def names_in(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(io.BytesIO(members(path)["model.weights.h5"])) as file:
        file.visit(names.append)
    return names


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("LSTM", "lstm"),
        ("SimpleRNN", "simple_rnn"),
        ("Conv1D", "conv1d"),
        ("PReLU", "p_re_lu"),
        ("BatchNormalization", "batch_normalization"),
        ("TimeDistributed", "time_distributed"),
    ],
)
def test_classes_are_named_as_keras_names_them(class_name: str, name: str) -> None:
    assert snake_case(class_name) == name


def test_a_packed_zip_is_read(tmp_path: Path) -> None:
    same(zipped(tmp_path / "m.keras", members(SOURCE), zipfile.ZIP_DEFLATED), SOURCE)


def changed(**changes: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        contents = members(SOURCE)
        for name, data in changes.items():
            contents[name.replace("__", ".")] = data
        return zipped(folder / "m.keras", {name: data for name, data in contents.items() if data is not None})

    return make


def twice(folder: Path) -> Path:
    path = folder / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.json", b"{}")
    return path


def zip_bomb(folder: Path) -> Path:
    contents = members(SOURCE) | {"model.weights.h5": bytes(100 << 20)}
    return zipped(folder / "m.keras", contents, zipfile.ZIP_DEFLATED)


def lying(folder: Path) -> Path:
    """The directory says that the weights are shorter than they are."""
    path = zipped(folder / "m.keras", members(SOURCE), zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"model.weights.h5") - 46
    struct.pack_into("<I", data, at + 24, 100)
    path.write_bytes(data)
    return path


def outside(folder: Path) -> Path:
    """The directory says that a member begins elsewhere."""
    path = zipped(folder / "m.keras", members(SOURCE))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"model.weights.h5") - 46 + 42, 0x7FFFFFF0)
    path.write_bytes(data)
    return path


def wrong_checksum(folder: Path) -> Path:
    path = zipped(folder / "m.keras", members(SOURCE))
    data = bytearray(path.read_bytes())
    data[data.find(b"\x89HDF") + 3000] ^= 1
    path.write_bytes(data)
    return path


def many_members(folder: Path) -> Path:
    return zipped(folder / "m.keras", {f"assets/{k}": b"" for k in range(5000)})


def encrypted(folder: Path) -> Path:
    path = zipped(folder / "m.keras", members(SOURCE))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 1)
    path.write_bytes(data)
    return path


def packed_unusually(folder: Path) -> Path:
    return zipped(folder / "m.keras", members(SOURCE), zipfile.ZIP_LZMA)


def cut_short(folder: Path) -> Path:
    path = folder / "m.keras"
    path.write_bytes(SOURCE.read_bytes()[:-400])
    return path


def arrays(change: Callable[[h5py.File], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        contents = members(SOURCE)
        data = io.BytesIO(contents["model.weights.h5"])
        with h5py.File(data, "r+") as file:
            change(file)
        return zipped(folder / "m.keras", contents | {"model.weights.h5": data.getvalue()})

    return make


def cycle(file: h5py.File) -> None:
    file["layers/loop"] = file["layers"]


def other_name(file: h5py.File) -> None:
    file.move("layers/dense/vars/0", "layers/dense/kernel")


def fewer_layers(file: h5py.File) -> None:
    del file["layers/dense"]


def fewer_arrays(file: h5py.File) -> None:
    del file["layers/dense/vars/1"]


DANGERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no weights": (changed(model__weights__h5=None), "are missing"),
    "weights in another form": (changed(model__weights__h5=None, model__weights__npz=b""), "not supported"),
    "no config": (changed(config__json=None), "config.json"),
    "no version": (changed(metadata__json=None), "keras_version"),
    "a version that is none": (changed(metadata__json=json.dumps({"keras_version": "new"}).encode()), "not a version"),
    "metadata that are none": (changed(metadata__json=b"[]"), "keras_version"),
    "a config that is no text": (changed(config__json=b"\xff\xfe"), "damaged"),
    "a config that is large": (changed(config__json=b" " * (5 << 20)), "larger than 4 MiB"),
    "weights that are no HDF5": (changed(model__weights__h5=b"hello"), "HDF5"),
    "a member twice": (twice, "two members of one name"),
    "a zip bomb": (zip_bomb, "never holds"),
    "a size that is a lie": (lying, "damaged|size"),
    "a place that is a lie": (outside, "damaged"),
    "a wrong checksum": (wrong_checksum, "damaged"),
    "many members": (many_members, "expected at most 4096 members"),
    "encryption": (encrypted, "damaged|encrypted"),
    "another packing": (packed_unusually, "packed unusually"),
    "a file cut short": (cut_short, "cut short"),
    "a cycle": (arrays(cycle), "leads out|more than"),
    "another name": (arrays(other_name), "not named as Keras"),
    "a layer too few": (arrays(fewer_layers), "layers with weights of the class dense"),
    "an array too few": (arrays(fewer_arrays), "should have the arrays"),
}


@pytest.mark.parametrize("danger", DANGERS.values(), ids=DANGERS)
def test_a_danger_is_refused(tmp_path: Path, danger: tuple[Callable[[Path], Path], str]) -> None:
    make, reason = danger
    path = make(tmp_path)
    with pytest.raises((UnreadableFile, Unsupported), match=reason) as raised:
        load_model(path)
    assert str(raised.value).startswith(str(path))


def test_what_a_config_asks_to_import_is_only_a_word(tmp_path: Path) -> None:
    contents = members(SOURCE)
    config = json.loads(contents["config.json"])
    config["config"]["layers"][1] |= {"module": "os", "class_name": "system", "config": {"command": "touch hacked"}}
    path = zipped(tmp_path / "m.keras", contents | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ModelError, match="system"):
        load_model(path)


def test_models_in_models_have_their_own_names(tmp_path: Path) -> None:
    assert any("layers/sequential/layers/" in name for name in names_in(NESTED))
    assert load_model(NESTED).origin.format == ".keras"
    del tmp_path
