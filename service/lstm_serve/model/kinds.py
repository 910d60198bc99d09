"""What an output is, which decides the form of the answers."""

from collections.abc import Sequence
from typing import Literal, assert_never

from lstm_serve.engine.activations import LINEAR, SIGMOID, SOFTMAX, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Activate, Identity
from lstm_serve.engine.types import Shape
from lstm_serve.model.graph import INPUT, Node, Source

# A distribution over classes, one probability, several of which each is for itself, a distribution at each step, or
# plain values.
Kind = Literal["classes", "binary", "labels", "steps", "values"]


def kind_of(last: Activation | None, shape: Shape, *, named: bool) -> Kind:
    """The kind of an output of this shape, without the batch axis, which the function `last` made.

    It takes class names to tell several probabilities, or one at each step, from values.
    """
    rank = len(shape)
    if last is SOFTMAX and (rank == 1 or (rank == 2 and named)):
        return "classes" if rank == 1 else "steps"
    if last is SIGMOID and rank == 1 and (shape == (1,) or named):
        return "binary" if shape == (1,) else "labels"
    return "values"


def has_one_class(kind: Kind) -> bool:
    """Whether one class is answered, for each row or at each of its steps."""
    match kind:
        case "classes" | "binary" | "steps":
            return True
        case "labels" | "values":
            return False
        case _:
            assert_never(kind)


def has_threshold(kind: Kind) -> bool:
    """Whether a probability stands for itself, so that a threshold makes a class of it."""
    match kind:
        case "binary" | "labels":
            return True
        case "classes" | "steps" | "values":
            return False
        case _:
            assert_never(kind)


def last_activation(nodes: Sequence[Node], output: Source) -> Activation | None:
    """The function that made an output of the nodes, or None where no single one did."""
    index = output.node
    while index != INPUT and _passes_on(nodes[index].operation):
        index = nodes[index].inputs[0].node
    return None if index == INPUT else nodes[index].operation.last_activation


def _passes_on(operation: Operation) -> bool:
    """Whether an operation's output is its input: Dropout and its kin, and the linear activation by itself."""
    return isinstance(operation, Identity) or (isinstance(operation, Activate) and operation.activation is LINEAR)
