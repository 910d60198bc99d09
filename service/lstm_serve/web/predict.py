"""How every POST is handled: one short way from bytes to bytes, whatever the dialect."""

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import InvalidInput, Malformed
from lstm_serve.formats.text import without_mark
from lstm_serve.model.answers import ClassIndices, counted, predicted_classes
from lstm_serve.model.model import Model
from lstm_serve.model.records import shapes
from lstm_serve.serving.deployment import Deployment, Served
from lstm_serve.serving.jobs import Job, Reservation, Shortcut
from lstm_serve.serving.memory_budget import Held
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.serving.turns import Turn
from lstm_serve.settings import Settings
from lstm_serve.web.content_type import expect_json
from lstm_serve.web.errors import JSON, Headers, respond
from lstm_serve.web.json_structure import count_marks, structure
from lstm_serve.web.leaving import unless_left
from lstm_serve.web.nested_lists import expect_few, expect_short
from lstm_serve.web.read_body import inflated, read_body


class Decoded(Protocol):
    """A body, in whichever dialect: its rows are counted before they are converted."""

    @property
    def size(self) -> int:
        """How many sequences there are."""

    def arrays(self, dtype: npt.DTypeLike) -> Iterable[Array]:
        """The sequences, in order, as arrays (n, *input_shape). Raises InvalidInput where they do not fit."""

    def let_go(self) -> None:
        """Forget the values, once there are arrays: the request may wait long for its answer."""


class Parsed(Protocol):
    """The type of a body of JSON."""

    @classmethod
    def parse(cls, raw: bytes) -> Any:  # noqa: ANN401 - what its endpoint takes
        """The validated body. Raises Malformed, InvalidInput, or TooLarge."""


def expect_one(model: Model, what: str, *ends: Literal["input", "output"]) -> None:
    """Raise InvalidInput where `what` is of one input or output, or one of each, and the model has more."""
    if wrong := model.not_one(what, *ends):
        raise InvalidInput.at(wrong)


class PredictRequest(Request):
    """A request, and what answers it: one model decodes, computes and encodes, whatever is activated meanwhile."""

    def __init__(self, scope: Scope, receive: Receive, deployment: Deployment, served: Served) -> None:
        """`served` is what the deployment had when the request was taken. Raises Malformed."""
        super().__init__(scope, receive)
        self.deployment, self.served = deployment, served
        self.drift = deployment.drift if _counts_for_drift(self) and served is deployment.current else None
        self.reserved: Reservation | None = None  # where a request changes something before it is queued


class Answer(NamedTuple):
    """The bytes of an answer, the headers that say what the bytes are, and what is to be called once they are sent."""

    content: bytes
    headers: Headers = [JSON]  # noqa: RUF012 - never changed
    after: Callable[[], None] | None = None

    @classmethod
    def of(cls, content: object, after: Callable[[], None] | None = None) -> "Answer":
        """JSON, with NumPy's numbers and C-contiguous arrays in it."""
        return cls(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), after=after)


class Predicted(NamedTuple):
    """Outputs y (n, *output_shape), and what is predicted in each row; nothing for plain values."""

    y: Array
    classes: ClassIndices


Endpoint = Callable[[Decoded, PredictRequest], Awaitable[Answer]]


class PostRoute(APIRoute):
    """A POST whose endpoint takes a decoded body and the request, and gives an Answer.

    FastAPI makes the OpenAPI document of the endpoint's types as of any other's. What it does around a call (130 us of
    dependencies and of validating once more) is left out: its hook for a handler of one's own leads to `serve`.
    https://fastapi.tiangolo.com/how-to/custom-request-and-route/
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what FastAPI calls with the request: all is done while the response is sent."""
        response = PostResponse(self)

        async def handle(_: Request) -> Response:
            return response

        return handle

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, decode, call, answer. What goes wrong is raised, and answered in `boundary`."""
        of_app, state, asked = scope["app"].state, scope["state"], scope["path_params"]
        serving: ServingState = of_app.serving
        registry: Registry = of_app.registry
        deployment, served = registry.find(asked.get("model_name"), asked.get("model_version"), self.path)
        state["model"] = deployment.name
        serving.reads.note(deployment.name)
        deployment.queue.check_room(1)
        deployment.requests += 1
        try:
            await self._answer(PredictRequest(scope, receive, deployment, served), send, serving)
        finally:
            deployment.requests -= 1

    async def _answer(self, request: PredictRequest, send: Send, serving: ServingState) -> None:
        state, served, queue = request.scope["state"], request.served, request.deployment.queue
        headers, settings = state["headers"], serving.settings
        raw = await read_body(headers, request.receive, serving)
        state["complete"] = time.monotonic()
        held = state["held"] = Held(serving.budget, len(raw))
        turn = state["turn"] = Turn(serving.turns, settings.deadline_seconds)
        try:
            raw = await inflated(raw, request, serving, held, turn)
            if not queue.has_room(settings.max_rows):
                queue.check_room(rows_at_a_glance(raw, headers, served.model))
            body = self.decode(raw, headers, served, settings)
            del raw  # it may wait long for its answer
            if turn.begun:
                await turn.pause()
            answer = await cast("Endpoint", self.endpoint)(body, request)
        finally:
            turn.end()
            held.become(0)
        await respond(send, 200, answer.content, [*answer.headers, (b"x-model-sha256", served.digest)])
        if answer.after is not None:
            answer.after()

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The body that the endpoint takes; a dialect that reads more than its type's JSON says so here."""
        expect_json(headers, raw)
        return cast("Decoded", self.body_type(served, settings).parse(raw))

    def body_type(self, served: Served, settings: Settings) -> type[Parsed]:
        """The type of the body, for the model that answers."""
        raise NotImplementedError


class PostResponse(Response):
    """What a handler returns: ASGI, as every response of Starlette's is, and the whole way of a POST."""

    def __init__(self, route: PostRoute) -> None:
        """Of this route; it holds nothing of a request."""
        super().__init__()
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        await self._route.serve(scope, receive, send)


def rows_at_a_glance(raw: bytes, headers: Mapping[bytes, bytes], model: Model) -> int:
    """About how many sequences a JSON body has, by its lists: a refusal must cost less than an answer."""
    if not without_mark(raw).startswith(b"{") or b"inference-header-content-length" in headers:
        return 1
    if model.is_free:
        return 1
    lists = sum(_lists(spec.shape) for spec in model.inputs) + (len(model.inputs) > 1)
    # A time step is a list, or an object by names; one list or object more is around them all, and one in that.
    marks = np.frombuffer(raw, np.uint8)
    if count_marks(marks, '"') != [2]:  # beside the key there are names, in which there may be brackets
        marks = structure(raw)
    return max(1, (sum(count_marks(marks, "[{")) - 2) // lists)


def _lists(shape: Shape) -> int:
    """How many lists a sequence of this shape is in JSON."""
    lists = 0
    for size in reversed(shape):
        lists = lists * (size or 1) + 1 if lists else 1
    return lists


async def predicted(
    serving: ServingState, body: Decoded, request: PredictRequest, within: float | None = None
) -> list[Predicted]:
    """Compute a body's sequences: the way from every dialect into the queue and back.

    Gives outputs (n, *output_shape), in order: more than one only where sequences are of different lengths. `within` is
    how many seconds the client gives it, in the dialect's own words, beside the header X-Request-Timeout-Ms.
    """
    rows = body.size
    expect_few(rows, serving.settings.max_rows)
    request.deployment.queue.check_room(rows)
    deadline = deadline_of(request, serving.settings.deadline_seconds, within)
    arrays = await converted(body, request)
    body.let_go()
    return await computed_classes(serving, arrays, request, deadline)


async def computed_classes(
    serving: ServingState, arrays: Sequence[Array], request: PredictRequest, deadline: float
) -> list[Predicted]:
    """Compute arrays of sequences (n, *input_shape), a job each; they may be views that overlap."""
    jobs = submitted(serving, arrays, request, deadline)
    return noted(await computed(jobs, request), request, arrays)


def submitted(
    serving: ServingState,
    arrays: Sequence[Array],
    request: PredictRequest,
    deadline: float,
    shortcut: Shortcut | None = None,
) -> list[Job]:
    """The jobs of arrays of sequences (n, *input_shape), one each, in the queue.

    `shortcut` is that of the one sequence, where there is one.
    """
    model, queue = request.served.model, request.deployment.queue
    if request.reserved is None:
        request.scope["state"]["held"].become(sum(map(_bytes_of, arrays)))  # what was read is not needed any more
    check_free(model, arrays, serving.settings.max_timesteps)
    return [queue.submit(model, x, deadline, shortcut, request.reserved) for x in arrays]


def noted(ys: Sequence[Array], request: PredictRequest, xs: Sequence[Array | None]) -> list[Predicted]:
    """What is predicted in the outputs of a request's jobs. It is counted, and for drift with what was computed of.

    Rows of series count as they are appended: of them there is None.
    """
    model, metrics, jobs = request.served.model, request.deployment.metrics, request.scope["state"]["jobs"]
    found = [Predicted(y, predicted_classes(model, y)) for y in ys]
    metrics.answered([counted(model, part.classes) for part in found], jobs[0].queue_seconds, sum(map(len, ys)))
    if request.drift is not None:
        for x, y in zip(xs, ys, strict=True):
            request.drift.see(x, y)
    return found


def _bytes_of(x: Array) -> int:
    """What it takes in memory: windows that overlap, what they are cut from."""
    if x.flags.c_contiguous:
        return x.nbytes
    low, high = np.lib.array_utils.byte_bounds(x)
    return min(x.nbytes, high - low)


async def converted(body: Decoded, request: PredictRequest) -> list[Array]:
    """The sequences, in order; where they are of one shape, one array. A turn that was begun ends with it."""
    model, turn, arrays = request.served.model, request.scope["state"]["turn"], []
    for x in body.arrays(model.input_dtype):
        arrays.append(x)
        if turn.begun:
            await turn.pause()
    turn.end()
    if len(arrays) == 1:
        return arrays
    return [np.concatenate(list(run)) for _, run in groupby(arrays, lambda x: (x.shape[1:], x.dtype))]


def check_free(model: Model, arrays: Iterable[Array], longest: int) -> None:
    """Hold what the model's shape leaves free, if it does, against the limit, and against what the model needs."""
    if not model.is_free:
        return
    for x in arrays:
        given = shapes(x)
        for shape, spec in zip(given, model.inputs, strict=True):
            expect_short(spec.shape, shape, longest)
        model.check_free(*given)


def deadline_of(request: Request, longest: float, within: float | None) -> float:
    """When a request is not worth computing any more, in the time of `time.monotonic`.

    The service's own `longest` seconds run from the end of the body, which may come slowly; what the client gives it,
    in the header X-Request-Timeout-Ms or as `within`, from when the request arrived. Whichever ends first counts.
    """
    state = request.scope["state"]
    deadline: float = state["complete"] + longest
    given = state["headers"].get(b"x-request-timeout-ms")
    if given is not None:
        if not re.fullmatch(rb"[0-9]+[ \t]*", given):
            raise Malformed("expected whole milliseconds in the header X-Request-Timeout-Ms")
        milliseconds = int(given.strip().lstrip(b"0")[:15] or b"0")  # with more digits it is longer than `longest` too
        deadline = min(deadline, state["arrived"] + milliseconds / 1000)
    return deadline if within is None else min(deadline, state["arrived"] + within)


def _counts_for_drift(request: Request) -> bool:
    """Whether a request's rows and answers count for drift. What only tries says in the header X-Drift that not."""
    given = request.scope["state"]["headers"].get(b"x-drift")
    if given is not None and given.strip() != b"off":
        raise Malformed("expected `off` in the header X-Drift, or no such header")
    return given is None


async def computed(jobs: Sequence[Job], request: Request) -> list[Array]:
    """What the jobs of one request give; the request's state has them, for the log.

    While a job waits behind others its client is watched, so that rows nobody waits for any more are not computed.
    """
    request.scope["state"]["jobs"] = jobs
    try:
        return [await (unless_left(job.future, request.receive) if job.waits else job.future) for job in jobs]
    except BaseException:
        for job in jobs:
            job.abandon()
        raise
