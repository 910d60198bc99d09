"""Which array belongs to which layer, in each of the ways in which files keep them.

Everywhere the result is one list of arrays a layer, in the order of `get_weights()`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.architecture import LayerSpec
from lstm_serve.loading.config.graph_operations import MULTI_HEAD
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.layers.registry import HEADS, HOLDING, NOT_TRAINED, RECURRENT, array_names, cells_of, layer_in

NamedGroups = Sequence[tuple[str, Sequence[Array]]]
# By the path of the object that has them, as Keras 3 writes it: ("layers", "lstm", "cell").
Tree = Mapping[tuple[str, ...], Sequence[Array]]


def by_group(layers: Sequence[LayerSpec], groups: NamedGroups) -> list[list[Array]]:
    """From a legacy HDF5 file, whose groups are the model's own layers: by name, or else in order, as Keras does.

    A model inside is one group: all that its layers train, and then all that they do not.
    """
    tops = _tops(layers)
    weighted = [top for top in tops if any(array_names(layers[k].class_name, layers[k].config) for k in tops[top])]
    named = dict(groups)
    if not set(weighted) <= named.keys():
        filled = [arrays for _, arrays in groups if arrays]
        if len(filled) != len(weighted):
            raise UnreadableFile(
                f"the architecture has {len(weighted)} layers with weights ({', '.join(weighted)[:200]}), "
                f"the file has {len(filled)} ({', '.join(name for name, arrays in groups if arrays)[:200]})"
            )
        named = dict(zip(weighted, filled, strict=True))
    found: list[list[Array]] = [[] for _ in layers]
    for top, members in tops.items():
        for k, arrays in zip(members, _split([layers[k] for k in members], named.get(top, ())), strict=True):
            found[k] = arrays
    return found


def in_order(layers: Sequence[LayerSpec], arrays: Sequence[Array]) -> list[list[Array]]:
    """From `model.get_weights()`: layer after layer."""
    counts = [len(array_names(layer.class_name, layer.config)) for layer in layers]
    if sum(counts) != len(arrays):
        raise UnreadableFile(
            f"the architecture calls for {sum(counts)} arrays, the file has {len(arrays)}: they do not belong together"
        )
    rest = iter(arrays)
    return [[next(rest) for _ in range(count)] for count in counts]


def check_order(layers: Sequence[LayerSpec], keras: KerasVersion) -> None:
    """Refuse a list of arrays whose order is another in another Keras, where the version does not tell which it is.

    Of a model inside the model, Keras by itself up to 2.3 lists last the arrays that are not trained (`weights` in
    keras/engine/network.py); tf.keras 2 and Keras 3 list layer after layer. Equal shapes would be mixed in silence.
    """
    if keras.major >= 3:
        return
    known = (keras.major, keras.minor) >= (2, 4)
    inside: dict[str, list[LayerSpec]] = {}
    for layer in layers:
        # A TimeDistributed is no model, and lists last what is not trained in any Keras 2.
        if len(layer.path) > 1 and (not known or "TimeDistributed" in layer.models):
            inside.setdefault(layer.path[0], []).append(layer)
    for name, members in inside.items():
        slots = [fixed for fixed, _ in _slots(members)]
        if slots != sorted(slots):
            raise Unsupported(
                f"the model {name[:100]!r} inside the model has arrays that are not trained, and where they stand in a "
                "list depends on the Keras that made it. Save the whole model, model.save('m.h5'), or "
                "model.save_weights('w.h5')"
            )


# What Keras' own class is called that a config has under another name.
CALLED = {"Model": "Functional", "GroupQueryAttention": "GroupedQueryAttention"}


def by_class(layers: Sequence[LayerSpec], tree: Tree) -> list[list[Array]]:
    """From a Keras 3 weights file, which names a layer after its class and how many of them came before.

    The numbers step by two where a layer with weights was counted twice (tf.keras 2.12, 2.13): only their order counts.
    Source: _save_container_state of keras/src/saving/saving_lib.py.
    """
    found: list[list[Array]] = [[] for _ in layers]

    def hand_out(members: Sequence[int], place: tuple[str, ...], depth: int) -> None:
        """Hand the arrays below `place` to the layers that stand there, and to those in the models that do.

        Their paths have `depth` names before those that stand there.
        """
        entries: dict[str, list[int]] = {}
        for k in members:
            entries.setdefault(layers[k].path[depth], []).append(k)
        by_name: dict[str, list[list[int]]] = {}
        for inside in entries.values():
            if any(array_names(layers[k].class_name, layers[k].config) for k in inside):
                first = layers[inside[0]]
                class_name = first.models[depth] if len(first.path) > depth + 1 else first.class_name
                by_name.setdefault(snake_case(CALLED.get(class_name, class_name)), []).append(inside)
        for name, listed in by_name.items():
            groups = numbered(name, tree, place)
            if len(groups) != len(listed):
                raise UnreadableFile(
                    f"the architecture has {len(listed)} layers with weights of the class {name}, "
                    f"the file has {len(groups)}"
                )
            for group, inside in zip(groups, listed, strict=True):
                first = layers[inside[0]]
                if len(first.path) == depth + 1:
                    found[inside[0]] = _below(first.class_name, first.config, tree, (*place, group))
                elif first.models[depth] == "TimeDistributed":
                    hand_out(inside, (*place, group, "layer", "layers"), depth + 2)
                else:
                    hand_out(inside, (*place, group, "layers"), depth + 1)

    hand_out(range(len(layers)), ("layers",), 0)
    return found


def numbered(name: str, tree: Tree, place: tuple[str, ...]) -> list[str]:
    """The children of `place` that are called `name`, name_1, name_2, ... and hold arrays, in that order."""
    below = {path[len(place)] for path in tree if len(path) > len(place) and path[: len(place)] == place}
    numbers = [
        (int(match[1] or 0), child) for child in below if (match := re.fullmatch(rf"{name}(?:_(\d{{1,9}}))?", child))
    ]
    return [child for _, child in sorted(numbers)]


def _below(class_name: str, config: Mapping[str, Any], tree: Tree, place: tuple[str, ...]) -> list[Array]:
    """A layer's arrays, gathered from the objects in it that have them."""

    def inside(key: str, child: str) -> list[Array]:
        layer = layer_in(config, key)
        return [] if layer is None else _below(*layer, tree, (*place, child))

    if class_name == "Bidirectional":
        backward = "backward_layer" if config.get("backward_layer") else "layer"
        return inside("layer", "forward_layer") + inside(backward, "backward_layer")
    if class_name in HOLDING:  # SpectralNormalization lists its layer's kernel too, and then the vector
        return inside("layer", "layer") + [*tree.get(place, ())][-1:]
    if class_name == "RNN":
        return inside("cell", "cell")
    if class_name in MULTI_HEAD:
        parts = [f"{part}_dense" for part in HEADS]
        return [array for part in parts for name in (part, f"_{part}") for array in tree.get((*place, name), ())]
    if class_name == "StackedRNNCells":
        cells = [class_name for class_name, _ in cells_of(config)]
        groups = {cell: iter(numbered(snake_case(cell), tree, (*place, "cells"))) for cell in cells}
        return [array for cell in cells for array in tree.get((*place, "cells", next(groups[cell], "")), ())]
    return [*tree.get((*place, "cell") if class_name in RECURRENT else place, ())]


def snake_case(class_name: str) -> str:
    """As to_snake_case of keras/src/utils/naming.py: SimpleRNN is simple_rnn, PReLU is p_re_lu."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", apart).lower()


def _tops(layers: Sequence[LayerSpec]) -> dict[str, list[int]]:
    tops: dict[str, list[int]] = {}
    for k, layer in enumerate(layers):
        tops.setdefault(layer.path[0], []).append(k)
    return tops


def _split(layers: Sequence[LayerSpec], arrays: Sequence[Array]) -> list[list[Array]]:
    if len(layers) == 1:
        return [list(arrays)]
    slots = _slots(layers)
    if len(slots) != len(arrays):
        raise UnreadableFile(
            f"the model {layers[0].path[0]!r} inside the model calls for {len(slots)} arrays, "
            f"the file has {len(arrays)}"
        )
    found: list[list[Array]] = [[] for _ in layers]
    for (_, k), array in zip(sorted(slots, key=lambda slot: slot[0]), arrays, strict=True):
        found[k].append(array)
    return found


def _slots(layers: Sequence[LayerSpec]) -> list[tuple[bool, int]]:
    """For each array, layer after layer, whether it is not trained, and the number of its layer."""
    slots: list[tuple[bool, int]] = []
    for k, layer in enumerate(layers):
        fixed = layer.config.get("trainable") is False
        names = array_names(layer.class_name, layer.config)
        slots += [(fixed or name.rpartition("/")[2] in NOT_TRAINED, k) for name in names]
    return slots
