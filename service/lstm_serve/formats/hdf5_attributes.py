"""The text attributes of an HDF5 file, read from its bytes.

The HDF5 library takes what an attribute says of lengths for true: one flipped bit makes it run in circles for ever,
take 3 GB, or die. Keras' attributes are texts in a plain layout, which is read here with each length checked first.
Layouts: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, sections IV.A (object headers), III.E
(global heap).
"""

import math
import os
import struct
from typing import BinaryIO, NamedTuple

from lstm_serve.errors import UnreadableFile

# Of the texts of one attribute, and so of a model's architecture: 350 KB were seen.
MAX_TEXT_BYTES = 4 << 20
# Blocks that an object's header is spread over, and the bytes of each.
MAX_BLOCKS = 64
MAX_BLOCK_BYTES = 1 << 20
MAX_HEAP_BYTES = 64 << 20

ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO = 0x0C, 0x10, 0x15
STRING, VARIABLE = 3, 9
UNDEFINED = (1 << 64) - 1


class Attribute(NamedTuple):
    """An attribute as it stands in the file: its datatype's class and element size, its shape, its bytes."""

    datatype_class: int
    size: int
    shape: tuple[int, ...]
    data: bytes


class Attributes:
    """Reads the attributes of objects by the addresses of their headers."""

    def __init__(self, source: BinaryIO, base: int) -> None:
        """`base` is where the file's addresses count from: the size of what stands before its signature."""
        self._source = source
        self._base = base
        self._size = source.seek(0, os.SEEK_END)
        self._found: dict[int, dict[str, Attribute]] = {}
        self._heaps: dict[int, dict[int, bytes]] = {}

    def of(self, address: int) -> dict[str, Attribute]:
        """The attributes of the object whose header is at `address`, by name."""
        if address not in self._found:
            messages = _messages(self, address)
            self._found[address] = dict(
                _attribute(data) for message_type, data in messages if message_type == ATTRIBUTE
            )
            if any(message_type == ATTRIBUTE_INFO and _dense(data) for message_type, data in messages):
                raise UnreadableFile("the HDF5 file keeps attributes in a way that Keras never does")
        return self._found[address]

    def texts(self, attribute: Attribute) -> list[str]:
        """The texts of an attribute. A list without elements is stored as an empty array of floats."""
        count = math.prod(attribute.shape)
        if count == 0:
            return []
        if attribute.datatype_class not in {STRING, VARIABLE}:
            raise UnreadableFile("an attribute of the HDF5 file holds something else, where a text was expected")
        if attribute.size == 0 or count * attribute.size > len(attribute.data):
            raise _damaged("an attribute is longer than its place")
        elements = [attribute.data[k * attribute.size : (k + 1) * attribute.size] for k in range(count)]
        if attribute.datatype_class == VARIABLE:
            elements = self._variable(elements)
        if sum(map(len, elements)) > MAX_TEXT_BYTES:
            raise UnreadableFile(f"an attribute of the HDF5 file is longer than {MAX_TEXT_BYTES >> 20} MiB")
        return [element.partition(b"\0")[0].decode("utf-8") for element in elements]

    def _variable(self, elements: list[bytes]) -> list[bytes]:
        """Texts in the global heap, each given by its length, the heap's address, and its number in it."""
        texts: list[bytes] = []
        total = 0
        for element in elements:
            length, address, number = struct.unpack("<IQI", element)
            text = self._heap(address).get(number, b"") if length else b""
            if len(text) < length:
                raise _damaged("a text is longer than its place")
            total += length
            if total > MAX_TEXT_BYTES:
                raise UnreadableFile(f"an attribute of the HDF5 file is longer than {MAX_TEXT_BYTES >> 20} MiB")
            texts.append(text[:length])
        return texts

    def _heap(self, address: int) -> dict[int, bytes]:
        if address not in self._heaps:
            head = self.read(address, 16)
            (size,) = struct.unpack("<Q", head[8:])
            if head[:4] != b"GCOL" or size > MAX_HEAP_BYTES or size < 16:
                raise _damaged("a heap of texts is not where it should be")
            data = self.read(address, size)
            objects: dict[int, bytes] = {}
            at = 16
            while at + 16 <= size:
                number, _, _, length = struct.unpack("<HHIQ", data[at : at + 16])
                if number == 0:  # what is left
                    break
                if length > size - at - 16:
                    raise _damaged("a text is longer than its heap")
                objects[number] = data[at + 16 : at + 16 + length]
                at += 16 + (length + 7) // 8 * 8
            self._heaps[address] = objects
        return self._heaps[address]

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`, all of them."""
        at = self._base + address
        if at + size > self._size:
            raise _damaged("it leads beyond its own end")
        self._source.seek(at)
        data = self._source.read(size)
        if len(data) != size:
            raise _damaged("it leads beyond its own end")
        return data


def _messages(source: Attributes, address: int) -> list[tuple[int, bytes]]:
    """The messages of an object's header, of the first version or the second, with the blocks that continue it."""
    first = source.read(address, 16)
    messages: list[tuple[int, bytes]] = []
    second = first[:4] == b"OHDR"
    if second:
        flags = first[5]
        start = 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        size = int.from_bytes(source.read(address + start, width), "little")
        waiting, extra = [(address + start + width, size)], 2 * bool(flags & 4)
    elif first[0] == 1:
        waiting, extra = [(address + 16, struct.unpack("<I", first[8:12])[0])], 0
    else:
        raise _damaged("a header is not where it should be")
    blocks = 0
    while waiting:
        block, size = waiting.pop(0)
        blocks += 1
        if blocks > MAX_BLOCKS or size > MAX_BLOCK_BYTES:
            raise _damaged("a header is too large")
        for message_type, data in _split(source.read(block, size), extra, second=second):
            if message_type == CONTINUATION:
                where, length = struct.unpack("<QQ", data[:16])
                # The second version's blocks begin with a signature and end with a checksum.
                waiting.append((where + 4, max(0, length - 8)) if second else (where, length))
            else:
                messages.append((message_type, data))
    return messages


def _split(block: bytes, extra: int, *, second: bool) -> list[tuple[int, bytes]]:
    messages: list[tuple[int, bytes]] = []
    head = 4 + extra if second else 8
    at = 0
    while at + head <= len(block):
        message_type, size, flags = struct.unpack("<BHB" if second else "<HHB", block[at : at + (4 if second else 5)])
        data = block[at + head : at + head + size]
        if len(data) < size or (message_type == ATTRIBUTE and flags & 2):
            raise _damaged("a message in a header is not whole")
        messages.append((message_type, data))
        at += head + size
    return messages


def _attribute(data: bytes) -> tuple[str, Attribute]:
    version, flags, name_size, type_size, space_size = struct.unpack("<BBHHH", data[:8])
    if version not in {1, 2, 3} or (version > 1 and flags & 3):
        raise _damaged("an attribute is of no known form")
    at = 9 if version == 3 else 8
    parts = []
    for size in (name_size, type_size, space_size):
        parts.append(data[at : at + size])
        at += (size + 7) // 8 * 8 if version == 1 else size
    name, datatype, space = parts
    if len(datatype) < 8 or len(space) < 4:
        raise _damaged("an attribute is not whole")
    datatype_class, (size,) = datatype[0] & 0x0F, struct.unpack("<I", datatype[4:8])
    if datatype_class == VARIABLE and (datatype[1] & 0x0F != 1 or size != 16):
        raise _damaged("an attribute's type is none of a text")
    return name.partition(b"\0")[0].decode("utf-8"), Attribute(datatype_class, size, _shape(space), data[at:])


def _shape(space: bytes) -> tuple[int, ...]:
    """The sizes of a dataspace; without any it is a scalar, and the null of the second version holds nothing."""
    version, rank = space[0], space[1]
    start = 8 if version == 1 else 4
    if version not in {1, 2} or len(space) < start + 8 * rank:
        raise _damaged("an attribute's shape is not whole")
    if version == 2 and space[3] == 2:
        return (0,)
    return struct.unpack(f"<{rank}Q", space[start : start + 8 * rank])


def _dense(info: bytes) -> bool:
    """Whether an attribute info message leads to a heap in which further attributes are."""
    start = 2 + 2 * bool(info[1] & 1)
    return int.from_bytes(info[start : start + 8], "little") != UNDEFINED


def _damaged(what: str) -> UnreadableFile:
    return UnreadableFile(f"the HDF5 file is damaged or cut short: {what}. Copy it again, or compare its size")
