"""What a model answers to sequences, chunk by chunk, so that memory does not grow with their number."""

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from service.engine.activations import Array
from service.engine.model import Model
from service.errors import InvalidInput, NotFinite, Problem
from service.series import Sequences

# A chunk is at most so many sequences, and at most so many numbers in them.
SEQUENCES_AT_ONCE = 1024
NUMBERS_AT_ONCE = 1 << 22

# Seconds of work from which on a person would rather see how far it is.
PATIENCE = 1.0


class Chunk(NamedTuple):
    """A part of the outputs, y (n, *output_shape), and the numbers of what they answer."""

    numbers: range
    y: Array


def predictions(model: Model, sequences: Sequences, *, progress: bool) -> Iterator[Chunk]:
    """The outputs in order; `progress` shows a bar on standard error, if that is a terminal and the work takes long.

    Raises NotFinite, with the number of the first sequence whose output is NaN or infinite.
    """
    x, numbers, noun, _ = sequences
    size = max(1, min(SEQUENCES_AT_ONCE, NUMBERS_AT_ONCE // math.prod(x.shape[1:])))
    with tqdm(
        total=len(x),
        desc="predict",
        unit=f" {noun}s",
        delay=PATIENCE,
        leave=False,
        disable=None if progress else True,
        file=sys.stderr,
    ) as bar:
        for start in range(0, len(x), size):
            part = numbers[start : start + size]
            try:
                y = model.predict(x[start : start + size])
            except InvalidInput as error:
                # Its places count from the start of this chunk.
                where = f"among {noun}s {part[0]} to {part[-1]}"
                raise InvalidInput([Problem((), f"{where}: {error}")]) from None
            finite = np.isfinite(y).reshape(len(y), -1).all(axis=1)
            if not finite.all():
                number = part[int(np.argmin(finite))]
                raise NotFinite(f"the answer for {noun} {number} is not finite: the model overflows on that input")
            yield Chunk(part, y)
            bar.update(len(y))
