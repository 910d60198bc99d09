"""A request's body as JSON: parsed, validated against the shape of the served model, and made into arrays.

orjson parses and Pydantic validates, which stops at the first fault: its own list of errors grows with the body (8 MB
of "" made 2.5 million). What is told of a bad body comes from a walk over it that stops at ten. The two take 18 us for
300 numbers, and Pydantic's `model_validate_json` 22. Of many sequences a slice is looked at at a time: others are
answered between two of them.
"""

import gc
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json

from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import InvalidInput, Malformed, Problem, TooLarge
from lstm_serve.formats.npy import NPY_MAGIC
from lstm_serve.formats.text import without_mark
from lstm_serve.model.inputs import wanted
from lstm_serve.web.body_faults import AXES, BELOW_INFINITY, Axis, Names, Where, json_type_of, walk
from lstm_serve.web.json_structure import count_marks, structure
from lstm_serve.web.named_steps import first_twice, in_order

MAX_PROBLEMS = 10
MAX_LOOKED_AT = 2048  # lists, and ids, in the search for them: some milliseconds
LARGE = 1 << 16  # bytes of a body
SLICE = 1 << 14  # about so many numbers are validated and converted at once, in 2 ms
# Bytes from which on a body is weighed before it is parsed: with ROOM times more than a good one has of anything, of
# objects and texts FEW, it is not.
HEAVY = 1 << 18
ROOM = 2
FEW = 50
# What a text in UTF-16 begins with, as PowerShell 5 writes it too.
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

NPY_GOES = "goes to /predict/batch as application/x-npy"


class Body(BaseModel):
    """A request body of the native dialect: under one key sequences for one model, or rows of a series of its.

    Its other fields, where it has any, are whole numbers beside them, or lists of those.
    """

    model_config = ConfigDict(extra="forbid")
    key: ClassVar[str]
    others: ClassVar[Mapping[str, str]] = {}  # keys of other paths, and those paths
    beside: ClassVar[tuple[str, ...]] = ()  # keys that were read and left out before
    many: ClassVar[bool]
    noun: ClassVar[str] = "sequences"  # what there are many of
    shape: ClassVar[Shape]  # of one
    id_limit: ClassVar[int | None]  # what each number is under, where they are ids
    names: ClassVar[Names | None] = None  # of the features, by which a time step may be an object
    max_rows: ClassVar[int]
    longest: ClassVar[int | None] = None  # of what the shape leaves free
    slice_rows: ClassVar[int | None]  # sequences that are validated and converted at once, where they are alike
    most_lists: ClassVar[float]  # that a good body has; and so on
    most_numbers: ClassVar[float]
    most_objects: ClassVar[float] = FEW
    texts: ClassVar[int] = 0  # that each object brings
    # Of one body alone: its bytes, where a key may be there twice, and what was parsed, where it has objects.
    raw: ClassVar[bytes] = b""
    given: ClassVar[Any] = None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The validated body. Raises Malformed, InvalidInput, or TooLarge for too many sequences."""
        cls.weigh(raw)
        return cls.of(json_of(raw), raw)

    @classmethod
    def of(cls, parsed: Any, raw: bytes = b"", beside: int = 0) -> Self:  # noqa: ANN401 - JSON is anything
        """The validated body, once it is parsed. Raises InvalidInput, or TooLarge for too many sequences.

        What is more than a slice `arrays` validates. Of a key that is there twice the parsed body has the last alone:
        `raw` shows it, where that matters; `beside` are the texts in it, keys and values, that are not in `parsed`.
        """
        key, many = cls.key, cls.many  # each look-up goes by way of Pydantic's metaclass
        # Pydantic would make an error of each surplus key, and convert every surplus sequence first.
        if (
            isinstance(parsed, dict)
            and key in parsed
            and (len(parsed) == 1 or parsed.keys() <= cls.model_fields.keys())
        ):
            value, keys = parsed[key], len(parsed) + beside
            # `bytes.count` would look at every byte.
            once = raw.rfind(b'"') == raw.find(b'"', raw.find(b'"') + 1) if keys == 1 else raw.count(b'"') == 2 * keys
            if many and isinstance(value, list) and len(value) > cls.max_rows:
                rows = len(value)
                del parsed, value
                expect_few(rows, cls.max_rows, cls.noun)
            if many and isinstance(value, list) and len([*islice(cls.slices(value), 2)]) > 1:
                # What is bad from the start is not kept until its turn.
                cls._valid({**parsed, key: value[:1]}, parsed)
                made = cls.model_construct(**parsed)
                if not once:
                    made.__dict__["raw"] = raw
                return made
            made = cls._valid(parsed, parsed)
            if not once:
                cls._expect_once(value, raw, keys)
                made.__dict__["given"] = parsed
            return made
        raise cls._wrong(parsed) or cls._twice()

    @classmethod
    def _twice(cls) -> InvalidInput:
        return InvalidInput.at(f"expected {cls._keys()} once")

    @classmethod
    def _expect_once(cls, value: Any, raw: bytes, keys: int) -> None:  # noqa: ANN401 - JSON is anything
        """Raise InvalidInput where, beside the valid `value`, one of so many keys or a name is there twice."""
        where = first_twice(raw, value, cls.names or (), cls._depth(), keys)
        if where:
            raise InvalidInput.at("expected each name once", cls.key, *where)
        if where is not None:  # with texts beside its own keys it may be another
            raise InvalidInput.at("expected each key once") if keys > len(cls.model_fields) else cls._twice()

    @classmethod
    def _keys(cls) -> str:
        """The key in words, or all where there are several."""
        return (
            f'the key "{cls.key}"' if len(cls.model_fields) == 1 else f"each of the keys {', '.join(cls.model_fields)}"
        )

    @classmethod
    def _allowed(cls) -> str:
        """All keys that a body may have, in words."""
        keys = [*cls.model_fields, *cls.beside]
        return f"{cls._keys()} alone" if len(keys) == 1 else f"the keys {', '.join(keys)}"

    @classmethod
    def _depth(cls) -> int:
        """How many lists deep a time step lies."""
        return len(cls.shape) - 1 + cls.many

    @classmethod
    def _valid(cls, some: dict[str, Any], parsed: dict[str, Any], start: int = 0) -> Self:
        """The validated body of `some` of the sequences of `parsed`, from `start` on. Raises InvalidInput."""
        try:
            return cls.model_validate(some)
        except ValidationError as error:
            first = _first(error)
        if cls.names is not None:
            try:
                return cls.model_validate({**some, cls.key: in_order(some[cls.key], cls.names, cls._depth())})
            except ValidationError as error:
                first = _first(error)
        where = first["loc"]
        if where[0] != cls.key:
            raise InvalidInput.at(f"expected {cls.model_fields[str(where[0])].description}", *where)
        if first["type"] == "too_long" and len(where) > cls.many:
            expect_short(cls.shape[len(where) - 1 - cls.many :], [first["ctx"]["actual_length"]], cls.longest)
        # The walk says it better. Where it would be long, it begins at what Pydantic has found.
        if cls.many and len(where) > 1:
            where = (where[0], int(where[1]) + start, *where[2:])
        raise cls._wrong(parsed, start, where) or InvalidInput.at("expected another value", *where)

    @classmethod
    def _wrong(cls, parsed: Any, start: int = 0, first: Where = ()) -> InvalidInput | None:  # noqa: ANN401 - JSON is anything
        """What is wrong from the sequence `start` on, ten problems at most; `first` is where one is, where known."""
        walks = [cls._walk(parsed, start), *([cls._walk_at(parsed, first)] if first else [])]
        for found in walks:
            if problems := list(islice(filter(None, islice(found, MAX_LOOKED_AT)), MAX_PROBLEMS)):
                return InvalidInput(problems)
        return None

    @classmethod
    def weigh(cls, raw: bytes) -> None:
        """Refuse, before it is parsed, what cannot be good and would take thirty times its size in memory."""
        if len(raw) <= HEAVY:
            return
        marks = structure(raw)
        lists, objects, texts, commas = count_marks(marks, '[{",')
        numbers = commas + 1
        few = FEW + cls.texts * objects
        much = max(lists / cls.most_lists, numbers / cls.most_numbers, objects / cls.most_objects, texts / few)
        if much <= ROOM:
            return
        if [lists, objects] != count_marks(marks, "]}"):
            raise Malformed("the body is not JSON: not every list and object in it is closed")
        came = f"got {lists} lists, {numbers} numbers, {objects} objects and {texts} texts"
        if cls.many and texts <= few and objects <= cls.most_objects:
            raise TooLarge(f"at most {cls.max_rows} {cls.noun} are answered at once; {came}")
        if cls.longest is not None and texts <= few and objects <= cls.most_objects:
            raise TooLarge(f"a sequence of at most {cls.longest} time steps is computed; {came}")
        raise InvalidInput.at(f"expected {cls._allowed()}, and lists of numbers of its shape; {came}")

    @classmethod
    def _walk(cls, parsed: Any, start: int = 0) -> Iterator[Problem | None]:  # noqa: ANN401
        if not isinstance(parsed, dict):
            yield Problem((), f'expected an object {{"{cls.key}": ...}}, got {json_type_of(parsed)}')
            return
        if cls.key not in parsed:
            yield Problem((), f'expected the key "{cls.key}"{elsewhere(parsed, cls.others)}')
            return
        if surplus := len(parsed.keys() - cls.model_fields.keys()):
            yield Problem((), f"expected {cls._allowed()}, got {surplus} more")
        yield from walk(parsed[cls.key], cls._axes(), (cls.key,), cls.id_limit, cls.names, start)

    @classmethod
    def _walk_at(cls, parsed: Any, where: Where) -> Iterator[Problem | None]:  # noqa: ANN401
        """The walk over one value alone, where its place is as Pydantic has it: in a list, whatever came."""
        value, place = parsed, list[str | int]()
        for part in where:
            if cls.names is not None and isinstance(value, dict) and isinstance(part, int):
                place.append(cls.names[part])
            else:
                place.append(part)
            value = value[place[-1]]
        return walk(value, cls._axes()[len(where) - 1 :], (*place,), cls.id_limit, cls.names)

    @classmethod
    def _axes(cls) -> list[Axis]:
        names = AXES if len(cls.shape) == len(AXES) else ("items",) * len(cls.shape)
        if cls.noun == "rows" and len(cls.shape) == 1:
            names = AXES[1:]
        return [(None, cls.noun)] * cls.many + [*zip(cls.shape, names, strict=True)]

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return len(getattr(self, self.key)) if self.many else 1

    def arrays(self, dtype: npt.DTypeLike) -> Iterator[Array]:
        """The sequences, in order, as arrays (n, *shape) of a model's input dtype, made slice by slice.

        Raises InvalidInput. Where the time axis is free, each run of sequences of equal length is an array.
        """
        value, many, free = getattr(self, self.key), self.many, None in self.shape
        given = value if many else [value]
        for start, stop in self.slices(given) if many else [(0, 1)]:
            part = given[start:stop]
            if len(part) < len(given):
                part = getattr(self._valid({self.key: part}, {self.key: value}, start), self.key)
            for run in [list(g) for _, g in groupby(part, len)] if free else [part]:
                yield self._array(run, dtype, start)
        if self.raw:
            self._expect_once(value, self.raw, len(self.model_fields_set))

    @classmethod
    def slices(cls, rows: Sequence[Any]) -> Iterator[tuple[int, int]]:
        """Where each part of these begins and stops that is validated and converted at once, some milliseconds' worth.

        Where lengths are free it has about SLICE numbers, or one sequence.
        """
        if (step := cls.slice_rows) is not None:
            for start in range(0, len(rows), step):
                yield start, min(start + step, len(rows))
            return
        inner, start, numbers = math.prod(size or 1 for size in cls.shape[1:]), 0, 0
        for k, row in enumerate(rows):
            more = inner * len(row) if isinstance(row, list) else 1
            if numbers and numbers + more > SLICE:
                yield start, k
                start, numbers = k, 0
            numbers += more
        if rows:
            yield start, len(rows)

    def let_go(self) -> None:
        """Forget the lists, once there are arrays, a tenth of their size: the request may wait long for its answer."""
        self.__dict__[self.key] = ()
        for name in ("raw", "given"):
            self.__dict__.pop(name, None)

    def _array(self, given: list[Any], dtype: npt.DTypeLike, start: int) -> Array:
        if None in self.shape[1:]:
            # Lists of different lengths in one sequence: Pydantic has let them pass, NumPy does not.
            try:
                x = np.array(given, np.float64)
            except ValueError:
                raise InvalidInput.at("expected lists of equal lengths in a sequence", self.key) from None
            if not np.abs(x).max(initial=0) <= BELOW_INFINITY:
                raise self._bad_number(start)
            return x.astype(dtype)
        if self.id_limit is not None:
            x = np.array(given)
            ids: Array = x.astype(dtype)
            if (ids != x).any():  # to Pydantic a small enough fraction is none
                raise self._bad_number(start)
            return ids
        shape = [len(given), *(len(given[0]) if size is None else size for size in self.shape)]
        numbers = given
        for _ in self.shape:
            lists, numbers = numbers, []
            for values in lists:
                numbers += values
        try:
            # A quarter of the time of np.array on nested lists; beyond float32 it raises.
            packed = struct.pack(f"<{math.prod(shape)}f", *numbers)
        except OverflowError:
            raise self._bad_number(start) from None
        if dtype != np.float32:
            return np.array(given, dtype)
        return np.frombuffer(packed, "<f4").reshape(shape)

    def _bad_number(self, start: int) -> InvalidInput:
        told = self._wrong(self.given or {self.key: getattr(self, self.key)}, start)
        return told or InvalidInput.at(f"expected of each number {wanted(self.id_limit)}", self.key)


def expect_few(rows: int, most: int, noun: str = "sequences") -> None:
    """Raise TooLarge for more than are answered at once."""
    if rows > most:
        raise TooLarge(f"the body has {rows} {noun}; at most {most} are answered at once")


def expect_short(shape: Shape, came: Sequence[int], longest: int | None) -> None:
    """Raise TooLarge where one of the sizes that `came`, the first of a shape, is free there and over the limit."""
    for size, length in zip(shape, came, strict=False):
        if size is None and longest is not None and length > longest:
            raise TooLarge(f"a sequence has {length} time steps; at most {longest} are computed")


def elsewhere(parsed: Any, paths: Mapping[str, str]) -> str:  # noqa: ANN401 - JSON is anything
    """Where a body goes by its key, of these with their paths, as the end of a sentence; or nothing."""
    key = next((key for key in paths if key in parsed), None) if isinstance(parsed, dict) else None
    return "" if key is None else f'; "{key}" goes to POST {paths[key]}'


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False, include_input=False)[0]


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


def _not_json(raw: bytes, error: str) -> str:
    if not raw.strip():
        return "the body is empty; expected JSON"
    if raw.startswith(NPY_MAGIC):
        return f"the body is an array in .npy format, which {NPY_GOES}"
    if raw.startswith(UTF_16):
        return "the body is text in UTF-16; expected JSON in UTF-8, in PowerShell -Encoding utf8"
    return f"the body is not JSON: {error[:200]}"
