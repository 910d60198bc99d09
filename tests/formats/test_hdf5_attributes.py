"""Text attributes in each layout that HDF5 has for them, and what damage does to them."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from kerasfiles import dense, lstm, save_sequential

from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile
from lstm_serve.formats import hdf5
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.hdf5_attributes import Attributes


def file_with(**options: object) -> io.BytesIO:
    data = io.BytesIO()
    with h5py.File(data, "w", **options) as file:
        file.attrs["text"] = "größe"
        file.attrs["bytes"] = np.bytes_(b"fixed")
        file.attrs["list"] = np.array([b"a", b"bcd"])
        file.attrs["objects"] = np.array(["a", "", "größe"], dtype=h5py.string_dtype())
        file.attrs["none"] = np.zeros(0)
        file.attrs["null"] = h5py.Empty("S3")
        file.create_group("empty")
    return data


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 1024}, {"libver": "v108"}], ids=str)
def test_texts_are_read_in_every_layout(options: dict[str, object]) -> None:
    with hdf5.opened(file_with(**options), Budget()) as file:
        root = file.root
        assert (file.text(root, "text"), file.text(root, "bytes"), file.text(root, "absent")) == (
            "größe",
            "fixed",
            None,
        )
        assert (file.texts(root, "list"), file.texts(root, "objects")) == (["a", "bcd"], ["a", "", "größe"])
        assert (file.texts(root, "none"), file.texts(root, "null"), file.texts(root, "absent")) == ([], [], None)
        assert not file.has(file.group(root, "empty"), "text")
        with pytest.raises(UnreadableFile, match="holds 2 texts"):
            file.text(root, "list")


def test_many_attributes_lie_in_blocks_that_continue_the_header() -> None:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for k in range(60):
            file.attrs[f"a{k}"] = f"text {k}"
    with hdf5.opened(data, Budget()) as opened:
        assert [opened.text(opened.root, f"a{k}") for k in range(60)] == [f"text {k}" for k in range(60)]


def test_attributes_in_a_heap_of_their_own_are_refused() -> None:
    data = io.BytesIO()
    with h5py.File(data, "w", libver="latest") as file:
        for k in range(20):
            file.attrs[f"a{k}"] = "text"
    with hdf5.opened(data, Budget()) as opened, pytest.raises(UnreadableFile, match="in a way that Keras never does"):
        opened.text(opened.root, "a0")


def test_one_text_under_many_names_is_counted_each_time() -> None:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.attrs["list"] = np.array(["x" * 100_000] * 60, dtype=h5py.string_dtype())
    with hdf5.opened(data, Budget()) as opened, pytest.raises(UnreadableFile, match="longer than 4 MiB"):
        opened.texts(opened.root, "list")


NAME = b"keras_version\0"


def at(offset: int, change: bytes) -> Callable[[bytearray], None]:
    """Change bytes counted from the name of the attribute keras_version; its message begins 8 before."""

    def damage(data: bytearray) -> None:
        start = data.index(NAME) + offset
        data[start : start + len(change)] = change

    return damage


def heap(offset: int, change: bytes) -> Callable[[bytearray], None]:
    """Change bytes counted from the first heap's signature."""

    def damage(data: bytearray) -> None:
        start = data.index(b"GCOL") + offset
        data[start : start + len(change)] = change

    return damage


# The name takes 16 bytes, the datatype 24 or 16, the dataspace 8, and then comes the length, address, number.
DAMAGE: dict[str, Callable[[bytearray], None]] = {
    "an unknown version": at(-8, b"\x09"),
    "a shared type": at(-8, b"\x03\x01"),
    "a type of no size": at(-4, b"\0\0"),
    "a space of no size": at(-2, b"\0\0"),
    "a type of other things": at(16, b"\x17"),
    "a list of other things": at(17, b"\x00"),
    "elements of another size": at(20, struct.pack("<I", 8)),
    "a space of an unknown version": at(40, b"\x07"),
    "a space of many axes": at(41, b"\x20"),
    "a length beyond its place": at(48, struct.pack("<I", 1 << 20)),
    "an address beyond the file": at(52, struct.pack("<Q", 1 << 40)),
    "an address of something else": at(52, struct.pack("<Q", 8)),
    "a heap of another name": heap(0, b"GONE"),
    "a heap of any size": heap(8, struct.pack("<Q", 1 << 50)),
    "a heap of no size": heap(8, struct.pack("<Q", 0)),
    "a heap larger than the file": heap(8, struct.pack("<Q", 1 << 24)),
    "an object of any size": heap(24, struct.pack("<Q", (1 << 64) - 1)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    path = save_sequential(tmp_path / "m.h5", [lstm(), dense()])
    data = bytearray(path.read_bytes())
    assert data[data.index(NAME) + 16] & 0x0F == 9  # a text of variable length, as the offsets have it
    damage(data)
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"HDF5|keras_version"):
        load_model(path)


def v1(*messages: tuple[int, bytes], size: int | None = None) -> bytes:
    """An object's header of the first version at address 0."""
    body = b"".join(struct.pack("<HHB3x", kind, len(data), 0) + data for kind, data in messages)
    return struct.pack("<BxHIIxxxx", 1, len(messages), 1, len(body) if size is None else size) + body


def text_message(*, version: int = 1, name: bytes = b"a\0", kind: int = 0x13, rank: int = 0) -> bytes:
    datatype = struct.pack("<BBBBI", kind, 0, 0, 0, 4)
    space = struct.pack("<BB6x", 1, rank)
    return struct.pack("<BxHHH", version, len(name), 8, 8) + name.ljust(8, b"\0") + datatype + space + b"text"


def test_a_header_is_read_as_it_is_written() -> None:
    attributes = Attributes(io.BytesIO(v1((0x0C, text_message()))), 0)
    assert attributes.texts(attributes.of(0)["a"]) == ["text"]


HEADERS = {
    "no header": bytes(64),
    "a header of any size": v1(size=1 << 30),
    "a header beyond the file": v1(size=1 << 12),
    "a header that continues itself": v1((0x10, struct.pack("<QQ", 16, 24))),
    "a message that is not whole": v1((0x0C, text_message()))[:-1] + b"",
    "an attribute of no known version": v1((0x0C, text_message(version=7))),
    "an attribute that is not whole": v1((0x0C, text_message()[:24])),
    "a name that is no text": v1((0x0C, text_message(name=b"\xff\xfe\0"))),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_header_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises((UnreadableFile, UnicodeDecodeError)):
        Attributes(io.BytesIO(data), 0).of(0)
