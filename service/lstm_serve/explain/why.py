"""Why an answer is what it is: what is computed for that, and the explanation of one sequence in one go."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, NotFinite
from lstm_serve.explain.asked import Asked, Explained, baseline_of, count_of, has_cells
from lstm_serve.explain.gradients import path
from lstm_serve.explain.integrated import POINTS, IntegratedGradients
from lstm_serve.explain.methods import Grain, Method
from lstm_serve.explain.occlusion import Occlusion, parts_of
from lstm_serve.model.model import Model
from lstm_serve.model.records import all_finite

Explaining = IntegratedGradients | Occlusion


class Way(NamedTuple):
    """What a method is: why a model has none for x, how many rows it computes at first, and what computes it."""

    why_not: Callable[[Model, Array], str | None]
    rows_needed: Callable[[Model, Array, Grain], int]
    explaining: Callable[[Explained, Grain], Explaining]


# In the order in which they are taken where none is asked for; every model has the last.
WAYS: dict[Method, Way] = {
    "integrated-gradients": Way(
        lambda model, x: path.why_not(model, x.shape),
        lambda *_: POINTS,
        lambda what, _: IntegratedGradients(what),
    ),
    "occlusion": Way(lambda *_: None, lambda model, x, grain: sum(parts_of(model, x, grain)), Occlusion),
}


def settled(model: Model, x: Array, asked: Asked) -> Asked:
    """What is asked of a sequence x (*input_shape), with its method. Raises InvalidInput where it is asked wrongly."""
    if asked.explained is not None and not 0 <= asked.explained < count_of(model):
        raise InvalidInput.at(f"expected an integer from 0 to {count_of(model) - 1}", "class")
    if asked.grain == "cell" and not has_cells(model):
        raise InvalidInput.at("expected step: the model's input has no cells of one step and one feature", "grain")
    baseline_of(model, asked.baseline)
    able = (method for method, way in WAYS.items() if way.why_not(model, x) is None)
    if asked.method is None:
        return asked._replace(method=next(able))
    why = WAYS[asked.method].why_not(model, x)
    if why is not None:
        raise InvalidInput.at(f"expected {' or '.join(able)}: {why}", "method")
    return asked


def rows_needed(model: Model, x: Array, asked: Asked) -> int:
    """How many rows are computed at first to explain an answer to x, as is `settled`."""
    return _way(asked).rows_needed(model, x, asked.grain)


def explaining(model: Model, x: Array, asked: Asked, y: Array) -> Explaining:
    """What computes the explanation of the answer y (*output_shape) to x (*input_shape), as is `settled`."""
    return _way(asked).explaining(Explained.of(model, x, asked, y), asked.grain)


def _way(asked: Asked) -> Way:
    assert asked.method is not None  # noqa: S101 - it is settled
    return WAYS[asked.method]


def explained(model: Model, x: npt.ArrayLike, asked: Asked = Asked()) -> dict[str, Any]:  # noqa: B008 - it is immutable
    """Explain the answer to one sequence x (*input_shape), as POST /explain does. Raises InvalidInput or NotFinite."""
    model.expect_one("an explanation")
    (row,) = model.checked(np.asarray(x)[np.newaxis])
    asked = settled(model, row, asked)
    with one_thread(), np.errstate(all="ignore"):
        y = model.forward(row[np.newaxis])[0]
        if not all_finite(y):
            raise NotFinite("the answer is not finite: the model overflows on that input")
        work = explaining(model, row, asked, y)
        size, results = model.rows_at_once(row.shape), list[AnyArray]()
        at = 0
        while at < work.count:
            stop = min(at + size, work.count)
            results.extend(y for y in work.compute(at, stop) if y is not None)
            at = stop
        return work.found(np.concatenate(results))
