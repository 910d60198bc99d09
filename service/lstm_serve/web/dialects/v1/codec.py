"""A request of v1, from its bytes to its sequences, and its type for the model that is served."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput
from lstm_serve.model.model import Model
from lstm_serve.web.body_types import NATIVE, body, sequence, zeros
from lstm_serve.web.named_inputs import NamedInputs, NamedRows, object_schema, rows_schema
from lstm_serve.web.nested_lists import FEW, Body, elsewhere, json_of

SIGNATURE: Literal["serving_default"] = "serving_default"
# What the answer to each form is called.
FORMS = {"instances": "predictions", "inputs": "outputs"}


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
    def parse(cls, raw: bytes) -> "V1Rows":
        """The sequences, in whichever form they come. Raises Malformed or InvalidInput."""
        return cls.of(cls.parsed(raw))

    @classmethod
    def parsed(cls, raw: bytes) -> Any:  # noqa: ANN401 - JSON is anything
        """The JSON of a body that is not too heavy to be a good one. Raises Malformed, TooLarge or InvalidInput."""
        cls.forms["instances"].weigh(raw)
        return json_of(raw)

    @classmethod
    def of(cls, parsed: Any) -> "V1Rows":  # noqa: ANN401 - the same
        """The sequences, in whichever form they come. Raises InvalidInput."""
        key = _form_of(parsed)
        value = parsed[key]
        if key == "inputs":
            value = _bare(value, key)
        elif isinstance(value, list) and any(isinstance(row, dict) for row in value):
            value = [_bare(row, key, index) for index, row in enumerate(value)]
        return V1Rows(key, cls.forms[key].of({key: value}))


def _form_of(parsed: Any) -> str:  # noqa: ANN401 - JSON is anything
    """The key under which the rows are. Raises InvalidInput."""
    given = [key for key in FORMS if key in parsed] if isinstance(parsed, dict) else []
    if len(given) > 1:  # what is null is as if it were not there
        given = [key for key in given if parsed[key] is not None]
    if len(given) != 1 or not NATIVE.keys().isdisjoint(parsed):
        hint = elsewhere(parsed, NATIVE)
        raise InvalidInput.at(f'expected an object with either "instances" or "inputs"{hint}')
    if parsed.get("signature_name") not in (None, "", SIGNATURE):
        raise InvalidInput.at(f'expected "{SIGNATURE}"', "signature_name")
    return given[0]


def of_named(named: NamedInputs, parsed: Any) -> "V1Rows":  # noqa: ANN401 - the same
    """The rows of several inputs: an object of them for each row, or one of columns. Raises InvalidInput."""
    key = _form_of(parsed)
    rows = named.rows(parsed, key, alone=False) if key == "instances" else named.columns(parsed[key], key)
    return V1Rows(key, rows)


class V1Rows(NamedTuple):
    """Sequences, and the key under which they came."""

    key: str
    body: Body | NamedRows

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return self.body.size

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
        raise InvalidInput.at(f"expected an object with the one input, got one with {len(value)} keys", *where)
    return next(iter(value.values()))


def request_type(model: Model, max_rows: int, longest: int | None = None) -> type[V1Request]:
    """The type of the request for this model; its fields are there for OpenAPI."""
    if len(model.inputs) > 1:
        return create_model(
            "V1PredictRequest",
            __base__=V1Request,
            __doc__="Rows under `instances`, each an object of the inputs, or under `inputs` a list of rows for each.",
            instances=either(rows_schema(model)),
            inputs=either(object_schema(model, rows=True)),
        )
    row = TypeAdapter(sequence(model.input_shape, model.id_limit)).json_schema()
    rows = TypeAdapter(sequence((None, *model.input_shape), model.id_limit)).json_schema()
    named_rows = {"type": "array", "minItems": 1, "items": schema_of_one(row)}
    made = create_model(
        "V1PredictRequest",
        __base__=V1Request,
        __doc__=V1Request.__doc__,
        instances=either(rows, named_rows, example=zeros((1, *model.input_shape))),
        inputs=either(rows, schema_of_one(rows)),
    )
    made.forms = {key: body(f"V1{key.title()}", key, model.takes[0], max_rows, longest=longest) for key in FORMS}
    for form in made.forms.values():  # each row may be an object of one name
        form.most_objects, form.texts = FEW + max_rows, 1
    return made


def schema_of_one(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an object with one value."""
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": schema}


def either(*schemas: dict[str, Any], example: Any = None) -> Any:  # noqa: ANN401 - a field made at run time
    """An optional field of one of these JSON Schemas, or null."""
    examples = None if example is None else [example]
    return Annotated[Any, WithJsonSchema({"anyOf": [*schemas, {"type": "null"}]})], Field(
        default=None, examples=examples
    )
