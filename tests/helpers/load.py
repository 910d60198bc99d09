"""Clients that ask and check every answer: good ones, and with `chaos` every kind of bad one.

One event loop, bare sockets: what a client library would mend by itself, a retry above all, must show here.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import orjson
from serving import PATIENCE

Floats = npt.NDArray[np.float32]

# The same row differs in its last bits between batches, and golden predictions by what Keras' own kernels round.
TOLERANCE = 1e-5


class Lost(Exception):
    """A request without an answer; `came` is what there was of one, `sent` whether the request went out whole."""

    def __init__(self, why: str, came: bytes = b"") -> None:
        super().__init__(why)
        self.came = came


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection that is opened when it is needed, and kept as long as the service keeps it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.opened = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
            self.opened += 1
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(self, data: bytes) -> Reply:
        """Send a whole request and read its answer. Raises Lost, or OSError where nobody listens."""
        reader, writer = await self.open()
        try:
            writer.write(data)
            return await asyncio.wait_for(self.read(reader), PATIENCE)
        except (OSError, TimeoutError) as error:
            self.close()
            raise Lost(repr(error)) from error
        except Lost:
            self.close()
            raise

    async def read(self, reader: asyncio.StreamReader) -> Reply:
        """The next answer on the connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Lost("the connection was closed", error.partial) from None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        try:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError as error:
            raise Lost("half an answer", head + error.partial) from None
        if headers.get("connection") == "close":
            self.close()
        return Reply(int(first.split()[1]), headers, body)


def request(path: str, body: bytes | None = None, headers: str = "") -> bytes:
    """A request's bytes."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{headers}\r\n".encode() + body


class Question(NamedTuple):
    """A good request, and the probabilities (n, classes) that any of the models would answer, by its digest."""

    data: bytes
    wanted: dict[str, Floats]

    def judge(self, reply: Reply) -> str | None:
        """What is wrong with a reply, or None where it is the very answer of the model that it names."""
        if reply.status != 200:
            return f"status {reply.status}: {reply.body[:200]!r}"
        wanted = self.wanted.get(reply.headers.get("x-model-sha256", ""))
        if wanted is None:
            return "answered by another model"
        content = json.loads(reply.body)
        answers = content.get("predictions", [content])
        came = np.array([answer["probabilities"] for answer in answers])
        if came.shape != wanted.shape or not np.abs(came - wanted).max() <= TOLERANCE:
            return "wrong numbers"
        return None


def questions(x: Floats, y: dict[str, Floats], sizes: Sequence[int] = (1, 1, 1, 3, 16), at: str = "") -> list[Question]:
    """Requests for the rows x (n, timesteps, features) of which each model, by its digest, answers y (n, classes).

    `at` is what the paths begin with.
    """
    made = []
    for number, size in enumerate(sizes):
        rows = [(number * 5 + k) % len(x) for k in range(size)]
        wanted = {sha256: answers[rows] for sha256, answers in y.items()}
        if size == 1:
            data = request(f"{at}/predict", written({"sequence": x[rows[0]]}))
        else:
            data = request(f"{at}/predict/batch", written({"sequences": x[rows]}))
        made.append(Question(data, wanted))
    return made


def written(content: dict[str, Floats]) -> bytes:
    """The JSON of arrays, each number in the fewest digits that give it back."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class Tally:
    """What came of the good requests."""

    def __init__(self) -> None:
        self.good = 0
        self.wrong: list[str] = []
        self.by_model: Counter[str] = Counter()

    def note(self, reply: Reply, wrong: str | None) -> None:
        if wrong is None:
            self.good += 1
            self.by_model[reply.headers["x-model-sha256"]] += 1
        else:
            self.wrong.append(wrong)


async def keep_asking(
    port: int,
    asked: Sequence[Question],
    tally: Tally,
    until: Callable[[], bool],
    offset: int = 0,
    pause: float = 0.0,
) -> None:
    """One client: a question after the other, on one connection, as long as the service keeps it."""
    async with Connection(port) as connection:
        number = offset
        while not until():
            question = asked[number % len(asked)]
            number += 1
            try:
                reply = await connection.ask(question.data)
            except Lost as error:
                tally.wrong.append(f"lost: {error}")
            except OSError as error:
                tally.wrong.append(f"refused: {error}")
                await asyncio.sleep(0.01)
            else:
                tally.note(reply, question.judge(reply))
                await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def asking(port: int, asked: Sequence[Question], clients: int, pause: float = 0.0) -> AsyncIterator[Tally]:
    """So many clients that ask while the block runs, each with a pause in seconds after an answer.

    Its tally is complete after it.
    """
    tally, stop = Tally(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(keep_asking(port, asked, tally, stop.is_set, number, pause))
        try:
            yield tally
        finally:
            stop.set()
