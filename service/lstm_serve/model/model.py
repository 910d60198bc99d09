"""A model: nodes in the order of their computation, and what is known of where it comes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.blas import one_thread
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.wiring import FLOATS_AT_ONCE, ROWS_AT_ONCE
from lstm_serve.engine.operations.wrappers import is_stateful, tables
from lstm_serve.engine.types import AnyArray, Array, Mask, Outputs, Shape
from lstm_serve.errors import InvalidInput, Unsupported
from lstm_serve.model import graph, inputs, notebook, records, stepping
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.inputs import Input
from lstm_serve.model.kinds import Kind, kind_of, last_activation
from lstm_serve.model.metadata import About, Origin
from lstm_serve.model.profile import Profile
from lstm_serve.model.stepping import Stepper
from lstm_serve.model.windows import joined, of_units


class Output(NamedTuple):
    """An output: its name, if there are several or the file tells it, its shape without the batch axis, its dtype."""

    name: str | None
    shape: Shape
    dtype: np.dtype[Any]
    kind: Kind


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Model:
    """An immutable model. Safe to use from several threads.

    `inputs` and `outputs` say what it takes and answers, in the file's order. An input's dtype is float32, or float64
    where the card's scaling comes first, or int32 where an Embedding does; an output's is float32. The outputs come
    from `ends`; where that is empty there is one, of the last node. `names_in_file` are what the file calls them,
    whatever the card does. The last `added` nodes are the card's, none of them Keras'. What is said of the one input,
    or of the one output, is the first one's where there are several. `profile` tells of the training data, where a file
    beside the model does.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    origin: Origin
    about: About
    output_names: tuple[str | None, ...] = (None,)
    names_in_file: tuple[str, ...] = ()
    ends: tuple[Source, ...] = ()
    added: int = 0
    profile: Profile | None = None

    @property
    def input_shape(self) -> Shape:
        """That of the one input, without the batch axis; a free axis is None."""
        return self.inputs[0].shape

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """That of the one input."""
        return self.inputs[0].dtype

    @cached_property
    def takes(self) -> tuple[Input, ...]:
        """The inputs, with what their numbers mean."""
        words = self.about.inputs or (self.about.features,)
        return tuple(
            Input(spec.name, spec.shape, spec.dtype, self._id_limit(k), features)
            for k, (spec, features) in enumerate(zip(self.inputs, words, strict=True))
        )

    @cached_property
    def results(self) -> tuple[Source, ...]:
        """Where the outputs come from."""
        return self.ends or (Source(len(self.nodes) - 1),)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """What is answered."""
        float32 = np.dtype(np.float32)
        return tuple(Output(name, head.output_shape, float32, head.kind) for name, head in self.heads.items())

    @cached_property
    def heads(self) -> dict[str | None, "Model"]:
        """For each output by its name the model as if that were its only one: its kind, its classes, its answers."""
        if len(self.output_names) == 1:
            return {self.output_names[0]: self}
        return {
            name: replace(
                self,
                output_names=(name,),
                names_in_file=(),
                ends=(end,),
                about=replace(self.about, classes=words.classes, threshold=words.threshold, outputs=()),
            )
            for name, end, words in zip(self.output_names, self.results, self.about.outputs, strict=True)
        }

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The output shape of each node, without the batch axis."""
        return tuple(self.shapes_for(*self._shapes_taken)[1:])

    @cached_property
    def output_shape(self) -> Shape:
        """Of the one output, without the batch axis; a free axis is None."""
        return self.output_shapes_for(*self._shapes_taken)[0]

    @cached_property
    def kind(self) -> Kind:
        """What the output is."""
        return kind_of(self.last_activation, self.output_shape, named=self.about.classes is not None)

    @property
    def last_activation(self) -> Activation | None:
        """The function that made the output, or None where no single one did."""
        return last_activation(self.nodes, self.results[0])

    @cached_property
    def as_in_keras(self) -> "Model":
        """The model up to what Keras answered, without what the card does after that."""
        kept = len(self.nodes) - self.added
        ends = []
        for end in self.ends:
            while end.node >= kept:
                (end,) = self.nodes[end.node].inputs  # noqa: PLW2901 - each of the card's has one
            ends.append(end)
        return replace(self, nodes=self.nodes[:kept], ends=tuple(ends), added=0)

    def __repr__(self) -> str:
        return f"<Model {notebook.summary(self)}>"

    def _repr_html_(self) -> str:
        return notebook.html(self)

    @property
    def parameters(self) -> int:
        """The number of weights, as Keras counts them."""
        distinct = {id(array): array for node in self.nodes for array in node.operation.weights.values()}
        return sum(array.size for array in distinct.values())

    @property
    def id_limit(self) -> int | None:
        """Where the one input is ids, the number of them: each is an integer from 0 to below it; else None."""
        return self.takes[0].id_limit

    def _id_limit(self, number: int) -> int | None:
        given = Source(INPUT, number)
        found = [table for op, sources in self.nodes if given in sources for table in tables(op)]
        return min((len(table.embeddings) for table in found), default=None)

    def predict(self, x: Any) -> Any:  # noqa: ANN401 - one array or several
        """x (n, *input_shape) -> float32 (n, *output_shape).

        For several inputs x is a dict of arrays by their names, or a list of them in order. Of several outputs the
        answer is a dict of arrays by their names, in order. Raises InvalidInput where x does not fit or holds
        something that is no finite float32.
        """
        return self._by_name(self._answered(x))

    def _answered(self, x: Any) -> Array:  # noqa: ANN401 - the same
        given = self.checked(x)
        with one_thread():
            return self.forward(given)

    def _by_name(self, y: Array) -> Any:  # noqa: ANN401 - the same
        names = [str(spec.name) for spec in self.outputs]
        return y if len(names) == 1 else dict(zip(names, records.unpacked(y), strict=True))

    def predict_series(self, rows: npt.ArrayLike, stride: int = 1, by: Iterable[Any] | None = None) -> Any:  # noqa: ANN401 - as predict
        """A series, rows (N, *features) -> float32 (n, *output_shape): an answer for each window of `timesteps` rows.

        Windows are `stride` rows apart. `by` has for each row the key of its unit, several values where several columns
        make it: each unit is a series of its own, in the order in which they first appear; one of fewer rows than a
        window has no answer. Where the time axis is free, a series is one sequence. Raises InvalidInput where rows do
        not fit.
        """
        cut = of_units(self.checked_rows(rows), self.input_shape[0], stride, by)
        answers = [self._answered(x) for x, _ in joined(cut, ROWS_AT_ONCE, FLOATS_AT_ONCE)]
        if len({(y.shape[1:], y.dtype) for y in answers}) > 1:
            raise InvalidInput.at("the units' answers are of different lengths: predict one at a time")
        return self._by_name(np.concatenate(answers))

    def trace(self, x: Any) -> list[dict[str, Array]]:  # noqa: ANN401 - one array or several
        """What each node computed on x as `predict` takes it, by name, from the same functions as `predict`.

        Every recurrent step's gates and states, a Dense layer's `sums`, and each layer's `output`.
        """
        return self.traced(x)[1]

    def traced(self, x: Any) -> tuple[Sequence[Array], list[dict[str, Array]]]:  # noqa: ANN401 - one array or several
        """The model's outputs, and on the way to them its `trace`."""
        given = self.checked(x)
        traced: list[dict[str, Array]] = []

        def compute(operation: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
            steps = operation.trace(xs, masks)
            ys, masks_out = operation(xs, masks)
            traced.append({**steps, "output": ys[0]})
            return ys, masks_out

        with one_thread(), np.errstate(all="ignore"):
            ys, _ = graph.run(self.nodes, records.unpacked(given), self.results, self.last_uses, compute)
        return ys, traced

    @property
    def answers_its_last(self) -> bool:
        """Whether it has one output, which is the first that its last layer gives."""
        return self.results == (Source(len(self.nodes) - 1),)

    @property
    def is_single(self) -> bool:
        """Whether it has one input and one output."""
        return len(self.inputs) == len(self.output_names) == 1

    def expect_one(self, what: str) -> None:
        """Raise Unsupported, by their names, where several inputs or outputs are more than `what` takes."""
        if wrong := self.not_one(what):
            raise Unsupported(wrong)

    def not_one(self, what: str, *ends: Literal["input", "output"]) -> str | None:
        """Why it is not for `what`, which is of one of these, or one of each, and what answers it; or None."""
        ends = ends or ("input", "output")
        names = {"input": [spec.name for spec in self.inputs], "output": self.output_names}
        several = [
            f"{len(names[end])} {end}s ({', '.join(map(str, names[end]))[:300]})" for end in ends if len(names[end]) > 1
        ]
        if not several:
            return None
        return (
            f"the model has {' and '.join(several)}, and {what} needs {'one' if len(ends) == 1 else 'one of each'}: "
            "load_model(...).predict({...}) answers it, and POST /predict/batch, as .npz or JSON"
        )

    def stepper(self) -> Stepper | None:
        """The model one row of a sequence at a time, or None where its operations need the sequence as a whole."""
        return None if isinstance(self._steps, str) else self._steps

    @cached_property
    def _steps(self) -> Stepper | str:
        """The same, or why it has none."""
        if not self.answers_its_last:
            return "its outputs are several, or not what its last layer gives"
        return stepping.stepper(self.nodes, self._shapes_taken)

    @cached_property
    def is_stateful(self) -> bool:
        """Whether Keras carries the states of some layer from call to call: then a series does, from row to row."""
        return any(is_stateful(node.operation) for node in self.nodes)

    @cached_property
    def not_carried(self) -> str | None:
        """Why no series of a stateful model can carry its states, or None."""
        return self._steps if isinstance(self._steps, str) else stepping.not_carried(self._steps)

    @cached_property
    def series_mode(self) -> Literal["window", "carry"] | None:
        """How a row of a series is answered: by the window that it ends, or by states that are carried; or not."""
        if not self.has_time_axis:
            return None
        if self.is_stateful:
            return "carry" if self.not_carried is None else None
        return None if self.input_shape[0] is None else "window"

    def forward(self, x: Array) -> Array:
        """As `predict`, for rows as `checked` gives them, in as many threads as BLAS has; of several outputs records.

        Overflow becomes infinity, no warning.
        """
        xs = records.unpacked(x)
        rows = self.rows_at_once(*(each.shape[1:] for each in xs))
        with np.errstate(all="ignore"):
            if len(x) <= rows:
                return self._run(xs)
            starts = range(0, len(x), rows)
            return np.concatenate([self._run([each[start : start + rows] for each in xs]) for start in starts])

    def checked(self, x: Any) -> Array:  # noqa: ANN401 - one array or several
        """x as `predict` takes it, as rows of `input_dtype` (n, *input_shape), or InvalidInput.

        The rows of several inputs are records, with a field by the name of each.
        """
        given = inputs.checked(self.takes, x)
        self.check_free(*(array.shape[1:] for array in given))
        return self.packed(given)

    def checked_rows(self, rows: npt.ArrayLike) -> AnyArray:
        """The rows of a series (N, *features) as an array of whatever type, or InvalidInput."""
        if wrong := self.not_one("a series", "input"):
            raise InvalidInput.at(wrong)
        if not self.has_time_axis:
            raise InvalidInput.at("the model has no time axis, so nothing is a series to it: use predict")
        features = self.input_shape[1:]
        sizes = ", ".join(["N", *map(str, features)])
        return self.takes[0].numbers(rows, (None, *features), f"the rows of a series, an array of shape ({sizes})")

    @cached_property
    def has_time_axis(self) -> bool:
        """Whether the first axis of the one input is time."""
        return len(self.inputs) == 1 and self.takes[0].has_time_axis

    def check_free(self, *shapes: tuple[int, ...]) -> None:
        """Raise InvalidInput where free axes of the inputs' shapes are too short, or do not fit together."""
        if self.is_free:
            graph.check_lengths(self.nodes, [spec.name for spec in self.inputs], shapes)

    @cached_property
    def is_free(self) -> bool:
        """Whether some input has a free axis."""
        return any(None in spec.shape for spec in self.inputs)

    @property
    def expects(self) -> str:
        """The expected input in words, such as "an array of shape (n, 20, 15)"."""
        if len(self.inputs) == 1:
            return self.takes[0].expects
        return ", and ".join(f"for {each.name} {each.expects}" for each in self.takes)

    def hint(self, shape: tuple[int, ...]) -> str:
        """What may have gone wrong with an array of a shape that does not fit, as the end of a sentence, or nothing."""
        return self.takes[0].hint(shape)

    def shapes_for(self, *shapes: Shape) -> list[Shape]:
        """The shapes of the first input and of each node's output, for inputs of these; all without the batch axis."""
        return [first for first, *_ in graph.shapes(self.nodes, shapes)]

    def output_shapes_for(self, *shapes: Shape) -> list[Shape]:
        """The shapes of the outputs, for inputs of these; all without the batch axis."""
        found = graph.shapes(self.nodes, shapes)
        return [found[node + 1][output] for node, output in self.results]

    def rows_at_once(self, *shapes: tuple[int, ...]) -> int:
        """How many rows of these shapes are computed in one pass, so that memory stays bounded."""
        if shapes == self._shapes_taken:
            return self._rows_at_fixed_shape
        return self._rows(shapes)

    @cached_property
    def _shapes_taken(self) -> tuple[Shape, ...]:
        return tuple(spec.shape for spec in self.inputs)

    @cached_property
    def _rows_at_fixed_shape(self) -> int:
        return self._rows(self._shapes_taken)

    @cached_property
    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """Of whom each node is the last that needs them."""
        return graph.last_uses(self.nodes, self.results)

    def packed(self, xs: Sequence[Array]) -> Array:
        """Arrays of rows for the inputs, in their order, as the rows that `forward` takes."""
        return records.packed([spec.name for spec in self.inputs], xs)

    def _rows(self, shapes: Sequence[Shape]) -> int:
        return graph.rows_at_once(self.nodes, shapes, self.results)

    def _run(self, xs: Sequence[Array]) -> Array:
        ys, _ = graph.run(self.nodes, xs, self.results, self.last_uses)
        if len(ys) == 1:
            return ys[0]
        # What is an input itself may be ids.
        return records.packed(self.output_names, [y.astype(np.float32, copy=False) for y in ys])
