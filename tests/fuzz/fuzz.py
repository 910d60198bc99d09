"""Coverage-guided fuzzing of everything that reads a stranger's bytes. `make fuzz` runs it; it needs atheris.

    python fuzz.py requests|connections|models|folders [libFuzzer's own arguments] [corpus folders]

Whatever comes, a request is answered with a status of the table and never 500, and what is answered 200 is what the
library says of the same numbers; a model is loaded, or refused with a ModelError within seconds.
"""

import asyncio
import contextlib
import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["lstm_serve"]):
    from serving import ASKER, GOLDEN, call, started

    from lstm_serve import load_model
    from lstm_serve.errors import LstmServeError, ModelError
    from lstm_serve.process.connection import Protocol
    from lstm_serve.settings import Settings
    from lstm_serve.web.app import create_app
    from lstm_serve.web.predict import PostRoute

import numpy as np
import uvicorn
from uvicorn.server import ServerState

CORPUS = Path(__file__).parent / "corpus"
MODEL = ASKER / "k215_model.h5"
STATUSES = frozenset({200, 400, 404, 405, 413, 415, 422, 429, 503, 504})

# The first byte of an input chooses the path, the second the headers; the rest is the body.
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "application/json"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "application/octet-stream", "inference-header-content-length": "40"},
    {"content-type": "application/x-npy"},
    {"accept": "application/x-npy"},
    {"content-encoding": "gzip"},
    {"x-request-timeout-ms": "0"},
)


def requests() -> Callable[[bytes], None]:
    """Every POST of the app, called in process."""
    model = load_model(MODEL)
    app = create_app(Settings(model=MODEL, access_log=False))
    paths = sorted(route.path for route in app.routes if isinstance(route, PostRoute))
    paths = [path.replace("{name}", model.about.name).replace("{version}", "1") for path in paths]
    runner = asyncio.Runner()
    running = started(app)
    runner.run(running.__aenter__())

    def one(data: bytes) -> None:
        if len(data) < 2:
            return
        path, headers, body = paths[data[0] % len(paths)], HEADERS[data[1] % len(HEADERS)], data[2:]
        answer = runner.run(call(app, path, body, headers=headers))
        assert answer.status in STATUSES, (path, headers, answer)
        assert answer.status == 200 or len(answer.body) <= 4096
        if answer.status == 200 and path.startswith("/predict") and not headers.get("accept"):
            check(json.loads(body), json.loads(answer.body))

    def check(asked: dict[str, Any], answer: dict[str, Any]) -> None:
        many = "sequences" in asked
        x = np.array(asked["sequences"] if many else [asked["sequence"]], np.float32)
        came = np.array([a["probabilities"] for a in (answer["predictions"] if many else [answer])])
        assert np.allclose(came, model.predict(x), rtol=0, atol=1e-6)

    return one


class Wire(asyncio.Transport):
    """A connection without a network: what the service writes, and whether it closes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += data

    def write_eof(self) -> None:
        return

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (1, None)

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading


def connections() -> Callable[[bytes], None]:
    """A connection's bytes in pieces, through the HTTP protocol to the app; every answer is whole and has a status."""
    app = create_app(Settings(model=MODEL, access_log=False))
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    runner, broken = asyncio.Runner(), list[str]()
    running = started(app)
    runner.run(running.__aenter__())
    runner.get_loop().set_exception_handler(lambda _, context: broken.append(str(context)))

    async def talk(pieces: list[bytes]) -> bytes:
        state = ServerState()
        protocol, wire = Protocol(config, state, {}, asyncio.get_running_loop()), Wire()
        protocol.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(50):
            if not state.tasks or all(task.done() for task in state.tasks):
                break
            await asyncio.sleep(0)
        protocol.shutdown()
        protocol.connection_lost(None)
        if state.tasks:
            await asyncio.wait(state.tasks)
        return bytes(wire.sent)

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        cuts = sorted(provider.ConsumeIntInRange(0, 4096) for _ in range(provider.ConsumeIntInRange(0, 3)))
        rest = provider.ConsumeBytes(len(data))
        pieces = [rest[start:stop] for start, stop in zip([0, *cuts], [*cuts, None], strict=True)]
        came = runner.run(talk([piece for piece in pieces if piece]))
        assert not broken, broken
        while came:
            head, _, came = came.partition(b"\r\n\r\n")
            found = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
            assert found is not None, head[:200]
            assert int(found[1]) in STATUSES | {100, 408, 431}, head
            length = re.search(rb"(?i)content-length: (\d+)", head)
            # What answers HEAD says a length and has no body.
            size = int(length[1]) if length and not came.startswith(b"HTTP/1.1 ") else 0
            came = came[size:]

    return one


def models() -> Callable[[bytes], None]:
    """A file of any form, as the loaders are given it; small golden files are the seeds."""
    path = Path(tempfile.mkdtemp(prefix="lstm-serve-fuzz-")) / "model.h5"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        loaded_or_refused(path)

    return one


SAVED_MODEL = GOLDEN / "savedmodel" / "tf215__hard"
PARTS = ("saved_model.pb", "keras_metadata.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def folders() -> Callable[[bytes], None]:
    """A SavedModel folder in which one file, which the first byte names, is the input. The seeds are the true files."""
    folder = Path(tempfile.mkdtemp(prefix="lstm-serve-fuzz-")) / "model"
    shutil.copytree(SAVED_MODEL, folder)

    def one(data: bytes) -> None:
        if not data:
            return
        part = PARTS[data[0] % len(PARTS)]
        (folder / part).write_bytes(data[1:])
        try:
            loaded_or_refused(folder)
        finally:
            shutil.copyfile(SAVED_MODEL / part, folder / part)

    return one


def loaded_or_refused(path: Path) -> None:
    """Load a model: one that comes can compute, one that does not is refused in few words."""
    try:
        model = load_model(path)
    except ModelError as error:
        if len(str(error)) > 2000:
            raise AssertionError("an endless message") from error
        return
    shape = [3 if size is None else size for size in model.input_shape]
    if np.prod(shape) < 1 << 16:
        with contextlib.suppress(LstmServeError):
            model.predict(np.ones((1, *shape)))


TARGETS = {"requests": requests, "connections": connections, "models": models, "folders": folders}


def seeds(target: str) -> list[str]:
    """The folders that the search starts from: the corpus, and for models the small golden files."""
    found = [str(CORPUS / target)] if (CORPUS / target).is_dir() else []
    if target == "models":
        folder = Path(tempfile.mkdtemp(prefix="lstm-serve-seeds-"))
        for number, file in enumerate(sorted(GOLDEN.rglob("*"))):
            if (
                file.is_file()
                and file.suffix in {".h5", ".keras", ".npz", ".json", ".pb"}
                and file.stat().st_size < 20_000
            ):
                (folder / f"{number}{file.suffix}").write_bytes(file.read_bytes())
        found.append(str(folder))
    if target == "folders":
        folder = Path(tempfile.mkdtemp(prefix="lstm-serve-seeds-"))
        for number, part in enumerate(PARTS):
            (folder / str(number)).write_bytes(bytes([number]) + (SAVED_MODEL / part).read_bytes())
        found.append(str(folder))
    return found


def main() -> None:
    """Fuzz the target until libFuzzer's own limits end it."""
    logging.disable(logging.CRITICAL)
    target = sys.argv.pop(1)
    new = tempfile.mkdtemp(prefix=f"lstm-serve-{target}-")
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    arguments = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    folders = [*(given or [new]), *seeds(target)]
    limits = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=65536" if target != "folders" else "-max_len=400000"]
    dictionary = [f"-dict={CORPUS / 'words.dict'}"] if target in {"requests", "connections"} else []
    atheris.Setup([sys.argv[0], *limits, *dictionary, *arguments, *folders], TARGETS[target]())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
