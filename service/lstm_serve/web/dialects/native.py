"""The native dialect: POST /predict, POST /predict/batch, GET /model; and /invocations, SageMaker's name for both."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, Malformed, TooLarge, UnknownType, UnreadableFile
from lstm_serve.formats.npy import HoldsTooMuch, read_npy, read_npz
from lstm_serve.formats.text import without_mark
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.model.records import unpacked
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.body_types import one_and_many
from lstm_serve.web.content_type import expect_json, media_type, preferred
from lstm_serve.web.dialects.model_path import MODEL, VERSION, Documented, parameters
from lstm_serve.web.dialects.trace import TraceAnswer, traced
from lstm_serve.web.dialects.v1 import codec as v1
from lstm_serve.web.dialects.v1.codec import V1Rows
from lstm_serve.web.dialects.v1.routes import predict_form
from lstm_serve.web.dialects.v1.schemas import Outputs, Predictions
from lstm_serve.web.errors import JSON
from lstm_serve.web.flattened_csv import Flattened, read_flattened, written
from lstm_serve.web.named_inputs import INPUTS, NamedInputs, NamedRows
from lstm_serve.web.named_inputs import documented as documented_by_name
from lstm_serve.web.nested_lists import FEW, Body
from lstm_serve.web.openapi import problem_responses
from lstm_serve.web.predict import (
    Answer,
    Decoded,
    PostRoute,
    Predicted,
    PredictRequest,
    expect_one,
    predicted,
)
from lstm_serve.web.schemas import AnyAnswer, AnyBody, ModelInfo, model_info, one_and_many_answers

ERRORS = problem_responses(400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
MODEL_HEADER = {"X-Model-Sha256": {"description": "the model that answered", "schema": {"type": "string"}}}

NPY, NPZ = b"application/x-npy", b"application/x-npz"
FILE = {"schema": {"type": "string", "format": "binary", "description": "one array, as numpy.save writes it"}}
NPY_CONTENT = {NPY.decode(): FILE}
CSV = b"text/csv"
CSV_CONTENT = {CSV.decode(): {"schema": {"type": "string", "description": "a line for each sequence, flattened"}}}

FIRST_KEY = re.compile(rb'\s*\{\s*"(\w+)"')


@dataclass(eq=False)
class NpyBody:
    """Several sequences, or the rows of a series, as one array in NumPy's .npy format; `check` holds it to a shape."""

    x: AnyArray
    check: Callable[[AnyArray], AnyArray]
    many: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.x) if self.x.ndim else 1

    def arrays(self, dtype: npt.DTypeLike) -> list[Array]:
        """The array, once it is known to fit."""
        return [self.check(self.x).astype(dtype, copy=False)]

    def let_go(self) -> None:
        """Forget the file's array."""
        del self.x


@dataclass(eq=False)
class NpzBody:
    """Several rows as an array by the name of each input; `check` packs them, and holds them to the model."""

    xs: dict[str, AnyArray]
    check: Callable[[dict[str, AnyArray]], Array]
    many: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """How many there are, of the input with the most."""
        return max((len(x) for x in self.xs.values() if x.ndim), default=1)

    def arrays(self, dtype: npt.DTypeLike) -> list[Array]:  # noqa: ARG002 - each input has its own
        """The rows, once they are known to fit."""
        return [self.check(self.xs)]

    def let_go(self) -> None:
        """Forget the file's arrays."""
        del self.xs


OfBody = Body | NpyBody | NpzBody | NamedRows | Flattened


def npz_of(raw: bytes, model: Model, limit: int) -> NpzBody:
    """The rows of a body in .npz format, an array by the name of each input. Raises Malformed or TooLarge."""
    try:
        xs = read_npz(io.BytesIO(raw), limit=limit, most=len(model.inputs) + FEW, told=False)
    except HoldsTooMuch:
        raise TooLarge(
            f"the body holds more than {limit} bytes once it is unpacked; at most so many are read"
        ) from None
    except UnreadableFile as error:
        raise Malformed(str(error)) from None
    return NpzBody(xs, model.checked)


def npy_of(raw: bytes) -> AnyArray:
    """The array of a body in .npy format. Raises Malformed."""
    try:
        return read_npy(io.BytesIO(raw), "the body")
    except UnreadableFile as error:
        raise Malformed(str(error)) from None


class OneRoute(PostRoute):
    """A POST that takes one sequence."""

    def body_type(self, served: Served, settings: Settings) -> type[Body]:
        """That of one."""
        return served.made(one_and_many, *settings.sizes)[0]

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The sequence, or of a model of several inputs the row by their names."""
        if len(served.model.inputs) == 1:
            return super().decode(raw, headers, served, settings)
        expect_json(headers, raw)
        named = served.made(NamedInputs, *settings.sizes)
        return named.one(named.parsed(raw))


class TraceRoute(OneRoute):
    """A POST that takes one sequence, of one input."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The sequence."""
        expect_one(served.model, "/trace")
        return super().decode(raw, headers, served, settings)


class BatchRoute(PostRoute):
    """A POST that takes several sequences as JSON, or as a .npy file."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The body, as its content type says."""
        if (sent_as := media_type(headers)) == NPZ:
            return npz_of(raw, served.model, settings.max_body_bytes)
        if len(served.model.inputs) > 1:
            if sent_as == NPY:
                names = ", ".join(str(spec.name) for spec in served.model.inputs)
                raise UnknownType(
                    "an array in .npy format is of one input, and the model has several: send a .npz file with an "
                    f"array by the name of each ({names}) as application/x-npz"
                )
            expect_json(headers, raw)
            named = served.made(NamedInputs, *settings.sizes)
            return named.rows(named.parsed(raw))
        if sent_as != NPY:
            return super().decode(raw, headers, served, settings)
        return NpyBody(npy_of(raw), served.model.checked)

    def body_type(self, served: Served, settings: Settings) -> type[Body]:
        """That of several."""
        return served.made(one_and_many, *settings.sizes)[1]


class EitherRoute(BatchRoute):
    """A POST that takes one sequence or several, as CSV too, and v1's bodies: what SageMaker's clients send."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The body, as its content type or its first key says."""
        sent_as = media_type(headers)
        if sent_as == CSV:
            expect_one(served.model, "CSV")
            return read_flattened(raw, served.model, settings.max_rows)
        if sent_as in {NPY, NPZ}:
            return super().decode(raw, headers, served, settings)
        expect_json(headers, raw)
        if len(served.model.inputs) > 1:
            return of_named(served.made(NamedInputs, *settings.sizes), raw)
        one, many = served.made(one_and_many, *settings.sizes)
        first = FIRST_KEY.match(without_mark(raw))
        key = b"" if first is None else first[1]
        if key not in {b"sequence", b"sequences"} and (b'"instances"' in raw or b'"inputs"' in raw):
            return served.made(v1.request_type, *settings.sizes).parse(raw)
        return (many if key == b"sequences" else one).parse(raw)


def router(serving: ServingState, registry: Registry, documented: Documented) -> APIRouter:
    """The routes; OpenAPI tells them with the documented models' own requests and answers."""
    routes = APIRouter(tags=["predict"])
    for prefix in ("", MODEL, VERSION):
        _add_routes(routes, serving, prefix, documented.of(prefix))

    async def served_model() -> ModelInfo:
        return model_info(registry.get(path="/model").current.model)

    routes.add_api_route(
        "/model",
        served_model,
        summary="What is being served",
        tags=["model"],
        responses=problem_responses(401, 500, *([404] if registry.several else [])),
    )
    return routes


def _add_routes(routes: APIRouter, serving: ServingState, prefix: str, served: Served | None) -> None:
    """Add those of the paths that begin so."""
    settings = serving.settings
    One: Any = AnyBody  # noqa: N806 - they are classes
    Many: Any = AnyBody  # noqa: N806
    V1Request: Any = AnyBody  # noqa: N806
    one_answer: Any = AnyAnswer
    many_answer: Any = AnyAnswer
    if served is not None:
        if len(served.model.inputs) > 1:
            One, Many = served.made(documented_by_name, settings.max_rows)  # noqa: N806
        else:
            One, Many = served.made(one_and_many, *settings.sizes)  # noqa: N806
        V1Request = served.made(v1.request_type, *settings.sizes)  # noqa: N806
        one_answer, many_answer = one_and_many_answers(served.model)
    errors = errors_of(prefix, served)
    json: dict[int | str, dict[str, Any]] = {**errors, 200: {"headers": MODEL_HEADER}}
    npy: dict[int | str, dict[str, Any]] = {**errors, 200: {"headers": MODEL_HEADER, "content": NPY_CONTENT}}
    of_path = parameters(served, prefix)
    takes_npy = {"requestBody": {"content": NPY_CONTENT}, **of_path}
    any_content = {**NPY_CONTENT, **CSV_CONTENT}
    of_any: dict[int | str, dict[str, Any]] = {**errors, 200: {"headers": MODEL_HEADER, "content": any_content}}
    takes_any = {"requestBody": {"content": any_content}}

    async def predict(body: One, request: PredictRequest) -> Answer:
        return await predict_body(serving, body, request)

    async def predict_batch(body: Many, request: PredictRequest) -> Answer:
        return await predict_body(serving, body, request)

    async def invocations(body: One | Many | V1Request, request: PredictRequest) -> Answer:
        decoded = cast("OfBody | V1Rows", body)
        if isinstance(decoded, V1Rows):
            return await predict_form(serving, decoded, request)
        return await predict_body(serving, decoded, request)

    async def trace(body: One, request: PredictRequest) -> Answer:
        return await traced(serving, cast("Body", body), request)

    either = one_answer | many_answer | Predictions | Outputs
    everywhere: list[Any] = [
        ("/predict", predict, OneRoute, one_answer, json, of_path, "Answer one sequence"),
        ("/predict/batch", predict_batch, BatchRoute, many_answer, npy, takes_npy, "Answer several sequences"),
        ("/trace", trace, TraceRoute, TraceAnswer, json, of_path, "Show what each layer computes on one sequence"),
    ]
    of_default: list[Any] = [
        ("/invocations", invocations, EitherRoute, either, of_any, takes_any, "Answer one or several"),
    ]
    for tail, endpoint, route, answer, responses, extra, summary in [*everywhere, *([] if prefix else of_default)]:
        if (path := prefix + tail) == serving.settings.predict_route:
            continue  # it is v1's alone then
        routes.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            route_class_override=route,
            response_model=answer,
            responses=responses,
            openapi_extra=extra,
            summary=summary,
        )


def errors_of(prefix: str, served: Served | None) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the errors of a POST, also where a path may mean no model that is served."""
    return {**ERRORS, **problem_responses(404)} if prefix or served is None else ERRORS


def of_named(named: NamedInputs, raw: bytes) -> Decoded:
    """One row or several by the names of the inputs, or v1's `instances`."""
    parsed = named.parsed(raw)
    if isinstance(parsed, dict) and "instances" in parsed:
        return v1.of_named(named, parsed)
    given = parsed.get(INPUTS) if isinstance(parsed, dict) else None
    return named.rows(parsed) if isinstance(given, list) else named.one(parsed)


def _joined(parts: list[Predicted]) -> Array:
    """One array (n, ...) of several. Raises InvalidInput where they are of different lengths."""
    if len({(part.y.shape[1:], part.y.dtype) for part in parts}) > 1:
        raise InvalidInput.at("outputs of different lengths are no one array; accept JSON instead")
    return np.concatenate([part.y for part in parts])


def npz_answer(model: Model, parts: list[Predicted]) -> Answer:
    """Each output as an array by its name. Raises InvalidInput where they are of different lengths."""
    file = io.BytesIO()
    arrays = dict(zip(map(str, model.output_names), unpacked(_joined(parts)), strict=True))
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub has no keyword arguments of arrays
    return Answer(file.getvalue(), [(b"content-type", NPZ)])


def npy_answer(parts: list[Predicted]) -> Answer:
    """The outputs as one array (n, *output_shape). Raises InvalidInput where they are of different lengths."""
    file = io.BytesIO()
    np.save(file, _joined(parts), allow_pickle=False)
    return Answer(file.getvalue(), [(b"content-type", NPY)])


async def predict_body(serving: ServingState, body: OfBody, request: PredictRequest) -> Answer:
    """Answer a body: as JSON, or where the client prefers it the model's output as a .npy file; CSV with CSV."""
    model = request.served.model
    offered = [*([NPZ, NPY] if body.many else []), JSON[1], *([CSV] if isinstance(body, Flattened) else [])]
    answered_as = preferred(request.scope["state"]["headers"], *offered)
    parts = await predicted(serving, body, request)
    if answered_as == CSV:
        return Answer(b"".join(written(part.y) for part in parts), [(b"content-type", CSV)])
    if answered_as == NPZ:
        return npz_answer(model, parts)
    if answered_as == NPY:
        expect_one(model, "an answer in .npy format", "output")
        return npy_answer(parts)
    found = [answer for part in parts for answer in answers(model, *part)]
    content = {"predictions": found} if body.many else found[0]
    return Answer.of(content)
