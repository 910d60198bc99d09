"""Checkpoints of TensorFlow 2: arrays by key, in `<prefix>.index` and `<prefix>.data-00000-of-00001`.

The index is a table in LevelDB's format (doc/table_format.md there), never compressed; its values are the messages of
tensor_bundle.proto. The data files are the arrays' bytes, end to end. Each array and each block has a checksum, and all
that is read is checked against it. It is no protection against intent: sizes are held against bounds before anything
is read, and the name of a data file is made of two numbers, so that no path comes from a file.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats import crc32c
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.protobuf import Message, varint

MAX_INDEX_BYTES = 4 << 20
MAX_KEYS = 20_000
MAX_KEY_BYTES = 1024
MAX_TEXT_BYTES = 4 << 20
MAX_DIMENSIONS = 8
MAX_SHARDS = 64

FOOTER_BYTES = 48
MAGIC = bytes.fromhex("57fb808b247547db")
# What follows a block: how it is compressed, and its checksum.
TRAILER_BYTES = 5

# DataType of tensorflow/core/framework/types.proto.
FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
INTEGERS = {3: "<i4", 4: "<u1", 5: "<i2", 6: "<i1", 9: "<i8", 22: "<u4", 23: "<u8"}
STRING, BFLOAT16 = 7, 14


class Entry(NamedTuple):
    """Where an array lies: `size` bytes at `offset` of the data file number `shard`."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class Bundle:
    """The arrays of the checkpoint `<name>.index` in a folder. Each is read when it is asked for, and not before."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Read the index."""
        self._folder = folder
        self._name = name
        self.index = f"{name}.index"
        self._entries = dict(_table(folder.read(self.index, MAX_INDEX_BYTES), self.index))
        if "" not in self._entries:
            raise UnreadableFile(f"{self.index} has no header: it is no checkpoint of TensorFlow")
        header = Message(self._entries.pop(""), self.index)
        self.shards = header.integer(1)
        if not 1 <= self.shards <= MAX_SHARDS:
            raise UnreadableFile(f"{self.index} names {self.shards} data files, where 1 to {MAX_SHARDS} were expected")
        if header.integer(2):
            raise Unsupported(f"{self.index} was written on a big-endian machine, whose numbers are not read")
        folder.budget.expect(sum(folder.size(name) for name in map(self._data_file, range(self.shards))))

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def entry(self, key: str) -> Entry:
        """What the index says of `key`."""
        if key not in self._entries:
            raise UnreadableFile(f"{self.index} has no {key[:200]!r}: it is incomplete")
        entry = Message(self._entries[key], self.index)
        if 7 in entry:
            raise Unsupported(
                f"{key[:200]!r} is a variable in slices, as a partitioner or a parameter server leaves it. "
                "Load the model without one, and save it again"
            )
        shape = entry.message(2)
        sizes = tuple(dimension.integer(1) for dimension in shape.messages(2))
        if shape.integer(3) or len(sizes) > MAX_DIMENSIONS or any(size < 1 for size in sizes):
            raise UnreadableFile(f"{self.index} gives {key[:200]!r} the shape {str(sizes)[:100]}, which is none")
        read = Entry(
            dtype=entry.integer(1),
            shape=sizes,
            shard=entry.integer(3),
            offset=entry.integer(4),
            size=entry.integer(5),
            checksum=entry.integer(6),
        )
        if not 0 <= read.shard < self.shards or read.size < 0:
            raise UnreadableFile(
                f"{self.index} is damaged: it gives {key[:200]!r} {read.size} bytes "
                f"of data file {read.shard} of {self.shards}"
            )
        return read

    def array(self, key: str) -> Array:
        """The array `key`, as float32. Floats are read, and a single integer."""
        entry = self.entry(key)
        if entry.dtype == BFLOAT16:
            raise Unsupported(f"{key[:200]!r} is stored as bfloat16, which is not read. Save the model in float32")
        code = FLOATS.get(entry.dtype) or (INTEGERS.get(entry.dtype) if entry.shape == () else None)
        if code is None:
            raise UnreadableFile(
                f"{key[:200]!r} is of TensorFlow's type {entry.dtype} and shape {entry.shape}, "
                "where floats were expected"
            )
        dtype = np.dtype(code)
        count = math.prod(entry.shape)
        if count * dtype.itemsize != entry.size:
            raise UnreadableFile(
                f"{self.index} gives {key[:200]!r} {entry.size} bytes, and the shape {entry.shape} of {dtype}"
            )
        # float16 grows to float32 here, so count the larger.
        data = self._read(key, entry, max(entry.size, count * 4))
        if crc32c.masked(data) != entry.checksum:
            raise self._damaged(key)
        array = np.frombuffer(data, dtype).reshape(entry.shape).astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise UnreadableFile(
                f"the weight {key[:200]!r} holds NaN, infinity or numbers beyond float32: "
                "a training that diverged, or a damaged file"
            )
        return array

    def text(self, key: str) -> bytes:
        """The single string `key`, such as a serialized message."""
        entry = self.entry(key)
        if entry.dtype != STRING or entry.shape or entry.size > MAX_TEXT_BYTES:
            raise UnreadableFile(
                f"{key[:200]!r} is of TensorFlow's type {entry.dtype}, shape {entry.shape} and {entry.size} bytes, "
                f"where a string of at most {MAX_TEXT_BYTES >> 20} MiB was expected"
            )
        data = self._read(key, entry, entry.size)
        length, start = varint(data, 0, f"the string {key[:200]!r}")
        text = data[start + 4 :]
        # The checksums are of the length as a number of four bytes, not of the varint that stores it.
        counted = length.to_bytes(8, "little")[:4]
        its_checksum = data[start : start + 4]
        if (
            length != len(text)
            or int.from_bytes(its_checksum, "little") != crc32c.masked(counted)
            or crc32c.masked(b"".join([counted, its_checksum, text])) != entry.checksum
        ):
            raise self._damaged(key)
        return bytes(text)

    def _read(self, key: str, entry: Entry, in_memory: int) -> memoryview:
        # Many keys may point to the same bytes: the sum over all is what is bounded.
        self._folder.budget.take(in_memory, key[:200])
        name = self._data_file(entry.shard)
        if name not in self._folder:
            raise UnreadableFile(
                f"the file {name} is missing, which holds the weights. "
                "Copy it too: git often ignores it, since *.data* or *-of-* is in many a .gitignore"
            )
        with self._folder.opened(name) as file:
            stored = file.seek(0, 2)
            if not 0 <= entry.offset <= stored - entry.size:
                raise UnreadableFile(
                    f"{name} is cut short: {key[:200]!r} takes {entry.size} bytes at {entry.offset} of {stored}. "
                    "Copy it again"
                )
            file.seek(entry.offset)
            data = memoryview(bytearray(entry.size))
            file.readinto(data)
            return data

    def _data_file(self, shard: int) -> str:
        return f"{self._name}.data-{shard:05d}-of-{self.shards:05d}"

    def _damaged(self, key: str) -> UnreadableFile:
        return UnreadableFile(
            f"the checksum of {key[:200]!r} is wrong: {self.index} and its data files are damaged, or not of one save. "
            "Copy them again"
        )


def _table(data: bytes, what: str) -> Iterator[tuple[str, memoryview]]:
    """The keys and values of a table, in its order: ascending."""
    view = memoryview(data)
    end = len(view) - FOOTER_BYTES
    if end < 0 or view[-len(MAGIC) :] != MAGIC:
        raise UnreadableFile(f"{what} is no index of a TensorFlow checkpoint, or is cut short. Copy it again")
    footer = view[end : -len(MAGIC)]
    offset, size, at = _handle(footer, 0, what)
    _block(view[:end], offset, size, what)  # of filters, and empty
    offset, size, at = _handle(footer, at, what)
    if any(footer[at:]):
        raise UnreadableFile(f"{what} is damaged: its last bytes are not what TensorFlow writes. Copy it again")
    before, read_up_to, count = b"", 0, 0
    for _, handle in _entries(_block(view[:end], offset, size, what), what):
        offset, size, _ = _handle(handle, 0, what)
        if offset < read_up_to:
            raise UnreadableFile(f"{what} is damaged: its blocks overlap")
        read_up_to = offset + size
        for key, value in _entries(_block(view[:end], offset, size, what), what):
            if count and key <= before:
                raise UnreadableFile(f"{what} is damaged: its keys are not in order")
            if count == MAX_KEYS:
                raise UnreadableFile(f"{what} has more than {MAX_KEYS} keys")
            before, count = key, count + 1
            # The slices of a variable have keys that are no text.
            yield key.decode(errors="surrogateescape"), value


def _handle(data: memoryview, at: int, what: str) -> tuple[int, int, int]:
    """Where a block lies, offset and size, and where this handle ends."""
    offset, at = varint(data, at, what)
    size, at = varint(data, at, what)
    return offset, size, at


def _block(table: memoryview, offset: int, size: int, what: str) -> memoryview:
    """The entries of a block, once its checksum is right."""
    end = offset + size
    if end + TRAILER_BYTES > len(table):
        raise UnreadableFile(f"{what} is damaged or cut short: a block ends at byte {end} of {len(table)}")
    checksum = int.from_bytes(table[end + 1 : end + TRAILER_BYTES], "little")
    if crc32c.masked(table[offset : end + 1]) != checksum:
        raise UnreadableFile(f"{what} is damaged: the checksum of a block is wrong. Copy it again")
    if table[end]:
        raise Unsupported(f"{what} has a compressed block, which TensorFlow never writes into a checkpoint")
    # At the end, where keys are written in full: n offsets, which only a search needs, and n.
    restarts = int.from_bytes(table[max(offset, end - 4) : end], "little")
    if size < 4 * (restarts + 1):
        raise UnreadableFile(f"{what} is damaged: a block of {size} bytes has {restarts} restarts")
    return table[offset : end - 4 * (restarts + 1)]


def _entries(block: memoryview, what: str) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values; a key is told by how much of the one before it begins it, and by the rest."""
    key, at = b"", 0
    while at < len(block):
        shared, at = varint(block, at, what)
        rest, at = varint(block, at, what)
        size, at = varint(block, at, what)
        if shared > len(key) or shared + rest > MAX_KEY_BYTES or rest + size > len(block) - at:
            raise UnreadableFile(f"{what} is damaged: an entry at byte {at} of a block does not fit into it")
        key = key[:shared] + bytes(block[at : at + rest])
        at += rest
        yield key, block[at : at + size]
        at += size
