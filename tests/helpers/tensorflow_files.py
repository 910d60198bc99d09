"""A writer of TensorFlow's files, for the faults that TensorFlow itself would never write."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lstm_serve.formats import crc32c
from lstm_serve.formats.tensor_bundle import MAGIC

Value = int | str | bytes


def varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def message(*fields: tuple[int, Value]) -> bytes:
    """A protobuf message; an integer becomes a varint, and one of four bytes is written as `fixed32` below."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [varint(number << 3), varint(value % (1 << 64))]
        else:
            octets = value.encode() if isinstance(value, str) else value
            parts += [varint(number << 3 | 2), varint(len(octets)), octets]
    return b"".join(parts)


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def entry(data: bytes, *, dtype: int = 1, shape: Iterable[int] = (), offset: int = 0, extra: bytes = b"") -> bytes:
    """The index's entry of an array that lies at `offset`."""
    dimensions = message(*[(2, message((1, size))) for size in shape])
    fields = message((1, dtype), (2, dimensions), (4, offset), (5, len(data)))
    return fields + fixed32(6, crc32c.masked(data)) + extra


def block(entries: Iterable[tuple[bytes, bytes]], *, restarts: int = 1, compression: int = 0) -> bytes:
    """A block of a table, with its trailer. No key is shortened."""
    body = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return sealed(body + bytes(4) + restarts.to_bytes(4, "little"), compression)


def sealed(body: bytes, compression: int = 0) -> bytes:
    """A block's content with its trailer."""
    body += bytes([compression])
    return body + crc32c.masked(body).to_bytes(4, "little")


def handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


def table(*blocks: bytes, handles: Iterable[bytes] | None = None) -> bytes:
    """A table of these blocks; `handles` lie about where they are."""
    data, found = b"", []
    for part in blocks:
        found.append(handle(len(data), len(part) - 5))
        data += part
    index = block((b"%04d" % k, where) for k, where in enumerate(found if handles is None else handles))
    filters = block([])
    footer = handle(len(data), len(filters) - 5) + handle(len(data) + len(filters), len(index) - 5)
    return data + filters + index + footer.ljust(40, b"\0") + MAGIC


def header(shards: int = 1, endianness: int = 0) -> tuple[bytes, bytes]:
    return b"", message((1, shards), (2, endianness))


def text(value: bytes) -> tuple[bytes, bytes]:
    """A single string as it is stored, and what its checksum is of."""
    counted = len(value).to_bytes(4, "little")
    checksum = crc32c.masked(counted).to_bytes(4, "little")
    return varint(len(value)) + checksum + value, counted + checksum + value


def write_bundle(prefix: Path, entries: Mapping[bytes, bytes], data: bytes, shards: int = 1) -> None:
    """A checkpoint whose data all lie in the first file."""
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(block([header(shards), *sorted(entries.items())])))
    prefix.with_name(f"{prefix.name}.data-00000-of-{shards:05d}").write_bytes(data)


def graph(*objects: tuple[Mapping[str, int], str]) -> bytes:
    """An object graph: of each object its edges, and the key of its array or ''."""
    nodes = []
    for children, key in objects:
        edges = message(*[(1, message((1, number), (2, name))) for name, number in children.items()])
        attribute = message((2, message((1, "VARIABLE_VALUE"), (2, key), (3, key)))) if key else b""
        nodes.append((1, edges + attribute))
    return message(*nodes)


def write_checkpoint(prefix: Path, *objects: tuple[Mapping[str, int], str]) -> None:
    """A checkpoint of these objects, whose arrays are all [1]."""
    one = b"\x00\x00\x80\x3f"
    stored, covered = text(graph(*objects))
    whole = entry(covered, dtype=7, offset=4).replace(message((5, len(covered))), message((5, len(stored))))
    entries = {b"_CHECKPOINTABLE_OBJECT_GRAPH": whole}
    entries |= {key.encode(): entry(one, shape=[1]) for _, key in objects if key}
    write_bundle(prefix, entries, one + stored)


def saved_model(tensorflow: str, *objects: tuple[Mapping[str, int], str]) -> bytes:
    """A saved_model.pb of these objects: of each its edges, and what Keras says of it or ''."""
    nodes = []
    for children, description in objects:
        edges = [(1, message((1, number), (2, name))) for name, number in children.items()]
        nodes.append((1, message(*edges, (4, message((1, "_tf_keras_layer"), (3, description))))))
    return message((2, message((1, message((5, tensorflow))), (7, message(*nodes)))))
