"""Pages of other origins that call from a browser: the fetch standard's CORS, over a real socket."""

from collections.abc import Iterator

import httpx
import pytest
from native_requests import GOOD
from serving import ASKER, PATIENCE, Process

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

KEY = "one-key-of-enough-characters"
ORIGIN, OTHER = "https://a.example", "https://c.example"


@pytest.fixture(scope="module")
def pages() -> Iterator[httpx.Client]:
    """A client of a service that pages of two origins may call, with a key."""
    variables = {"LSTMSERVE_CORS_ORIGINS": f"{ORIGIN}, http://b.example:3000", "LSTMSERVE_API_KEYS": KEY}
    with (
        Process(ASKER / "k215_model.h5", **variables) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        yield client


def preflight(client: httpx.Client, path: str, origin: str = ORIGIN, headers: str = "authorization") -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": headers}
    return client.options(path, headers=asked)


def words(response: httpx.Response, header: str) -> set[str]:
    return {word.strip().lower() for word in response.headers[header].split(",")}


@pytest.mark.parametrize("path", ["/predict", "/v1/models/k215_model:predict", "/model", "/nothing"])
def test_a_preflight_needs_no_key_and_no_route(pages: httpx.Client, path: str) -> None:
    asked = (
        "authorization, content-type, content-encoding, inference-header-content-length, last-event-id, traceparent, "
        "x-drift, x-request-id, x-request-timeout-ms"
    )
    response = preflight(pages, path, headers=asked)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert words(response, "access-control-allow-methods") == {"delete", "get", "head", "post"}
    assert words(response, "access-control-allow-headers") >= set(asked.split(", "))
    assert "access-control-allow-credentials" not in response.headers
    assert preflight(pages, path, headers="x-other").status_code == 400


def test_answers_and_refusals_can_be_read_by_those_origins_alone(pages: httpx.Client) -> None:
    key = {"authorization": f"Bearer {KEY}"}
    for origin in (ORIGIN, "http://b.example:3000"):
        good = pages.post("/predict", content=GOOD, headers={"origin": origin, **key})
        wrong = pages.post("/predict", content=b"{}", headers={"origin": origin, **key})
        closed = pages.post("/predict", content=GOOD, headers={"origin": origin})
        assert [response.status_code for response in (good, wrong, closed)] == [200, 422, 401]
        for response in (good, wrong, closed):
            assert response.headers["access-control-allow-origin"] == origin
            assert words(response, "vary") == {"origin"}
            exposed = words(response, "access-control-expose-headers")
            assert exposed == {"x-model-sha256", "x-request-id", "retry-after", "inference-header-content-length"}
    other = pages.post("/predict", content=GOOD, headers={"origin": OTHER, **key})
    assert other.status_code == 200
    assert "access-control-allow-origin" not in other.headers
    refused = preflight(pages, "/predict", OTHER)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    # Who has no origin, such as curl, is answered as ever.
    assert pages.post("/predict", content=GOOD, headers=key).status_code == 200
    assert "accept" in words(pages.get("/", headers={"origin": ORIGIN, **key}), "vary")


def test_any_origin() -> None:
    with (
        Process(ASKER / "k215_model.h5", LSTMSERVE_CORS_ORIGINS="*") as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE) as client,
    ):
        assert preflight(client, "/predict").headers["access-control-allow-origin"] == "*"
        response = client.post("/predict", content=GOOD, headers={"origin": OTHER})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")


def test_nothing_of_it_unless_it_is_set(client: httpx.Client) -> None:
    assert preflight(client, "/predict").status_code == 405
    response = client.post("/predict", content=GOOD, headers={"origin": ORIGIN})
    assert not [name for name in response.headers if name.startswith("access-control")]
    around = create_app(Settings(model=ASKER / "k215_model.h5")).user_middleware
    assert "CORSMiddleware" not in [getattr(middleware.cls, "__name__", "") for middleware in around]
