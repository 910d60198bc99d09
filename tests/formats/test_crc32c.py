from hypothesis import given
from hypothesis import strategies as st

from lstm_serve.formats import crc32c


def bitwise(data: bytes) -> int:
    """The definition, a bit at a time."""
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (crc32c.POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_the_vectors_of_rfc_3720() -> None:
    # Section B.4.
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c.crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c.crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


def test_nothing_has_the_checksum_zero() -> None:
    assert crc32c.crc32c(b"") == 0


@given(st.binary(max_size=200))
def test_any_length_is_as_the_definition_has_it(data: bytes) -> None:
    assert crc32c.crc32c(data) == bitwise(data)
    assert crc32c.crc32c(memoryview(data)) == bitwise(data)


def test_what_is_longer_than_a_chunk_goes_on_from_it() -> None:
    data = bytes(range(256)) * 4100
    # A checksum of data with its own checksum behind it is always the same.
    for length in (crc32c.CHUNK_BYTES - 1, crc32c.CHUNK_BYTES, crc32c.CHUNK_BYTES + 1):
        part = data[:length]
        assert crc32c.crc32c(part + crc32c.crc32c(part).to_bytes(4, "little")) == 0x48674BC7


@given(st.binary(min_size=1, max_size=100), st.integers(min_value=0))
def test_a_flipped_bit_is_seen(data: bytes, bit: int) -> None:
    flipped = bytearray(data)
    flipped[bit // 8 % len(data)] ^= 1 << bit % 8
    assert crc32c.crc32c(bytes(flipped)) != crc32c.crc32c(data)


def test_tensorflow_masks_it() -> None:
    # tsl/lib/hash/crc32c.h: ((crc >> 15) | (crc << 17)) + 0xa282ead8
    assert crc32c.crc32c(b"123456789") == 0xE3069283
    assert crc32c.masked(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17 & 0xFFFFFFFF) + 0xA282EAD8) % (1 << 32)
