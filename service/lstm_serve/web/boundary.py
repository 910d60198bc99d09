"""The one middleware: request id, access log, metrics, and an answer for whatever went wrong below."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lstm_serve.errors import ComputeFailed, LstmServeError, Malformed, Unavailable
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.telemetry import logs
from lstm_serve.web.api_keys import Keys, needs_key, why_refused
from lstm_serve.web.docs import PATHS as DOCS
from lstm_serve.web.errors import OF_HTTP, STATUSES, Status, refuse, row_of
from lstm_serve.web.health import PATHS as HEALTH
from lstm_serve.web.ui.routes import PATHS as PAGE

log = logging.getLogger(__name__)
# What is asked every second is no news.
QUIET = HEALTH | {"/metrics"}
# What says one thing, and is no list.
ONCE = {
    *(b"authorization", b"content-encoding", b"content-type", b"inference-header-content-length"),
    *(b"last-event-id", b"x-drift", b"x-request-timeout-ms"),
}
# No answer could be sent: the client had left. nginx logs it so too.
CLIENT_LEFT = 499


def open_paths(settings: Settings) -> frozenset[str]:
    """The paths that need no key."""
    metrics = {"/metrics"} if settings.open_metrics else set()
    docs = DOCS | {"/"} if settings.open_docs else set()  # which leads there
    page = PAGE if settings.page else set()
    return HEALTH | metrics | docs | page | {settings.health_route or "/livez"}


class Boundary:
    """Plain ASGI, around the whole app: what enters gets an id, what leaves is counted and logged."""

    def __init__(self, app: ASGIApp, serving: ServingState, keys: Keys | None = None) -> None:
        """Callers need one of the `keys`, where there are any."""
        self.app = app
        self.serving = serving
        self.keys = keys
        self._open = open_paths(serving.settings)
        self._quiet = QUIET | {serving.settings.health_route}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        headers, state = dict(scope["headers"]), scope.setdefault("state", {})
        state["headers"], state["arrived"] = headers, time.monotonic()
        state["request_id"] = request_id = logs.request_id(headers.get(b"x-request-id"))
        id_header = (b"x-request-id", request_id.encode())
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        try:
            if len(headers) < len(scope["headers"]):
                _expect_once(scope["headers"])
                # A list may come in parts (RFC 9110, 5.3).
                headers[b"accept"] = b",".join(value for name, value in scope["headers"] if name == b"accept")
            self._expect_key(scope["path"], headers.get(b"authorization"))
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except HTTPException as error:
            allow = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            row = self._row(error, request_id)
            self.serving.metrics.rejected.add(row.slug)
            await refuse(scope, answer, row, error, allow)
        except (Exception, asyncio.CancelledError) as error:
            # No name for `error` that outlives this block: with its traceback, which holds this frame and with it the
            # body, it would be a cycle that waits for the garbage collector.
            if status and isinstance(error, asyncio.CancelledError):
                return  # half an answer is out, and its time is over
            if status:
                self._told(error, state["request_id"])
                raise  # half an answer is out: the server closes the connection
            await self._refuse(scope, answer, error)
        finally:
            # Where the protocol has refused it meanwhile, that is what was answered.
            self._finish(scope, state.get("refused") or status, time.perf_counter() - start)

    def _expect_key(self, path: str, authorization: bytes | None) -> None:
        if self.keys is not None and needs_key(path, self._open) and not self.keys.admit(authorization):
            wrong = "" if authorization is None else ' error="invalid_token"'
            raise HTTPException(401, why_refused(authorization), {"WWW-Authenticate": f"Bearer{wrong}"})

    def _row(self, error: HTTPException, request_id: str) -> Status:
        """The row of the table for an error of HTTP, with what there is to say of this one."""
        known = OF_HTTP.get(error.status_code) or STATUSES.get(error.status_code)
        row = known or row_of(self._told(error, request_id))
        if error.status_code == 401:
            return row._replace(example=error.detail)
        methods = (error.headers or {}).get("Allow")
        return row._replace(example=f"this path takes {methods}") if methods else row

    async def _refuse(self, scope: Scope, answer: Send, error: BaseException) -> None:
        told = self._told(error, scope["state"]["request_id"])
        row = row_of(told)
        self.serving.metrics.rejected.add(row.slug)
        await refuse(scope, answer, row, told)

    def _told(self, error: BaseException, request_id: str) -> BaseException:
        """The error that is told; a fault of ours goes to the log."""
        if isinstance(error, asyncio.CancelledError):
            # The server has waited for the requests in flight as long as it may.
            return Unavailable("the service is stopping")
        if isinstance(error, ComputeFailed):
            log.error("request %s failed: %s", request_id, error)
        elif not isinstance(error, LstmServeError):
            log.error("request %s failed", request_id, exc_info=error)
        return error

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = route.path if route is not None else "unmatched"
        self.serving.metrics.request(template, status, scope["state"].get("model", ""), seconds)
        # The connection keeps its last request's scope: not with the rows.
        jobs = scope["state"].pop("jobs", ())
        # A client that asks wrong is news even there.
        if self.serving.settings.access_log and (scope["path"] not in self._quiet or 400 <= status < 500):
            state, more = scope["state"], dict[str, object]()
            if (traceparent := state["headers"].get(b"traceparent")) is not None:
                more["traceparent"] = traceparent.decode("latin-1")[:200]
            if jobs:
                more["rows"] = sum(len(job.x) for job in jobs)
                more["queue_ms"] = round(jobs[0].queue_seconds * 1000, 3)
                more["compute_ms"] = round(sum(job.compute_seconds for job in jobs) * 1000, 3)
            logs.log_request(state["request_id"], scope["method"], scope["path"], status, seconds, **more)


def _expect_once(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise Malformed where a header that is told once has come twice: a proxy may have judged the other."""
    for name, count in Counter(name for name, _ in headers).items():
        if count > 1 and name in ONCE:
            raise Malformed(f"expected the header {name.decode()} once, got it {count} times")
