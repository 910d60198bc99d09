"""The warm-up: how long a full batch takes, in bounded time, and a first request that finds everything made."""

import math
import sys
import time
from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations.wiring import products
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import InvalidInput
from lstm_serve.model import graph
from lstm_serve.model.model import Model

# A batch that takes longer is computed in a thread, so that health checks are answered meanwhile.
LONGEST_ON_THE_LOOP = 0.010
# How long a sequence of free length is taken to be at warm-up, or as many times twice that as the model needs.
WARM_UP_TIMESTEPS = 32
# What a warm-up may take: about so many multiplications for one row, and so many floats in one layer's output.
WARM_UP_WORK = 1 << 31
WARM_UP_FLOATS = 1 << 24
# A step in time takes as long as so many multiplications, were there none in it.
STEP = 10_000
# More rows are not computed once some took so long; how long a full batch takes is reckoned from them.
LONG_ENOUGH = 0.25
# Where a batch seems too long for the loop it is tried again for so long: replicas often start together on one machine.
TRY_AGAIN = 0.1
CLOCK = time.perf_counter if sys.platform == "win32" else time.thread_time  # which there goes on by 16 ms


def warm_up(model: Model, rows: int) -> float:
    """Compute some rows, so that the first request finds everything made. Gives the seconds of a full batch.

    They are reckoned where computing so many would take long.
    """
    given = _given(model)
    work = _work(model, given)
    if work > WARM_UP_WORK or not _fit(model, given):
        return rows * work / 1e9
    shapes = [*given, *model.shapes_for(*given)]
    floats = max(math.prod(size or 1 for size in shape) for shape in shapes)
    some = min(rows, max(1, WARM_UP_FLOATS // floats))
    model.forward(_zeros(model, given, 1))
    n = 1
    while True:
        x = _zeros(model, given, n)
        seconds = _seconds(model, x)
        if n == some or seconds > LONG_ENOUGH:
            tried = seconds
            while seconds * rows / n > LONGEST_ON_THE_LOOP and tried < TRY_AGAIN:  # other work may have come between
                tried += (again := _seconds(model, x))
                seconds = min(seconds, again)
            return seconds * rows / n
        # A row alone takes longer than one among others: at once all where even so they would not take long.
        n = some if seconds * some / n < LONG_ENOUGH else min(some, 8 * n)


def _seconds(model: Model, x: Array) -> float:
    """What it takes of a core, and not what it waits for one, or in a reload for the thread that answers meanwhile."""
    start = CLOCK()
    model.forward(x)
    return CLOCK() - start


def _zeros(model: Model, shapes: Sequence[tuple[int, ...]], n: int) -> Array:
    xs = [np.zeros((n, *shape), spec.dtype) for shape, spec in zip(shapes, model.inputs, strict=True)]
    return model.packed(xs)


def _given(model: Model) -> list[tuple[int, ...]]:
    """The shapes of the inputs, their free axes long enough for each layer to give something."""
    for doubled in range(20):
        steps = WARM_UP_TIMESTEPS << doubled
        given = [tuple(steps if size is None else size for size in spec.shape) for spec in model.inputs]
        if all(size is None or size > 0 for shape in model.shapes_for(*given) for size in shape):
            break
    return given


def _fit(model: Model, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether free inputs of these shapes go together; others may be needed."""
    try:
        model.check_free(*shapes)
    except InvalidInput:
        return False
    return True


def _work(model: Model, given: Sequence[Shape]) -> int:
    """About how many multiplications a row takes, and the steps in time for as many as each takes by itself."""
    shapes = graph.shapes(model.nodes, given)
    first = [shapes[inputs[0].node + 1][inputs[0].output] for _, inputs in model.nodes]
    steps = sum((shape[0] or 1) if len(shape) > 1 else 1 for shape in first)
    return sum(products(model.nodes, given)) + STEP * steps
