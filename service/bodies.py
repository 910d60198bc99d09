"""A request's body as JSON: parsed, validated against the shape of the served model, and made into arrays.

orjson parses and Pydantic validates, which stops at the first fault: its own list of errors grows with the body (8 MB
of "" made 2.5 million). What is told of a bad body comes from a walk over it that stops at ten. The two take 18 us for
300 numbers, and Pydantic's `model_validate_json` 22. Of many sequences a slice is looked at at a time: others are
answered between two of them.
"""

import gc
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict, ValidationError, WithJsonSchema, create_model
from pydantic_core import from_json

from service.engine.activations import Array
from service.engine.model import Model
from service.engine.scan import Shape
from service.errors import InvalidInput, Malformed, Problem, TooLarge
from service.loading.numpy_files import NPY_MAGIC
from service.text import without_mark

MAX_PROBLEMS = 10
MAX_LOOKED_AT = 2048  # lists, and ids, in the search for them: some milliseconds
LARGE = 1 << 16  # bytes of a body
# About so many numbers are validated and converted at once, in 2 ms; where lengths are free, so many sequences.
SLICE = 1 << 14
SLICE_OF_FREE = 16
# Bytes from which on a body is weighed before it is parsed: with ROOM times more than a good one has of anything, of
# objects and texts FEW, it is not.
HEAVY = 1 << 18
ROOM = 2
FEW = 50
# The largest number that does not become infinity; it is a little more than the largest float32.
FLOAT32_MAX = math.nextafter(2.0**128 - 2.0**103, 0)

# What a text in UTF-16 begins with, as PowerShell 5 writes it too.
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

NPY_GOES = "goes to /predict/batch as application/x-npy"

Where = tuple[str | int, ...]


class Body(BaseModel):
    """A request body of the native dialect: one key, and under it sequences for one model."""

    model_config = ConfigDict(extra="forbid")
    key: ClassVar[str]
    other: ClassVar[tuple[str, str]]  # the key of the sister path, and that path
    many: ClassVar[bool]
    shape: ClassVar[Shape]  # of one sequence
    id_limit: ClassVar[int | None]  # what each number is under, where they are ids
    max_rows: ClassVar[int]
    slice_rows: ClassVar[int]
    most_lists: ClassVar[float]  # that a good body has; and so on
    most_numbers: ClassVar[float]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The validated body. Raises Malformed, InvalidInput, or TooLarge for too many sequences."""
        cls.weigh(raw)
        # Of a key that is there twice the parsed body has the last alone. `bytes.count` would look at every byte.
        second_quote = raw.find(b'"', raw.find(b'"') + 1)
        return cls.of(json_of(raw), once=raw.rfind(b'"') == second_quote)

    @classmethod
    def of(cls, parsed: Any, *, once: bool = True) -> Self:  # noqa: ANN401 - JSON is anything
        """The validated body, once it is parsed. Raises InvalidInput, or TooLarge for too many sequences.

        What is more than a slice `arrays` validates.
        """
        # Pydantic would make an error of each surplus key, and convert every surplus sequence first.
        if isinstance(parsed, dict) and len(parsed) == 1 and cls.key in parsed:
            value = parsed[cls.key]
            if cls.many and isinstance(value, list) and len(value) > cls.max_rows:
                rows = len(value)
                del parsed, value
                raise TooLarge(f"the body has {rows} sequences; at most {cls.max_rows} are answered at once")
            if cls.many and isinstance(value, list) and len(value) > cls.slice_rows:
                made = cls.model_construct(**parsed)
                made.__dict__["once"] = once
                return made
            made = cls._valid(parsed, parsed)
            if once:
                return made
        raise cls._wrong(parsed) or cls._twice()

    @classmethod
    def _twice(cls) -> InvalidInput:
        return InvalidInput([Problem((), f'expected the key "{cls.key}" once')])

    @classmethod
    def _valid(cls, some: dict[str, Any], parsed: dict[str, Any], start: int = 0) -> Self:
        """The validated body of `some` of the sequences of `parsed`, from `start` on. Raises InvalidInput."""
        try:
            return cls.model_validate(some)
        except ValidationError as error:
            where = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
        # The walk says it better. Where it would be long, it begins at what Pydantic has found.
        if cls.many and len(where) > 1:
            where = (where[0], int(where[1]) + start, *where[2:])
        raise cls._wrong(parsed, start, where) or InvalidInput([Problem(where, "expected another value")])

    @classmethod
    def _wrong(cls, parsed: Any, start: int = 0, first: Where = ()) -> InvalidInput | None:  # noqa: ANN401 - JSON is anything
        """What is wrong from the sequence `start` on, ten problems at most; `first` is where one is, where known."""
        walks = [cls._walk(parsed, start), *([cls._walk_at(parsed, first)] if first else [])]
        for found in walks:
            if problems := list(islice(filter(None, islice(found, MAX_LOOKED_AT)), MAX_PROBLEMS)):
                return InvalidInput(problems)
        return None

    @classmethod
    def weigh(cls, raw: bytes, few: int = FEW) -> None:
        """Refuse, before it is parsed, what cannot be good and would take thirty times its size in memory.

        `few` is how many objects, and quotes, there may be.
        """
        if len(raw) <= HEAVY:
            return
        marks = np.frombuffer(raw, np.uint8)  # where there are many, a fifth of the time of `bytes.count`
        lists, objects, texts, commas = (int(np.count_nonzero(marks == ord(mark))) for mark in '[{",')
        numbers = commas + 1
        if max(lists / cls.most_lists, numbers / cls.most_numbers, objects / few, texts / few) <= ROOM:
            return
        if (lists, objects) != (raw.count(b"]"), raw.count(b"}")):
            raise Malformed("the body is not JSON: not every list and object in it is closed")
        came = f"got {lists} lists, {numbers} numbers, {objects} objects and {texts // 2} texts"
        if cls.many and max(objects, texts) <= few:
            raise TooLarge(f"at most {cls.max_rows} sequences are answered at once; {came}")
        raise InvalidInput(
            [Problem((), f'expected the key "{cls.key}" alone and lists of numbers of its shape; {came}')]
        )

    @classmethod
    def _walk(cls, parsed: Any, start: int = 0) -> Iterator[Problem | None]:  # noqa: ANN401
        if not isinstance(parsed, dict):
            yield Problem((), f'expected an object {{"{cls.key}": ...}}, got {_kind(parsed)}')
            return
        other, path = cls.other
        if cls.key not in parsed:
            hint = f'; "{other}" goes to POST {path}' if other in parsed else ""
            yield Problem((), f'expected the key "{cls.key}"{hint}')
            return
        if len(parsed) > 1:
            yield Problem((), f'expected the key "{cls.key}" alone, got {len(parsed) - 1} more')
        shape, axes = cls._shape_and_axes()
        yield from walk(parsed[cls.key], shape, axes, (cls.key,), cls.id_limit, start)

    @classmethod
    def _walk_at(cls, parsed: Any, where: Where) -> Iterator[Problem | None]:  # noqa: ANN401
        """The walk over one value alone."""
        value, (shape, axes) = parsed, cls._shape_and_axes()
        for part in where:
            value = value[part]
        depth = len(where) - 1
        return walk(value, shape[depth:], axes[depth:], where, cls.id_limit)

    @classmethod
    def _shape_and_axes(cls) -> tuple[Shape, Sequence[str]]:
        axes = AXES if len(cls.shape) == len(AXES) else ("items",) * len(cls.shape)
        return ((None, *cls.shape), ("sequences", *axes)) if cls.many else (cls.shape, axes)

    @property
    def rows(self) -> int:
        """How many sequences there are."""
        return len(getattr(self, self.key)) if self.many else 1

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:
        """The sequences, in order, as arrays (n, *shape) of a model's input dtype, made slice by slice.

        Raises InvalidInput. Where the time axis is free, each run of sequences of equal length is an array.
        """
        value = getattr(self, self.key)
        given = value if self.many else [value]
        step, free = self.slice_rows, None in self.shape
        for start in range(0, len(given), step):
            part = given[start : start + step]
            if len(given) > step:
                part = getattr(self._valid({self.key: part}, {self.key: value}, start), self.key)
            for run in [list(g) for _, g in groupby(part, len)] if free else [part]:
                yield self._array(run, dtype, start)
        if not self.__dict__.get("once", True):
            raise self._twice()

    def let_go(self) -> None:
        """Forget the lists, once there are arrays, a tenth of their size: the request may wait long for its answer."""
        self.__dict__[self.key] = ()

    def _array(self, given: list[Any], dtype: npt.DTypeLike, start: int) -> Array:
        if None in self.shape[1:]:
            # Lists of different lengths in one sequence: Pydantic has let them pass, NumPy does not.
            try:
                x = np.array(given, np.float64)
            except ValueError:
                raise InvalidInput([Problem((self.key,), "expected lists of equal lengths in a sequence")]) from None
            if not np.abs(x).max(initial=0) <= FLOAT32_MAX:
                raise self._beyond_float32(start)
            return x.astype(dtype)
        if self.id_limit is not None:
            return np.array(given, dtype)
        shape = [len(given), *(len(given[0]) if size is None else size for size in self.shape)]
        numbers: Iterable[Any] = given
        for _ in self.shape:
            numbers = chain.from_iterable(numbers)
        try:
            # A third of the time of np.array on nested lists; beyond float32 it raises.
            packed = struct.pack(f"<{math.prod(shape)}f", *numbers)
        except OverflowError:
            raise self._beyond_float32(start) from None
        if dtype != np.float32:
            return np.array(given, dtype)
        return np.frombuffer(packed, "<f4").reshape(shape)

    def _beyond_float32(self, start: int) -> InvalidInput:
        told = self._wrong({self.key: getattr(self, self.key)}, start)
        return told or InvalidInput([Problem((self.key,), "expected finite float32 numbers, got one beyond 3.4e38")])


def json_of(raw: bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """The parsed body. NaN and infinity, which orjson refuses, are let through for the walk to say where they are."""
    raw = without_mark(raw)
    # 2 MiB of [] are 700,000 lists: 50 ms to make, 250 ms more to be searched for cycles, of which JSON has none.
    collects = gc.isenabled() and len(raw) > LARGE
    if collects:
        gc.disable()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return from_json(raw)
        except ValueError as error:
            raise Malformed(_not_json(raw, str(error))) from None
    finally:
        if collects:
            gc.enable()


AXES = ("time steps", "features")


def walk(  # noqa: PLR0913, PLR0917 - it calls itself
    value: Any,  # noqa: ANN401
    shape: Sequence[int | None],
    axes: Sequence[str],
    where: Where,
    id_limit: int | None = None,
    start: int = 0,
) -> Iterator[Problem | None]:
    """Everything that keeps `value` from being numbers, or ids, of that shape, in its order, lazily.

    None is each list, and each id, that is looked at; of the first axis it begins at `start`.
    """
    if not shape:
        yield _number(value, where, id_limit)
        return
    yield None
    size, axis = shape[0], axes[0]
    if not isinstance(value, list):
        yield Problem(where, f"expected {_counted(size, axis)}, got {_kind(value)}")
        return
    if len(value) != size if size is not None else not value:
        yield Problem(where, f"expected {_counted(size, axis)}, got {len(value)}{_hint(value, shape)}")
        if len(value) > (size or 0):
            return  # each surplus row would be told again
    if len(shape) == 1 and id_limit is None:
        # What `walk` says of good numbers, which is nothing, at a fifth of its cost.
        good, low, high = (float, int), -FLOAT32_MAX, FLOAT32_MAX
        indices: Sequence[int] = [k for k, item in enumerate(value) if not (type(item) in good and low <= item <= high)]
    else:
        indices = range(start, len(value))
    for index in indices:
        yield from walk(value[index], shape[1:], axes[1:], (*where, index), id_limit)


def _number(value: Any, where: Where, id_limit: int | None) -> Problem | None:  # noqa: ANN401 - JSON is anything
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Problem(where, f"expected a number, got {_kind(value)}")
    if id_limit is not None and not (isinstance(value, int) and 0 <= value < id_limit):
        return Problem(where, f"expected an id, an integer from 0 to {id_limit - 1}, got another number")
    if not abs(value) <= FLOAT32_MAX:
        return Problem(where, "expected a finite float32 number, got NaN, infinity or a number beyond 3.4e38")
    return None


def _counted(size: int | None, axis: str) -> str:
    return f"at least one of the {axis}" if size is None else f"a list of {size} {axis}"


def _hint(value: list[Any], shape: Sequence[int | None]) -> str:
    sizes: list[int] = []
    item: Any = value
    while isinstance(item, list) and len(sizes) <= len(shape):
        sizes.append(len(item))
        item = item[0] if item else None
    if len(shape) == 2 and tuple(reversed(sizes)) == tuple(shape):
        return "; are the two axes swapped?"
    if len(sizes) > len(shape):
        return "; is there one axis too many? Several sequences go to POST /predict/batch"
    return "; is an axis missing?" if len(sizes) == len(shape) - 1 and sizes[0] == shape[-1] else ""


def _kind(value: Any) -> str:  # noqa: ANN401 - JSON is anything
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


def _not_json(raw: bytes, error: str) -> str:
    if not raw.strip():
        return "the body is empty; expected JSON"
    if raw.startswith(NPY_MAGIC):
        return f"the body is an array in .npy format, which {NPY_GOES}"
    if raw.startswith(UTF_16):
        return "the body is text in UTF-16; expected JSON in UTF-8"
    return f"the body is not JSON: {error[:200]}"


def one_and_many(model: Model, max_rows: int) -> tuple[type[Body], type[Body]]:
    """The bodies of POST /predict and of POST /predict/batch, with at most `max_rows` sequences, for this model."""
    one = body("PredictRequest", "sequence", model, None)
    one.__doc__ = "One sequence: a list of time steps, each a list of the features' values."
    many = body("PredictBatchRequest", "sequences", model, max_rows)
    many.__doc__ = "Several sequences."
    one.other, many.other = ("sequences", "/predict/batch"), ("sequence", "/predict")
    return one, many


def body(name: str, key: str, model: Model, max_rows: int | None) -> type[Body]:
    """The type of a body with at most `max_rows` sequences for this model under its key; with one, where it is None."""
    shape = model.input_shape
    one: Any = sequence(shape, model.id_limit)
    many = Annotated[list[one], Field(min_length=1, max_length=max_rows), FailFast()]
    example = zeros(shape if max_rows is None else (1, *shape))
    field: Any = (one if max_rows is None else many, Field(description=_described(model), examples=[example]))
    made = create_model(name, __base__=Body, **{key: field})
    made.key, made.other, made.shape, made.id_limit = key, (key, ""), shape, model.id_limit
    made.many, made.max_rows = max_rows is not None, max_rows or 1
    sizes = [math.inf if size is None else size for size in shape]
    made.most_lists = made.max_rows * sum(math.prod(sizes[:axis]) for axis in range(len(sizes))) + made.many
    made.most_numbers = made.max_rows * math.prod(sizes)
    whole = [size for size in shape if size is not None]
    made.slice_rows = SLICE_OF_FREE if len(whole) < len(shape) else max(1, SLICE // math.prod(whole))
    return made


def zeros(shape: Sequence[int | None]) -> Any:  # noqa: ANN401 - nested as the shape
    """For OpenAPI: an example of this shape, where a free axis is 1."""
    return np.zeros([size or 1 for size in shape], int).tolist()


def sequence(shape: Sequence[int | None], id_limit: int | None = None) -> Any:  # noqa: ANN401 - a type made at run time
    """The type of numbers, or of ids under a limit, nested as the shape."""
    # The bounds are for whoever reads the document; `arrays` holds the values to them, all at once.
    bounds = {"type": "number", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX}
    item: Any = Annotated[float, Strict(), Field(allow_inf_nan=False), WithJsonSchema(bounds)]
    if id_limit is not None:
        item = Annotated[int, Strict(), Field(ge=0, lt=id_limit)]
    for size in reversed(shape):
        limits = Field(min_length=1) if size is None else Field(min_length=size, max_length=size)
        item = Annotated[list[item], limits, FailFast()]
    return item


def _described(model: Model) -> str:
    names = "" if model.about.features is None else f": {', '.join(f.name for f in model.about.features)}"
    what = "numbers" if model.id_limit is None else f"ids, integers from 0 to {model.id_limit - 1}"
    return f"{' x '.join('any' if n is None else str(n) for n in model.input_shape)} {what}, time first{names}"
