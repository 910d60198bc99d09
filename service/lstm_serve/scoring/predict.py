"""What a model answers to sequences, chunk by chunk, so that memory does not grow with their number.

A thread for each core computes a chunk at a time: NumPy lets other threads go on within each of its calls. The chunks
come in their order, at most two for each thread computed ahead: who is done finds the next while one is written.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, NotFinite
from lstm_serve.formats.system_limits import cores
from lstm_serve.model.model import Model
from lstm_serve.model.windows import Piece, joined
from lstm_serve.scoring.inputs import Sequences

# A chunk is at most so many sequences, and at most so many numbers in them; each thread has one.
SEQUENCES_AT_ONCE = 1024
NUMBERS_AT_ONCE = 1 << 20

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

    Raises NotFinite, with the number of the first sequence whose output is NaN or infinite. Who stops early does not
    wait for what is computed meanwhile.
    """
    parts = sequences.parts
    threads = cores()
    pool = ThreadPoolExecutor(threads, "predict")
    ahead: deque[Future[Chunk]] = deque()
    with tqdm(
        total=sum(len(part.x) for part in parts),
        desc="predict",
        unit=f" {sequences.noun}s",
        delay=PATIENCE,
        leave=False,
        disable=None if progress else True,
        file=sys.stderr,
    ) as bar:

        def first() -> Chunk:
            chunk = ahead.popleft().result()
            bar.update(len(chunk.y))
            return chunk

        try:
            for x, pieces in joined([part.x for part in parts], SEQUENCES_AT_ONCE, NUMBERS_AT_ONCE):
                ahead.append(pool.submit(_chunk, model, sequences, x, pieces))
                if len(ahead) > 2 * threads:
                    yield first()
            while ahead:
                yield first()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunk(model: Model, sequences: Sequences, x: AnyArray, pieces: list[Piece]) -> Chunk:
    parts, noun = sequences.parts, sequences.noun
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
    return Chunk(numbers, y, keys, pieces)
