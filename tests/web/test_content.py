"""Other forms of a body: compressed ones, and NumPy's files in and out."""

import gzip
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_requests import GOOD, LIMIT, MARK, refused
from serving import GOLDEN, SMALL, Clients, Golden, call, in_loop, started

from lstm_serve.errors import LstmServeError, Malformed, TooLarge
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app
from lstm_serve.web.inflate import inflate

NPY = {"content-type": "application/x-npy"}
ACCEPT_NPY = {"accept": "application/x-npy"}
BATCH = "/predict/batch"


# Records, whose field has a name that was chosen by who sent it.
RECORDS = np.zeros((1, 20), [(MARK, "<f4", 15)])


def npy(x: npt.NDArray[Any], *, pickled: bool = False, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, x, allow_pickle=pickled, **options)
    return file.getvalue()


# Compressed bodies.


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "GZIP"])
def test_compressed(client: httpx.Client, encoding: str) -> None:
    packed = zlib.compress(GOOD) if encoding == "deflate" else gzip.compress(GOOD)
    response = client.post("/predict", content=packed, headers={"content-encoding": encoding})
    assert response.status_code == 200, response.text
    assert response.json() == client.post("/predict", content=GOOD, headers={"content-encoding": "identity"}).json()


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", ""])
def test_other_encodings(client: httpx.Client, encoding: str) -> None:
    response = client.post("/predict", content=gzip.compress(GOOD), headers={"content-encoding": encoding})
    assert "gzip" in refused(response, 415, "unknown-type")


@pytest.mark.parametrize(
    "packed",
    [
        GOOD,
        gzip.compress(GOOD)[:-1],
        gzip.compress(GOOD)[:40],
        gzip.compress(GOOD) + b"\0",
        gzip.compress(GOOD[:200]) + gzip.compress(GOOD[200:])[:-1],
        gzip.compress(GOOD[:200]) + GOOD[200:],
        gzip.compress(GOOD[:200]) + zlib.compress(GOOD[200:]),
        zlib.compress(GOOD[:200]) + zlib.compress(GOOD[200:]),
        zlib.compress(GOOD) + gzip.compress(b""),
    ],
    ids=[
        "plain",
        "cut in the end",
        "cut in the middle",
        "more after it",
        "its second member cut",
        "half of it plain",
        "a zlib stream after a member",
        "two zlib streams",
        "a member after a zlib stream",
    ],
)
def test_damaged(client: httpx.Client, packed: bytes) -> None:
    refused(client.post("/predict", content=packed, headers={"content-encoding": "gzip"}), 400, "malformed")


def test_several_members(client: httpx.Client) -> None:
    """As `cat a.gz b.gz` makes them, and bgzip, which ends with an empty one."""
    wanted = client.post("/predict", content=GOOD).json()
    halves = gzip.compress(GOOD[:300]) + gzip.compress(GOOD[300:]) + gzip.compress(b"")
    for encoding in ("gzip", "x-gzip", "deflate"):
        response = client.post("/predict", content=halves, headers={"content-encoding": encoding})
        assert response.json() == wanted


def test_members_are_bounded_by_what_they_hold_together_and_by_their_number(client: httpx.Client) -> None:
    def post(packed: bytes) -> httpx.Response:
        return client.post("/predict", content=packed, headers={"content-encoding": "gzip"})

    body = GOOD + b" " * (LIMIT - len(GOOD))
    blocks = b"".join(gzip.compress(body[k : k + 65_280]) for k in range(0, LIMIT, 65_280))
    assert post(blocks + gzip.compress(b"")).status_code == 200
    assert str(LIMIT) in refused(post(blocks + gzip.compress(b" ")), 413, "too-large")
    assert "members; send it as one" in refused(post(gzip.compress(b" ") * 1000), 400, "malformed")


def test_the_limit_is_of_what_is_inflated(client: httpx.Client) -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (100 * LIMIT, 413)):
        packed = gzip.compress(GOOD + b" " * (size - len(GOOD)))
        assert len(packed) < LIMIT
        response = client.post("/predict", content=packed, headers={"content-encoding": "gzip"})
        assert response.status_code == status
        if status == 413:
            assert str(LIMIT) in refused(response, 413, "too-large")


@in_loop
async def test_the_bytes_in_flight_are_those_inflated_and_given_back() -> None:
    app = create_app(Settings(model=SMALL / "binary.h5", max_body_bytes=5000, max_inflight_bytes=4000))
    serving: ServingState = app.state.serving
    async with started(app):
        packed = gzip.compress(b" " * 4500)
        answer = await call(app, "/predict", packed, headers={"content-encoding": "gzip"})
        assert answer.status == 429
        answer = await call(app, "/predict", gzip.compress(b" " * 3500), headers={"content-encoding": "gzip"})
        assert answer.status == 400
        assert serving.budget.bytes == 0


@given(st.binary(max_size=300), st.integers(0, 300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_are_inflated_within_the_limit_or_refused(data: bytes, limit: int, cuts: list[int]) -> None:
    assert inflate(gzip.compress(data), b"gzip", 300) == data
    places = [0, *sorted(cuts), len(data)]
    members = [gzip.compress(data[start:stop]) for start, stop in pairwise(places)]
    assert inflate(b"".join(members), b"gzip", 300) == data
    if len(data) > limit:
        with pytest.raises(TooLarge):
            inflate(zlib.compress(data), b"deflate", limit)
    try:
        assert len(inflate(data, b"gzip", limit)) <= limit
    except LstmServeError as error:
        assert isinstance(error, Malformed | TooLarge)  # noqa: PT017 - either is good


# NumPy's files.


def test_npy_in_and_out(client: httpx.Client, golden: Golden) -> None:
    x, y = golden
    wanted = client.post(BATCH, json={"sequences": x.tolist()})
    came = client.post(BATCH, content=npy(x), headers=NPY)
    assert came.json() == wanted.json()
    for response in (
        client.post(BATCH, content=npy(x), headers={**NPY, **ACCEPT_NPY}),
        client.post(BATCH, json={"sequences": x.tolist()}, headers={"accept": "application/x-npy, */*;q=0.1"}),
    ):
        assert response.headers["content-type"] == "application/x-npy"
        assert len(response.headers["x-model-sha256"]) == 64
        found = np.load(io.BytesIO(response.content), allow_pickle=False)
        assert found.dtype == np.float32
        assert np.abs(found - y).max() <= 1e-6


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i8", "|u1"])
def test_other_numbers_and_orders(client: httpx.Client, dtype: str) -> None:
    x = (np.arange(600).reshape(2, 20, 15) % 5).astype(dtype)
    wanted = client.post(BATCH, content=npy(x.astype(np.float32)), headers=NPY).json()
    for form in (npy(x), npy(np.asfortranarray(x)), npy(x, version=(2, 0))):
        assert client.post(BATCH, content=form, headers=NPY).json() == wanted


def headed(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


X = np.zeros((2, 20, 15), np.float32)
BOMB = npy(X).replace(b"(2, 20, 15)", b"(10**9, 20)")
HUGE = npy(X).replace(b"'shape': (2, 20, 15), }", b"'shape': (99999999,), }")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not a NumPy array"),
        (GOOD, 400, "not a NumPy array"),
        (npy(X)[:-1], 400, "holds 2399"),
        (npy(X) + b"\0", 400, "holds 2401"),
        (BOMB, 400, "not a NumPy array"),
        (HUGE, 400, "399999996 bytes"),
        (npy(np.array([{}]), pickled=True), 400, "pickle"),
        (pickle.dumps(X), 400, "not a NumPy array"),
        *((headed(text), 400, "not a NumPy array") for text in (b"{'descr': (", b'"""', b"(" * 3000, b"{'a':" * 500)),
        *(
            (headed(b"{'descr': %s, 'fortran_order': False, 'shape': (2,)}" % d), 400, "not a")
            for d in (b"()", b"('f4',)")
        ),
        (npy(np.array(["a"])), 400, "where numbers were expected"),
        (npy(RECORDS), 400, "the body holds void"),
        (npy(X > 1), 422, "expected numbers"),
        (npy(X[0]), 422, "(n, 20, 15)"),
        (npy(X.transpose(0, 2, 1)), 422, "(n, 20, 15)"),
        (npy(np.zeros((1, 40, 15))), 422, "lstm-serve predict slides windows"),
        (npy(X[:0]), 422, "empty"),
        (npy(np.array(1.0)), 422, "(n, 20, 15)"),
        (npy(np.full_like(X, np.nan)), 422, "finite"),
        (npy(np.full((1, 20, 15), 1e39)), 422, "finite float32 numbers, got another at (0, 0, 0)"),
        (npy(np.zeros((1025, 20, 15), np.uint8)), 413, "1025 sequences"),
    ],
)
def test_bad_npy(client: httpx.Client, body: bytes, status: int, words: str) -> None:
    assert words in refused(client.post(BATCH, content=body, headers=NPY), status)


def npz(*arrays: Any, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    return zipped({f"{k or 'lstm_1_input'}.npy": npy(x) for k, x in enumerate(arrays)}, kind)


def zipped(members: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "cut short"),
        (npz(X)[:-1], 400, "cut short"),
        (npz(), 422, "lstm_1_input is missing"),
        (npz(X, X), 422, "2 came"),
        (npz(X[0]), 422, "(n, 20, 15)"),
        (npz(X > 1), 422, "expected numbers"),
        # What it unpacks to counts as the body does; rows count before their numbers are looked at.
        (npz(np.zeros((7000, 20, 15), np.uint8)), 413, f"more than {LIMIT} bytes once it is unpacked"),
        (npz(*[np.zeros((1000, 20, 15), np.uint8)] * 7), 413, f"more than {LIMIT} bytes once it is unpacked"),
        (npz(np.full((1025, 20, 15), np.nan, np.float16)), 413, "1025 sequences"),
        # The library unpacks at once all that these hold, whatever it is asked for.
        (npz(np.zeros((9, 20, 15)), kind=zipfile.ZIP_BZIP2), 400, "packed unusually"),
        (npz(np.zeros((9, 20, 15)), kind=zipfile.ZIP_LZMA), 400, "packed unusually"),
        (npz(*[np.zeros(1)] * 99), 400, "lists 99 members"),
        (zipped({"lstm_1_input.npy": npy(X), "lstm_1_input": npy(X * 0)}), 400, "some of them twice"),
        # Names that were sent do not come back.
        (zipped({f"{MARK}.npy": npy(RECORDS)}), 400, "member 1 of the .npz file holds void"),
        (zipped({f"{MARK}.npy": b"?"}), 400, "member 1 of the .npz file is not a NumPy array"),
        (zipped({f"{MARK}.npy": npy(X)}).replace(MARK.encode(), b"another", 1), 400, "the .npz file is damaged"),
    ],
)
def test_bad_npz(client: httpx.Client, body: bytes, status: int, words: str) -> None:
    headers = {"content-type": "application/x-npz", "content-encoding": "gzip"}
    for path in (BATCH, "/invocations"):
        assert words in refused(client.post(path, content=gzip.compress(body), headers=headers), status)


@pytest.mark.parametrize("weight", ["q=0", " Q = 0.000", "v=1;q=0."])
def test_what_has_no_weight_is_not_accepted(client: httpx.Client, weight: str) -> None:
    accept = {"accept": f"application/x-npy;{weight}, application/x-npz;{weight}, application/json"}
    for path, headers in ((BATCH, NPY), ("/invocations", NPY), ("/predict/series", NPY)):
        body = npy(X if path != "/predict/series" else X[0])
        assert client.post(path, content=body, headers=headers | accept).json()["predictions"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json;q=0.1, application/x-npy", "x-npy"),
        ("application/json, application/x-npy;q=0.1", "json"),
        ("application/x-npy;q=0.5, */*;q=0.4", "x-npy"),
        ("application/x-npy;q=0.5, application/*", "json"),
        ("application/x-npy;q=0.5, application/*;q=0.1, */*", "x-npy"),
        ("Application/X-NPY;v=1;Q=0.50, application/json;q=0.49", "x-npy"),
        ("application/json, application/x-npy", "x-npy"),  # who names it can read it
        ("*/*", "json"),
        ("text/html", "json"),
        ("application/json;q=0", "json"),
    ],
)
def test_what_is_accepted_most_is_answered(client: httpx.Client, accept: str, kind: str) -> None:
    for path in (BATCH, "/invocations", "/predict/series"):
        body = npy(X if path != "/predict/series" else X[0])
        reply = client.post(path, content=body, headers=NPY | {"accept": accept})
        assert reply.headers["content-type"] == f"application/{kind}"


@pytest.mark.parametrize("lines", [["application/x-npy", "text/html"], ["text/html", "application/x-npy;q=0.5"]])
def test_what_is_accepted_may_come_in_several_headers(client: httpx.Client, lines: list[str]) -> None:
    headers = [*NPY.items(), *(("accept", line) for line in lines)]
    reply = client.post(BATCH, content=npy(X), headers=headers)
    assert reply.headers["content-type"] == "application/x-npy"


def test_one_sequence_is_not_a_file(client: httpx.Client) -> None:
    refused(client.post("/predict", content=npy(X), headers=NPY), 415, "unknown-type")
    # What is accepted makes no difference there.
    assert client.post("/predict", content=GOOD, headers=ACCEPT_NPY).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "kind", "status", "hint"),
    [
        (b"a,b\n1,2", "application/x-www-form-urlencoded", 415, "-H 'Content-Type: text/csv' --data-binary @name"),
        (b"own.json", "application/x-www-form-urlencoded", 415, "is not JSON; curl -d sends a file as -d @name"),
        (
            b"hello",
            "application/x-www-form-urlencoded",
            415,
            "the body is declared a form, as curl -d does, and is not",
        ),
        (b"hello", "application/json", 400, "the body is not JSON"),
        (npy(X), "application/x-www-form-urlencoded", 415, "goes to /predict/batch as application/x-npy"),
        (b"\xff\xfe" + GOOD, "application/x-www-form-urlencoded", 400, "text in UTF-16; expected JSON in UTF-8"),
        (gzip.compress(GOOD), "application/x-www-form-urlencoded", 415, "Content-Encoding"),
        (npy(X), "application/octet-stream", 415, "goes to /predict/batch as application/x-npy"),
        (b"1,2", "text/csv", 415, "CSV goes as text/csv to POST /predict/series, a row a line, or to /invocations, a"),
        (b"1,2", "multipart/form-data", 415, "CSV goes as text/csv to POST /predict/series, a row a line, or"),
        (GOOD, "application/jsonlines", 415, '{"sequences": [...]}, for /predict/batch or /invocations'),
        (npy(X), "application/json", 400, "goes to /predict/batch as application/x-npy"),
    ],
)
def test_what_is_sent_wrong_is_told_how_to_be_sent(
    client: httpx.Client, body: bytes, kind: str, status: int, hint: str
) -> None:
    assert hint in refused(client.post("/predict", content=body, headers={"content-type": kind}), status)


def test_outputs_of_different_lengths_are_no_one_array(served: Clients) -> None:
    sequences = [np.zeros((steps, 3)).tolist() for steps in (6, 4)]
    client = served(SMALL / "steps.h5")
    same = client.post(BATCH, json={"sequences": sequences[:1] * 3}, headers=ACCEPT_NPY)
    assert np.load(io.BytesIO(same.content)).shape == (3, 6, 2)
    both = client.post(BATCH, json={"sequences": sequences}, headers=ACCEPT_NPY)
    assert "different lengths" in refused(both, 422)


# What SageMaker sends.


def test_invocations_takes_one_or_many(client: httpx.Client, golden: Golden) -> None:
    x = golden[0]
    one, many = {"sequence": x[0].tolist()}, {"sequences": x.tolist()}
    assert client.post("/invocations", json=one).json() == client.post("/predict", json=one).json()
    wanted = client.post(BATCH, json=many).json()
    for mark in (b"", b"\xef\xbb\xbf"):
        assert client.post("/invocations", content=mark + json.dumps(many).encode()).json() == wanted
    response = client.post("/invocations", content=npy(x), headers={**NPY, **ACCEPT_NPY})
    assert np.load(io.BytesIO(response.content)).shape == (16, 5)
    refused(client.post("/invocations", json={}), 422)
    for both in ({"instances": x.tolist(), **many}, {**many, "instances": x.tolist()}, {**one, "inputs": x.tolist()}):
        refused(client.post("/invocations", json=both), 422)
    refused(client.post("/invocations", json={"sequences": []}), 422)
    refused(client.post("/invocations"), 400)
    assert client.get("/ping").status_code == 200


def test_invocations_takes_the_bodies_of_v1(client: httpx.Client, golden: Golden) -> None:
    x = golden[0].tolist()
    for body in ({"instances": x}, {"signature_name": "serving_default", "instances": [{"a": x[0]}]}, {"inputs": x}):
        response = client.post("/invocations", json=body)
        assert response.json() == client.post("/v1/models/k215_model:predict", json=body).json()
        assert len(response.headers["x-model-sha256"]) == 64
    wrong = client.post("/invocations", json={"instances": [x[0][:3]]})
    assert "expected a list of 20 time steps, got 3" in refused(wrong, 422, "invalid-input", ["#/instances/0"])


CSV = {"content-type": "text/csv"}


def csv(x: npt.NDArray[Any]) -> bytes:
    """As `numpy.savetxt` writes it, a flattened sequence a line."""
    return "".join(",".join(map(str, row.ravel().tolist())) + "\n" for row in x).encode()


def test_lines_of_csv_are_sequences(client: httpx.Client, golden: Golden) -> None:
    x, y = golden
    text = csv(x)
    wanted = client.post("/invocations", content=text, headers=CSV)
    assert (wanted.status_code, wanted.headers["content-type"]) == (200, "text/csv")
    found = np.loadtxt(io.StringIO(wanted.text), delimiter=",", dtype=np.float32)
    assert np.abs(found - y).max() <= 1e-6
    assert wanted.text.count("\n") == 16
    quoted = b"".join(b'"%s"\r\n' % line.replace(b",", b'","') for line in text.splitlines())
    for same in (text[:-1], text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text, text.replace(b",", b", "), quoted):
        answer = client.post("/invocations", content=same, headers={"content-type": "Text/CSV; charset=utf-8"})
        assert answer.text == wanted.text
    packed = client.post("/invocations", content=gzip.compress(text), headers={**CSV, "content-encoding": "gzip"})
    assert packed.text == wanted.text
    alone = client.post("/invocations", content=csv(x[:1]), headers=CSV).text
    native = client.post("/predict", json={"sequence": x[0].tolist()}).json()["probabilities"]
    assert [float(cell) for cell in alone.split(",")] == native
    many = client.post(BATCH, json={"sequences": x.tolist()}).json()
    assert client.post("/invocations", content=text, headers={**CSV, "accept": "application/json"}).json() == many
    file = client.post("/invocations", content=text, headers={**CSV, **ACCEPT_NPY})
    assert np.load(io.BytesIO(file.content)).shape == (16, 5)


GOOD_LINE = csv(np.full((1, 300), 0.5)).rstrip()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty; expected CSV"),
        (b"\n \n", 400, "empty; expected CSV"),
        (b"1,2", 422, "line 1: expected 20 x 15 values, a flattened sequence, got 2"),
        (GOOD_LINE + b"\n\n" + GOOD_LINE, 422, "line 2: expected 20 x 15 values"),
        (GOOD_LINE + b",1", 422, "got 301"),
        (GOOD_LINE + b"," + GOOD_LINE, 422, "got 600"),
        (b",".join([b"zyxwvut"] * 300) + b"\n" + GOOD_LINE, 422, "line 1, value 1: expected a number, and no header"),
        *(
            (GOOD_LINE + b"\n" + GOOD_LINE[:-3] + cell, 422, "line 2, value 300: expected a number")
            for cell in (b"", b"x", b"1_0", b'"1', b'1"', b'""', b'"x"', b'"1_0"', b"0x1", b"1;2", b"\xff")
        ),
        *(
            (GOOD_LINE[:-3] + cell, 422, "line 1, value 300: expected a finite float32 number")
            for cell in (b"nan", b"-inf", b"1e39", b"1e999", b"9" * 400)
        ),
        (b"\n".join([*[GOOD_LINE] * 70, b"1"]), 422, "line 71: expected"),
        (b"\n".join([b"1"] * 1024), 422, "line 1: expected"),
        (b"\n".join([b"1"] * 1025), 413, "1025 sequences"),
    ],
)
def test_bad_lines(client: httpx.Client, body: bytes, status: int, words: str) -> None:
    assert words in refused(client.post("/invocations", content=body, headers=CSV), status)


def test_lines_of_ids_of_any_length_and_of_steps(served: Clients) -> None:
    client = served(GOLDEN / "features/k3__emb_bi.h5")
    wanted = client.post(BATCH, json={"sequences": [[*range(6)]]}).json()["predictions"][0]
    answer = client.post("/invocations", content=b"0,1,2,3,4,5.0", headers=CSV)
    (values,) = wanted.values() if len(wanted) == 1 else [wanted.get("probabilities", [wanted.get("probability")])]
    assert [float(cell) for cell in answer.text.split(",")] == np.ravel(values).tolist()
    for cell in (b"1.5", b"-1", b"1e9", b"nan"):
        beyond = client.post("/invocations", content=b"0,1,2,3,4," + cell, headers=CSV)
        assert "line 1, value 6: expected an integer id" in refused(beyond, 422)
    client = served(SMALL / "steps.h5")
    x = np.arange(18).reshape(6, 3) / 20
    lines = csv(x[np.newaxis]) + csv(x[np.newaxis, :4]) + csv(x[np.newaxis])
    answer = client.post("/invocations", content=lines, headers=CSV)
    values = [client.post("/predict", json={"sequence": rows.tolist()}).json()["values"] for rows in (x, x[:4], x)]
    for line, wanted in zip(answer.text.splitlines(), values, strict=True):
        assert np.allclose([float(cell) for cell in line.split(",")], np.ravel(wanted), rtol=0, atol=1e-6)
    wrong = client.post("/invocations", content=b"1,2,3,4", headers=CSV)
    assert "line 1: expected any x 3 values" in refused(wrong, 422)


def test_lines_of_what_is_free_in_several_axes(served: Clients) -> None:
    client = served(GOLDEN / "pictures/k3__picture.keras")
    answer = client.post("/invocations", content=csv(np.zeros((1, 6, 6, 4))), headers=CSV)
    assert "not CSV: the model takes an array of shape (n, any, any, 4)" in refused(answer, 422)


def test_ids_in_a_file(served: Clients) -> None:
    client = served(GOLDEN / "features/k3__emb_bi.h5")
    response = client.post(BATCH, content=npy(np.arange(6)[np.newaxis]), headers=NPY)
    wanted = client.post(BATCH, content=json.dumps({"sequences": [[*range(6)]]}))
    beyond = client.post(BATCH, content=npy(np.full((1, 6), 1.5)), headers=NPY)
    assert response.json() == wanted.json()
    assert "of integers from 0 to 8, got another number at (0, 0)" in refused(beyond, 422)
