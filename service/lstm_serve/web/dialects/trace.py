"""POST /trace: what each layer computes on one sequence, as `inspect --trace` has it."""

import math
from functools import partial

import numpy as np
from pydantic import Field

from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array
from lstm_serve.errors import NotFinite, TooLarge
from lstm_serve.model import graph
from lstm_serve.model.answers import answers
from lstm_serve.model.model import Model
from lstm_serve.serving.state import ServingState
from lstm_serve.web.nested_lists import Body
from lstm_serve.web.predict import Answer, PredictRequest, check_free, converted, deadline_of
from lstm_serve.web.schemas import Schema

MOST_NUMBERS = 1 << 20  # in an answer
BYTES_OF_A_NUMBER = 16  # in its array, and as JSON
OF_A_UNIT = 22  # of two LSTMs, one a direction: four sums, four gates, two states, and the output each


class TracedArray(Schema):
    """What a layer computed, by name: a gate, a state, or its output."""

    name: str
    shape: list[int]
    values: list[object] = Field(
        description="nested as the shape: time first, where it has one; null is no finite number"
    )


class TracedLayer(Schema):
    """A layer of the model, and its arrays."""

    name: str
    class_name: str
    arrays: list[TracedArray]


class TraceAnswer(Schema):
    """The way from one sequence to its answer."""

    answer: object = Field(description="as that of /predict")
    layers: list[TracedLayer]


async def traced(serving: ServingState, body: Body, request: PredictRequest) -> Answer:
    """Answer with every layer's gates, states and output. Raises TooLarge where those are too many numbers."""
    model, lane = request.served.model, request.deployment.behind
    lane.check_room(1)
    deadline = deadline_of(request, serving.settings.deadline_seconds, None)
    (x,) = await converted(body, request)
    body.let_go()
    check_free(model, [x], serving.settings.max_timesteps)
    count = _at_most(model, x)
    if count > MOST_NUMBERS:
        raise TooLarge(
            f"the layers compute over {MOST_NUMBERS} numbers on {x.shape[1]} time steps; lstm-serve inspect --trace "
            "shows some of them, and Model.trace in Python gives all"
        )
    request.scope["state"]["held"].become(x.nbytes + BYTES_OF_A_NUMBER * count)
    return await lane.run(partial(_encoded, model, x), deadline)


def _encoded(model: Model, x: Array) -> Answer:
    """The answer for x (1, *input_shape). Raises NotFinite as for /predict; a number on the way may be null."""
    (y,), found = model.traced(x)
    if not np.isfinite(y).all():
        raise NotFinite("the model answered NaN or infinity")
    layers = [
        {
            "name": operation.name,
            "class_name": operation.keras_class,
            "arrays": [
                {"name": name, "shape": values.shape[1:], "values": np.ascontiguousarray(values[0])}
                for name, values in arrays.items()
            ],
        }
        for (operation, _), arrays in zip(model.nodes, found, strict=True)
    ]
    (answer,) = answers(model, y)
    return Answer.of({"answer": answer, "layers": layers})


def _at_most(model: Model, x: Array) -> int:
    """A bound on the numbers of a trace: of a recurrent layer's units, those of a cell at each time step."""
    shapes = graph.shapes(model.nodes, (x.shape[1:],))[1:]
    count = 0
    for (operation, _), ((*_, width), *_) in zip(model.nodes, shapes, strict=True):
        recurrent = isinstance(operation, Recurrent | Stacked | Bidirectional)
        count += x.shape[1] * OF_A_UNIT * (width or 1) if recurrent else 0
    return count + sum(2 * math.prod(size or 1 for size in shape) for shape, *_ in shapes)
