"""The types of bodies for a model: what Pydantic validates, and what the OpenAPI document says."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, FailFast, Field, Strict, WithJsonSchema, create_model

from lstm_serve.engine.types import Shape
from lstm_serve.model.inputs import Input
from lstm_serve.model.model import Model
from lstm_serve.web.body_faults import BELOW_INFINITY, Names
from lstm_serve.web.nested_lists import FEW, SLICE, Body


def _whole(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """1.0 is an integer to JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole), Strict()]

NATIVE = {"sequence": "/predict", "sequences": "/predict/batch", "series": "/predict/series"}


def one_and_many(model: Model, max_rows: int, longest: int | None = None) -> tuple[type[Body], type[Body]]:
    """The bodies of POST /predict and of POST /predict/batch for this model.

    With at most `max_rows` sequences, of at most `longest` time steps where the model leaves that free.
    """
    given = model.takes[0]
    names = names_of(given)
    one = body("PredictRequest", "sequence", given, None, names, longest=longest)
    one.__doc__ = "One sequence: a list of time steps, each a list of the features' values."
    many = body("PredictBatchRequest", "sequences", given, max_rows, names, longest=longest)
    many.__doc__ = "Several sequences."
    of_v1, of_v2 = (f"/{v}/models/{model.about.name}" for v in ("v1", "v2"))
    others = {**NATIVE, "instances": f"{of_v1}:predict", "inputs": f"{of_v1}:predict or {of_v2}/infer"}
    one.others = many.others = others
    return one, many


def rows_of_series(  # noqa: PLR0913, PLR0917 - all that a type is made of
    name: str, key: str, model: Model, max_rows: int, fields: Mapping[str, tuple[Any, Any]], least: int = 1
) -> type[Body]:
    """The type of a body with rows of a series under its key, at most so many, and further fields, as Pydantic has it.

    `least` is how many rows there should be, for the document: it is for the caller to say more of fewer.
    """
    given = model.takes[0]
    made = _made(name, key, given, max_rows, names_of(given), given.shape[1:], fields, least)
    made.noun, made.others = "rows", {path: where for path, where in NATIVE.items() if path != key}
    return made


def names_of(given: Input) -> Names | None:
    """The names of the features, by which a time step may be an object; None where the card has none."""
    features = given.features
    return None if features is None or given.id_limit is not None else tuple(feature.name for feature in features)


def body(  # noqa: PLR0913 - all that a type is made of
    name: str,
    key: str,
    given: Input,
    max_rows: int | None,
    names: Names | None = None,
    *,
    longest: int | None = None,
) -> type[Body]:
    """The type of a body with at most `max_rows` sequences of an input under its key; with one, where it is None.

    Where there are `names` of the features, a time step may be an object by them.
    """
    return _made(name, key, given, max_rows, names, given.shape, {}, longest=longest)


def _made(  # noqa: PLR0913, PLR0917 - all that a type is made of
    name: str,
    key: str,
    given: Input,
    max_rows: int | None,
    names: Names | None,
    shape: Shape,
    fields: Mapping[str, tuple[Any, Any]],
    least: int = 1,
    longest: int | None = None,
) -> type[Body]:
    one: Any = sequence(shape, given.id_limit, names, longest)
    many = Annotated[list[one], Field(min_length=1, max_length=max_rows), FailFast()]
    example = zeros(shape if max_rows is None else (1, *shape))
    document: dict[str, Any] = {"minItems": least} if least > 1 else {}
    text = _described(given, shape)
    field: Any = (
        one if max_rows is None else many,
        Field(description=text, examples=[example * least], json_schema_extra=document),
    )
    further: Any = fields
    made = create_model(name, __base__=Body, **{key: field, **further})
    made.key, made.shape, made.id_limit = key, shape, given.id_limit
    made.many, made.max_rows = max_rows is not None, max_rows or 1
    sizes = [longest or math.inf if size is None else size for size in shape]
    made.most_lists = made.max_rows * sum(math.prod(sizes[:axis]) for axis in range(len(sizes))) + made.many
    made.most_numbers = made.max_rows * math.prod(sizes)
    if names is not None:
        made.names, made.texts = names, len(names)
        made.most_objects = FEW + made.max_rows * math.prod(sizes[:-1])
    made.longest = longest if None in shape else None
    made.slice_rows = None if None in shape else max(1, SLICE // math.prod(size for size in shape if size is not None))
    return made


def zeros(shape: Sequence[int | None]) -> Any:  # noqa: ANN401 - nested as the shape
    """For OpenAPI: an example of this shape, where a free axis is 1."""
    return np.zeros([size or 1 for size in shape], int).tolist()


def sequence(shape: Shape, id_limit: int | None = None, names: Names | None = None, longest: int | None = None) -> Any:  # noqa: ANN401 - a type
    """The type of numbers, or of ids under a limit, nested as the shape; what it leaves free is at most `longest`.

    What is on the last axis is a list; where there are `names`, the document says that it may be an object too.
    """
    # The bounds are for whoever reads the document; `arrays` holds the values to them, all at once.
    bounds = {"type": "number", "minimum": -BELOW_INFINITY, "maximum": BELOW_INFINITY}
    item: Any = Annotated[float, Strict(), Field(allow_inf_nan=False), WithJsonSchema(bounds)]
    if id_limit is not None:
        # As in arrays and CSV, 3.0 is the id 3.
        whole = {"type": "integer", "minimum": 0, "exclusiveMaximum": id_limit}
        item = Annotated[float, Strict(), Field(ge=0, lt=id_limit, multiple_of=1), WithJsonSchema(whole)]
    for axis, size in reversed([*enumerate(shape)]):
        limits = Field(min_length=size or 1, max_length=longest if size is None else size)
        item = Annotated[list[item], limits, FailFast()]
        if names is not None and axis == len(shape) - 1:
            row = {"type": "array", "items": bounds, "minItems": size, "maxItems": size}
            by_name = {"type": "object", "properties": dict.fromkeys(names, bounds), "required": list(names)}
            item = Annotated[item, WithJsonSchema({"anyOf": [row, {**by_name, "additionalProperties": False}]})]
    return item


def _described(given: Input, shape: Shape) -> str:
    names = "" if given.features is None else f": {', '.join(f.name for f in given.features)}"
    what = "numbers" if given.id_limit is None else f"ids, integers from 0 to {given.id_limit - 1}"
    sizes = " x ".join("any" if n is None else str(n) for n in shape)
    return (
        f"{sizes} {what}, time first{names}" if shape == given.shape else f"rows of {sizes or 'one of'} {what}{names}"
    )
