"""Protobuf's wire format, as little of it as TensorFlow's files need: a message's fields, by number.

Source: https://protobuf.dev/programming-guides/encoding/. Nothing is copied: a nested message is a view of its bytes,
and costs nothing until it is asked for.
"""

from collections.abc import Iterator

from lstm_serve.errors import UnreadableFile

# Fields of one message, and so the nodes of a graph: thousands were seen.
MAX_FIELDS = 100_000

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Message:
    """The fields of a message. A field that is absent has its type's zero, as in proto3."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        """Read all fields of `data`; `what` names the message in an error, which is an UnreadableFile."""
        self.what = what
        self._fields: dict[int, list[int | memoryview]] = {}
        for count, (number, value) in enumerate(_fields(memoryview(data), what)):
            if count == MAX_FIELDS:
                raise UnreadableFile(f"{what} has more than {MAX_FIELDS} fields")
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def integer(self, number: int) -> int:
        """A varint as int64, or a fixed field."""
        value = self._one(number)
        if value is None:
            return 0
        if not isinstance(value, int):
            raise self._wrong(number, "an integer")
        return value - (1 << 64) if value >> 63 else value

    def octets(self, number: int) -> memoryview:
        """A field of bytes."""
        value = self._one(number)
        return memoryview(b"") if value is None else self._octets(number, value)

    def text(self, number: int) -> str:
        """A field of UTF-8."""
        try:
            return str(self.octets(number), "utf-8")
        except UnicodeDecodeError:
            raise self._wrong(number, "UTF-8") from None

    def message(self, number: int) -> "Message":
        """A nested message; an absent one has no fields."""
        return Message(self.octets(number), self.what)

    def messages(self, number: int) -> Iterator["Message"]:
        """A repeated nested message, each read when its turn comes."""
        return (Message(octets, self.what) for octets in self.repeated(number))

    def repeated(self, number: int) -> list[memoryview]:
        """A repeated field of bytes."""
        return [self._octets(number, value) for value in self._fields.get(number, [])]

    def _one(self, number: int) -> int | memoryview | None:
        values = self._fields.get(number, [None])
        if len(values) > 1:
            raise UnreadableFile(f"{self.what} is damaged: its field {number} is there {len(values)} times")
        return values[0]

    def _octets(self, number: int, value: int | memoryview) -> memoryview:
        if isinstance(value, int):
            raise self._wrong(number, "bytes")
        return value

    def _wrong(self, number: int, expected: str) -> UnreadableFile:
        return UnreadableFile(f"{self.what} is damaged: its field {number} should be {expected}")


def varint(data: memoryview, at: int, what: str) -> tuple[int, int]:
    """The varint at `at`, below 2 ** 64, and where it ends. Seven bits a byte, the low ones first."""
    value = 0
    for k in range(min(10, len(data) - at)):
        octet = data[at + k]
        value |= (octet & 0x7F) << 7 * k
        if octet < 0x80 and not value >> 64:
            return value, at + k + 1
    raise UnreadableFile(f"{what} is damaged or cut short: the number at byte {at} has no end")


def _fields(data: memoryview, what: str) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = varint(data, at, what)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(data, at, what)
            yield number, value
            continue
        if wire == BYTES:
            size, at = varint(data, at, what)
        elif wire in {FIXED32, FIXED64}:
            size = 4 if wire == FIXED32 else 8
        else:
            raise UnreadableFile(f"{what} is damaged: a field at byte {at} is of the unknown type {wire}")
        if not 0 < number < 1 << 29 or size > len(data) - at:
            raise UnreadableFile(f"{what} is damaged or cut short: its field {number} at byte {at} takes {size} bytes")
        octets = data[at : at + size]
        yield number, octets if wire == BYTES else int.from_bytes(octets, "little")
        at += size
