"""Bodies for a model of several inputs, which stand by their names: `{"inputs": {...}}`, `{"inputs": [{...}, ...]}`.

Each input's values are held to it as the sequences of a model of one input are; a slice of the rows at a time.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, Malformed, Problem
from lstm_serve.model.inputs import Input, expect_rows
from lstm_serve.model.model import Model
from lstm_serve.web.body_faults import Where, json_type_of
from lstm_serve.web.body_types import body, names_of, sequence, zeros
from lstm_serve.web.nested_lists import MAX_PROBLEMS, Body, expect_few, json_of

INPUTS = "inputs"
# From a row and an input to where its value is in a body.
Locate = Callable[[int, str], Where]


class NamedRows:
    """The rows of a request, by the names of the inputs: of one row, of several, or of columns."""

    def __init__(self, of: "NamedInputs", columns: Mapping[str, list[Any]], place: Locate, *, many: bool) -> None:
        """`columns` are as long as each other; `place` is for who is told what is wrong."""
        self.many = many
        self.size = len(next(iter(columns.values())))
        self._of, self._columns, self._place = of, columns, place

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:  # noqa: ARG002 - each input has its own
        """The rows in order, records with a field an input, slice by slice. Raises InvalidInput."""
        bodies = self._of.bodies.items()
        stops = {stop for name, body in bodies for _, stop in body.slices(self._columns[name])}
        for start, stop in pairwise([0, *sorted(stops)]):
            columns = [self._column(of, start, stop) for of in self._of.model.takes]
            rows = zip(*columns, strict=True)
            for _, run in groupby(rows, lambda row: [each.shape for each in row]):
                yield self._of.model.packed([np.stack(column) for column in zip(*run, strict=True)])

    def _column(self, of: Input, start: int, stop: int) -> list[Array]:
        name = str(of.name)
        try:
            given = self._of.bodies[name].of({name: self._columns[name][start:stop]})
            return [row for array in given.arrays(of.dtype) for row in array]
        except InvalidInput as error:
            raise InvalidInput([self._placed(problem, name, start) for problem in error.problems]) from None

    def _placed(self, problem: Problem, name: str, start: int) -> Problem:
        _, *rest = problem.where or (name,)
        if not rest:
            return Problem((INPUTS, name), problem.detail)
        row, *inside = rest
        return Problem((*self._place(int(row) + start, name), *inside), problem.detail)

    def let_go(self) -> None:
        """Forget the lists."""
        self._columns = {}


class NamedInputs:
    """What bodies for a model are held to."""

    def __init__(self, model: Model, max_rows: int, longest: int | None = None) -> None:
        """At most so many rows, of at most `longest` time steps where an input leaves that free."""
        self.model, self.max_rows = model, max_rows
        self.names = [str(each.name) for each in model.takes]
        self.bodies: dict[str, type[Body]] = {
            name: body(f"Input{k}", name, each, max_rows, names_of(each), longest=longest)
            for k, (name, each) in enumerate(zip(self.names, model.takes, strict=True))
        }
        self._whole = self._weighed()

    def _weighed(self) -> type[Body]:
        """A body as heavy as all inputs together."""
        whole: type[Body] = create_model("NamedInputs", __base__=Body, **{INPUTS: (Any, ...)})  # type: ignore[call-overload]
        whole.key, whole.many, whole.max_rows, whole.noun = INPUTS, True, self.max_rows, "rows"
        bodies = self.bodies.values()
        whole.most_lists = sum(body.most_lists for body in bodies) + 1
        whole.most_numbers = sum(body.most_numbers for body in bodies)
        whole.most_objects = sum(body.most_objects for body in bodies) + self.max_rows
        whole.texts = max(len(bodies), *(body.texts for body in bodies))
        return whole

    def parsed(self, raw: bytes) -> Any:  # noqa: ANN401 - JSON is anything
        """The JSON of a body that is not too heavy to be a good one, each name in it once."""
        self._whole.weigh(raw)
        parsed = json_of(raw)
        # A text has two quotes: with as many as the names alone take, none is there that was not parsed.
        rows = parsed.get(INPUTS) if isinstance(parsed, dict) else None
        count = len(rows) if isinstance(rows, list) else 1
        if raw.count(b'"') != 2 * (1 + count * len(self.names)):
            _expect_once(raw)
        return parsed

    def one(self, parsed: Any) -> NamedRows:  # noqa: ANN401 - JSON is anything
        """The row of `{"inputs": {...}}`. Raises InvalidInput."""
        given = _under(parsed, INPUTS, alone=True)
        self.expect_names(given, INPUTS)
        return NamedRows(self, {name: [given[name]] for name in self.names}, lambda _, name: (INPUTS, name), many=False)

    def rows(self, parsed: Any, key: str = INPUTS, *, alone: bool = True) -> NamedRows:  # noqa: ANN401 - the same
        """The rows of `{"inputs": [{...}, ...]}`. Raises InvalidInput, or TooLarge for too many."""
        given = _under(parsed, key, alone=alone)
        if not isinstance(given, list) or not given:
            raise InvalidInput.at(f"expected a list of objects of the inputs, got {_came(given)}", key)
        expect_few(len(given), self.max_rows, "rows")
        for k, row in enumerate(given):
            self.expect_names(row, key, k)
        columns = {name: [row[name] for row in given] for name in self.names}
        return NamedRows(self, columns, lambda row, name: (key, row, name), many=True)

    def columns(self, given: Any, key: str) -> NamedRows:  # noqa: ANN401 - the same
        """The rows of a list for each input, as long as each other. Raises InvalidInput, or TooLarge for too many."""
        self.expect_names(given, key)
        for name in self.names:
            if not isinstance(given[name], list) or not given[name]:
                raise InvalidInput.at(f"expected a list of rows, got {_came(given[name])}", key, name)
        counts = [len(given[name]) for name in self.names]
        expect_rows(self.model.takes, counts, key)
        expect_few(counts[0], self.max_rows, "rows")
        return NamedRows(self, given, lambda row, name: (key, name, row), many=True)

    def expect_names(self, given: Any, *where: str | int) -> None:  # noqa: ANN401 - the same
        """Raise InvalidInput where an object has not the inputs' names, all and alone."""
        if not isinstance(given, dict):
            raise InvalidInput.at(
                f"expected an object of the inputs {', '.join(self.names)}, got {_came(given)}", *where
            )
        missing = [name for name in self.names if name not in given]
        more = len(given) - len(self.names) + len(missing)
        if missing:
            none = (
                f", and has {more} that {'is' if more == 1 else 'are'} none of {', '.join(self.names)}" if more else ""
            )
            raise InvalidInput([Problem(where, f"lacks the input {name}{none}") for name in missing[:MAX_PROBLEMS]])
        if more:
            raise InvalidInput.at(f"expected the inputs {', '.join(self.names)} alone, got {more} more", *where)


def object_schema(model: Model, *, rows: bool = False) -> dict[str, Any]:
    """The JSON Schema of an object of the inputs: of one row, or of a list of them for each."""
    properties = {}
    for each in model.takes:
        shape = (None, *each.shape) if rows else each.shape
        properties[str(each.name)] = TypeAdapter(sequence(shape, each.id_limit, names_of(each))).json_schema()
    names = [*properties]
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def rows_schema(model: Model) -> dict[str, Any]:
    """The JSON Schema of a list of such objects."""
    return {"type": "array", "minItems": 1, "items": object_schema(model)}


def documented(model: Model, max_rows: int) -> tuple[type[BaseModel], type[BaseModel]]:
    """For OpenAPI: the bodies of POST /predict and of POST /predict/batch."""
    row = {str(each.name): zeros(each.shape) for each in model.takes}
    one: Any = Annotated[dict[str, Any], WithJsonSchema(object_schema(model))]
    many: Any = Annotated[list[Any], WithJsonSchema({**rows_schema(model), "maxItems": max_rows})]
    forbid = ConfigDict(extra="forbid")
    return (
        create_model("PredictRequest", __config__=forbid, inputs=(one, Field(examples=[row]))),
        create_model("PredictBatchRequest", __config__=forbid, inputs=(many, Field(examples=[[row]]))),
    )


def _under(parsed: Any, key: str, *, alone: bool) -> Any:  # noqa: ANN401 - the same
    if not isinstance(parsed, dict) or key not in parsed or (alone and len(parsed) > 1):
        came = f'one in which "{key}" is missing' if isinstance(parsed, dict) and key not in parsed else _came(parsed)
        raise InvalidInput.at(f'expected an object with the key "{key}"{" alone" if alone else ""}, got {came}')
    return parsed[key]


def _came(value: Any) -> str:  # noqa: ANN401 - the same
    return f"one with {len(value)} keys" if isinstance(value, dict) else json_type_of(value)


def _expect_once(raw: bytes) -> None:
    def expect(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        listed = list(pairs)
        made = dict(listed)
        if len(made) < len(listed):
            raise InvalidInput.at("expected each name once")
        return made

    try:
        json.loads(raw, object_pairs_hook=expect)
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON that can be read") from error
