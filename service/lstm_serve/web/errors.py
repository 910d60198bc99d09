"""From what went wrong to a status: one table, and the two forms of its answers."""

from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from starlette.types import Scope, Send

from lstm_serve.errors import (
    ComputeFailed,
    DeadlinePassed,
    InvalidInput,
    ListenersFull,
    LstmServeError,
    Malformed,
    NoCarry,
    NotFinite,
    NotWatched,
    NoWindow,
    QueueFull,
    SeriesBusy,
    SeriesConflict,
    SeriesFull,
    SeveralWorkers,
    StoreUnavailable,
    TooLarge,
    TooSlow,
    Unavailable,
    UnknownModel,
    UnknownSeries,
    UnknownType,
)
from lstm_serve.settings import Settings

Headers = list[tuple[bytes, bytes]]

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
PROBLEM_JSON: tuple[bytes, bytes] = (b"content-type", b"application/problem+json")
RETRY: tuple[bytes, bytes] = (b"retry-after", b"1")

MAX_DETAIL = 300


class Status(NamedTuple):
    """A row of the table: the status, its title, the last part of the problem's type, and an example of a detail."""

    code: int
    title: str
    slug: str
    example: str


# Looked up along an exception's classes, so that the nearest row counts.
TABLE: dict[type[BaseException], Status] = {
    Malformed: Status(400, "Malformed request", "malformed", "the body is empty; expected JSON"),
    TooSlow: Status(408, "Request timeout", "too-slow", "the body did not come within 30 seconds"),
    TooLarge: Status(413, "Body too large", "too-large", "the body is over the limit of 2097152 bytes"),
    UnknownType: Status(415, "Unsupported media type", "unknown-type", "expected content-type application/json"),
    UnknownSeries: Status(404, "Not found", "unknown-series", "there is no such series"),
    NotWatched: Status(
        404, "Not watched", "not-watched", "there is no profile of the training data: lstm-serve profile makes one"
    ),
    UnknownModel: Status(404, "Not found", "unknown-model", 'the model served here is "turbofan"'),
    NoWindow: Status(
        409,
        "No window",
        "no-window",
        "the model's length is free: its card's timesteps says how many rows a window has",
    ),
    NoCarry: Status(
        409,
        "No carried states",
        "no-carry",
        "the model is stateful, and a series cannot carry its states, as its layer 'l' reads the sequence from its end",
    ),
    SeveralWorkers: Status(
        501,
        "Several workers",
        "several-workers",
        "several workers serve here, and each would have its own series: set LSTMSERVE_SERIES_STORE, or --workers 1",
    ),
    SeriesConflict: Status(409, "Rows do not follow", "series-conflict", "2 rows are missing before these"),
    InvalidInput: Status(422, "Invalid input", "invalid-input", "expected a list of 20 time steps, got 19"),
    QueueFull: Status(429, "Too many requests", "queue-full", "4096 rows are waiting; at most 4096 may"),
    SeriesFull: Status(429, "Too many series", "series-full", "10000 series are kept; at most so many are"),
    ListenersFull: Status(429, "Too many listeners", "listeners-full", "500 clients listen to series; at most so many"),
    SeriesBusy: Status(429, "Too many requests", "series-busy", "8 requests of this series are waiting"),
    StoreUnavailable: Status(
        503, "Store of series unavailable", "store-unavailable", "the store of series does not answer, or takes nothing"
    ),
    Unavailable: Status(503, "Service unavailable", "unavailable", "the service is stopping"),
    DeadlinePassed: Status(504, "Deadline passed", "deadline-passed", "the deadline passed while the request waited"),
    NotFinite: Status(500, "Output not finite", "not-finite", "the model answered NaN or infinity"),
    ComputeFailed: Status(500, "Internal error", "internal", "the forward pass failed"),
    Exception: Status(500, "Internal error", "internal", "a fault of the service; the log has it under this id"),
}
OF_HTTP = {
    401: Status(401, "Unauthorized", "unauthorized", "expected the header Authorization: Bearer <key>"),
    404: Status(404, "Not found", "not-found", "there is nothing at this path; /docs lists all"),
    431: Status(431, "Headers too large", "headers-too-large", "the headers are over 32768 bytes"),
    405: Status(405, "Method not allowed", "method-not-allowed", "this path takes the methods of the header Allow"),
}
# Of several rows of one code the last: UnknownModel's, the 429 that fits all, and the fault that is not told.
STATUSES = {row.code: row for row in (*OF_HTTP.values(), *TABLE.values())}


def row_of(error: BaseException) -> Status:
    """The row of the table for an exception."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


def error_body(
    status: Status, detail: str, error: BaseException | None = None, request_id: str | None = None, *, plain: bool
) -> tuple[tuple[bytes, bytes], bytes]:
    """The content type and the body of an error, in the plain form of v1 and v2 or in the native one."""
    if plain:
        if isinstance(error, InvalidInput) and error.problems[0].where:
            detail = f"{pointer(error.problems[0].where)}: {detail}"
        return JSON, orjson.dumps({"error": detail[:MAX_DETAIL]})
    return PROBLEM_JSON, problem(status, detail, error, request_id)


def problem(status: Status, detail: str, error: BaseException | None = None, request_id: str | None = None) -> bytes:
    """The body of an error on the native paths: RFC 9457."""
    content: dict[str, Any] = {
        "type": f"urn:lstm-serve:{status.slug}",
        "title": status.title,
        "status": status.code,
        "detail": detail[:MAX_DETAIL],
    }
    if isinstance(error, InvalidInput):
        content["errors"] = [
            {"detail": found.detail[:MAX_DETAIL], "pointer": pointer(found.where)} for found in error.problems
        ]
    if isinstance(error, SeriesConflict) and error.expected is not None:
        content |= {"expected": error.expected, "got": error.got}
    if status.code == 500:
        content["request_id"] = request_id
    return orjson.dumps(content)


def pointer(where: Iterable[str | int]) -> str:
    """A JSON Pointer as a URI fragment (RFC 6901, 6); the names of a card's features may be any text."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in where)
    return "".join(["#", *(f"/{quote(part)}" for part in parts)])


def of_another_dialect(path: str, settings: Settings) -> bool:
    """Whether errors at this path are `{"error": ...}`, as v1 and v2 have them."""
    return path.startswith(("/v1/", "/v2/")) or path in {"/v1", "/v2", settings.predict_route}


async def refuse(scope: Scope, send: Send, status: Status, error: BaseException, extra: Headers | None = None) -> None:
    """Answer an error in the form of the path's dialect. Of a fault of ours nothing but the request id is told."""
    detail = str(error) if isinstance(error, LstmServeError) else status.example
    plain = of_another_dialect(scope["path"], scope["app"].state.serving.settings)
    content_type, body = error_body(status, detail, error, scope["state"].get("request_id"), plain=plain)
    code = 400 if status.code == 422 and plain else status.code
    headers = [content_type, *([RETRY] if code in {429, 503} else []), *(extra or [])]
    await respond(send, code, body, headers)


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
