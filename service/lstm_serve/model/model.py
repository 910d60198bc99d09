"""A model: nodes in the order of their computation, and what is known of where it comes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.activations import LINEAR, SIGMOID, SOFTMAX, Activation
from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Activate, Identity
from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.types import Array, Mask, Outputs, Shape
from lstm_serve.errors import InvalidInput
from lstm_serve.model import graph, notebook, stepping
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.stepping import Stepper
from lstm_serve.model.windows import joined, units, windows

# What the output is: a distribution over classes, one probability, several of which each is for itself, a distribution
# at each step, or plain values.
Kind = Literal["classes", "binary", "labels", "steps", "values"]

# A forward pass takes at most so many rows, and at most so many floats at once between layers. More rows are no faster.
ROWS_AT_ONCE = 128
FLOATS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """An immutable model. Safe to use from several threads.

    `inputs` and `outputs` say what it takes and answers, in the file's order; there is one of each for now. An input's
    dtype is float32, or float64 where the card's scaling comes first, or int32 where an Embedding does; an output's is
    float32. The last `added` nodes are the card's, none of them Keras'.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    origin: Origin
    about: About
    output_names: tuple[str | None, ...] = (None,)
    added: int = 0

    @property
    def input_shape(self) -> Shape:
        """That of the one input, without the batch axis; a free axis is None."""
        return self.inputs[0].shape

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """That of the one input."""
        return self.inputs[0].dtype

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the last node answers."""
        return tuple(TensorSpec(name, self.output_shape, np.dtype(np.float32)) for name in self.output_names)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The output shape of each node, without the batch axis."""
        return tuple(self.shapes_for(self.input_shape)[1:])

    @property
    def output_shape(self) -> Shape:
        """Without the batch axis; a free axis is None."""
        return self.shapes[-1]

    @cached_property
    def kind(self) -> Kind:
        """What the output is. It takes class names to tell several probabilities, or one at each step, from values."""
        last, rank, named = self.last_activation, len(self.output_shape), self.about.classes is not None
        if last is SOFTMAX and (rank == 1 or (rank == 2 and named)):
            return "classes" if rank == 1 else "steps"
        if last is SIGMOID and rank == 1 and (self.output_shape == (1,) or named):
            return "binary" if self.output_shape == (1,) else "labels"
        return "values"

    @property
    def last_activation(self) -> Activation | None:
        """The function that made the output, or None where no single one did."""
        index = len(self.nodes) - 1
        while index != INPUT and _passes_on(self.nodes[index].operation):
            index = self.nodes[index].inputs[0].node
        return None if index == INPUT else self.nodes[index].operation.last_activation

    @cached_property
    def as_in_keras(self) -> "Model":
        """The model up to what Keras answered, without what the card does after that."""
        return replace(self, nodes=self.nodes[: len(self.nodes) - self.added], added=0)

    def _repr_html_(self) -> str:
        return notebook.html(self)

    @property
    def parameters(self) -> int:
        """The number of weights, as Keras counts them."""
        distinct = {id(node.operation): node.operation for node in self.nodes}
        return sum(array.size for operation in distinct.values() for array in operation.weights.values())

    @cached_property
    def id_limit(self) -> int | None:
        """Where the input is ids, the number of them: each is an integer from 0 to below it. None where it is not."""
        given = Source(INPUT)
        tables = [op for op, inputs in self.nodes if given in inputs and isinstance(op, Embedding)]
        return min((len(table.embeddings) for table in tables), default=None)

    def predict(self, x: npt.ArrayLike) -> Array:
        """x (n, *input_shape) -> float32 (n, *output_shape).

        Raises InvalidInput where x does not fit or holds something that is no finite float32.
        """
        given = self.checked(x)
        with one_thread():
            return self.forward(given)

    def predict_series(self, rows: npt.ArrayLike, stride: int = 1, by: Iterable[Any] | None = None) -> Array:
        """A series, rows (N, *features) -> float32 (n, *output_shape): an answer for each window of `timesteps` rows.

        Windows are `stride` rows apart. `by` has for each row the key of its unit, several values where several columns
        make it: each unit is a series of its own, in the order in which they first appear; one of fewer rows than a
        window has no answer. Where the time axis is free, a series is one sequence. Raises InvalidInput where rows do
        not fit.
        """
        given, timesteps = self.checked_rows(rows), self.input_shape[0]
        if stride < 1 or (timesteps is None and stride > 1):
            allowed = "from 1 on" if timesteps is not None else "of 1, as a series is one sequence to this model"
            raise InvalidInput.at(f"expected a stride {allowed}, got {stride}")
        series = [given]
        if by is not None:
            keys = [tuple(key) if isinstance(key, list | np.ndarray) else key for key in by]
            if len(keys) != len(given):
                raise InvalidInput.at(f"expected {len(given)} keys in `by`, one a row, got {len(keys)}")
            series = [given[places] for places in units(keys).values()]
        cut = [windows(unit, timesteps, stride) for unit in series]
        answers = [self.predict(x) for x, _ in joined(cut, ROWS_AT_ONCE, FLOATS_AT_ONCE)]
        if not answers:
            longest = max(map(len, series))
            raise InvalidInput.at(f"expected at least {timesteps} rows of a unit, got {longest}")
        if len({y.shape[1:] for y in answers}) > 1:
            raise InvalidInput.at("the units' answers are of different lengths: predict one at a time")
        return np.concatenate(answers)

    def trace(self, x: npt.ArrayLike) -> list[dict[str, Array]]:
        """What each node computed on x (n, *input_shape), by name, from the same functions as `predict`.

        Every recurrent step's gates and states, a Dense layer's `sums`, and each layer's `output`.
        """
        given = self.checked(x)
        traced: list[dict[str, Array]] = []

        def compute(operation: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
            steps = operation.trace(xs, masks)
            ys, masks_out = operation(xs, masks)
            traced.append({**steps, "output": ys[0]})
            return ys, masks_out

        with one_thread(), np.errstate(all="ignore"):
            graph.run(self.nodes, [given], self.last_uses, compute)
        return traced

    def stepper(self) -> Stepper | None:
        """The model one row of a sequence at a time, or None where its operations need the sequence as a whole."""
        return stepping.stepper(self.nodes, [spec.shape for spec in self.inputs])

    def forward(self, x: Array) -> Array:
        """As `predict`, for x of `input_dtype` that is known to fit, in as many threads as BLAS has.

        Overflow becomes infinity, no warning.
        """
        rows = self.rows_at_once(x.shape[1:])
        with np.errstate(all="ignore"):
            if len(x) <= rows:
                return self._run(x)
            return np.concatenate([self._run(x[start : start + rows]) for start in range(0, len(x), rows)])

    def checked(self, x: npt.ArrayLike) -> Array:
        """x as an array of `input_dtype` (n, *input_shape), or InvalidInput: what was expected, what came."""
        given = self._numbers(x, (None, *self.input_shape), self.expects)
        self.check_free(given.shape[1:])
        return given.astype(self.input_dtype)

    def checked_rows(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """The rows of a series (N, *features) as an array of whatever type, or InvalidInput."""
        if not self.has_time_axis:
            raise InvalidInput.at("the model has no time axis, so nothing is a series to it: use predict")
        features = self.input_shape[1:]
        sizes = ", ".join(["N", *map(str, features)])
        return self._numbers(rows, (None, *features), f"the rows of a series, an array of shape ({sizes})")

    @property
    def has_time_axis(self) -> bool:
        """Whether the input's first axis is time."""
        return len(self.input_shape) > 1 or (len(self.input_shape) == 1 and self.id_limit is not None)

    def _numbers(self, x: npt.ArrayLike, shape: Shape, expects: str) -> npt.NDArray[Any]:
        """x as an array of this shape, None being any size, of numbers that the model takes; or InvalidInput."""
        try:
            given = np.asarray(x)
        except ValueError:
            raise InvalidInput.at(f"expected {expects}, got rows of different lengths") from None
        self._check_shape(given, shape, expects)
        # Where a wrong value is, and not which: over HTTP what a client sends never comes back.
        finite = np.isfinite(given if given.dtype == np.float32 else _as_float32(given))
        if not finite.all():
            where = tuple(int(k) for k in np.argwhere(~finite)[0])
            raise InvalidInput.at(f"expected finite float32 numbers, got another at {where}", *where)
        if self.id_limit is not None:
            good = (given >= 0) & (given < self.id_limit) & (given == np.floor(given))
            if not good.all():
                where = tuple(int(k) for k in np.argwhere(~good)[0])
                raise InvalidInput.at(f"expected {expects}, got another number at {where}", *where)
        return given

    def check_shape(self, x: npt.NDArray[Any]) -> None:
        """Raise InvalidInput where the type or the shape of x does not fit, whatever its numbers are."""
        self._check_shape(x, (None, *self.input_shape), self.expects)
        self.check_free(x.shape[1:])

    def _check_shape(self, given: npt.NDArray[Any], shape: Shape, expects: str) -> None:
        if given.dtype.kind not in "fiu":
            raise InvalidInput.at(f"expected numbers, got an array of {given.dtype}")
        if given.ndim != len(shape) or any(
            want not in {None, got} for want, got in zip(shape, given.shape, strict=True)
        ):
            hint = self.hint(given.shape)
            raise InvalidInput.at(f"expected {expects}, got an array of shape {given.shape}{hint}")
        if 0 in given.shape:
            raise InvalidInput.at(f"expected {expects}, got an empty array of shape {given.shape}")

    def check_free(self, shape: tuple[int, ...]) -> None:
        """Raise InvalidInput where the free axes of a sequence are too short: a convolution would have no output."""
        if None in self.input_shape and any(
            size is not None and size < 1 for sizes in self.shapes_for(shape) for size in sizes
        ):
            raise InvalidInput.at(f"a sequence of shape {shape} has too few time steps for this model")

    @property
    def expects(self) -> str:
        """The expected input in words, such as "an array of shape (n, 20, 15)"."""
        sizes = ", ".join("any" if n is None else str(n) for n in self.input_shape)
        ids = "" if self.id_limit is None else f" of integers from 0 to {self.id_limit - 1}"
        return f"an array of shape (n, {sizes}){ids}"

    def hint(self, shape: tuple[int, ...]) -> str:
        """What may have gone wrong with an array of a shape that does not fit, as the end of a sentence, or nothing."""
        rank = len(self.input_shape)
        if len(shape) == rank and all(want in {None, got} for want, got in zip(self.input_shape, shape, strict=True)):
            return ": the batch axis is missing, give x[np.newaxis]"
        swapped = rank == 2 and len(shape) in {2, 3} and shape[-2] == self.input_shape[1] != shape[-1]
        if swapped and shape[-1] >= (self.input_shape[0] or 2):
            return ": are its last two axes swapped?"
        longer = rank == 2 and len(shape) == 3 and shape[2] == self.input_shape[1]
        if longer and self.input_shape[0] is not None and shape[1] > self.input_shape[0]:
            return ": over a longer series, lstm-serve predict slides windows, and so does Model.predict_series"
        return ""

    def shapes_for(self, input_shape: Shape) -> list[Shape]:
        """The shapes of the input and of each node's output, for an input of this shape; all without the batch axis."""
        return [first for first, *_ in graph.shapes(self.nodes, [input_shape])]

    def rows_at_once(self, shape: tuple[int, ...]) -> int:
        """How many rows of this shape are computed in one pass, so that memory stays bounded."""
        if shape == self.input_shape:
            return self._rows_at_fixed_shape
        return self._rows(shape)

    @cached_property
    def _rows_at_fixed_shape(self) -> int:
        return self._rows(self.input_shape)

    @cached_property
    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """Of whom each node is the last that needs them."""
        return graph.last_uses(self.nodes)

    def _rows(self, shape: Shape) -> int:
        return max(1, min(ROWS_AT_ONCE, FLOATS_AT_ONCE // graph.live_floats(self.nodes, [shape])))

    def _run(self, x: Array) -> Array:
        return graph.run(self.nodes, (x,), self.last_uses)[0][0]


def _passes_on(layer: Operation) -> bool:
    """Whether the layer's output is its input: Dropout and its kin, and the linear activation by itself."""
    return isinstance(layer, Identity) or (isinstance(layer, Activate) and layer.activation is LINEAR)


def _as_float32(given: npt.NDArray[Any]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN that signals is invalid
        return given.astype(np.float32)
