"""Whatever is refused at a path, the OpenAPI document lists its status there."""

import gzip
import json
from collections.abc import Iterator

from pydantic import SecretStr
from serving import SMALL, call, in_loop, started

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

KEY = "a" * 16
GOOD = json.dumps({"sequence": [[0.5] * 3] * 6}).encode()
PARTS = [{}, {"series": "a b"}, {"series": "n" * 300}, {"model_name": "nothing"}, {"model_version": "999"}]
QUERIES = ["", "?nothing=1", "?by=a&stride=x", "?answers=all&answers=all", "?inputs=maybe"]
HEADERS: list[dict[str, str]] = [
    {},
    {"content-type": "image/png"},
    {"content-type": "text/csv"},
    {"content-type": "application/x-npy"},
    {"content-encoding": "br"},
    {"content-encoding": "gzip"},
    {"accept": "image/png"},
    {"x-request-timeout-ms": "soon"},
    {"x-request-timeout-ms": "0"},
    {"inference-header-content-length": "x"},
    {"last-event-id": "-"},
    {"authorization": "Bearer wrong"},
]
BODIES = [b"", b"{", b"{}", b"[]", b'"x"', GOOD, gzip.compress(GOOD), b"x" * 3000, b"a,b\n1,2\n"]


def requests(path: str) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """The path, headers and body of requests with a fault each, and some of none."""
    known = {"series": "s", "model_name": "binary", "model_version": "1"}
    for parts in PARTS:
        yield path.format(**{**known, **parts}), {}, GOOD
    for query in QUERIES:
        yield path.format(**known) + query, {}, GOOD
    for headers in HEADERS:
        for body in (b"", GOOD) if headers else BODIES:
            yield path.format(**known), headers, body


@in_loop
async def test_each_status_of_a_refusal_is_in_the_document() -> None:
    app = create_app(
        Settings(model=SMALL / "binary.h5", access_log=False, max_body_bytes=2000, api_keys=SecretStr(KEY))
    )
    document = app.openapi()
    unlisted = set()
    async with started(app):
        for path, methods in document["paths"].items():
            if path.endswith("/events"):
                continue  # test_events.py; a good one has no end
            for method, operation in methods.items():
                for at, headers, body in requests(path):
                    given = {"authorization": f"Bearer {KEY}", **headers}
                    answer = await call(app, at, body, method=method.upper(), headers=given)
                    if str(answer.status) not in operation["responses"]:
                        unlisted.add((method, path, answer.status))
    assert not unlisted
