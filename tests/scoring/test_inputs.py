import csv
import gzip
import io
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from small_models import classes, dense, lstm, model, numbers

from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.errors import InvalidInput
from lstm_serve.formats import csv_table
from lstm_serve.formats.csv_layout import NamedColumns
from lstm_serve.model.metadata import About, Feature
from lstm_serve.model.model import Model
from lstm_serve.scoring import inputs

Numbers = NDArray[Any]

NAMES = ("alpha", "beta", "gamma")
NAMED = classes(about=About(name="m", features=tuple(Feature(name=name) for name in NAMES)))
UNNAMED = classes()
FREE = classes((None, 3))
ROWS = np.arange(18, dtype=np.float64).reshape(6, 3)

matrices = nps.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.just(3)),
    elements=st.floats(-1e30, 1e30, allow_nan=False),
)


def text_of(rows: Numbers, header: tuple[str, ...] | None = None, mark: str = ",", end: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark, lineterminator=end)
    if header is not None:
        writer.writerow(header)
    writer.writerows([repr(float(value)) for value in row] for row in rows)
    return text.getvalue()


class Found(NamedTuple):
    """What is read of one series, or of ready sequences."""

    x: Numbers
    numbers: Sequence[int]
    noun: str


def units(
    tmp_path: Path, content: bytes | str, on: Model = UNNAMED, stride: int = 1, by: Sequence[str] = ()
) -> inputs.Sequences:
    path = tmp_path / "input"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return inputs.read(str(path), on, stride, by)


def read(tmp_path: Path, content: bytes | str, on: Model = UNNAMED, stride: int = 1) -> Found:
    found = units(tmp_path, content, on, stride)
    (part,) = found.parts
    return Found(part.x, part.numbers, found.noun)


def refusal(tmp_path: Path, content: bytes | str, on: Model = UNNAMED, stride: int = 1, by: Sequence[str] = ()) -> str:
    with pytest.raises(InvalidInput) as caught:
        units(tmp_path, content, on, stride, by)
    assert str(caught.value).startswith(str(tmp_path / "input"))
    return str(caught.value)


def npy(array: Numbers) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Numbers) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


# Columns


@given(
    rows=matrices,
    mark=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    blank=st.sampled_from(["", "{end}", "{end}{end}", " {end}", ",,{end}"]),
    order=st.permutations([*NAMES, "extra; one", "extra, two"]),
)
def test_csv_reads_back_equal_in_every_dialect(
    rows: Numbers, mark: str, end: str, encoding: str, blank: str, order: list[str]
) -> None:
    wide = np.hstack([rows, rows[:, :2]])
    shuffled = wide[:, [[*NAMES, "extra; one", "extra, two"].index(name) for name in order]]
    text = text_of(shuffled, tuple(order), mark, end) + blank.format(end=end).replace(",", mark)
    read = csv_table.read(text.encode(encoding), NAMES, 3)
    assert np.array_equal(read.values, rows)
    assert read.names == NAMES
    assert len(read.notes) == 1
    assert read.notes[0].startswith("left out the columns extra")


@given(rows=matrices, mark=st.sampled_from(",;\t"), names=st.sampled_from([NAMES, None]))
def test_csv_without_a_header_is_in_the_order_of_the_features(
    rows: Numbers, mark: str, names: tuple[str, ...] | None
) -> None:
    read = csv_table.read(text_of(rows, mark=mark).encode(), names, 3)
    assert np.array_equal(read.values, rows)
    assert read.notes == ()


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (b"a,b;c\n1,2\n", None, [[1, 2]]),
        (b"a,b;c,d\n1;2\n", None, [[1, 2]]),
        (b"p,q,r;s\n1;2\n", ["p,q,r", "s"], [[1, 2]]),
        (b"x\ty,z\n1\t2\n", ["y,z"], [[2]]),
        (b'"a;b","c\nd"\n1,2\n', None, [[1, 2]]),
    ],
)
def test_a_mark_within_a_name_parts_nothing(text: bytes, names: list[str] | None, expected: list[list[float]]) -> None:
    assert csv_table.read(text, names, len(expected[0])).values.tolist() == expected


def test_a_header_without_names_in_the_card_is_taken_in_order_and_said() -> None:
    read = csv_table.read(text_of(ROWS, ("u", "v", "w")).encode(), None, 3)
    assert np.array_equal(read.values, ROWS)
    assert read.names == ("u", "v", "w")
    assert "taken in their order" in read.notes[0]


@pytest.mark.parametrize("more", [b"", b",7"])
def test_names_that_are_numbers_make_a_header(more: bytes) -> None:
    read = csv_table.read(b"1,0%b\n5,6%b\n" % (more, more), ["0", "1"], 2)
    assert read.values.tolist() == [[6, 5]]


def test_a_long_header_is_looked_at_whole() -> None:
    names = [f"a;b;{k}" for k in range(50)]
    text = f"{','.join(names)}\n{','.join(map(str, range(50)))}\n"
    assert csv_table.read(text.encode(), names[-2:], 2).values.tolist() == [[48, 49]]


@pytest.mark.parametrize(
    ("text", "by", "labels", "keys", "truth"),
    [
        (b"a;b;unit,x\nk ,1\n", ["a;b;unit"], [], [("k",)], None),
        (b"0,1\n1,6\n", [], ["1"], None, 6.0),
        (b"x,y\n1, 2 \n", [], ["y"], None, 2.0),
        (b"x,y\n1, \n", [], ["y"], None, np.nan),
    ],
    ids=["a mark in a key", "names that are numbers", "blanks around a label", "no label"],
)
def test_keys_and_labels_stand_beside_what_the_card_does_not_name(
    text: bytes, by: list[str], labels: list[str], keys: list[tuple[str, ...]] | None, truth: float | None
) -> None:
    read = csv_table.read(text, None, 1, NamedColumns(tuple(by), tuple(labels)))
    assert (read.values.tolist(), read.keys) == ([[1]], keys)
    if truth is None:
        assert read.truth is None
    else:
        assert read.truth is not None
        np.testing.assert_array_equal(read.truth, [[truth]])


@pytest.mark.parametrize(("text", "said"), [(b"0,5\n1,5\n", "write it with a point"), (b"1;2\n3;4\n", "has 2 columns")])
def test_of_one_column_too_the_mark_is_told(text: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        csv_table.read(text, None, 1)


def test_blank_lines_before_the_first_row_are_skipped() -> None:
    assert csv_table.read(b"\n\n1;2\n", None, 2).values.tolist() == [[1, 2]]


def test_a_free_width_takes_any_number_of_columns() -> None:
    assert csv_table.read(b"a,b\n1,2\n", None, None).values.tolist() == [[1, 2]]


def test_an_exported_index_without_a_name_is_left_out() -> None:
    read = csv_table.read(b",alpha,beta,gamma\n0,1,2,3\n", NAMES, 3)
    assert read.values.tolist() == [[1, 2, 3]]
    assert read.notes == ("left out the column '', no feature of the model",)


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (
            "alpha,beta\n1,2\n",
            NAMES,
            "lacks the column gamma, which the model needs. Its header has 2 columns: alpha, beta",
        ),
        ("alpha,x\n1,2\n", NAMES, "lacks the columns beta, gamma,"),
        ("alpha,beta,gamma,beta\n1,2,3,4\n", NAMES, "has the column beta more than once"),
        ("\x1b[2J,b\n1,2\n", NAMES, r"'\x1b[2J', b"),
        (f"{'a' * 999},b\n1,2\n", NAMES, "aaa..."),
        ("alpha,Beta,GAMMA\n1,2,3\n", NAMES, ". The names differ in case: Beta for beta, GAMMA for gamma"),
        ("a,b\n1,2\n", None, "has 2 columns, and the model takes 3. Name the features"),
        ("1,2\n", None, "has 2 columns and no header, and the model takes 3. With a header"),
        ("1 2 3\n", None, "has 1 column, and the model takes 3 (are its columns parted by spaces?"),
        ("alpha beta gamma\n1 2 3\n", NAMES, "which the model needs (are its columns parted by spaces?"),
        ("0,5;1,5;2,5\n", None, "row 1 (line 1), column 1 holds '0,5', which is no number: write it with a point"),
        ("0,5;1;2\n", NAMES, "column 'alpha' holds '0,5', which is no number: write it with a point"),
        ("alpha;beta;gamma\n1;2;3,25\n", NAMES, "column 'gamma' holds '3,25', which is no number: write it with"),
        ("alpha,beta,gamma\n", NAMES, "has a header and no rows under it"),
        ("1,2,3\n4,5\n", None, "row 2 (line 2) has 2 cells, and the first has 3"),
        ("1,2,3\n4,5,6,7\n", None, "row 2 (line 2) has 4 cells, and the first has 3"),
        ("alpha,beta,gamma\n1,2,3\n4,n/a,6\n", NAMES, "row 2 (line 3), column 'beta' holds 'n/a', which is no number"),
        ("1,2,3\n4,x,6\n", None, "row 2 (line 2), column 2 holds 'x', which is no number"),
        ("1,,3\n", NAMES, "row 1 (line 1), column 'beta' holds nothing"),
        ("alpha,beta,gamma\n1,2,1_000\n", NAMES, "column 'gamma' holds '1_000', which is no number"),
        ("1,2,3\n\n4,5,6\n", None, "line 2 is empty, and more rows come after it"),
        (" \n\n", None, "has no rows"),
        ("1,2,3\n4,\u0665,6\n", None, "row 2 (line 2), column 2 holds '\u0665', which is no number"),
        ("#TYPE System.Object\n1,2,3\n4,x,6\n", None, "row 2 (line 3), column 2 holds 'x'"),
        (f"1,2,{'3' * 140_000}\n", None, "is not CSV from line"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said(text: str, names: tuple[str, ...] | None, expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        csv_table.read(text.encode(), names, 3)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_line_that_powershell_writes_before_a_header_is_left_out() -> None:
    text = '#TYPE System.Management.Automation.PSCustomObject\r\n"gamma","beta","alpha"\r\n"3","2","1"\r\n'
    assert csv_table.read(text.encode(), NAMES, 3).values.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e39"])
def test_a_cell_that_is_no_finite_number_is_refused_by_row_and_column(tmp_path: Path, value: str) -> None:
    text = f"gamma,beta,alpha\n1,2,3\n1,{value},3\n"
    assert "row 2 (line 3), column 'beta' holds" in refusal(tmp_path, text, NAMED)


# Forms


@given(rows=matrices)
def test_every_form_reads_the_same(tmp_path_factory: pytest.TempPathFactory, rows: Numbers) -> None:
    folder = tmp_path_factory.mktemp("forms")
    listed = json.dumps(rows.tolist())
    forms: list[bytes | str] = [
        text_of(rows),
        npy(rows),
        npz(x=rows, y=rows),
        npz(other=rows),
        listed,
        f'\ufeff{{"sequence": {listed}}}',
    ]
    for form in forms:
        found = read(folder, form, FREE)
        assert np.array_equal(found.x, rows[np.newaxis])
        assert found.numbers == range(len(rows), len(rows) + 1)
        assert found.noun == "row"


@pytest.mark.parametrize("key", ["", '{"sequences": '])
def test_many_sequences_are_numbered(tmp_path: Path, key: str) -> None:
    x = np.arange(24).reshape(2, 4, 3)
    for form in (npy(x), npz(x=x), key + json.dumps(x.tolist()) + "}" * bool(key)):
        found = read(tmp_path, form)
        assert np.array_equal(found.x, x)
        assert (found.numbers, found.noun) == (range(1, 3), "sequence")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def handed(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    handed(text_of(ROWS).encode())
    assert len(inputs.read("-", UNNAMED).parts[0].x) == 3
    handed(b"")
    with pytest.raises(InvalidInput, match=r"^standard input: is empty"):
        inputs.read("-", UNNAMED)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs names of descriptors")
def test_a_pipe_is_read_once_from_its_start() -> None:
    rows = np.arange(3000.0).reshape(-1, 3)
    read, write = os.pipe()
    with open(read, "rb"), open(write, "wb") as pipe:  # noqa: PTH123 - descriptors
        pipe.write(text_of(rows).encode())
        pipe.close()
        found = inputs.read(f"/dev/fd/{read}", FREE)  # as a shell's <(...) names it
    np.testing.assert_array_equal(found.parts[0].x, rows[np.newaxis])


def workbook() -> bytes:
    with zipfile.ZipFile(kept := io.BytesIO(), "w") as file:
        for name in ("docProps/app.xml", "xl/workbook.xml", "[Content_Types].xml"):
            file.writestr(zipfile.ZipInfo(name), "<Types/>")  # of no time of the day
    return kept.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\x89HDF\r\n\x1a\n", "is neither .npy, .npz, JSON, Parquet nor CSV in UTF-8"),
        (gzip.compress(b"1,2,3", mtime=0), "is compressed by gzip. Unpack it first: gunzip FILE"),
        (workbook(), "is a workbook, as of Excel: save it as CSV"),
        (b"\x93NUMPY", "is not a NumPy array, or is damaged"),
        (b"\x93NUMPY\xff\x07" + npy(ROWS)[8:], "is not a NumPy array, or is damaged"),
        (b"PK\x03\x04", "the zip is cut short"),
        (b'1,2,3\n4,"5\n6",7\n8,9,10\n', "a cell of line 2 goes on in the next one, in quotation marks"),
        (b'1,2,3\n4,"5"6,7\n', "is not CSV from line 2 on"),
        (npy(np.array([None])), "holds Python objects, and reading those could run any code. Save numbers: np.save("),
        (npy(np.array([[True]])), "holds bool, where numbers were expected"),
        (npz(a=ROWS, b=ROWS), "should hold one array, or one named x; it has a, b"),
        (b"[[1, NaN]]", "begins as JSON and is not valid"),
        (b"{}", 'should be {"sequence": ...} or {"sequences": ...}'),
        (b'{"sequence": [], "more": 1}', "sequence, more"),
        (b'{"inputs": []}', "inputs"),
        (b'{"sequences": [[1, 2, 3]]}', 'holds lists 2 deep as "sequences", where 3 were expected'),
        (b"[[1, 2, 3], [4, 5]]", "holds rows of different lengths"),
        (b"[[1, true, 3]]", "holds true or false"),
        (b"[[1, false, 3]]", "holds true or false"),
        (b'[["1", "2", "3"]]', "holds text, where numbers were expected"),
        (b'{"sequence": "abc"}', "holds text, where numbers were expected"),
        (b'{"sequence": [{"a": 1}]}', "holds objects, where numbers were expected"),
        (b"[[1, null, 3]]", "holds null, where numbers were expected"),
        (npy(ROWS.T), "was expected: are its last two axes swapped?"),
        (npy(np.zeros((2, 3, 4))), "was expected: are its last two axes swapped?"),
        (b"[]", "holds an array of shape (0,), where rows of 3 features, or an array of shape (n, 4, 3) was expected"),
        (b"[[1, 2]]", "holds an array of shape (1, 2), where rows of 3 features"),
        (b"[[[1, 2, 3]]]", "where an array of shape (n, 4, 3), or a series, rows of 3 features, was expected"),
        (npy(np.zeros((0, 3))), "holds an empty array, of shape (0, 3)"),
        (npy(ROWS[:3]), "has 3 rows, and the model needs 4 for an answer"),
        (npy(np.where(ROWS == 4, np.nan, ROWS)), "row 2, column 2 holds nan, and a finite float32 number was expected"),
        (npy(np.full((1, 4, 3), np.inf)), "sequence 1, row 1, column 1 holds inf"),
        (npy(np.where(np.arange(24) < 22, 0, np.inf).reshape(2, 4, 3)), "sequence 2, row 4, column 2 holds inf"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in refusal(tmp_path, content)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        inputs.read(str(tmp_path / "none"), UNNAMED)
    with pytest.raises(InvalidInput, match="is a folder: name a file in it"):
        inputs.read(str(tmp_path), UNNAMED)
    monkeypatch.setattr(inputs, "MAX_BYTES", 8)
    assert "predict it in parts" in refusal(tmp_path, b"1,2,3,4,5")


def test_no_csv_file_holds_an_image_a_step(tmp_path: Path) -> None:
    assert "and no other holds what this model takes" in refusal(tmp_path, "1,2", model([dense(3, 2)], (4, 2, 3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_of_a_client_is_kept_in_what_the_model_takes(dtype: type) -> None:
    """Twice the memory of a large body would be too much; of a model that scales its inputs the digits are needed."""
    on = replace(UNNAMED, inputs=(UNNAMED.inputs[0]._replace(dtype=np.dtype(dtype)),))
    (part,) = inputs.read_csv(text_of(ROWS + 0.1).encode(), on, 1, ()).parts
    assert part.x.dtype == dtype
    assert np.array_equal(part.x[0], (ROWS + 0.1)[:4].astype(dtype))


def test_a_model_of_plain_rows_takes_each_row_of_a_file(tmp_path: Path) -> None:
    plain = model([dense(3, 2)], (3,))
    found = read(tmp_path, text_of(ROWS), plain)
    assert np.array_equal(found.x, ROWS)
    assert found.noun == "sequence"
    assert read(tmp_path, "[1, 2, 3]", plain).x.tolist() == [[1, 2, 3]]
    assert "place 2 holds inf" in refusal(tmp_path, npy(np.array([1, np.inf, 3])), plain)


IDS = model([Embedding(name="words", embeddings=numbers(9, 3), mask_zero=True), lstm(3, 2)], (4,))
ANY_IDS = model([Embedding(name="words", embeddings=numbers(9, 3), mask_zero=True), lstm(3, 2)], (None,))


def test_ids_are_read_from_every_form(tmp_path: Path) -> None:
    ids = np.array([[0, 8, 1, 2], [3, 3, 0, 0]])
    forms = (
        "0,8,1,2\n3,3,0,0\n",
        "a;b;c;d\n0;8;1;2\n3;3;0;0\n",
        npy(ids),
        npy(ids.astype(np.float32)),
        npz(x=ids),
        json.dumps(ids.tolist()),
        json.dumps({"sequences": ids.tolist()}),
    )
    for form in forms:
        found = read(tmp_path, form, IDS)
        assert np.array_equal(found.x, ids)
        assert (found.numbers, found.noun) == (range(1, 3), "sequence")
        assert np.array_equal(IDS.predict(found.x), IDS.predict(ids))
    assert read(tmp_path, '{"sequence": [0, 8, 1, 2]}', IDS).x.tolist() == [[0, 8, 1, 2]]
    assert read(tmp_path, "[5, 8]", ANY_IDS).x.tolist() == [[5, 8]]
    # A feature that the card names is what every column holds.
    named = replace(IDS, about=About(name="m", features=(Feature(name="word"),)))
    assert np.array_equal(read(tmp_path, forms[0], named).x, ids)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("0,8,1,2\n3,9,0,0\n", "row 2 (line 2), column 2 holds 9.0, and an integer id from 0 to 8 was expected"),
        ("0,8,1,2.5\n", "row 1 (line 1), column 4 holds 2.5, and an integer id"),
        ("[0, 1, -1, 2]", "place 3 holds -1, and an integer id"),
        ("0,1,2\n", "where an array of shape (n, 4) of integers from 0 to 8 was expected"),
        ("[0, 1, 2, 3, 4]", "holds an array of shape (5,), where an array of shape (n, 4) of integers from 0 to 8 was"),
        ("[[[0]]]", "where an array of shape (n, 4) of integers from 0 to 8 was expected"),
        (
            "t0,t1,t2,t3,label\n0,8,1,2,1\n",
            "has 5 columns, and the model takes 4 ids a row; after the first 4 its header has label. Take away",
        ),
    ],
)
def test_what_is_no_id_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in refusal(tmp_path, content, IDS)


# Windows


@given(rows=st.integers(4, 30), stride=st.integers(1, 40))
def test_windows_are_naive_slices(tmp_path_factory: pytest.TempPathFactory, rows: int, stride: int) -> None:
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    found = read(tmp_path_factory.mktemp("windows"), npy(values), stride=stride)
    starts = range(0, rows - 4 + 1, stride)
    assert np.array_equal(found.x, [values[start : start + 4] for start in starts])
    assert list(found.numbers) == [start + 4 for start in starts]
    assert np.shares_memory(found.x, found.x.base)


@pytest.mark.parametrize(("content", "on"), [(npy(ROWS), FREE), (npy(np.zeros((2, 4, 3))), UNNAMED)])
def test_a_stride_where_there_are_no_windows_is_refused(tmp_path: Path, content: bytes, on: Model) -> None:
    assert "a stride of 2 means nothing" in refusal(tmp_path, content, on, stride=2)


@pytest.mark.parametrize("shape", [(-20, -15), (1,) * 72, (True, 20, 15), (0, 10**20)])
def test_a_shape_that_is_none_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = 4 if len(shape) > 3 else 1200 if shape[0] else 0
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(size))
    with pytest.raises(InvalidInput, match="none of an array"):
        inputs.read(str(path), classes())


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"sequence": [[1, 2, 3]], "sequence": [[4, 5, 6]]}')
    with pytest.raises(InvalidInput, match='holds "sequence" more than once'):
        inputs.read(str(path), classes((1, 3)))


def test_a_header_that_counts_the_columns_is_one(tmp_path: Path) -> None:
    path = tmp_path / "pandas.csv"
    path.write_text("0,1,2\n" + "".join(f"{k},{k},{k}\n" for k in range(5)))
    sequences = inputs.read(str(path), UNNAMED)
    (part,) = sequences.parts
    assert list(part.numbers) == [4, 5]
    assert part.x[0, 0].tolist() == [0, 0, 0]
    assert any("in their order" in note for note in sequences.notes)


# Units


def table_of(keys: Sequence[tuple[str, ...]], names: Sequence[str], extra: Sequence[str] = ()) -> str:
    """Keys, further columns that count the rows, and the three features: 3 k, 3 k + 1, 3 k + 2 in row k from 0."""
    lines = [",".join([*names, *extra, *NAMES])]
    lines += [
        ",".join([*key, *[str(k)] * len(extra), *(str(3 * k + j) for j in range(3))]) for k, key in enumerate(keys)
    ]
    return "\n".join(lines) + "\n"


@given(
    keys=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12")), min_size=1, max_size=40),
    stride=st.integers(1, 5),
)
def test_no_window_reaches_from_one_unit_into_another(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, str]], stride: int
) -> None:
    rows = np.arange(3 * len(keys), dtype=float).reshape(-1, 3)
    expected = {}
    for key in dict.fromkeys(keys):
        places = [k for k, each in enumerate(keys) if each == key]
        ends = places[3::stride]
        if ends:
            starts = [places.index(end) - 3 for end in ends]
            expected[key] = [rows[places[start : start + 4]] for start in starts], [end + 1 for end in ends]
    folder = tmp_path_factory.mktemp("units")
    text = table_of(keys, ["site", "unit"])
    if not expected:
        said = refusal(folder, text, NAMED, stride, ["site", "unit"])
        longest = max(map(keys.count, keys))
        assert f"has no unit with the 4 rows that the model needs for an answer: the longest has {longest}" in said
        return
    found = units(folder, text, NAMED, stride, ["site", "unit", "site"])
    assert found.by == ("site", "unit")
    assert [part.key for part in found.parts] == list(expected)
    for part, (windows, ends) in zip(found.parts, expected.values(), strict=True):
        assert np.array_equal(part.x, windows)
        assert list(part.numbers) == ends
    outputs = NAMED.predict_series(rows, stride, keys)
    np.testing.assert_allclose(
        outputs, np.concatenate([NAMED.predict(part.x) for part in found.parts]), rtol=1e-6, atol=1e-6
    )


def test_units_of_too_few_rows_have_no_answer_and_are_told(tmp_path: Path) -> None:
    keys = [("1",)] * 5 + [("2",)] * 3 + [("3",)] * 4
    found = units(tmp_path, table_of(keys, ["unit"]), NAMED, by=["unit"])
    assert [(part.key, list(part.numbers)) for part in found.parts] == [(("1",), [4, 5]), (("3",), [12])]
    assert found.notes == ("no answer for 1 of 3 units, of fewer rows than the 4 that the model needs: 2 (3)",)


def test_each_unit_is_one_sequence_where_the_time_axis_is_free(tmp_path: Path) -> None:
    on = replace(FREE, about=NAMED.about)
    text = table_of([("1",)] * 2 + [("2",)] * 3, ["unit"])
    found = units(tmp_path, text, on, by=["unit"])
    assert [(part.x.shape, list(part.numbers)) for part in found.parts] == [((1, 2, 3), [2]), ((1, 3, 3), [5])]
    assert "a stride of 2 means nothing" in refusal(tmp_path, text, on, 2, ["unit"])
    y = on.predict_series(np.arange(15).reshape(5, 3), by="11222")
    np.testing.assert_allclose(y, np.concatenate([on.predict(part.x) for part in found.parts]), rtol=1e-6)


def test_a_key_column_is_none_of_the_columns_that_are_taken_in_their_order(tmp_path: Path) -> None:
    found = units(tmp_path, table_of([("a",)] * 4, ["unit"]), UNNAMED, by=["unit"])
    assert found.parts[0].x[0, 0].tolist() == [0, 1, 2]
    assert "so the 3 columns are taken in their order" in found.notes[0]
    wide = table_of([("a",)] * 4, ["unit"], ["cycle"])
    assert "has 4 columns besides unit, and the model takes 3" in refusal(tmp_path, wide, UNNAMED, by=["unit"])


@pytest.mark.parametrize(
    ("content", "on", "expected"),
    [
        (table_of([("a",)] * 4, ["Unit"]), NAMED, "lacks the column unit, which `by` names. Its header has 4 columns"),
        (table_of([("a",)] * 4, ["Unit"]), NAMED, "The names differ in case: Unit for unit"),
        (text_of(ROWS, NAMES), NAMED, "lacks the column unit, which `by` names"),
        (text_of(ROWS), UNNAMED, "lacks the column unit, which `by` names"),
        ("unit,unit,alpha,beta,gamma\n1,1,1,1,1\n", NAMED, "has the column unit more than once"),
        (table_of([("a",), ("",)] * 4, ["unit"]), NAMED, "row 2 (line 3), column 'unit' holds nothing"),
        (npy(ROWS), NAMED, "has no columns with names; --by takes those of a CSV file"),
        (npy(np.zeros((2, 4, 3))), NAMED, "is no series to be cut into windows, so --by means nothing"),
    ],
)
def test_what_is_wrong_with_keys_is_said(tmp_path: Path, content: bytes | str, on: Model, expected: str) -> None:
    assert expected in refusal(tmp_path, content, on, by=["unit"])


def mixed(tmp_path: Path, text: str, on: Model = NAMED) -> str:
    return units(tmp_path, text, on).mixed or ""


def test_a_left_out_column_that_looks_like_a_unit_is_told(tmp_path: Path) -> None:
    three = [(name,) for name in ("1", "2", "3") for _ in range(6)]
    said = mixed(tmp_path, table_of(three, ["unit"], ["cycle"]))
    assert said.startswith("the column unit, left out, looks as if it told units apart")
    assert "each is a series of its own: on the command line --by unit, over HTTP ?by=unit" in said
    assert units(tmp_path, table_of(three, ["unit"], ["cycle"]), NAMED).units == ("unit", ["1", "2", "3"], [6, 12, 18])
    assert "--by 'the unit', over HTTP ?by=the%20unit" in mixed(tmp_path, table_of(three, ["the unit"]))
    for text in (
        table_of([(str(k % 6),) for k in range(18)], ["cycle"]),
        table_of([(str(k % 6 + 1), "P-12") for k in range(18)], ["cycle", "plant"]),
    ):
        said = mixed(tmp_path, text)
        assert said.startswith("the column cycle, left out, counts up and starts anew 2 times")
        assert "on the command line --by COLUMN, over HTTP ?by=COLUMN" in said


@pytest.mark.parametrize(
    "keys",
    [
        [str(k) for k in range(18)],  # a counter that never starts anew
        ["1"] * 18,  # one unit
        [str(k % 3) for k in range(18)],  # no long runs
        [str(k * 7 % 18) for k in range(18)],  # a measurement
        ["on"] * 6 + ["off"] * 6 + ["on"] * 6,  # a state that comes back
        ["", *["x"] * 17],  # a mark in one row
    ],
)
def test_other_columns_that_are_left_out_are_no_unit(tmp_path: Path, keys: list[str]) -> None:
    assert mixed(tmp_path, table_of([(key,) for key in keys], ["other"])) == ""


def test_where_no_window_slides_nothing_is_mixed(tmp_path: Path) -> None:
    keys = [(name,) for name in ("1", "2") for _ in range(5)]
    assert (
        mixed(tmp_path, table_of(keys, ["unit"]), replace(NAMED, inputs=(NAMED.inputs[0]._replace(shape=(10, 3)),)))
        == ""
    )
    assert units(tmp_path, table_of(keys, ["unit"]), NAMED, by=["unit"]).mixed is None
