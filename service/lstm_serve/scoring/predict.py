"""What a model answers to sequences, chunk by chunk, so that memory does not grow with their number."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, NotFinite
from lstm_serve.model.model import Model
from lstm_serve.model.windows import Piece, joined
from lstm_serve.scoring.inputs import Sequences

# A chunk is at most so many sequences, and at most so many numbers in them.
SEQUENCES_AT_ONCE = 1024
NUMBERS_AT_ONCE = 1 << 22

# Seconds of work from which on a person would rather see how far it is.
PATIENCE = 1.0


class Chunk(NamedTuple):
    """A part of the outputs, y (n, *output_shape), the numbers of what they answer, and the keys of their units.

    `pieces` says of which sequences of which parts.
    """

    numbers: Sequence[int]
    y: Array
    keys: Sequence[tuple[str, ...]]
    pieces: Sequence[Piece]


def predictions(model: Model, sequences: Sequences, *, progress: bool) -> Iterator[Chunk]:
    """The outputs in order; `progress` shows a bar on standard error, if that is a terminal and the work takes long.

    Raises NotFinite, with the number of the first sequence whose output is NaN or infinite.
    """
    parts, noun = sequences.parts, sequences.noun
    with tqdm(
        total=sum(len(part.x) for part in parts),
        desc="predict",
        unit=f" {noun}s",
        delay=PATIENCE,
        leave=False,
        disable=None if progress else True,
        file=sys.stderr,
    ) as bar:
        for x, pieces in joined([part.x for part in parts], SEQUENCES_AT_ONCE, NUMBERS_AT_ONCE):
            numbers = [number for k, start, stop in pieces for number in parts[k].numbers[start:stop]]
            keys = [parts[k].key for k, start, stop in pieces for _ in range(start, stop)]
            try:
                y = model.predict(x)
            except InvalidInput as error:
                # Its places count from the start of this chunk.
                where = f"among {noun}s {numbers[0]} to {numbers[-1]}"
                raise InvalidInput.at(f"{where}: {error}") from None
            finite = np.isfinite(y).reshape(len(y), -1).all(axis=1)
            if not finite.all():
                number = numbers[int(np.argmin(finite))]
                raise NotFinite(f"the answer for {noun} {number} is not finite: the model overflows on that input")
            yield Chunk(numbers, y, keys, pieces)
            bar.update(len(y))
