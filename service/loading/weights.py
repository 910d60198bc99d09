"""Which array belongs to which layer, in each of the ways in which files keep them.

Everywhere the result is one list of arrays a layer, in the order of `get_weights()`.
"""

from collections.abc import Sequence

from service.engine.activations import Array
from service.errors import UnreadableFile
from service.loading.architecture import LayerSpec
from service.loading.layers import NOT_TRAINED, array_names

Groups = Sequence[tuple[str, Sequence[Array]]]


def by_group(layers: Sequence[LayerSpec], groups: Groups) -> list[list[Array]]:
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


def _tops(layers: Sequence[LayerSpec]) -> dict[str, list[int]]:
    tops: dict[str, list[int]] = {}
    for k, layer in enumerate(layers):
        tops.setdefault(layer.path[0], []).append(k)
    return tops


def _split(layers: Sequence[LayerSpec], arrays: Sequence[Array]) -> list[list[Array]]:
    if len(layers) == 1:
        return [list(arrays)]
    slots: list[tuple[bool, int]] = []
    for k, layer in enumerate(layers):
        fixed = layer.config.get("trainable") is False
        names = array_names(layer.class_name, layer.config)
        slots += [(fixed or name.rpartition("/")[2] in NOT_TRAINED, k) for name in names]
    if len(slots) != len(arrays):
        raise UnreadableFile(
            f"the model {layers[0].path[0]!r} inside the model calls for {len(slots)} arrays, "
            f"the file has {len(arrays)}"
        )
    found: list[list[Array]] = [[] for _ in layers]
    for (_, k), array in zip(sorted(slots, key=lambda slot: slot[0]), arrays, strict=True):
        found[k].append(array)
    return found
