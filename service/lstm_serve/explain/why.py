"""Why an answer is what it is: what is computed for that, and the explanation of one sequence in one go."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput
from lstm_serve.explain.asked import Asked, Explained, baseline_of, count_of, has_cells
from lstm_serve.explain.gradients import path
from lstm_serve.explain.integrated import POINTS, IntegratedGradients
from lstm_serve.explain.occlusion import Occlusion, parts_of
from lstm_serve.model.model import Model

Explaining = IntegratedGradients | Occlusion


def settled(model: Model, x: Array, asked: Asked) -> Asked:
    """What is asked of a sequence x (*input_shape), with its method. Raises InvalidInput where it is asked wrongly."""
    if asked.explained is not None and not 0 <= asked.explained < count_of(model):
        raise InvalidInput.at(f"expected an integer from 0 to {count_of(model) - 1}", "class")
    if asked.grain == "cell" and not has_cells(model):
        raise InvalidInput.at("expected step: the model's input has no cells of one step and one feature", "grain")
    baseline_of(model, asked.baseline)
    why = None if asked.method == "occlusion" else path.why_not(model, x.shape)
    if why is not None and asked.method is not None:
        raise InvalidInput.at(f"expected occlusion: {why}", "method")
    return asked._replace(method="occlusion" if why is not None else asked.method or "integrated-gradients")


def rows_needed(model: Model, x: Array, asked: Asked) -> int:
    """How many rows are computed at first to explain an answer to x, as is `settled`."""
    return sum(parts_of(model, x, asked.grain)) if asked.method == "occlusion" else POINTS


def explaining(model: Model, x: Array, asked: Asked, y: Array) -> Explaining:
    """What computes the explanation of the answer y (*output_shape) to x (*input_shape), as is `settled`."""
    what = Explained.of(model, x, asked, y)
    return Occlusion(what, asked.grain) if asked.method == "occlusion" else IntegratedGradients(what)


def explained(model: Model, x: npt.ArrayLike, asked: Asked = Asked()) -> dict[str, Any]:  # noqa: B008 - it is immutable
    """Explain the answer to one sequence x (*input_shape), as POST /explain does. Raises InvalidInput."""
    model.expect_one("an explanation")
    (row,) = model.checked(np.asarray(x)[np.newaxis])
    asked = settled(model, row, asked)
    with one_thread():
        work = explaining(model, row, asked, model.forward(row[np.newaxis])[0])
        size, results = model.rows_at_once(row.shape), list[AnyArray]()
        at = 0
        while at < work.count:
            stop = min(at + size, work.count)
            results.append(work.compute(at, stop))
            at = stop
        return work.found(np.concatenate(results))
