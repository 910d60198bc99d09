"""A series cut into what a model answers: windows of rows that never reach from one unit into the next."""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lstm_serve.engine.types import AnyArray, Ints
from lstm_serve.errors import InvalidInput

UnitKey = TypeVar("UnitKey", bound=Hashable)


def windows(rows: AnyArray, timesteps: int | None, stride: int) -> AnyArray:
    """Each `timesteps` rows of one unit's rows (N, *features), `stride` rows apart: a view (n, timesteps, *features).

    None of them where the rows are fewer. Where the time axis is free all rows are one sequence, (1, N, *features).
    """
    if timesteps is None:
        return rows[np.newaxis]
    if len(rows) < timesteps:
        return np.empty((0, timesteps, *rows.shape[1:]), rows.dtype)
    # The window's own axis comes last.
    views = np.lib.stride_tricks.sliding_window_view(rows, timesteps, axis=0)
    return np.moveaxis(views, -1, 1)[::stride]


def last_rows(count: int, timesteps: int | None, stride: int) -> range:
    """The place of each window's last row among `count` rows of a unit."""
    return range(count - 1, count) if timesteps is None else range(timesteps - 1, count, stride)


def units(keys: Iterable[UnitKey]) -> dict[UnitKey, Ints]:
    """The places of the rows of each unit, by its key, in the order in which the units first appear."""
    places: dict[UnitKey, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return {key: np.array(found, np.int64) for key, found in places.items()}


def of_units(rows: AnyArray, timesteps: int | None, stride: int, by: Iterable[Any] | None) -> list[AnyArray]:
    """The windows of each unit, whose key `by` has for each row, or of all rows; InvalidInput where there are none."""
    if stride < 1 or (timesteps is None and stride > 1):
        allowed = "from 1 on" if timesteps is not None else "of 1, as a series is one sequence to this model"
        raise InvalidInput.at(f"expected a stride {allowed}, got {stride}")
    series = [rows]
    if by is not None:
        keys = [tuple(key) if isinstance(key, list | np.ndarray) else key for key in by]
        if len(keys) != len(rows):
            raise InvalidInput.at(f"expected {len(rows)} keys in `by`, one a row, got {len(keys)}")
        series = [rows[places] for places in units(keys).values()]
    longest = max(map(len, series))
    if timesteps is not None and longest < timesteps:
        raise InvalidInput.at(f"expected at least {timesteps} rows of a unit, got {longest}")
    return [windows(unit, timesteps, stride) for unit in series]


class Piece(NamedTuple):
    """Sequences number `start` to `stop`, the last left out, of the array number `part`."""

    part: int
    start: int
    stop: int


def joined(parts: Sequence[AnyArray], rows: int, numbers: int) -> Iterator[tuple[AnyArray, list[Piece]]]:
    """The sequences of all parts in order, in arrays of at most so many sequences with so many numbers in them.

    Each with the pieces that it is made of. Parts whose sequences are of different lengths are never in one.
    """
    pieces: list[Piece] = []
    room = 0

    def done() -> tuple[AnyArray, list[Piece]]:
        arrays = [parts[part][start:stop] for part, start, stop in pieces]
        return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)), pieces

    for k, part in enumerate(parts):
        if pieces and part.shape[1:] != parts[pieces[-1].part].shape[1:]:
            yield done()
            pieces = []
        size = max(1, min(rows, numbers // math.prod(part.shape[1:])))
        start = 0
        while start < len(part):
            room = size if not pieces else room
            stop = min(len(part), start + room)
            pieces.append(Piece(k, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield done()
                pieces = []
    if pieces:
        yield done()
