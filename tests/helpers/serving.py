"""How the tests run the service: as a real process behind a real socket, or its app called in process."""

import asyncio
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Self

import httpx
import numpy as np
import numpy.typing as npt
from fastapi import FastAPI

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
ASKER = GOLDEN / "asker"
SMALL = GOLDEN / "small"
# Inputs, and what Keras answers to them.
Golden = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
# The fixture `served`: a client of a service with a model.
Clients = Callable[[Path], httpx.Client]

# How the service is started.
COMMAND = [sys.executable, "-m", "lstm_serve", "serve"]
# What takes so long hangs. A busy machine may take minutes: what is waited for is the process, not the clock.
PATIENCE = 600.0
# What a process has written is read within so long after its end, unless another one still has its output.
LAST_WORDS = 60.0
RUNNING = re.compile(r"running on https?://\S+:(\d+)")


def load_golden(path: Path) -> Golden:
    with np.load(path) as arrays:
        return arrays["x0"], arrays["y0"]


def ask(method: str, url: str, **sent: Any) -> httpx.Response:
    """What is answered, as `httpx.request` gives it, however long a busy machine takes."""
    return httpx.request(method, url, timeout=PATIENCE, **sent)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of the service, with standard output buffered, and these.

    Who has to wait is not refused for it: a deadline is a wall clock's.
    """
    left_out = ("LSTMSERVE_", "PYTHONUNBUFFERED", "PYDANTIC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    ours = {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return kept | ours | {"LSTMSERVE_PORT": "0", "LSTMSERVE_DEADLINE_SECONDS": f"{PATIENCE:g}"} | variables


def takes_signals() -> None:
    """Let a command that is started take what stops it.

    A shell's background job, such as a test run may be, is started with SIGINT ignored, by nohup with SIGHUP.
    """
    for sig in (signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)


def until(true: Callable[[], bool], every: float = 0.02) -> None:
    """Wait until it is true; that it never is is a failure."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(every)


class Process:
    """The service as a process of its own; its lines of log are collected as they come."""

    def __init__(self, model: Path, command: Sequence[str] = COMMAND, **variables: str) -> None:
        self.popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(LSTMSERVE_MODEL=str(model), **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.errors = ""
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=target, daemon=True) for target in (self._read_lines, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.popen.stderr is not None
        self.errors = self.popen.stderr.read()

    def __enter__(self) -> Self:
        try:
            self.port = int(self.wait_for(RUNNING.pattern)[1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.ended()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, pattern: str, nth: int = 1) -> re.Match[str]:
        """The nth line of log that the pattern finds; it is waited for."""
        end, read, found = time.monotonic() + PATIENCE, 0, list[re.Match[str]]()
        with self._changed:
            while True:
                found += (match for line in self.lines[read:] if (match := re.search(pattern, line)))
                read = len(self.lines)
                if len(found) >= nth:
                    return found[nth - 1]
                if self.popen.poll() is not None:
                    assert self._readers[0].is_alive(), f"no line with {pattern!r} in {self.lines}; {self.errors}"
                    end = min(end, time.monotonic() + LAST_WORDS)
                assert time.monotonic() < end, f"no line with {pattern!r} in {self.lines}"
                self._changed.wait(0.05)

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self) -> int:
        """The exit status, once the process has ended and all its output is read."""
        status = self.popen.wait(PATIENCE)
        for reader in self._readers:
            reader.join(LAST_WORDS)
            assert not reader.is_alive(), f"it has ended, and another process still has its output: {self.lines}"
        for stream in (self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()
        return status

    @property
    def records(self) -> list[dict[str, Any]]:
        """The log, parsed."""
        return [json.loads(line) for line in self.lines]

    def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes, sent as they are, until the service closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)


@contextmanager
def client_of(model: Path, **variables: str) -> Iterator[httpx.Client]:
    """A client of a process of its own."""
    with Process(model, **variables) as process, httpx.Client(base_url=process.url, timeout=PATIENCE) as client:
        yield client


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class Answered(NamedTuple):
    """An answer of the app, called in process."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[None]:
    """The app between its start and its stop."""
    async with app.router.lifespan_context(app):
        yield


async def call(
    app: FastAPI,
    path: str,
    body: bytes | None = None,
    *,
    method: str = "",
    headers: Mapping[str, str] | None = None,
    left: asyncio.Event | None = None,
) -> Answered:
    """Call the app as its server does, without any client's cost; `left` is set when the client leaves."""
    messages = [{"type": "http.request", "body": body or b"", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"content-length": str(len(body or b"")), **(headers or {})}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    if not sent:
        return Answered(0, {}, b"")
    return Answered(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine function, run in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
