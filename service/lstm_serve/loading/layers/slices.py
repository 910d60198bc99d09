"""What x[...] takes of an array, as Keras writes it: slices, indices, new axes and an ellipsis."""

from typing import Any

from lstm_serve.engine.operations.arithmetic import sliced_size
from lstm_serve.engine.types import Shape
from lstm_serve.errors import Unsupported
from lstm_serve.loading.config.options import MAX_SIZE

ELLIPSIS = "__ellipsis__"


def sliced(key: Any, shape: Shape, what: str) -> tuple[tuple[slice, ...], Shape]:  # noqa: ANN401 - JSON is anything
    """For each axis but the batch's its slice, and the shape after indexed axes are gone and new ones there.

    `shape` is without the batch axis. Raises Unsupported for what is not understood, and for what may leave nothing.
    """
    parts = key if isinstance(key, list) else [key]
    taken = [part for part in parts if part is not None and not _is_ellipsis(part)]
    missing = len(shape) + 1 - len(taken)
    if missing < 0 or sum(map(_is_ellipsis, parts)) > 1:
        raise Unsupported(f"the {what} has {len(taken)} slices for an array of {len(shape) + 1} axes")
    if not any(map(_is_ellipsis, parts)):
        parts = [*parts, {"class_name": ELLIPSIS}]
    slices: list[slice] = []
    sizes: list[int | None] = []
    axis = 0
    for part in parts:
        if part is None:
            if axis == 0:
                raise Unsupported(f"the {what} puts an axis in front of the batch's, which is not supported")
            sizes.append(1)
            continue
        for each in [_slice({})] * missing if _is_ellipsis(part) else [_slice(part)]:
            size = None if axis == 0 else shape[axis - 1]
            chosen, left = _taken(each, size, what)
            if axis == 0 and (chosen.start not in {None, 0} or chosen.stop is not None or chosen.step is not None):
                raise Unsupported(f"the {what} takes some rows of a batch, which is not supported")
            if axis:
                slices.append(chosen)
                sizes += [] if isinstance(each, int) else [left]
            axis += 1
    return tuple(slices), tuple(sizes)


def _taken(part: slice | int | None, size: int | None, what: str) -> tuple[slice, int | None]:
    """What is taken of an axis, as a slice, and how many are left."""
    if part is None:
        raise Unsupported(f"the {what} takes a part that is neither a slice nor an index, which is not supported")
    chosen = slice(part, part + 1 if part != -1 else None) if isinstance(part, int) else part
    left = _left(chosen, size)
    if left == 0 or (isinstance(part, int) and left != 1):
        raise Unsupported(f"the {what} takes {part} of an axis of {'unknown size' if size is None else f'size {size}'}")
    return chosen, left


def _left(part: slice, size: int | None) -> int | None:
    """How many are left; 0 where an axis whose size is free may have none."""
    found = sliced_size(part, size)
    whole = part.start in {None, 0} and part.stop is None
    return 0 if found is None and not whole else found


def _is_ellipsis(part: Any) -> bool:  # noqa: ANN401 - JSON is anything
    return isinstance(part, dict) and part.get("class_name") == ELLIPSIS


def _slice(part: Any) -> slice | int | None:  # noqa: ANN401 - JSON is anything
    """A slice or an index; None where it is neither."""
    if _whole(part):
        return int(part)
    if not isinstance(part, dict):
        return None
    values = part.get("config") if part.get("class_name") == "__slice__" else part
    if not isinstance(values, dict) or not values.keys() <= {"start", "stop", "step"}:
        return None
    ends = [values.get(key) for key in ("start", "stop", "step")]
    if not all(end is None or _whole(end) for end in ends) or ends[2] == 0:
        return None
    # A step of 1 is none: what is taken whole is then told by its slice.
    return slice(ends[0], ends[1], None if ends[2] == 1 else ends[2])


def _whole(value: Any) -> bool:  # noqa: ANN401 - JSON is anything
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_SIZE
