"""Every danger of an HDF5 file. Nothing outside the named file is opened, and nothing large is read."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kerasfiles import dense, lstm, save_sequential

from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile, Unsupported

KERNEL = "model_weights/layer_0/layer_0/w0:0"
SECRET = b"root:x:0:0:secret" * 64


def good(folder: Path) -> Path:
    (folder / "secret").write_bytes(SECRET)
    return save_sequential(folder / "model.h5", [lstm(), dense()])


def kernel(file: h5py.File, **options: object) -> None:
    """Put another dataset where the first kernel is."""
    del file[KERNEL]
    file.create_dataset(KERNEL, **options)


def external(file: h5py.File) -> None:
    secret = str(Path(file.filename).with_name("secret"))
    kernel(file, shape=(3, 16), dtype="f4", external=[(secret, 0, 3 * 16 * 4)])


def virtual(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["x"] = np.zeros((3, 16), np.float32)
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 16), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (3, 16))
    file.create_virtual_dataset(KERNEL, layout)


def virtual_of_itself(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 16), "f4")
    layout[:] = h5py.VirtualSource(".", "elsewhere", (3, 16))
    file.create_virtual_dataset(KERNEL, layout)


def external_link(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["x"] = np.zeros((3, 16), np.float32)
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink(str(other), "x")


def external_group(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["layer_0/w0:0"] = np.zeros((3, 16), np.float32)
    del file["model_weights/layer_0/layer_0"]
    file["model_weights/layer_0/layer_0"] = h5py.ExternalLink(str(other), "layer_0")


def soft_link(file: h5py.File) -> None:
    file.move(KERNEL, "elsewhere")
    file[KERNEL] = h5py.SoftLink("/elsewhere")


def shape_bomb(file: h5py.File) -> None:
    kernel(file, shape=(1 << 16, 1 << 16), dtype="f4")


def late_allocation(file: h5py.File) -> None:
    kernel(file, shape=(3, 16), dtype="f4")


def gzip_bomb(file: h5py.File) -> None:
    kernel(file, shape=(1 << 14, 1 << 14), dtype="f4", compression="gzip", chunks=(1 << 10, 1 << 10))


def lzf(file: h5py.File) -> None:
    kernel(file, data=np.zeros((3, 16), np.float32), compression="lzf")


def scale_offset(file: h5py.File) -> None:
    kernel(file, data=np.zeros((3, 16), np.float32), scaleoffset=3)


def wrong_checksum(file: h5py.File) -> None:
    kernel(file, data=np.ones((3, 16), np.float32), chunks=(3, 16), fletcher32=True)
    raw = bytearray(file[KERNEL].id.read_direct_chunk((0, 0))[1])
    raw[5] ^= 1
    file[KERNEL].id.write_direct_chunk((0, 0), bytes(raw))


def short_piece(file: h5py.File) -> None:
    kernel(file, data=np.ones((3, 16), np.float32), chunks=(3, 16), compression="gzip")
    file[KERNEL].id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))


def short_piece_that_is_not_packed(file: h5py.File) -> None:
    kernel(file, data=np.ones((3, 16), np.float32), chunks=(3, 16), compression="gzip")
    file[KERNEL].id.write_direct_chunk((0, 0), bytes(100), filter_mask=1)


def missing_piece(file: h5py.File) -> None:
    kernel(file, shape=(3, 16), dtype="f4", chunks=(1, 16), compression="gzip")
    file[KERNEL][:2] = 1


def sum_bomb(file: h5py.File) -> None:
    """One array, small enough alone, under many names."""
    kernel(file, data=np.zeros((1 << 10, 1 << 12), np.float32), compression="gzip")
    group = file["model_weights/layer_0"]
    names = [f"again_{k}" for k in range(40)]
    for name in names:
        group[name] = group["layer_0/w0:0"]  # a further link to the same array
    group.attrs["weight_names"] = np.array([name.encode() for name in names])


def names(*listed: bytes) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["model_weights/layer_0"].attrs["weight_names"] = np.array(listed)

    return change


def layer_name(name: bytes) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["model_weights"].attrs["layer_names"] = np.array([name, b"layer_1"])

    return change


def cycle(file: h5py.File) -> None:
    group = file["model_weights/layer_0"]
    group["loop"] = group
    names(("loop/" * 40 + "layer_0/w0:0").encode())(file)


def of_type(dtype: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        kernel(file, shape=(3, 16), dtype=dtype)

    return change


def empty(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.Empty("f4")


def not_finite(file: h5py.File) -> None:
    kernel(file, data=np.full((3, 16), np.nan, np.float32))


def beyond_float32(file: h5py.File) -> None:
    kernel(file, data=np.full((3, 16), 1e300))


def group_for_array(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_group(KERNEL)


def array_for_group(file: h5py.File) -> None:
    del file["model_weights/layer_0"]
    file["model_weights/layer_0"] = np.zeros(3, np.float32)


def no_weights(file: h5py.File) -> None:
    del file["model_weights"]


def config(text: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs["model_config"] = text

    return change


DANGERS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "external storage": (external, "another file"),
    "a virtual dataset": (virtual, "another file"),
    "a virtual dataset of itself": (virtual_of_itself, "another file"),
    "an external link": (external_link, "ExternalLink"),
    "an external link to a group": (external_group, "ExternalLink"),
    "a soft link": (soft_link, "SoftLink"),
    "a shape bomb": (shape_bomb, "MiB, which a file of its size never holds"),
    "an array that was never written": (late_allocation, "incomplete"),
    "a compression bomb": (gzip_bomb, "never holds"),
    "a compression without a checksum": (lzf, "compressed by lzf, which has no checksum.*model.save"),
    "another compression": (scale_offset, "compressed by scaleoffset, not gzip.*model.save"),
    "a wrong checksum": (wrong_checksum, "damaged"),
    "a piece that unpacks to less": (short_piece, "unpacks to less"),
    "a piece that is less": (short_piece_that_is_not_packed, "unpacks to less"),
    "a piece that was never written": (missing_piece, "declares 3 pieces and stores 2"),
    "many names of one array": (sum_bomb, "never holds"),
    "an absolute name": (names(b"/model_weights/layer_0/layer_0/w0:0"), "leads out"),
    "a name upwards": (names(b"../layer_0/layer_0/w0:0"), "leads out"),
    "a name with nothing between slashes": (names(b"layer_0//w0:0"), "leads out"),
    "a name that is not there": (names(b"layer_0/w9:0"), "incomplete"),
    "a layer with an absolute name": (layer_name(b"/model_weights/layer_0"), "leads out"),
    "a layer upwards": (layer_name(b".."), "leads out"),
    "a cycle": (cycle, "leads out"),
    "integers": (of_type("i4"), "floats were expected"),
    "strings": (of_type(h5py.string_dtype()), "floats were expected"),
    "records": (of_type(np.dtype([("a", "f4")])), "without a NumPy dtype"),
    "complex numbers": (of_type("c8"), "floats were expected|without a NumPy dtype"),
    "no shape": (empty, "floats were expected"),
    "not a number": (not_finite, "NaN"),
    "beyond float32": (beyond_float32, "beyond float32"),
    "a group for an array": (group_for_array, "is not an array"),
    "an array for a group": (array_for_group, "is not a group"),
    "no weights": (no_weights, "incomplete"),
    "a config that is no JSON": (config("{"), "not valid JSON"),
    "a config whose class is NaN": (config('{"class_name": NaN}'), "'nan'"),
    "a config without end": (config("[" * 100_000), "nested too deeply|not valid JSON"),
    "a config that is a number": (config(3), "where a text was expected"),
    "a config that is no UTF-8": (config(np.bytes_(b"\xff\xfe{}")), "damaged|UTF"),
    "a config over 4 MiB": (config("x" * (5 << 20)), "longer than 4 MiB"),
}


@pytest.mark.parametrize("danger", DANGERS.values(), ids=DANGERS)
def test_a_danger_is_refused(tmp_path: Path, danger: tuple[Callable[[h5py.File], None], str]) -> None:
    change, reason = danger
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises((UnreadableFile, Unsupported), match=reason) as raised:
        load_model(path)
    assert str(raised.value).startswith(str(path))
    assert "secret" * 2 not in str(raised.value)


def test_bfloat16_is_refused_by_name(tmp_path: Path) -> None:
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        file[KERNEL].attrs["dtype"] = "bfloat16"
    with pytest.raises(Unsupported, match="bfloat16"):
        load_model(path)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "<f2", ">f2"])
def test_floats_of_any_size_and_order_are_read(tmp_path: Path, dtype: str) -> None:
    path = good(tmp_path)
    before = load_model(path)
    with h5py.File(path, "r+") as file:
        kernel(file, data=file[KERNEL][()].astype(dtype))
    x = np.random.default_rng(1).normal(0, 1, (3, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(load_model(path).predict(x), before.predict(x), atol=1e-3 if "2" in dtype else 1e-6)


def test_gzip_within_the_bounds_is_read(tmp_path: Path) -> None:
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        kernel(file, data=file[KERNEL][()], compression="gzip", shuffle=True)
    assert load_model(path).parameters == 138


@pytest.mark.parametrize(
    "more",
    [{}, {"compression": "gzip", "shuffle": True}, {"compression": "gzip", "chunks": (2, 5)}],
    ids=["plain", "packed", "pieces"],
)
def test_a_checksum_is_compared_and_the_array_read(tmp_path: Path, more: dict[str, Any]) -> None:
    """As `h5repack -f FLET` writes it."""
    path = good(tmp_path)
    before = load_model(path)
    with h5py.File(path, "r+") as file:
        kernel(file, data=file[KERNEL][()], fletcher32=True, **more)
    x = np.ones((1, 5, 3), np.float32)
    assert np.array_equal(load_model(path).predict(x), before.predict(x))


def test_a_user_block_before_the_signature_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "block.h5"
    inner = good(tmp_path)
    with h5py.File(path, "w", userblock_size=512) as file, h5py.File(inner) as source:
        source.copy("model_weights", file)
        file.attrs["model_config"] = source.attrs["model_config"]
    assert path.read_bytes()[:8] == b"\0" * 8
    assert load_model(path).parameters == 138


def test_names_over_64_kb_lie_in_numbered_attributes(tmp_path: Path) -> None:
    path = good(tmp_path)
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        del weights.attrs["layer_names"]
        weights.attrs["layer_names0"] = np.array([b"layer_0"])
        weights.attrs["layer_names1"] = np.array(["layer_1"], dtype=h5py.string_dtype())
    assert load_model(path).parameters == 138


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (["layers/vars"], "more than 20000 objects"),
        (["layers/vars", "_layer_checkpoint_dependencies/vars"], "more than 12000 groups and arrays"),
    ],
    ids=["in one group", "in two groups"],
)
def test_files_of_too_many_objects(tmp_path: Path, groups: list[str], reason: str) -> None:
    path = tmp_path / "many.weights.h5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset("array", data=np.zeros(1, np.float32))
        for group in map(file.create_group, groups):
            for number in range(22_000 // len(groups)):
                group[str(number)] = array
    with pytest.raises(UnreadableFile, match=reason):
        load_model(path)
