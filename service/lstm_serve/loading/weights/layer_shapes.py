"""What layer arrays are of, by their shapes: a recurrent one, a Dense one, or neither."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lstm_serve.engine.types import Array


class RecurrentShapes(NamedTuple):
    """A recurrent layer, told by the shapes of its arrays."""

    class_name: str
    config: dict[str, Any]
    features: int
    # Of its output.
    width: int


def recurrent_of(group: Sequence[Array]) -> RecurrentShapes | None:
    """The recurrent layer whose arrays these are, or None."""
    single = _cell(group)
    if single is not None:
        return single
    half = len(group) // 2
    forward, backward = _cell(group[:half]), _cell(group[half:])
    if len(group) % 2 or forward is None or backward is None or forward.config != backward.config:
        return None
    if forward.features != backward.features:
        return None
    config = {"layer": {"class_name": forward.class_name, "config": forward.config}, "merge_mode": "concat"}
    return RecurrentShapes("Bidirectional", config, forward.features, 2 * forward.width)


# For each class its blocks of columns, and for each shape of a bias, in units, what it says besides.
CELLS: dict[str, tuple[int, dict[tuple[int, ...], dict[str, bool]]]] = {
    "LSTM": (4, {(4,): {}}),
    "CuDNNLSTM": (4, {(8,): {}}),
    "GRU": (3, {(3,): {"reset_after": False}, (2, 3): {"reset_after": True}}),
    "CuDNNGRU": (3, {(6,): {}}),
    "SimpleRNN": (1, {(1,): {}}),
}


def _cell(group: Sequence[Array]) -> RecurrentShapes | None:
    shapes = [array.shape for array in group]
    if len(group) in {9, 12} and len(shapes[0]) == 2:  # Keras 1
        features, units = shapes[0]
        if shapes != [(features, units), (units, units), (units,)] * (len(group) // 3):
            return None
        class_name = "LSTM" if len(group) == 12 else "GRU"
        return RecurrentShapes(class_name, {"units": units, "consume_less": "cpu"}, features, units)
    if len(group) not in {2, 3} or [len(shape) for shape in shapes[:2]] != [2, 2]:
        return None
    (features, columns), (units, same) = shapes[:2]
    for class_name, (blocks, biases) in CELLS.items():
        if columns != same or columns != blocks * units:
            continue
        if len(group) == 2 and class_name in {"LSTM", "SimpleRNN"}:  # of a GRU, reset_after would be open
            return RecurrentShapes(class_name, {"units": units, "use_bias": False}, features, units)
        for bias, told in biases.items():
            if len(group) == 3 and shapes[2] == (*bias[:-1], bias[-1] * units):
                return RecurrentShapes(class_name, {"units": units, **told}, features, units)
    return None


def is_dense(group: Sequence[Array]) -> bool:
    """Whether these may be a Dense layer's: (features, units), and (units,) where it has a bias."""
    return [array.ndim for array in group] in ([2], [2, 1]) and group[-1].shape[-1] == group[0].shape[1]


def is_embedding(group: Sequence[Array]) -> bool:
    """Whether these may be an Embedding's: (vocabulary, width)."""
    return [array.ndim for array in group] == [2]
