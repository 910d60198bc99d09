"""A model one time step at a time: the answer to the window that ends at a row, from it and what was before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.engine.operations.wrappers import Stacked, is_stateful
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Mask, Shape, State
from lstm_serve.model import graph
from lstm_serve.model.graph import INPUT, Node


@dataclass(frozen=True, eq=False)
class Stepper:
    """The model of causal operations over time, and of any operations on what they give at the last step.

    A state is a flat tuple of arrays (n, ...), one row a series: states are taken apart and joined along that axis,
    and so may be at different places of their windows. None is ever written into.
    """

    nodes: Sequence[Node]
    # For each node whether it has a step, or is computed as a whole from what steps gave; and its part of the state.
    has_step: Sequence[bool]
    parts: Sequence[slice]
    # Whether the model answers each row of a sequence; else it answers the sequence.
    answers_each_row: bool

    @cached_property
    def stateful(self) -> int:
        """The number of nodes up to the last one with a state, which is all that the state depends on."""
        return max((k + 1 for k, part in enumerate(self.parts) if part.stop > part.start), default=0)

    def start(self, n: int) -> State:
        """The state of n series before their first row."""
        nodes = zip(self.nodes, self.has_step, strict=True)
        return tuple(array for node, stepped in nodes if stepped for array in node.operation.start(n))

    def step(self, x: Array, state: State) -> tuple[Array, State]:
        """One row of each series further: x (n, *row), of the model's dtype and known to fit, to y and the state.

        y is what the model answers to the rows since the start, (n, *output_shape), or where it answers each row, what
        it answers to the last of them, (n, *output_shape[1:]). Overflow becomes infinity, no warning.
        """
        ys, after = self._walk(x, state, len(self.nodes))
        return ys[0], after

    def advance(self, x: Array, state: State) -> State:
        """The state alone, without what would be computed of it. x may be one row (1, *row), that of all series."""
        return self._walk(x, state, self.stateful)[1]

    def _walk(self, x: Array, state: State, stop: int) -> tuple[tuple[Array, ...], State]:
        """The outputs of the node before `stop`, and the state."""
        values: list[tuple[Array, ...]] = [(x,)]
        masks: list[tuple[Mask, ...]] = [(None,)]
        after: State = ()
        n = len(state[0]) if state else len(x)
        with np.errstate(all="ignore"):
            for (operation, inputs), stepped, part in zip(
                self.nodes[:stop], self.has_step[:stop], self.parts[:stop], strict=True
            ):
                xs = [values[node + 1][output] for node, output in inputs]
                given: tuple[Mask, ...] = (None,)
                if stepped:
                    if part.start < part.stop or len(xs) > 1:
                        xs = [each if len(each) == n else each.repeat(n, axis=0) for each in xs]
                    ys, made = operation.step(xs, state[part])
                    after += made
                else:
                    ys, given = operation(xs, [masks[node + 1][output] for node, output in inputs])
                values.append(ys)
                masks.append(given)
        return values[-1], after


def stepper(nodes: Sequence[Node], given: Sequence[Shape]) -> Stepper | str:
    """The steps of a model on rows of a sequence (T, ...), or why it has to see a sequence as a whole.

    That is where an operation on a sequence is not causal, or one is on a sequence and on what is computed of another;
    and where there are several inputs, of which not each is a sequence.
    """
    if len(given) > 1:
        return "it has several inputs"
    shapes = graph.shapes(nodes, given)
    over_time = {INPUT}
    has_step = []
    for k, (operation, inputs) in enumerate(nodes):
        found = {source.node in over_time for source in inputs}
        has_step.append(True in found)
        if found == {False}:
            continue
        # The ids of a sequence are one number a row: nothing but a look-up sees one by itself.
        rows = all(len(shapes[node + 1][output]) > 1 for node, output in inputs) or isinstance(operation, Embedding)
        if operation.not_causal is not None:
            return f"its layer {operation.name!r} {operation.not_causal}"
        if found != {True} or not rows:
            return f"its layer {operation.name!r} needs more than a row at a time"
        if not _gives_the_last_alone(operation):
            over_time.add(k)
    sizes = [len(op.start(0)) if stepped else 0 for (op, _), stepped in zip(nodes, has_step, strict=True)]
    parts = [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
    return Stepper(nodes, has_step, parts, answers_each_row=len(nodes) - 1 in over_time)


def not_carried(steps: Stepper) -> str | None:
    """Why the states of a model with a stateful layer cannot go on from row to row as Keras carries them, or None.

    Each state that a step has must be one that Keras carries, and the other way round.
    """
    for (operation, _), part in zip(steps.nodes, steps.parts, strict=True):
        if is_stateful(operation) and part.start == part.stop:
            return f"its layer {operation.name!r} is stateful, and takes more than a row at a time"
        if part.stop > part.start and not is_stateful(operation):
            return f"its layer {operation.name!r} starts anew at each call, beside a stateful one"
    return None


def _gives_the_last_alone(operation: object) -> bool:
    return isinstance(operation, Recurrent | Stacked) and not operation.return_sequences
