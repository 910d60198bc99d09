"""What keeps a parsed body from being numbers of a shape, in its order: lazily, so that it costs what is told of it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from lstm_serve.errors import Problem
from lstm_serve.model.inputs import wanted

Where = tuple[str | int, ...]
Names = tuple[str, ...]
Axis = tuple[int | None, str]  # how long it is, and what it is called
Key = TypeVar("Key", int, str)

AXES = ("time steps", "features")
# The largest number that does not become infinity; it is a little more than the largest float32.
BELOW_INFINITY = math.nextafter(2.0**128 - 2.0**103, 0)


def walk(  # noqa: PLR0913, PLR0917 - it calls itself
    value: Any,  # noqa: ANN401
    axes: Sequence[Axis],
    where: Where,
    id_limit: int | None = None,
    names: Names | None = None,
    start: int = 0,
) -> Iterator[Problem | None]:
    """Everything that keeps `value` from being numbers, or ids, nested as the axes, in its order, lazily.

    Where there are `names`, what is on the last axis may be an object by them. None is each list or object, and each
    id, that is looked at; of the first axis it begins at `start`.
    """
    if not axes:
        yield _number(value, where, id_limit)
        return
    yield None
    (size, axis), *inner = axes
    if names is not None and not inner and isinstance(value, dict):
        yield from _named(value, names, where)
        return
    if not isinstance(value, list):
        yield Problem(where, f"expected {_counted(size, axis)}, got {json_type_of(value)}")
        return
    if size is None and inner and _is_one(value, [size for size, _ in inner], named=names is not None):
        yield Problem(where, f"expected {_counted(size, axis)}, got the {inner[0][1]} of one: wrap it in another list")
        return
    if len(value) != size if size is not None else not value:
        yield Problem(where, f"expected {_counted(size, axis)}, got {len(value)}{_hint(value, axes)}")
        if len(value) > (size or 0):
            return  # each surplus row would be told again
    if not inner and id_limit is None:
        indices: Iterable[int] = _suspicious(enumerate(value))
    else:
        indices = range(start, len(value))
    for index in indices:
        yield from walk(value[index], inner, (*where, index), id_limit, names)


def _is_one(value: Any, sizes: Sequence[int | None], *, named: bool) -> bool:  # noqa: ANN401 - JSON is anything
    """Whether a value is numbers nested as these sizes, by the first and the last item of each list of lists."""
    (size, *inner) = sizes
    if named and not inner and type(value) is dict:
        return True
    if type(value) is not list or not value or len(value) != (size or len(value)):
        return False
    if inner:
        return all(_is_one(item, inner, named=named) for item in (value[0], value[-1]))
    return all(type(item) in {int, float} for item in value)


def _named(row: dict[str, Any], names: Names, where: Where) -> Iterator[Problem | None]:
    missing = [name for name in names if name not in row]
    if missing:
        yield Problem(where, f"lacks {', '.join(missing)}, which the model's card names")
    if surplus := len(row) - len(names) + len(missing):
        yield Problem(where, f"expected the {len(names)} features that the model's card names, got {surplus} more")
    for name in _suspicious(row.items()):
        if name in names:
            yield _number(row[name], (*where, name), None)


def _suspicious(items: Iterable[tuple[Key, Any]]) -> list[Key]:
    """The keys of what `_number` may say something of: of good numbers it says nothing, at five times the cost."""
    good, low, high = (float, int), -BELOW_INFINITY, BELOW_INFINITY
    return [key for key, item in items if not (type(item) in good and low <= item <= high)]


def _number(value: Any, where: Where, id_limit: int | None) -> Problem | None:  # noqa: ANN401 - JSON is anything
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Problem(where, f"expected a number, got {json_type_of(value)}")
    if id_limit is not None and not (0 <= value < id_limit and value == int(value)):
        return Problem(where, f"expected {wanted(id_limit)}, got another number")
    if not abs(value) <= BELOW_INFINITY:
        return Problem(where, "expected a finite float32 number, got NaN, infinity or a number beyond 3.4e38")
    return None


def _counted(size: int | None, axis: str) -> str:
    return f"at least one of the {axis}" if size is None else f"a list of {size} {axis}"


def _hint(value: list[Any], axes: Sequence[Axis]) -> str:
    shape = [size for size, _ in axes]
    row = value[0] if value else None
    fits = isinstance(row, list | dict) and len(row) == shape[-1]
    if fits and axes[0] == (shape[0], AXES[0]) and len(value) > (shape[0] or math.inf):
        return "; a longer series goes to POST /predict/series, which answers each of its windows"
    sizes: list[int] = []
    item: Any = value
    while isinstance(item, list) and len(sizes) <= len(shape):
        sizes.append(len(item))
        item = item[0] if item else None
    if len(shape) == 2 and sizes[::-1] == shape:
        return "; are the two axes swapped?"
    if len(sizes) > len(shape):
        return "; is there one axis too many? Several sequences go to POST /predict/batch"
    return "; is an axis missing?" if len(sizes) == len(shape) - 1 and sizes[0] == shape[-1] else ""


def json_type_of(value: Any) -> str:  # noqa: ANN401 - JSON is anything
    """What a value is, without saying which."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), "something else")
