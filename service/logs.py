"""Logs on standard output: one JSON object a line, or plain text where a person reads along."""

import itertools
import logging
import re
import secrets
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

access = logging.getLogger("service.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
MAX_PATH = 200
_PREFIX = secrets.token_hex(6)
_COUNT = itertools.count(1)


def request_id(given: bytes | None = None) -> str:
    """The id that a client gave, if it may stand in a log; else a new one.

    That is a random prefix and a count: as unique as a UUID, in a quarter of the time.
    """
    if given is not None and REQUEST_ID.fullmatch(given := given.strip()):
        return given.decode()
    return f"{_PREFIX}-{next(_COUNT):x}"


def log_request(request_id: str, method: str, path: str, status: int, seconds: float, **more: object) -> None:
    """A line of the access log; `more` is what else is known of the request."""
    path = path[:MAX_PATH]
    record = {
        "request_id": request_id,
        "method": method,
        # A terminal would act on a control character, and a blank would look like the end of the path.
        "path": path if path.isprintable() and " " not in path else ascii(path),
        "status": status,
        "ms": round(seconds * 1000, 3),
        **more,
    }
    access.info("%s %s %d", method, record["path"], status, extra={"request": record})


class JsonLines(logging.Formatter):
    """A record as one JSON object; what a request's record carries comes beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(content, default=str).decode()
        except TypeError:
            # A file's name that is not UTF-8 is half a surrogate pair to Python, and no text to JSON.
            plain = {key: ascii(value) if isinstance(value, str) else value for key, value in content.items()}
            return orjson.dumps(plain, default=ascii).decode()


class Text(logging.Formatter):
    """A record as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        request: dict[str, Any] = getattr(record, "request", {})
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006 - the reader's own clock
        parts = [clock, f"{record.levelname.lower():7}", record.getMessage()]
        parts += [f"{key}={request[key]}" for key in ("ms", "rows", "request_id") if key in request]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure() -> None:
    """Send every logger's records to standard output, uvicorn's in the same form; its access log is ours.

    What no line shows is not looked up for each: https://docs.python.org/3/howto/logging.html#optimization
    """
    logging._srcfile = None  # noqa: SLF001 - the documented switch
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Text() if sys.stdout.isatty() else JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
