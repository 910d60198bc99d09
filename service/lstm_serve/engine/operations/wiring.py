"""How operations are wired, how they are run one after the other, and what is in memory meanwhile."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape

# Where the inputs of what is wired come from, as the number of a node.
INPUT = -1
# A forward pass takes at most so many rows, and at most so many floats at once between layers. More rows are no faster,
# and fewer wait more often for each other where several threads compute.
ROWS_AT_ONCE = 256
FLOATS_AT_ONCE = 1 << 22


class Source(NamedTuple):
    """Where a value comes from: an output of a node by the node's number, or one of the inputs, of INPUT."""

    node: int
    output: int = 0


class Node(NamedTuple):
    """An operation, and where its inputs come from: nodes before it."""

    operation: Operation
    inputs: tuple[Source, ...]


def shapes_of(nodes: Sequence[Node], given: Sequence[Shape]) -> list[tuple[Shape, ...]]:
    """The shapes of the inputs, which are given, and of each node's outputs, all without the batch axis."""
    found: list[tuple[Shape, ...]] = [tuple(given)]
    for operation, inputs in nodes:
        found.append(operation.output_shapes([found[node + 1][output] for node, output in inputs]))
    return found


def last_uses(nodes: Sequence[Node], ends: Sequence[Source]) -> tuple[tuple[int, ...], ...]:
    """For each node the nodes, or INPUT, whose outputs nobody needs once it is computed. Those of the ends stay."""
    last = {INPUT: INPUT} | {k: k for k in range(len(nodes))}
    for k, (_, inputs) in enumerate(nodes):
        last.update((source.node, k) for source in inputs)
    last.update((source.node, INPUT) for source in ends)
    done: list[list[int]] = [[] for _ in nodes]
    for node, k in last.items():
        if k != INPUT:
            done[k].append(node)
    return tuple(map(tuple, done))


def live_floats(nodes: Sequence[Node], given: Sequence[Shape], ends: Sequence[Source]) -> int:
    """The most numbers of one row that are in memory at once as inputs and outputs of nodes; a free axis is 1."""
    sizes = [sum(math.prod(n or 1 for n in shape) for shape in each) for each in shapes_of(nodes, given)]
    most = live = sizes[0]
    for size, done in zip(sizes[1:], last_uses(nodes, ends), strict=True):
        live += size
        most = max(most, live)
        live -= sum(sizes[node + 1] for node in done)
    return most


def products(nodes: Sequence[Node], given: Sequence[Shape]) -> list[int]:
    """About how many multiplications each node makes for a row: a number of the output, or a weight for each place."""
    found = shapes_of(nodes, given)
    return [
        operation.products([found[source.node + 1][source.output] for source in inputs]) for operation, inputs in nodes
    ]


def rows_at_once(nodes: Sequence[Node], given: Sequence[Shape], ends: Sequence[Source]) -> int:
    """How many rows are computed in one pass, so that memory stays bounded."""
    return max(1, min(ROWS_AT_ONCE, FLOATS_AT_ONCE // live_floats(nodes, given, ends)))


Compute = Callable[[Operation, Sequence[Array], Sequence[Mask]], Outputs]


def call(operation: Operation, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
    """What a node computes: what its operation does."""
    return operation(xs, masks)


def run(
    nodes: Sequence[Node],
    xs: Sequence[Array],
    ends: Sequence[Source],
    done: Sequence[Sequence[int]],
    compute: Compute = call,
) -> tuple[tuple[Array, ...], list[tuple[Mask, ...]]]:
    """Return what comes out at the ends for the inputs (b, ...), and the masks of the inputs and each node's outputs.

    `done` is what `last_uses` gives: an output is let go of where nobody needs it any more. `compute` stands between
    the nodes and their operations, for whoever looks at what is computed or changes it.
    """
    values: list[tuple[Array, ...]] = [tuple(xs)]
    masks: list[tuple[Mask, ...]] = [(None,) * len(xs)]
    for (operation, inputs), unneeded in zip(nodes, done, strict=True):
        ys, given = compute(
            operation,
            [values[node + 1][output] for node, output in inputs],
            [masks[node + 1][output] for node, output in inputs],
        )
        values.append(ys)
        masks.append(given)
        for node in unneeded:
            values[node + 1] = ()
    return tuple(values[node + 1][output] for node, output in ends), masks
