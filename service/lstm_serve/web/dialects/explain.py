"""POST /explain, and v1's :explain: an answer, and what in the sequence spoke for it. Computed behind predictions."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, NotFinite, TooLarge
from lstm_serve.explain.asked import Asked, count_of, has_cells
from lstm_serve.explain.methods import Grain, Method
from lstm_serve.explain.occlusion import Occlusion
from lstm_serve.explain.why import explaining, rows_needed, settled
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.second_lane import Behind, SecondLane
from lstm_serve.serving.state import ServingState
from lstm_serve.settings import Settings
from lstm_serve.web.body_faults import BELOW_INFINITY
from lstm_serve.web.body_types import WholeNumber, one_and_many
from lstm_serve.web.dialects.model_path import MODEL, VERSION, Documented, parameters
from lstm_serve.web.dialects.native import MODEL_HEADER, errors_of
from lstm_serve.web.dialects.v1 import codec
from lstm_serve.web.dialects.v1 import routes as v1
from lstm_serve.web.dialects.v1.schemas import Outputs, Predictions
from lstm_serve.web.nested_lists import Body, expect_few, json_of
from lstm_serve.web.predict import (
    Answer,
    Decoded,
    PostRoute,
    PredictRequest,
    check_free,
    computed,
    converted,
    deadline_of,
    expect_one,
)
from lstm_serve.web.schemas import AnyAnswer, AnyBody, Schema, one_and_many_answers


class ExplainOptions(BaseModel):
    """How to explain, beside the sequences."""

    model_config = ConfigDict(extra="ignore", strict=True)

    index: WholeNumber | None = Field(default=None, alias="class", ge=0, description="the index of a class")
    grain: Grain = Field(
        default="step", description='"step", each step and each feature, or "cell", each cell too, for occlusion'
    )
    method: Method | None = Field(
        default=None,
        description='"integrated-gradients", the default where every layer has a gradient, or "occlusion"',
    )
    baseline: float | list[float] | None = Field(
        default=None, description="a number, or a list of one for each feature: what a part is replaced by"
    )

    @classmethod
    def of(cls, parsed: Any) -> Asked:  # noqa: ANN401 - JSON is anything
        """What is asked beside the sequences. Raises InvalidInput."""
        given = {name: parsed[name] for name in OPTIONS if parsed.get(name) is not None}
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"][0])
            raise InvalidInput.at(f"expected {OPTIONS[name]}", name) from None
        return Asked(found.index, found.grain, found.baseline, found.method)


OPTIONS = {field.alias or name: field.description for name, field in ExplainOptions.model_fields.items()}


def _fields(model: Model) -> dict[str, Any]:
    """The same as fields of another type, within what the model allows, for the OpenAPI document."""
    given = ExplainOptions.model_fields
    number: Any = Annotated[float, Field(ge=-BELOW_INFINITY, le=BELOW_INFINITY)]
    width = model.input_shape[-1]
    baseline = number | Annotated[list[number], Field(min_length=width, max_length=width)]
    if model.id_limit is not None:
        baseline = Annotated[int, Field(ge=0, lt=model.id_limit)]
    types: dict[str, Any] = {
        "index": Annotated[int, Field(ge=0, lt=count_of(model))] | None,
        "grain": Grain if has_cells(model) else Literal["step"],
        "method": Method | None,
        "baseline": baseline | None,
    }
    return {name: (types[name], given[name]) for name in given}


class ToExplain(NamedTuple):
    """Sequences, and how they are to be explained."""

    body: Body | codec.V1Rows
    asked: Asked


class ExplainRequest(BaseModel):
    """One sequence, as POST /predict takes it, and how its answer is to be explained."""

    model_config = ConfigDict(extra="forbid")
    one: ClassVar[type[Body]]

    @classmethod
    def parse(cls, raw: bytes) -> ToExplain:
        """The sequence, and how to explain it. Raises Malformed or InvalidInput."""
        cls.one.weigh(raw)
        parsed = json_of(raw)
        if not isinstance(parsed, dict):
            return ToExplain(cls.one.of(parsed), Asked())
        asked = ExplainOptions.of(parsed)
        options = {key: value for key, value in parsed.items() if key in OPTIONS}
        texts = len(options) + sum(isinstance(value, str) for value in options.values())
        rest = {key: value for key, value in parsed.items() if key not in OPTIONS}
        return ToExplain(cls.one.of(rest, raw, texts), asked)


class Baseline(Schema):
    """What a part was replaced by."""

    origin: str = Field(alias="from", description="where it comes from")
    values: list[float] | float = Field(description="one for each feature, in the units of the input; or an id")


class Explanation(Schema):
    """An answer, and what each part of the sequence adds to its score.

    By integrated gradients, to what it is over that of the baseline; by occlusion, how far it drops where the part
    takes the values of the baseline.
    """

    index: int = Field(alias="class", description="whose score is explained: a class, or one of the values")
    label: str | None = Field(description="its label, where the model's card has labels")
    score: float = Field(description="the probability of the class, or the value; of steps after the last")
    attribution: list[list[float]] | None = Field(
        description="of each cell, steps by features; of occlusion where asked for"
    )
    by_step: list[float] | None = Field(description="of each step; null where there are none")
    by_feature: list[float] | None = Field(description="of each feature; null where a step is an id")
    completeness_error: float | None = Field(
        description="by how much the sum of what is added misses the difference; null for occlusion"
    )
    method: str
    grain: str
    baseline: Baseline


class ExplainRoute(PostRoute):
    """A POST that takes one sequence, and how to explain it."""

    def body_type(self, served: Served, settings: Settings) -> type[ExplainRequest]:
        """That of both."""
        return served.made(_request_types, *settings.sizes)[0]


class V1ExplainRoute(v1.PredictRoute):
    """A POST that takes rows, and how to explain them."""

    def decode(self, raw: bytes, headers: Mapping[bytes, bytes], served: Served, settings: Settings) -> Decoded:
        """The rows, of one input."""
        expect_one(served.model, "an explanation")
        return super().decode(raw, headers, served, settings)

    def body_type(self, served: Served, settings: Settings) -> type[codec.V1Request]:
        """That of both."""
        return served.made(_request_types, *settings.sizes)[1]


def router(serving: ServingState, documented: Documented) -> APIRouter:
    """The routes; OpenAPI tells them with the documented models' own requests and answers."""
    routes = APIRouter(tags=["explain"])
    for prefix in ("", MODEL, VERSION):
        _add_native(routes, serving, prefix, documented.of(prefix))
    _add_v1(routes, serving, documented.only)
    return routes


def _types(served: Served | None, settings: Settings) -> tuple[Any, Any, Any]:
    """For OpenAPI: the request and the answer of one sequence, and v1's request."""
    if served is None or not served.model.is_single:
        return AnyBody, AnyAnswer, AnyBody
    one, of_v1 = served.made(_request_types, *settings.sizes)
    one_answer: Any = one_and_many_answers(served.model)[0]
    answer = create_model(
        "ExplainAnswer", __base__=Explanation, answer=(one_answer, Field(description="as of /predict"))
    )
    return one, answer, of_v1


def _add_native(routes: APIRouter, serving: ServingState, prefix: str, served: Served | None) -> None:
    Request, answer, _ = _types(served, serving.settings)  # noqa: N806 - it is a class

    async def explain(body: Request, request: PredictRequest) -> Answer:  # type: ignore[valid-type]
        ((found, _),) = await explanations(serving, cast("ToExplain", body), request)
        return Answer.of(found)

    routes.add_api_route(
        f"{prefix}/explain",
        explain,
        methods=["POST"],
        route_class_override=ExplainRoute,
        response_model=answer,
        responses={**errors_of(prefix, served), 200: {"headers": MODEL_HEADER}},
        openapi_extra=parameters(served, prefix),
        summary="Answer one sequence, and say what in it spoke for the answer",
    )


def _add_v1(routes: APIRouter, serving: ServingState, served: Served | None) -> None:
    _, answer, V1Explain = _types(served, serving.settings)  # noqa: N806 - it is a class

    async def explain_v1(body: V1Explain, request: PredictRequest) -> Answer:  # type: ignore[valid-type]
        form = cast("ToExplain", body)
        found = await explanations(serving, form, request)
        key = codec.FORMS[cast("codec.V1Rows", form.body).key]
        content = {key: [y for _, y in found], "explanations": [one for one, _ in found]}
        return Answer.of(content)

    explained: Any = (list[answer], Field(description="in the order of the rows"))  # type: ignore[valid-type]
    of_rows, of_array = (
        create_model(f"V1Explained{base.__name__}", __base__=base, explanations=explained)
        for base in (Predictions, Outputs)
    )
    answers_v1: Any = of_rows | of_array
    for prefix in v1.PREFIXES:
        path = f"{prefix}:explain"
        routes.add_api_route(
            path,
            explain_v1,
            methods=["POST"],
            route_class_override=V1ExplainRoute,
            response_model=answers_v1,
            responses=v1.ERRORS,
            summary="Answer rows, and say what in each spoke for the answer",
            openapi_extra=parameters(served, path),
        )


def _request_types(model: Model, max_rows: int, longest: int) -> tuple[type[ExplainRequest], type[codec.V1Request]]:
    expect_one(model, "an explanation")
    one, _ = one_and_many(model, 1, longest)
    field = one.model_fields[one.key]
    options = _fields(model)
    fields: dict[str, Any] = {one.key: (field.annotation, field), **options}
    native = create_model("ExplainRequest", __base__=ExplainRequest, __doc__=ExplainRequest.__doc__, **fields)
    one.beside = (*OPTIONS,)
    native.one = one

    class V1ExplainRequest(codec.request_type(model, max_rows, longest)):  # type: ignore[misc]
        """Rows as :predict takes them, and how their answers are to be explained."""

        model_config = ConfigDict(extra="forbid")

        @classmethod
        def parse(cls, raw: bytes) -> Any:  # noqa: ANN401 - a form, with what is asked beside it
            """The sequences, and how to explain them."""
            parsed = cls.parsed(raw)
            body = cls.of(parsed)
            known = (*codec.FORMS, *codec.V1Request.model_fields, *OPTIONS)
            if more := len(parsed.keys() - {*known}):
                raise InvalidInput.at(f"expected the keys {', '.join(known)}, got {more} more")
            return ToExplain(body, ExplainOptions.of(parsed))

    return native, create_model(
        "V1ExplainRequest", __base__=V1ExplainRequest, __doc__=V1ExplainRequest.__doc__, **options
    )


async def explanations(
    serving: ServingState, form: ToExplain, request: PredictRequest
) -> list[tuple[dict[str, Any], Array]]:
    """For each sequence its explanation, and the model's output (*output_shape)."""
    model, lane, settings = request.served.model, request.deployment.behind, serving.settings
    expect_few(form.body.size, settings.max_rows)
    deadline = deadline_of(request, settings.deadline_seconds, None)
    arrays = await converted(form.body, request)
    form.body.let_go()
    request.scope["state"]["held"].become(sum(x.nbytes for x in arrays))
    check_free(model, arrays, settings.max_timesteps)
    asked = [settled(model, x[0], form.asked) for x in arrays]
    count = sum((rows_needed(model, x[0], each) + 1) * len(x) for x, each in zip(arrays, asked, strict=True))
    if count > lane.max_rows:
        raise TooLarge(f"to explain it the model would answer {count} sequences; at most {lane.max_rows} may wait")
    lane.check_room(count)
    answered = [lane.submit(Behind(model, x, deadline, RowsToAnswer(model, x))) for x in arrays]
    outputs = [np.ascontiguousarray(y) for ys in await computed(answered, request) for y in ys]
    rows = [(row, each) for x, each in zip(arrays, asked, strict=True) for row in x]
    works = [explaining(model, *row, y) for row, y in zip(rows, outputs, strict=True)]
    with _all_or_none(lane, [Behind(model, work.what.x[np.newaxis], deadline, work) for work in works]) as jobs:
        try:
            found = await computed(jobs, request)
        except NotFinite:
            raise works[0].what.not_finite() from None
    return [(work.found(each), y) for work, each, y in zip(works, found, outputs, strict=True)]


@dataclass(frozen=True, eq=False)
class RowsToAnswer:
    """The answers to rows x (n, *input_shape), which are to be explained."""

    model: Model
    x: Array

    seconds: ClassVar[float] = Occlusion.seconds

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.x)

    def compute(self, start: int, stop: int) -> Iterator[Array]:
        """The model's output for some of them."""
        yield self.model.forward(self.x[start:stop])


@contextlib.contextmanager
def _all_or_none(lane: SecondLane, jobs: list[Behind]) -> Iterator[list[Behind]]:
    """Submit all jobs; where one has no room, or what comes after fails, nobody waits for the others."""
    try:
        yield [lane.submit(job) for job in jobs]
    except BaseException:
        for job in jobs:
            job.abandon()
        raise
