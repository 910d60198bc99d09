"""TF-Serving's REST API, and KServe's v1, which has the same paths.

Source: tensorflow_serving/g3doc/api_rest.md of tensorflow/serving.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NoReturn, cast

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model
from starlette.requests import Request

from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import InvalidInput, Problem, UnknownModel
from lstm_serve.model.model import Model
from lstm_serve.serving.deployment import Served
from lstm_serve.serving.health import is_ready
from lstm_serve.serving.registry import Registry
from lstm_serve.serving.state import ServingState
from lstm_serve.web.body_types import NATIVE, body, sequence, zeros
from lstm_serve.web.dialects.model_path import model_of, parameters
from lstm_serve.web.dialects.v2.codec import INPUT, VALUES
from lstm_serve.web.nested_lists import FEW, Body, elsewhere, json_of
from lstm_serve.web.openapi import not_so, plain_responses
from lstm_serve.web.predict import Answer, Decoded, PostRoute, PredictRequest, predicted
from lstm_serve.web.schemas import ModelNames, Schema

ERRORS = plain_responses(400, 404, 408, 413, 429, 500, 503, 504)
NOT_FOUND = plain_responses(404, 500)

SIGNATURE: Literal["serving_default"] = "serving_default"
# What the answer to each form is called.
FORMS = {"instances": "predictions", "inputs": "outputs"}
TENSORFLOW_TYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "int32": "DT_INT32"}


def _alone(key: str) -> dict[str, Any]:
    """The JSON Schema of an object with this form; the other is null where it is there at all."""
    (other,) = FORMS.keys() - {key}
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}, other: {"type": "null"}}}


class V1Request(BaseModel):
    """Rows under `instances` or one array under `inputs`, never both; bare, or named as an input: any name does."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_alone(key) for key in FORMS]})
    forms: ClassVar[Mapping[str, type[Body]]]
    signature_name: Literal["serving_default", ""] | None = SIGNATURE

    @classmethod
    def parse(cls, raw: bytes) -> "Form":
        """The sequences, in whichever form they come. Raises Malformed or InvalidInput."""
        instances = cls.forms["instances"]
        instances.weigh(raw)
        parsed = json_of(raw)
        given = [key for key in FORMS if key in parsed] if isinstance(parsed, dict) else []
        if len(given) > 1:  # what is null is as if it were not there
            given = [key for key in given if parsed[key] is not None]
        if len(given) != 1 or not NATIVE.keys().isdisjoint(parsed):
            hint = elsewhere(parsed, NATIVE)
            raise InvalidInput([Problem((), f'expected an object with either "instances" or "inputs"{hint}')])
        if parsed.get("signature_name") not in (None, "", SIGNATURE):
            raise InvalidInput([Problem(("signature_name",), f'expected "{SIGNATURE}"')])
        (key,) = given
        value = parsed[key]
        if key == "inputs":
            value = _bare(value, key)
        elif isinstance(value, list) and any(isinstance(row, dict) for row in value):
            value = [_bare(row, key, index) for index, row in enumerate(value)]
        return Form(key, cls.forms[key].of({key: value}))


class Form(NamedTuple):
    """Sequences, and the key under which they came."""

    key: str
    body: Body

    @property
    def rows(self) -> int:
        """How many sequences there are."""
        return self.body.rows

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:
        """The sequences, in order, as arrays (n, *input_shape)."""
        return self.body.arrays(dtype)

    def let_go(self) -> None:
        """Forget the lists."""
        self.body.let_go()


def _bare(value: Any, *where: str | int) -> Any:  # noqa: ANN401 - JSON is anything
    """The value of an object's only key; anything but an object as it is."""
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise InvalidInput([Problem(where, f"expected an object with the one input, got one with {len(value)} keys")])
    return next(iter(value.values()))


class PredictRoute(PostRoute):
    """A POST that takes v1's requests, whatever their content type."""

    def decode(
        self,
        raw: bytes,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - others need it
        served: Served,  # noqa: ARG002 - the same
        max_rows: int,  # noqa: ARG002 - the same
    ) -> Decoded:
        """The request."""
        return cast("type[V1Request]", self.body_type).parse(raw)


class Predictions(Schema):
    """The answer to `instances`."""

    predictions: list[Any] = Field(description="the model's output for each row")


class Outputs(Schema):
    """The answer to `inputs`."""

    outputs: list[Any] = Field(description="the model's output")


class VersionError(Schema):
    """Why a version is not available; it always is."""

    error_code: str
    error_message: str


class VersionStatus(Schema):
    """The status of a version."""

    version: str
    state: str
    status: VersionError


class ModelStatus(Schema):
    """The status of the model: `name` and `ready` for KServe's clients, the rest for TF-Serving's."""

    name: str
    ready: bool
    model_version_status: list[VersionStatus]


class Alive(Schema):
    """That the process works, as KServe's v1 asks for it."""

    status: str
    docs: str = Field(description="where to read on")


def router(
    serving: ServingState,
    registry: Registry,
    V1PredictRequest: type[V1Request],  # noqa: N803 - it is a class
) -> APIRouter:
    """The routes. Those of a model are there with a version and without, and one more as the settings say."""
    model = registry.get().current.model
    routes = APIRouter(route_class=PredictRoute, tags=["v1"])
    about = APIRouter(tags=["v1"])

    async def predict(body: V1PredictRequest, request: PredictRequest) -> Answer:  # type: ignore[valid-type]
        return await answered(serving, cast("Form", body), request)

    async def status(request: Request) -> JSONResponse:
        """Whether the model answers, for the clients of TF-Serving and of KServe."""
        model, ready = model_of(registry, request), is_ready(serving, registry)
        return JSONResponse(model_status(model, ready=ready).model_dump(), 200 if ready else 503)

    async def metadata(request: Request) -> dict[str, Any]:
        """The model's signature, in the words of TF-Serving."""
        return model_signature(model_of(registry, request))

    prefixes = ("/v1/models/{model_name}", "/v1/models/{model_name}/versions/{model_version}")
    stopping = not_so(model_status(model, ready=False))
    for prefix in prefixes:
        of_path = parameters(model, prefix)
        about.add_api_route(
            prefix, status, response_model=ModelStatus, responses={**NOT_FOUND, **stopping}, openapi_extra=of_path
        )
        about.add_api_route(f"{prefix}/metadata", metadata, responses=NOT_FOUND, openapi_extra=of_path)
    more = serving.settings.predict_route
    for path in (*(f"{prefix}:predict" for prefix in prefixes), *([] if more is None else [more])):
        routes.add_api_route(
            path,
            predict,
            methods=["POST"],
            summary="Answer rows, or an array of them",
            response_model=Predictions | Outputs,
            responses=ERRORS,
            openapi_extra=parameters(model, path),
        )

    @about.get("/v1/models")
    async def models() -> ModelNames:
        """The models that are served: one."""
        return ModelNames(models=[registry.get().name])

    @about.get("/", response_model=Alive, responses={307: {"description": "To the docs, where text/html is accepted"}})
    async def alive(request: Request) -> Response:
        """That the process works; a browser goes to the docs."""
        headers = {"vary": "accept"}
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs", headers=headers)
        return JSONResponse(Alive(status="alive", docs="docs").model_dump(), headers=headers)

    routes.routes.extend([*about.routes, *_labels(registry).routes])
    return routes


def _labels(registry: Registry) -> APIRouter:
    """The paths of TF-Serving's labels of versions, of which there are none: each says what is there instead."""
    routes = APIRouter()

    async def labelled(request: Request) -> NoReturn:
        about = model_of(registry, request).about
        paths = f"/v1/models/{about.name} or /v1/models/{about.name}/versions/{about.version}"
        raise UnknownModel(f"versions have no labels here: the path goes on from {paths}")

    # A label is whatever stands before the next slash: a verb after its colon is in it.
    for path in (of_label := "/v1/models/{model_name}/labels/{label}", f"{of_label}/metadata"):
        routes.add_api_route(path, labelled, methods=["GET", "POST"], include_in_schema=False, response_model=None)
    return routes


async def answered(serving: ServingState, form: Form, request: PredictRequest) -> Answer:
    """Answer the model's output for each row, under the key that goes with the request's."""
    rows = [row for y, _ in await predicted(serving, form, request) for row in np.ascontiguousarray(y)]
    return Answer(orjson.dumps({FORMS[form.key]: rows}, option=orjson.OPT_SERIALIZE_NUMPY))


def request_type(model: Model, max_rows: int) -> type[V1Request]:
    """The type of the request for this model; its fields are there for OpenAPI."""
    row = TypeAdapter(sequence(model.input_shape, model.id_limit)).json_schema()
    rows = TypeAdapter(sequence((None, *model.input_shape), model.id_limit)).json_schema()
    named_rows = {"type": "array", "minItems": 1, "items": named(row)}
    made = create_model(
        "V1PredictRequest",
        __base__=V1Request,
        __doc__=V1Request.__doc__,
        instances=either(rows, named_rows, example=zeros((1, *model.input_shape))),
        inputs=either(rows, named(rows)),
    )
    made.forms = {key: body(f"V1{key.title()}", key, model, max_rows) for key in FORMS}
    for form in made.forms.values():  # each row may be an object of one name
        form.most_objects, form.texts = FEW + max_rows, 1
    return made


def named(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an object with one value."""
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": schema}


def either(*schemas: dict[str, Any], example: Any = None) -> Any:  # noqa: ANN401 - a field made at run time
    """An optional field of one of these JSON Schemas, or null."""
    examples = None if example is None else [example]
    return Annotated[Any, WithJsonSchema({"anyOf": [*schemas, {"type": "null"}]})], Field(
        default=None, examples=examples
    )


def model_status(model: Model, *, ready: bool) -> ModelStatus:
    """What GET /v1/models/{name} answers."""
    state = "AVAILABLE" if ready else "UNLOADING"
    good = VersionError(error_code="OK", error_message="")
    version = VersionStatus(version=model.about.version, state=state, status=good)
    return ModelStatus(name=model.about.name, ready=ready, model_version_status=[version])


def model_signature(model: Model) -> dict[str, Any]:
    """What GET /v1/models/{name}/metadata answers. The tensors have the file's own names where these are known."""
    given = model.origin.input_name or INPUT
    answered = model.origin.output_name or VALUES[model.kind]
    signature = {
        "inputs": {given: _tensor(f"{SIGNATURE}_{given}:0", np.dtype(model.input_dtype).name, model.input_shape)},
        "outputs": {answered: _tensor("StatefulPartitionedCall:0", "float32", model.output_shape)},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.about.name, "signature_name": "", "version": model.about.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor(name: str, dtype: str, shape: Shape) -> dict[str, Any]:
    sizes = ("-1", *("-1" if size is None else str(size) for size in shape))
    return {
        "dtype": TENSORFLOW_TYPES[dtype],
        "tensor_shape": {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False},
        "name": name,
    }
