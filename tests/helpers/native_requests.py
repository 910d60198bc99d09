"""Bodies of the native dialect, and what its errors look like."""

import json
from typing import Any

import httpx

LIMIT = 2 << 20
MARK = "zyxwvut"  # in what is sent; must not come back
ROW = [[round(0.01 * (t + f), 2) for f in range(15)] for t in range(20)]


def one(value: Any) -> bytes:
    return json.dumps({"sequence": value}).encode()


def many(value: Any) -> bytes:
    return json.dumps({"sequences": value}).encode()


GOOD = one(ROW)


def refused(response: httpx.Response, status: int, slug: str = "", pointers: list[str] | None = None) -> str:
    """Check an error of the native paths: its form, its size, that it echoes nothing. Gives all of its words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    assert len(response.content) <= 4096
    assert MARK not in response.text
    body = response.json()
    assert body["status"] == status
    assert body["type"] == f"urn:lstm-serve:{slug}" if slug else body["type"].startswith("urn:lstm-serve:")
    assert body["title"]
    assert body["detail"]
    problems = body.get("errors", [])
    assert (status == 422) == bool(problems)
    assert len(problems) <= 10
    if pointers is not None:
        assert [problem["pointer"] for problem in problems] == pointers
    return " ".join([body["detail"], *(problem["detail"] for problem in problems)])
