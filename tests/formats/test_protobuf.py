import contextlib

import pytest
import tensorflow_files as tf
from hypothesis import given
from hypothesis import strategies as st

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats import protobuf
from lstm_serve.formats.protobuf import Message, varint


@given(st.integers(min_value=0, max_value=(1 << 64) - 1), st.binary(max_size=3))
def test_a_varint_comes_back_with_its_end(value: int, behind: bytes) -> None:
    data = tf.varint(value)
    assert varint(memoryview(data + behind), 0, "it") == (value, len(data))


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 10, b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02"]
)
def test_a_varint_without_an_end_or_beyond_64_bits_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="it is damaged or cut short: the number at byte 0"):
        varint(memoryview(data), 0, "it")


@given(st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1), st.text(max_size=20), st.binary(max_size=300))
def test_fields_come_back(number: int, text: str, octets: bytes) -> None:
    message = Message(tf.message((1, number), (2, text), (3000, octets), (4, tf.message((1, 7)))), "it")
    assert message.integer(1) == number
    assert message.text(2) == text
    assert bytes(message.octets(3000)) == octets
    assert message.message(4).integer(1) == 7


def test_fixed_fields_are_little_endian() -> None:
    message = Message(tf.fixed32(1, 0xDEADBEEF) + b"\x11" + (5).to_bytes(8, "little"), "it")
    assert message.integer(1) == 0xDEADBEEF
    assert message.integer(2) == 5


def test_an_absent_field_is_zero() -> None:
    message = Message(b"", "it")
    assert message.integer(1) == 0
    assert message.text(1) == ""
    assert not message.message(1).integer(1)
    assert not list(message.messages(1))
    assert 1 not in message


def test_repeated_messages_are_read_one_by_one() -> None:
    message = Message(tf.message((1, tf.message((1, 5))), (1, tf.message((1, 6)))), "it")
    assert [nested.integer(1) for nested in message.messages(1)] == [5, 6]
    assert 1 in message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x0a\x05abc", "field 1 at byte 2 takes 5 bytes"),
        (b"\x0d\x00\x00", "field 1 at byte 1 takes 4 bytes"),
        (b"\x09\x00\x00", "takes 8 bytes"),
        (b"\x0b", "unknown type 3"),
        (b"\x0f", "unknown type 7"),
        (b"\x02\x00", "field 0"),
        (tf.varint(1 << 35 | 2) + b"\x00", "takes 0 bytes"),
        (b"\x08", "has no end"),
    ],
)
def test_what_does_not_fit_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableFile, match=f"^it is damaged.*{said}"):
        Message(data, "it")


def test_a_field_of_another_type_is_refused() -> None:
    message = Message(tf.message((1, 5), (2, b"\xff"), (3, 5), (3, 6)), "it")
    with pytest.raises(UnreadableFile, match="field 1 should be bytes"):
        message.octets(1)
    with pytest.raises(UnreadableFile, match="field 2 should be an integer"):
        message.integer(2)
    with pytest.raises(UnreadableFile, match="field 2 should be UTF-8"):
        message.text(2)
    with pytest.raises(UnreadableFile, match="field 3 is there 2 times"):
        message.integer(3)
    with pytest.raises(UnreadableFile, match="field 1 should be bytes"):
        message.repeated(1)


def test_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 3)
    assert Message(b"\x08\x01" * 3, "it").integer(2) == 0
    with pytest.raises(UnreadableFile, match="more than 3 fields"):
        Message(b"\x08\x01" * 4, "it")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(UnreadableFile):
        Message(data, "it")
