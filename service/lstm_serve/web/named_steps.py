"""Time steps that come as objects by the names of the features: put into the model's order, each name once."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from lstm_serve.web.body_faults import Names, Where

# A text of JSON, and an object with no other in it. Possessive: neither is tried in more than one way.
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
OBJECT = re.compile(rb'\{[^{}"]*+(?:%s[^{}"]*+)*+\}' % TEXT.pattern)


def in_order(value: Any, names: Names, depth: int) -> Any:  # noqa: ANN401 - JSON is anything
    """`value` with a list in place of each object that lies `depth` lists deep and has these names alone."""
    if depth:
        return [in_order(item, names, depth - 1) for item in value] if type(value) is list else value
    if type(value) is dict and len(value) == len(names):
        try:
            return [value[name] for name in names]
        except KeyError:
            pass  # it stays as it is, and is refused
    return value


def first_twice(raw: bytes, value: Any, names: Names, depth: int, keys: int) -> Where | None:  # noqa: ANN401 - JSON is anything
    """Where in `value` a name is there twice, which its parser does not tell; () beside it, None where none is.

    `value` is lists of numbers, and objects with these names alone, under one of so many keys of the body `raw`; under
    the others there are numbers.
    """
    rows: Iterable[Any] = (value,)
    for _ in range(depth):
        rows = chain.from_iterable(rows)
    size, objects = len(names), sum(type(row) is dict for row in rows)
    # A text has two quotes, or more where quotes are in it: with so few, there is none that was not parsed.
    quotes = raw.count(b'"')
    if quotes == 2 * (keys + size * objects):
        return None
    found = OBJECT.findall(raw)
    if len(found) == objects:
        for k, row in enumerate(found):
            if row.count(b'"') > 2 * size and len(TEXT.findall(row)) > size:
                places = (where for where, row in _rows(value, depth, ()) if type(row) is dict)
                return next(islice(places, k, None))
        if quotes == 2 * keys + sum(row.count(b'"') for row in found):
            return None
    return ()


def _rows(value: Any, depth: int, where: Where) -> Iterator[tuple[Where, Any]]:  # noqa: ANN401 - JSON is anything
    if not depth:
        yield where, value
        return
    for index, item in enumerate(value):
        yield from _rows(item, depth - 1, (*where, index))
