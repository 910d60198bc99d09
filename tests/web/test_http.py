"""The native dialect over a real socket: answers, refusals, headers."""

import json
import re
import shutil
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute
from native_requests import GOOD, LIMIT, MARK, ROW, many, one, refused
from serving import ASKER, SMALL, Clients, Golden, Process, ask, client_of, load_golden

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
TENSOR = json.dumps({"inputs": [{"name": "x", "shape": [1, 20, 15], "datatype": "FP32", "data": [ROW]}]}).encode()


def with_number(text: str) -> bytes:
    """A good body in which the number at #/sequence/3/14 is `text`."""
    row = [list(step) for step in ROW]
    row[3][14] = 1234.5
    return one(row).replace(b"1234.5", text.encode())


# What is answered.


STEMS = ["k215", "tf215", "k3"]


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with the classifier as each Keras saved it."""
    folder = tmp_path_factory.mktemp("asker")
    for stem in STEMS:
        shutil.copy(ASKER / f"{stem}_model.h5", folder / f"{stem}.h5")
    with client_of(folder) as client:
        yield client


@pytest.mark.parametrize("stem", STEMS)
def test_golden_predictions_over_http(asker: httpx.Client, stem: str) -> None:
    (x, y), at = load_golden(ASKER / f"{stem}_golden.npz"), f"/models/{stem}"
    singles = [asker.post(f"{at}/predict", json={"sequence": row.tolist()}).json() for row in x]
    batch = asker.post(f"{at}/predict/batch", json={"sequences": x.tolist()}).json()["predictions"]
    for answers in (singles, batch):
        came = np.array([answer["probabilities"] for answer in answers])
        assert np.abs(came - y).max() <= 1e-6
        assert [answer["predicted_class"] for answer in answers] == y.argmax(axis=1).tolist()
        assert all(answer["label"] is None for answer in answers)
    assert np.allclose([a["probabilities"] for a in singles], [a["probabilities"] for a in batch], rtol=0, atol=1e-6)


def test_binary_model(served: Clients) -> None:
    x, y = load_small("binary")
    client = served(SMALL / "binary.h5")
    answers = client.post("/predict/batch", json={"sequences": x.tolist()}).json()["predictions"]
    alone = client.post("/predict", json={"sequence": x[0].tolist()}).json()
    about = client.get("/model").json()
    assert [a["predicted_class"] for a in answers] == [int(p >= 0.5) for p in y[:, 0]]
    assert np.allclose([a["probability"] for a in answers], y[:, 0], rtol=0, atol=1e-6)
    assert alone.keys() == {"probability", "predicted_class", "label"}
    assert (about["kind"], about["verified"], about["golden_rows"]) == ("binary", True, 8)


def test_values_model_and_mixed_lengths(served: Clients) -> None:
    x, y = load_small("steps")
    sequences = [x[0], x[1], x[2, :4], x[3, :1], x[4]]
    client = served(SMALL / "steps.h5")
    response = client.post("/predict/batch", json={"sequences": [s.tolist() for s in sequences]})
    alone = client.post("/predict", json={"sequence": x[2, :4].tolist()}).json()
    nothing = client.post("/predict", json={"sequence": []})
    about = client.get("/model").json()
    assert response.status_code == 200, response.text
    answers = response.json()["predictions"]
    # An LSTM that answers each step has the same answer for the first steps of a longer sequence.
    for answer, k, steps in zip(answers, range(5), (6, 6, 4, 1, 6), strict=True):
        assert answer.keys() == {"values"}
        assert np.allclose(answer["values"], y[k, :steps], rtol=0, atol=1e-6)
    assert np.allclose(alone["values"], answers[2]["values"], rtol=0, atol=1e-6)
    assert refused(nothing, 422, "invalid-input", ["#/sequence"]).startswith("expected at least one")
    assert (about["kind"], about["input_shape"], about["output_shape"]) == ("values", [None, 3], [None, 2])


def load_small(stem: str) -> Golden:
    with np.load(SMALL / f"{stem}.golden.npz") as arrays:
        return arrays["x"], arrays["y"]


def test_model_page(client: httpx.Client) -> None:
    about = client.get("/model").json()
    assert (about["name"], about["version"], about["kind"]) == ("k215_model", "1", "classes")
    assert (about["input_shape"], about["output_shape"]) == ([20, 15], [5])
    assert (about["keras_version"], about["verified"], about["golden_difference"]) == ("2.1.5", False, None)
    assert about["classes"] is None
    assert about["parameters"] == sum(layer["parameters"] for layer in about["layers"]) > 0
    lstm = next(layer for layer in about["layers"] if layer["class_name"] == "LSTM")
    assert [weight["name"] for weight in lstm["weights"]] == ["kernel", "recurrent_kernel", "bias"]
    assert re.fullmatch("[0-9a-f]{64}", about["sha256"])
    assert client.post("/predict", content=GOOD).headers["x-model-sha256"] == about["sha256"]


# What is refused, and how.

HEAVY_KEYS = ("{" + ",".join(f'"{MARK}{k}":0' for k in range(1000)) + "}").encode()
NUMBER = "expected a number, got"
BEYOND = "expected a finite float32 number"
AT = ["#/sequence/3/14"]
TEN_STEPS = [f"#/sequence/{t}" for t in range(10)]

BAD: dict[str, tuple[bytes, int, list[str] | None, str]] = {
    "no body": (b"", 400, None, "the body is empty; expected JSON"),
    "blank": (b" \n ", 400, None, "the body is empty; expected JSON"),
    "truncated": (GOOD[:-9], 400, None, "not JSON"),
    "more after it": (GOOD + b"]", 400, None, "not JSON: trailing characters"),
    "not utf-8": (b'{"sequence": "\xe9' + MARK.encode() + b'"}', 400, None, "not JSON"),
    "no JSON": (MARK.encode(), 400, None, "not JSON"),
    "deep nesting": (b'{"sequence":' + b"[" * 100_000, 400, None, "recursion limit"),
    "deep objects": (b'{"sequence":' + b'{"a":' * 100_000, 400, None, "not JSON"),
    "a leading zero": (with_number("01"), 400, None, "not JSON"),
    "transposed": (one(np.zeros((15, 20)).tolist()), 422, None, "20 time steps, got 15; are the two axes swapped?"),
    "a step too few": (one(ROW[:19]), 422, ["#/sequence"], "expected a list of 20 time steps, got 19"),
    "a step too many": (one([*ROW, ROW[0]]), 422, ["#/sequence"], "expected a list of 20 time steps, got 21"),
    "a longer series": (one(ROW * 2), 422, ["#/sequence"], "got 40; a longer series goes to POST /predict/series"),
    "instances": (b'{"instances": []}', 422, ["#"], '"instances" goes to POST /v1/models/k215_model:predict'),
    "inputs": (b'{"inputs": []}', 422, ["#"], '"inputs" goes to POST /v1/models/k215_model:predict or /v2/models/k2'),
    "no step": (one([]), 422, None, "expected a list of 20 time steps, got 0"),
    "ragged": (one([*ROW[:7], ROW[7][:14], *ROW[8:]]), 422, ["#/sequence/7"], "a list of 15 features, got 14"),
    "empty steps": (one([[]] * 20), 422, TEN_STEPS, "expected a list of 15 features, got 0"),
    "a row without its steps": (one(ROW[0]), 422, None, "a list of 15 features, got a number"),
    "NaN": (with_number("NaN"), 422, AT, BEYOND),
    "Infinity": (with_number("Infinity"), 422, AT, BEYOND),
    "-Infinity": (with_number("-Infinity"), 422, AT, BEYOND),
    "1e39": (with_number("1e39"), 422, AT, BEYOND),
    "1e999": (with_number("1e999"), 422, AT, BEYOND),
    "400 digits": (with_number("9" * 400), 422, AT, BEYOND),
    "a string": (with_number('"3"'), 422, AT, f"{NUMBER} a string"),
    "true": (with_number("true"), 422, AT, f"{NUMBER} true or false"),
    "null": (with_number("null"), 422, AT, f"{NUMBER} null"),
    "an object": (with_number(f'{{"{MARK}": 1}}'), 422, AT, f"{NUMBER} an object"),
    "a list": (with_number("[1]"), 422, AT, f"{NUMBER} a list"),
    "all strings": (one([[MARK] * 15] * 20), 422, [f"#/sequence/0/{f}" for f in range(10)], f"{NUMBER} a string"),
    "a sequence that is a string": (one(MARK), 422, ["#/sequence"], "expected a list of 20 time steps, got a string"),
    "an array": (json.dumps(ROW).encode(), 422, ["#"], 'expected an object {"sequence": ...}, got a list'),
    "a string alone": (f'"{MARK}"'.encode(), 422, ["#"], "got a string"),
    "null alone": (b"null", 422, ["#"], "got null"),
    "no key": (b"{}", 422, ["#"], 'expected the key "sequence"'),
    "another key": (json.dumps({MARK: ROW}).encode(), 422, ["#"], 'expected the key "sequence"'),
    "the key of the other path": (many([ROW]), 422, ["#"], '"sequences" goes to POST /predict/batch'),
    "both keys": (GOOD[:-1] + b"," + many([ROW])[1:], 422, ["#"], 'the key "sequence" alone, got 1 more'),
    "a key more": (GOOD[:-1] + f',"{MARK}":1}}'.encode(), 422, ["#"], 'the key "sequence" alone, got 1 more'),
    "a thousand keys": (HEAVY_KEYS, 422, ["#"], 'expected the key "sequence"'),
    "a key twice": (GOOD[:-1] + b"," + GOOD[1:], 422, ["#"], 'the key "sequence" once'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_body(client: httpx.Client, name: str) -> None:
    body, status, pointers, words = BAD[name]
    slug = "malformed" if status == 400 else "invalid-input"
    assert words in refused(client.post("/predict", content=body, headers=JSON), status, slug, pointers)


@pytest.mark.parametrize(
    ("body", "pointers", "words"),
    [
        (many([]), ["#/sequences"], "expected at least one of the sequences, got 0"),
        (many([ROW, ROW[:3]]), ["#/sequences/1"], "expected a list of 20 time steps, got 3"),
        (many(ROW), ["#/sequences"], "got the time steps of one: wrap it in another list"),
        (many([ROW, None]), ["#/sequences/1"], "got null"),
        (one(ROW), ["#"], '"sequence" goes to POST /predict'),
        (many([ROW] * 3).replace(b"0.33", b"NaN"), [f"#/sequences/{k}/19/14" for k in range(3)], BEYOND),
    ],
)
def test_bad_batch(client: httpx.Client, body: bytes, pointers: list[str] | None, words: str) -> None:
    assert words in refused(client.post("/predict/batch", content=body), 422, "invalid-input", pointers)


@pytest.mark.parametrize("number", ["3.4028234e38", "-3.4028234e38", "1e-400", "-0", "12345678901234567890", "9" * 38])
def test_extreme_numbers_that_are_float32_are_answered(client: httpx.Client, number: str) -> None:
    response = client.post("/predict", content=with_number(number))
    assert response.status_code == 200
    assert sum(response.json()["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        (JSON, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/vnd.model+json"}, 200),
        (FORM, 200),
        ({"content-encoding": "identity"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": MARK}, 415),
        ({"content-encoding": "br", **JSON}, 415),
    ],
)
def test_content_types(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    response = client.post("/predict", content=GOOD, headers=headers)
    if status == 200:
        assert response.status_code == 200, response.text
    else:
        refused(response, status, "unknown-type")


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "X-Request-Timeout-Ms"])
def test_a_header_that_says_one_thing_comes_once(client: httpx.Client, name: str) -> None:
    headers = [(name, "application/json"), (name, "1000")]
    assert "once, got it 2 times" in refused(client.post("/predict", content=GOOD, headers=headers), 400, "malformed")


@pytest.mark.parametrize(("content", "status"), [(b"a=1", 415), (b" \n", 415), (b" []", 422), (b"{}", 422)])
def test_a_form_is_json_where_it_begins_so(client: httpx.Client, content: bytes, status: int) -> None:
    assert client.post("/predict", content=content, headers=FORM).status_code == status


def test_a_form_that_is_one(client: httpx.Client) -> None:
    refused(client.post("/predict", data={"sequence": MARK}), 415, "unknown-type")


def test_chunked_body(client: httpx.Client) -> None:
    response = client.post("/predict", content=(GOOD[k : k + 100] for k in range(0, len(GOOD), 100)))
    assert response.status_code == 200
    assert response.json() == client.post("/predict", content=GOOD).json()


@pytest.mark.parametrize("chunked", [False, True])
def test_body_at_and_over_the_limit(client: httpx.Client, *, chunked: bool) -> None:
    at, over = (GOOD + b" " * (size - len(GOOD)) for size in (LIMIT, LIMIT + 1))
    for body, status in ((at, 200), (over, 413)):
        content = (body[k : k + 65_536] for k in range(0, len(body), 65_536)) if chunked else body
        response = client.post("/predict", content=content)
        assert response.status_code == status
        if status == 413:
            assert str(LIMIT) in refused(response, 413, "too-large")
    assert client.post("/predict", content=GOOD).status_code == 200


def test_a_declared_body_over_the_limit_is_refused_before_it_comes(service: Process) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n"
    assert service.raw(head + b"Expect: 100-continue\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert service.raw(head + b"\r\n").startswith(b"HTTP/1.1 413 ")


def test_who_is_refused_is_not_asked_to_go_on(service: Process) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nX-Request-Id: no-chunk\r\n"
    assert service.raw(head + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n").startswith(b"HTTP/1.1 400 ")
    assert "failed" not in service.wait_for('.*"request_id":"no-chunk".*|.*no-chunk failed.*')[0]


def test_too_many_rows(client: httpx.Client) -> None:
    zeros = np.zeros((1025, 20, 15), int).tolist()
    assert "1025 sequences; at most 1024" in refused(client.post("/predict/batch", json={"sequences": zeros}), 413)
    assert len(client.post("/predict/batch", json={"sequences": zeros[:-1]}).json()["predictions"]) == 1024


# Paths and methods.

POSTS = ["/predict", "/predict/batch"]
GETS = ["/model", "/metrics", "/openapi.json", "/livez", "/readyz", "/health", "/healthz"]
NAMED = "k215_model"
HEALTH = ["/livez", "/readyz", "/health", "/healthz"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_on_posts(client: httpx.Client, path: str, method: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        refused(response, 405, "method-not-allowed")


@pytest.mark.parametrize("path", GETS)
def test_other_methods_on_gets(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    for method in ("POST", "PUT", "DELETE"):
        response = client.request(method, path, content=GOOD)
        refused(response, 405, "method-not-allowed")
        assert "GET" in response.headers["allow"]
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


def get_paths() -> list[str]:
    """Every path that takes GET, the files of the docs and those that the document leaves out too.

    Not v1's labels: they are 404 by any method.
    """
    routes = create_app(Settings(model=ASKER / f"{NAMED}.h5")).routes
    found = [route.path for route in routes if isinstance(route, APIRoute) and "GET" in (route.methods or set())]
    there = [path for path in found if "/labels/" not in path]
    return [path.replace("{model_name}", NAMED).replace("{model_version}", "1") for path in there]


@pytest.mark.parametrize("path", [*get_paths(), "/v1/models/another", "/v2/models/another/ready"])
def test_every_get_answers_head(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path not in {"/metrics", "/v2/models/stats", f"/v2/models/{NAMED}/stats"}:  # these change meanwhile
        assert head.headers["content-length"] == get.headers["content-length"]
    allowed = "DELETE, GET, HEAD" if path.endswith("/series/{series}") else "GET, HEAD"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        if method not in allowed:
            response = client.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_what_takes_post_says_so(client: httpx.Client) -> None:
    for path in ("/v2/repository/index", f"/v2/models/{NAMED}/infer", "/invocations"):
        for method in ("GET", "HEAD", "PUT"):
            response = client.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_gets_the_page(client: httpx.Client, method: str) -> None:
    page = client.request(method, "/", headers={"accept": BROWSER})
    assert (page.status_code, page.headers["vary"]) == (200, "accept")
    assert page.headers["content-type"].startswith("text/html")
    for accept in ("*/*", "application/json", "text/html;q=0.5, application/json"):
        other = client.request(method, "/", headers={"accept": accept})
        assert (other.status_code, other.headers["vary"]) == (200, "accept")
        assert other.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", [*(f"{path}/" for path in POSTS + GETS), "/nothing", f"/{MARK}", "/predict%20"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(client: httpx.Client, path: str, method: str) -> None:
    refused(client.request(method, path), 404, "not-found")


@pytest.mark.parametrize("path", ["/v2/health", "/v1/models/x", "/v2/models/x/y", "/v1"])
def test_unknown_paths_of_other_dialects_have_their_form_of_error(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}


@pytest.mark.parametrize("path", HEALTH)
def test_health(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["cache-control"] == "no-store"
    checks = client.get(path, params={"verbose": ""}).json()["checks"]
    assert checks == ({"batching": True} if path == "/livez" else {"model": True, "batching": True, "accepting": True})


# Headers.


def test_request_ids(client: httpx.Client) -> None:
    for good in ("abc", "a.B:c-d_9", "f" * 128):
        assert client.post("/predict", content=GOOD, headers={"x-request-id": good}).headers["x-request-id"] == good
        assert client.get("/nothing", headers={"x-request-id": good}).headers["x-request-id"] == good
    for bad in ("", "two words", "<script>", "f" * 129, 'quote"', "\xe9"):
        headers = [(b"x-request-id", bad.encode("latin-1"))]
        given = client.post("/predict", content=GOOD, headers=headers).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", given)
    assert len({client.get("/livez").headers["x-request-id"] for _ in range(20)}) == 20


def test_request_timeout(client: httpx.Client) -> None:
    def post(timeout: str) -> httpx.Response:
        return client.post("/predict", content=GOOD, headers={"x-request-timeout-ms": timeout})

    for longer in ("5000", "9" * 9, "9" * 10, "9" * 5000, "0" * 20 + "5000"):
        assert post(longer).status_code == 200
    for none in ("0", "000"):
        assert "deadline" in refused(post(none), 504, "deadline-passed")
    for garbage in ("", "-1", "1.5", "1e3", "soon", MARK, "1 2"):
        assert "whole milliseconds" in refused(post(garbage), 400, "malformed")


def test_what_the_parser_refuses_is_plain_text_and_leaves_the_service_well(
    service: Process, client: httpx.Client
) -> None:
    for head in (
        b"GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        assert service.raw(head).startswith(b"HTTP/1.1 400 ")
    assert client.get("/livez").status_code == 200


def test_two_requests_in_one_packet(service: Process) -> None:
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s"
    both = request % (len(GOOD), b"", GOOD) + request % (len(GOOD), b"Connection: close\r\n", GOOD)
    assert service.raw(both).count(b"HTTP/1.1 200 OK") == 2


def test_blanks_after_a_header_are_no_part_of_it(service: Process) -> None:
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc \t\r\nX-Request-Timeout-Ms: 5000 \t\r\n"
    came = service.raw(f"{head}Connection: close\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD)
    assert came.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: abc\r\n" in came


@pytest.mark.parametrize(
    ("asked", "header"),
    [
        ("POST /v2/models/k215_model/infer", f"Inference-Header-Content-Length: {len(TENSOR)}"),
        ("HEAD /series/blanks/events", "Last-Event-ID: 0"),
    ],
)
def test_nor_are_those_after_a_header_of_one_path(service: Process, asked: str, header: str) -> None:
    ask("POST", f"{service.url}/series/blanks/rows", json={"seq": 0, "rows": ROW[:1]})
    lines = [f"{asked} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(TENSOR)}", f"{header} \t"]
    came = service.raw("\r\n".join([*lines, "", ""]).encode() + TENSOR)
    assert came.startswith(b"HTTP/1.1 200 "), came


# Byte order marks, as PowerShell 5 and Notepad write them.

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/invocations", "/v1/models/k215_model:predict"])
@pytest.mark.parametrize("headers", [{}, JSON, FORM])
def test_a_byte_order_mark_before_json(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    body = {"/predict": GOOD, "/v1/models/k215_model:predict": json.dumps({"instances": [ROW]}).encode()}
    plain = body.get(path, many([ROW]))
    marked = client.post(path, content=BOM + plain, headers=headers)
    assert marked.status_code == 200, marked.text
    assert marked.json() == client.post(path, content=plain, headers=headers).json()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BOM, "the body is empty"),
        (BOM + BOM + GOOD, "not JSON"),
        (GOOD[:-1] + BOM + b"}", "not JSON"),
        (GOOD.decode().encode("utf-16"), "UTF-16; expected JSON in UTF-8"),
        (b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), "UTF-16; expected JSON in UTF-8"),
    ],
)
def test_other_marks(client: httpx.Client, body: bytes, words: str) -> None:
    assert words in refused(client.post("/predict", content=body), 400, "malformed")
