from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_files as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import GOLDEN

from lstm_serve.errors import ModelError, UnreadableFile, Unsupported
from lstm_serve.formats.array_budget import FILE_FACTOR, Budget
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.tensor_bundle import Bundle

SAVED = GOLDEN / "savedmodel"


ONE = np.arange(6, dtype="<f4").tobytes()


def opened(prefix: Path, budget: Budget | None = None) -> Bundle:
    return Bundle(Folder(prefix.parent, budget), prefix.name)


def made(tmp_path: Path, entries: dict[bytes, bytes], data: bytes = ONE, shards: int = 1) -> Bundle:
    tf.write_bundle(tmp_path / "ck", entries, data, shards)
    return opened(tmp_path / "ck")


def test_a_checkpoint_of_tensorflow() -> None:
    bundle = opened(SAVED / "tf21__func_ck" / "ck")
    kernel = bundle.array("layer_with_weights-2/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    assert kernel.shape == (11, 4)
    assert kernel.dtype == np.float32
    assert kernel.flags.writeable
    assert len(list(bundle)) == 9
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" in bundle
    assert "" not in bundle


def test_three_data_files_of_which_one_is_empty() -> None:
    # TensorFlow 2.1 wrote a file a device. What another save has left beside them is not theirs.
    bundle = opened(SAVED / "special__tf2.1_three_shards_ck" / "dev")
    assert bundle.shards == 3
    assert bundle.entry("v/.ATTRIBUTES/VARIABLE_VALUE").shard == 1
    assert bundle.array("w/.ATTRIBUTES/VARIABLE_VALUE").shape == (2,)


def test_slices_are_refused_by_name() -> None:
    bundle = opened(SAVED / "special__sliced_ck" / "sl")
    with pytest.raises(Unsupported, match="'k' is a variable in slices"):
        bundle.array("k")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=9),
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=9),
        min_size=1,
    )
)
def test_arrays_come_back(tmp_path: Path, arrays: dict[bytes, list[float]]) -> None:
    data, entries = b"", {}
    for key, values in arrays.items():
        octets = np.array(values, "<f4").tobytes()
        entries[key] = tf.entry(octets, shape=[len(values)], offset=len(data))
        data += octets
    bundle = made(tmp_path, entries, data)
    for key, values in arrays.items():
        assert bundle.array(key.decode(errors="surrogateescape")).tolist() == values


def test_keys_are_told_by_what_the_one_before_has(tmp_path: Path) -> None:
    value = tf.entry(ONE, shape=[2, 3])
    body = b"\x00\x00\x02" + b"\x08\x01" + b"\x00\x02" + bytes([len(value)]) + b"ab" + value
    body += b"\x01\x02" + bytes([len(value)]) + b"cd" + value
    (tmp_path / "ck.index").write_bytes(tf.table(tf.sealed(body + bytes(4) + b"\x01\0\0\0")))
    assert list(opened(tmp_path / "ck")) == ["ab", "acd"]


def test_a_table_may_have_several_blocks(tmp_path: Path) -> None:
    value = tf.entry(ONE, shape=[2, 3])
    index = tf.table(tf.block([tf.header(), (b"a", value)]), tf.block([(b"b", value)]))
    (tmp_path / "ck.index").write_bytes(index)
    assert list(opened(tmp_path / "ck")) == ["a", "b"]


@pytest.mark.parametrize(
    ("dtype", "code"), [(1, "<f4"), (2, "<f8"), (19, "<f2"), (3, "<i4"), (9, "<i8"), (4, "<u1"), (23, "<u8")]
)
def test_a_number_of_any_type_is_read_as_float32(tmp_path: Path, dtype: int, code: str) -> None:
    data = np.array(7, code).tobytes()
    array = made(tmp_path, {b"a": tf.entry(data, dtype=dtype)}, data).array("a")
    assert array.dtype == np.float32
    assert array.shape == ()
    assert array == 7


def test_a_single_string(tmp_path: Path) -> None:
    for value in (b"", b"abc" * 100):
        stored, covered = tf.text(value)
        entry = tf.entry(covered, dtype=7).replace(tf.message((5, len(covered))), tf.message((5, len(stored))))
        assert made(tmp_path, {b"a": entry}, stored).text("a") == value


def test_a_damaged_string_is_refused(tmp_path: Path) -> None:
    stored, covered = tf.text(b"abc")
    entry = tf.entry(covered, dtype=7).replace(tf.message((5, len(covered))), tf.message((5, len(stored))))
    for at in range(len(stored)):
        damaged = bytearray(stored)
        damaged[at] ^= 1
        with pytest.raises(UnreadableFile, match=r"checksum of 'a' is wrong|has no end"):
            made(tmp_path, {b"a": entry}, bytes(damaged)).text("a")
    with pytest.raises(UnreadableFile, match="where a string of at most"):
        made(tmp_path, {b"a": tf.entry(ONE)}).text("a")


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        (tf.entry(ONE, shape=[2, 3], dtype=14), Unsupported, "bfloat16"),
        (tf.entry(ONE, shape=[2, 3], dtype=9), UnreadableFile, "type 9 and shape .2, 3., where floats"),
        (tf.entry(ONE, shape=[2, 3], dtype=7), UnreadableFile, "type 7"),
        (tf.entry(ONE, shape=[2, 3], dtype=0), UnreadableFile, "type 0"),
        (tf.entry(ONE, shape=[2, 4]), UnreadableFile, "24 bytes, and the shape"),
        (tf.entry(ONE, shape=[1 << 40, 1 << 40]), UnreadableFile, "24 bytes, and the shape"),
        (tf.entry(ONE, shape=[-2, -3]), UnreadableFile, "which is none"),
        (tf.entry(b"", shape=[0, 3]), UnreadableFile, "which is none"),
        (tf.entry(ONE, shape=[1] * 9), UnreadableFile, "which is none"),
        (tf.entry(ONE, shape=[2, 3], offset=1), UnreadableFile, "cut short"),
        (tf.entry(ONE, shape=[2, 3], offset=-24), UnreadableFile, "cut short"),
        (tf.entry(ONE[1:] + b"\1", shape=[2, 3]), UnreadableFile, "checksum of 'a' is wrong"),
        (tf.entry(ONE, shape=[2, 3], extra=tf.message((3, 1))), UnreadableFile, "data file 1 of 1"),
        (tf.entry(ONE, shape=[2, 3], extra=tf.message((3, -1))), UnreadableFile, "data file -1 of 1"),
        (tf.message((1, 7), (5, -5)), UnreadableFile, "-5 bytes"),
        (tf.entry(ONE, shape=[2, 3], extra=tf.message((7, b""))), Unsupported, "slices"),
        (tf.message((1, 1), (2, tf.message((3, 1)))), UnreadableFile, "which is none"),
        (b"\xff", UnreadableFile, "damaged"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(
    tmp_path: Path, entry: bytes, error: type[ModelError], said: str
) -> None:
    with pytest.raises(error, match=said):
        made(tmp_path, {b"a": entry}).array("a")


def test_nan_is_refused(tmp_path: Path) -> None:
    data = np.array([1, np.nan], "<f4").tobytes()
    with pytest.raises(UnreadableFile, match="holds NaN"):
        made(tmp_path, {b"a": tf.entry(data, shape=[2])}, data).array("a")


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="has no 'b'"):
        made(tmp_path, {}).array("b")


def test_many_keys_of_the_same_bytes_are_bounded_by_their_sum(tmp_path: Path) -> None:
    made(tmp_path, {b"%d" % k: tf.entry(ONE, shape=[6]) for k in range(3)})
    bundle = opened(tmp_path / "ck", Budget(60))
    bundle.array("0")
    bundle.array("1")
    with pytest.raises(UnreadableFile, match="the arrays up to '2' need more"):
        bundle.array("2")


def test_data_files_are_bounded_together(tmp_path: Path) -> None:
    entries = {b"a": tf.entry(ONE, shape=[6])}
    made(tmp_path, entries, bytes(FILE_FACTOR * 60))
    opened(tmp_path / "ck", Budget(60))
    with pytest.raises(UnreadableFile, match="max_bytes"):
        made(tmp_path, entries, bytes(FILE_FACTOR * 60 + 1)) and opened(tmp_path / "ck", Budget(60))


def test_a_missing_data_file_is_said_with_the_likely_reason(tmp_path: Path) -> None:
    bundle = made(tmp_path, {b"a": tf.entry(ONE, shape=[6])})
    (tmp_path / "ck.data-00000-of-00001").unlink()
    with pytest.raises(UnreadableFile, match=r"ck\.data-00000-of-00001 is missing.*gitignore"):
        bundle.array("a")


def test_a_linked_data_file_is_refused(tmp_path: Path) -> None:
    bundle = made(tmp_path, {b"a": tf.entry(ONE, shape=[6])})
    data = tmp_path / "ck.data-00000-of-00001"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnreadableFile, match="symbolic link"):
        bundle.array("a")


def _shared_beyond_the_key() -> bytes:
    return tf.table(tf.sealed(b"\x01\x00\x00" + bytes(4) + b"\x01\0\0\0"))


def _prefix_bomb() -> bytes:
    # Each entry of four bytes makes a key one byte longer.
    bomb = b"".join(tf.varint(k) + b"\x01\x00a" for k in range(3000))
    return tf.table(tf.sealed(bomb + bytes(4) + b"\x01\0\0\0"))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (lambda: b"", "is no index"),
        (lambda: bytes(100), "is no index"),
        (lambda: tf.table(tf.block([]))[1:], "checksum of a block|cut short"),
        (lambda: tf.table(tf.block([tf.header()])).replace(bytes(20), b"\1" * 20), "its last bytes"),
        (lambda: tf.table(tf.block([])), "has no header"),
        (lambda: tf.table(tf.block([(b"a", b"")])), "has no header"),
        (lambda: tf.table(tf.block([tf.header(0)])), "names 0 data files"),
        (lambda: tf.table(tf.block([tf.header(65)])), "names 65 data files"),
        (lambda: tf.table(tf.block([tf.header(-1)])), "names -1 data files"),
        (lambda: tf.table(tf.block([tf.header(1, 1)])), "big-endian"),
        (lambda: tf.table(tf.block([tf.header()], compression=1)), "compressed"),
        (lambda: tf.table(tf.block([tf.header()], restarts=1 << 30)), "restarts"),
        (lambda: tf.table(tf.sealed(b"")), "restarts"),
        (lambda: tf.table(tf.block([tf.header(), (b"a", b""), (b"a", b"")])), "not in order"),
        (lambda: tf.table(tf.block([tf.header(), (b"b", b""), (b"a", b"")])), "not in order"),
        (lambda: tf.table(tf.block([tf.header()]), tf.block([tf.header()])), "not in order"),
        (lambda: tf.table(tf.block([tf.header()]), handles=[tf.handle(1 << 40, 5)]), "a block ends at"),
        (lambda: tf.table(tf.block([tf.header()]), handles=[tf.handle(0, 1 << 63)]), "a block ends at"),
        (lambda: tf.table(tf.block([tf.header()]), handles=[tf.handle(0, 3)]), "checksum of a block"),
        (lambda: tf.table(tf.block([]), handles=[tf.handle(0, 8)] * 2), "overlap"),
        (lambda: tf.table(tf.block([]), handles=[b"\xff" * 10]), "has no end"),
        (lambda: tf.table(tf.sealed(b"\x00\x05\x05abc" + bytes(4) + b"\x01\0\0\0")), "does not fit"),
        (_shared_beyond_the_key, "does not fit"),
        (_prefix_bomb, "does not fit"),
        (lambda: tf.table(tf.block((b"%06d" % k, b"") for k in range(20_001))), "more than 20000 keys"),
        (lambda: bytes(5 << 20), "larger than 4 MiB"),
    ],
)
def test_a_crafted_index_is_refused(tmp_path: Path, index: Callable[[], bytes], said: str) -> None:
    (tmp_path / "ck.index").write_bytes(index())
    with pytest.raises(ModelError, match=said):
        opened(tmp_path / "ck")


def test_every_flipped_bit_is_seen_but_one(tmp_path: Path) -> None:
    tf.write_bundle(tmp_path / "ck", {b"a": tf.entry(ONE, shape=[6])}, ONE)
    harmless = []
    for name in ("ck.index", "ck.data-00000-of-00001"):
        intact = (tmp_path / name).read_bytes()
        footer = 8 * max(0, len(intact) - 60)
        for bit in (*range(0, footer, 9), *range(footer, len(intact) * 8)):
            damaged = bytearray(intact)
            damaged[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(damaged)
            try:
                assert opened(tmp_path / "ck").array("a").tolist() == [0, 1, 2, 3, 4, 5]
            except ModelError:
                continue
            harmless.append((name, bit))
        (tmp_path / name).write_bytes(intact)
    # The last varint of the footer is followed by zeros, and may be one byte longer: the same number.
    size = len((tmp_path / "ck.index").read_bytes()) - 48 + 3
    assert harmless == [("ck.index", 8 * size + 7)]


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    tf.write_bundle(tmp_path / "ck", {b"a": tf.entry(ONE, shape=[6])}, ONE)
    for name in ("ck.index", "ck.data-00000-of-00001"):
        intact = (tmp_path / name).read_bytes()
        for length in range(len(intact)):
            (tmp_path / name).write_bytes(intact[:length])
            with pytest.raises(ModelError):
                opened(tmp_path / "ck").array("a")
        (tmp_path / name).write_bytes(intact)
