"""The order of the layers in a Keras 3 weights file, which has one for each class alone, as far as widths tell it."""

from collections.abc import Sequence
from functools import cache

from lstm_serve.engine.types import Array
from lstm_serve.loading.weights.assign import Tree, numbered
from lstm_serve.loading.weights.layer_shapes import is_dense, is_embedding, recurrent_of

CLASSES = ("embedding", "lstm", "gru", "simple_rnn", "bidirectional", "dense")


def stack_of(tree: Tree, tops: set[str]) -> list[tuple[str | None, Sequence[Array]]] | None:
    """The layers in their order, weightless ones first; None where widths allow none, or more than one.

    `tops` are the names of all layers, of which the file tells no order, and the class but for a number.
    """
    queues = [numbered(name, tree, ("layers",)) for name in CLASSES]
    arrays = {group: _arrays(tree, group) for queue in queues for group in queue}
    if not arrays or any(path[1] not in arrays for path in tree if len(path) > 1):
        return None
    widths = {group: _widths(group, arrays[group]) for group in arrays}
    order = _one_order(queues, widths)
    if order is None:
        return None
    return [*((top, ()) for top in sorted(tops - set(arrays))), *((group, arrays[group]) for group in order)]


def _arrays(tree: Tree, group: str) -> Sequence[Array]:
    parts = [(), ("cell",), ("forward_layer", "cell"), ("backward_layer", "cell")]
    return [array for part in parts for array in tree.get(("layers", group, *part), ())]


def _widths(group: str, arrays: Sequence[Array]) -> tuple[int | None, int] | None:
    """What a layer takes and gives; it takes None where it is to be the first. None of arrays that do not fit."""
    if group.startswith("embedding"):
        return (None, arrays[0].shape[1]) if is_embedding(arrays) else None
    if group.startswith("dense"):
        return (arrays[0].shape[0], arrays[0].shape[1]) if is_dense(arrays) else None
    layer = recurrent_of(arrays)
    return None if layer is None else (layer.features, layer.width)


def _one_order(queues: Sequence[Sequence[str]], widths: dict[str, tuple[int | None, int] | None]) -> list[str] | None:
    """The one order in which each layer takes what the one before gives; each queue keeps its own."""

    @cache
    def ways(done: tuple[int, ...], width: int | None) -> int:
        """How many orders of what is left there are after that width, 2 for more."""
        if all(at == len(queue) for at, queue in zip(done, queues, strict=True)):
            return 1
        return min(2, sum(ways(*after) for _, after in following(done, width)))

    def following(done: tuple[int, ...], width: int | None) -> list[tuple[str, tuple[tuple[int, ...], int]]]:
        found = []
        for k, queue in enumerate(queues):
            given = widths[queue[done[k]]] if done[k] < len(queue) else None
            if given is not None and (sum(done) == 0 or given[0] == width):
                found.append((queue[done[k]], ((*done[:k], done[k] + 1, *done[k + 1 :]), given[1])))
        return found

    at: tuple[tuple[int, ...], int | None] = (0,) * len(queues), None
    if ways(*at) != 1:
        return None
    order: list[str] = []
    while found := [(group, after) for group, after in following(*at) if ways(*after)]:
        group, at = found[0]
        order.append(group)
    return order
