"""Logs on standard output: one JSON object a line, or plain text where a person reads along."""

import itertools
import logging
import re
import secrets
import sys
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from lstm_serve.telemetry.log_handler import LogHandler

access = logging.getLogger("lstm_serve.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
MAX_PATH = 200
_PREFIX = secrets.token_hex(6)
_COUNT = itertools.count(1)


def log_of_model(log: logging.Logger, model: str) -> logging.LoggerAdapter[logging.Logger]:
    """A log of which each line has the name of the model that it is about in the field `model`."""
    return logging.LoggerAdapter(log, {"fields": {"model": model}})


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
    if LogHandler.straight is None:
        access.info("%s %s %d", method, record["path"], status, extra={"fields": record})
    else:  # a record of `logging` costs 12 us more
        LogHandler.straight.put(_json(time.time(), "info", access.name, f"{method} {record['path']} {status}", record))


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; the fields that it carries come beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        more: dict[str, Any] = getattr(record, "fields", {})
        if record.exc_info:
            more = {**more, "exception": self.formatException(record.exc_info)}
        return _json(record.created, record.levelname.lower(), record.name, record.getMessage(), more)


def _json(seconds: float, level: str, logger: str, message: str, more: Mapping[str, Any]) -> str:
    clock = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    content = {"time": clock, "level": level, "logger": logger, "message": message, **more}
    try:
        return orjson.dumps(content, default=str).decode()
    except TypeError:
        # A file's name that is not UTF-8 is half a surrogate pair to Python, and no text to JSON.
        plain = {key: _escaped(value) if isinstance(value, str) else value for key, value in content.items()}
        return orjson.dumps(plain, default=ascii).decode()


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


class TextFormatter(logging.Formatter):
    """A record as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006 - the reader's own clock
        parts = [clock, f"{record.levelname.lower():7}", record.getMessage()]
        parts += [f"{key}={fields[key]}" for key in ("ms", "rows", "request_id", "model") if key in fields]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure() -> LogHandler:
    """Send every logger's records to standard output, uvicorn's in the same form; its access log is ours.

    What no line shows is not looked up for each: https://docs.python.org/3/howto/logging.html#optimization
    """
    logging._srcfile = None  # noqa: SLF001 - the documented switch
    # What the bytes of a body have Python and NumPy warn of is the client's, and standard error waits for its reader.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LogHandler(sys.stdout.fileno(), sys.stdout.encoding if sys.stdout.isatty() else "utf-8")
    LogHandler.straight = None if sys.stdout.isatty() else handler
    handler.setFormatter(TextFormatter() if LogHandler.straight is None else JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return handler
