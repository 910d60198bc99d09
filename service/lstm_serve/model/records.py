"""Several arrays of rows as one: whoever queues, cuts or joins rows need not know how many inputs or outputs there are.

That of one array is the array itself. Of several it is records (n,), with a field by the name of each.
"""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.types import AnyArray, Array


def packed(names: Sequence[str | None], arrays: Sequence[Array]) -> Array:
    """Arrays (n, ...) as one; there are as many names, which several have and no two have the same."""
    if len(arrays) == 1:
        return arrays[0]
    form = [(str(name), array.dtype, array.shape[1:]) for name, array in zip(names, arrays, strict=True)]
    rows: AnyArray = np.empty(len(arrays[0]), form)
    for (name, *_), array in zip(form, arrays, strict=True):
        rows[name] = array
    return rows


def unpacked(rows: AnyArray) -> tuple[Array, ...]:
    """The arrays that were packed, in their order."""
    fields = rows.dtype.names
    return (rows,) if fields is None else tuple(np.ascontiguousarray(rows[name]) for name in fields)


def shapes(rows: AnyArray) -> tuple[tuple[int, ...], ...]:
    """The shape of a row of each array."""
    fields = rows.dtype.names
    return (rows.shape[1:],) if fields is None else tuple(rows.dtype[name].shape for name in fields)


def all_finite(rows: AnyArray) -> bool:
    """Return whether each number is finite."""
    return all(bool(np.isfinite(array).all()) for array in unpacked(rows))
