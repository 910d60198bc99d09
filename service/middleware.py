"""The one middleware: request id, access log, metrics, and an answer for whatever went wrong below."""

import asyncio
import itertools
import logging
import re
import secrets
import time

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ComputeFailed, LstmServeError, Unavailable
from service.keys import Keys
from service.live import Live
from service.routes import OF_HTTP, refuse, row_of
from service.routes.docs import PATHS as DOCS
from service.settings import Settings

log = logging.getLogger(__name__)
access = logging.getLogger("service.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# What orchestration asks: it has no key.
HEALTH = frozenset({"/livez", "/readyz", "/health", "/healthz", "/ping", "/v2/health/live", "/v2/health/ready"})
# What is asked every second is no news.
QUIET = HEALTH | {"/metrics"}
MAX_PATH = 200
# No answer could be sent: the client had left. nginx logs it so too.
CLIENT_LEFT = 499


def open_paths(settings: Settings) -> frozenset[str]:
    """The paths that need no key."""
    metrics = {"/metrics"} if settings.open_metrics else set()
    docs = DOCS if settings.open_docs else set()
    return HEALTH | metrics | docs | {settings.health_route or "/livez"}


class Boundary:
    """Plain ASGI, around the whole app: what enters gets an id, what leaves is counted and logged."""

    def __init__(self, app: ASGIApp, live: Live, keys: Keys | None = None) -> None:
        """Ids are a random prefix and a count: as unique as a UUID, in a quarter of the time."""
        self.app = app
        self.live = live
        self.keys = keys
        self._open = open_paths(live.settings)
        self._prefix = f"{secrets.token_hex(6)}-"
        self._count = itertools.count(1)
        self._quiet = QUIET | {live.settings.health_route}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        headers, state = dict(scope["headers"]), scope.setdefault("state", {})
        given = headers.get(b"x-request-id")
        if given is None or not REQUEST_ID.fullmatch(given := given.strip()):
            given = f"{self._prefix}{next(self._count):x}".encode()
        id_header = (b"x-request-id", given)
        state["headers"], state["request_id"], state["arrived"] = headers, given.decode(), time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        try:
            if self.keys is not None and scope["path"] not in self._open:
                self._expect_key(self.keys, headers.get(b"authorization"))
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            status = scope["state"].get("refused", CLIENT_LEFT)  # by the protocol, before the body was complete
        except HTTPException as error:
            allow = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            row = OF_HTTP.get(error.status_code) or row_of(error)
            self.live.metrics.rejected.add(row.slug)
            await refuse(scope, answer, row, error, allow)
        except (Exception, asyncio.CancelledError) as error:
            # No name for `error` that outlives this block: with its traceback, which holds this frame and with it the
            # body, it would be a cycle that waits for the garbage collector.
            if status:
                self._told(error, state["request_id"])
                raise  # half an answer is out: the server closes the connection
            await self._refuse(scope, answer, error)
        finally:
            self._finish(scope, status, time.perf_counter() - start)

    def _expect_key(self, keys: Keys, authorization: bytes | None) -> None:
        if not keys.admit(authorization):
            wrong = "" if authorization is None else ' error="invalid_token"'
            raise HTTPException(401, headers={"WWW-Authenticate": f"Bearer{wrong}"})

    async def _refuse(self, scope: Scope, answer: Send, error: BaseException) -> None:
        told = self._told(error, scope["state"]["request_id"])
        row = row_of(told)
        self.live.metrics.rejected.add(row.slug)
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
        self.live.metrics.request(template, status, seconds)
        if self.live.settings.access_log and scope["path"] not in self._quiet:
            state, path = scope["state"], scope["path"][:MAX_PATH]
            record = {
                "request_id": state["request_id"],
                "method": scope["method"],
                # A terminal would act on a control character, and a blank would look like the end of the path.
                "path": path if path.isprintable() and " " not in path else ascii(path),
                "status": status,
                "ms": round(seconds * 1000, 3),
            }
            if (traceparent := state["headers"].get(b"traceparent")) is not None:
                record["traceparent"] = traceparent.decode("latin-1")[:200]
            if jobs := state.get("jobs"):
                record["rows"] = sum(len(job.x) for job in jobs)
                record["queue_ms"] = round(jobs[0].queue_seconds * 1000, 3)
                record["compute_ms"] = round(sum(job.compute_seconds for job in jobs) * 1000, 3)
            access.info("%s %s %d", record["method"], record["path"], status, extra={"request": record})
