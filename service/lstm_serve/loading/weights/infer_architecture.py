"""Weights alone, of a model so plain that they tell what it is: recurrent layers, and then at most one Dense layer.

Shapes say classes, units and features. What the numbers depend on and no shape says is asked for, never guessed.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lstm_serve.engine.types import Array
from lstm_serve.errors import MissingFact
from lstm_serve.loading.config import architecture
from lstm_serve.loading.config.architecture import Architecture
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.layers.registry import TABLE
from lstm_serve.loading.refusals import REFUSED
from lstm_serve.loading.weights.assign import snake_case

Groups = Sequence[tuple[str | None, Sequence[Array]]]

# What a layer's name says of its class, where the user did not name it.
RECURRENT_NAMES = frozenset({"lstm", "gru", "simplernn", "cudnnlstm", "cudnngru", "bidirectional", "rnn"})
NAMES_WITHOUT_EFFECT = frozenset(
    {"input", "inputlayer", "dropout", "spatialdropout1d", "gaussiannoise", "gaussiandropout", "alphadropout"}
)
ALL_NAMES = frozenset(snake_case(name).replace("_", "") for name in (*TABLE, *REFUSED))

GIVE_ARCHITECTURE = (
    "Save the model's JSON beside the weights, open('m.json', 'w').write(model.to_json()) for m.h5 and m.weights.h5, "
    'or put it into the card as "architecture"'
)


class Plain(NamedTuple):
    """An architecture that weights tell, its arrays for each layer, and what was assumed, in words."""

    wiring: Architecture
    arrays: list[Sequence[Array]]
    keras: KerasVersion
    assumed: tuple[str, ...]


class Said(NamedTuple):
    """What a person says of weights that do not tell it."""

    recurrent_activation: str | None
    output_activation: str | None
    return_sequences: bool | None


class _Recurrent(NamedTuple):
    class_name: str
    config: dict[str, Any]
    features: int
    # Of its output.
    width: int


def read(groups: Groups, keras: KerasVersion, said: Said) -> Plain:
    """The architecture of weights, given by layer. Raises MissingFact with what would have to be said, and how."""
    entries: list[dict[str, Any]] = []
    arrays: list[Sequence[Array]] = []
    recurrent: list[_Recurrent] = []
    dense = False
    width: int | None = None
    for name, group in groups:
        if not group:
            _check_name(name, NAMES_WITHOUT_EFFECT)
            continue
        layer = _recurrent(group)
        if layer is not None and not dense:
            _check_name(name, RECURRENT_NAMES)
            features, after = layer.features, layer.width
            class_name, config = layer.class_name, layer.config
            recurrent.append(layer)
        elif _is_dense(group) and recurrent and not dense:
            _check_name(name, {"dense"})
            features, after = group[0].shape
            class_name, config = "Dense", {"units": after, "use_bias": len(group) == 2}
            dense = True
        else:
            raise _not_plain(
                f"the layer with the arrays {_shapes(group)} is none of these, or comes after a Dense layer"
            )
        if width not in {None, features}:
            raise _not_plain(f"the layer with the arrays {_shapes(group)} does not fit the {width} numbers before it")
        width = after
        config["name"] = name or f"{snake_case(class_name)}_{len(entries)}"
        entries.append({"class_name": class_name, "config": config})
        arrays.append(group)
    if not recurrent:
        raise _not_plain("none of its layers is recurrent")
    if any(len(group) in {9, 12, 18, 24} for group in arrays) and not keras.known:
        keras = KerasVersion.parse(None)  # Keras 1 alone keeps the gates apart
    assumed = _complete(entries, len(recurrent), keras, said)
    entries[0]["config"]["batch_input_shape"] = [None, None, recurrent[0].features]
    wiring = architecture.read({"class_name": "Sequential", "config": entries})
    return Plain(wiring, arrays, keras, assumed)


def _complete(entries: Sequence[dict[str, Any]], recurrent: int, keras: KerasVersion, said: Said) -> tuple[str, ...]:
    """Put activations and sequences into the configs of the recurrent layers and of the Dense one, if any is left.

    Returns what was assumed, in words. Raises MissingFact for what no file tells, or what is said of no layer.
    """
    inner = [entry["config"].get("layer", entry) for entry in entries[:recurrent]]
    gated = [layer["config"] for layer in inner if layer["class_name"] in {"LSTM", "GRU"}]
    dense = [entry["config"] for entry in entries[recurrent:]]
    for name, value, layers in (
        ("recurrent_activation", said.recurrent_activation, gated),
        ("output_activation", said.output_activation, dense),
    ):
        if value is not None and not layers:
            raise MissingFact(f"{name} is given, and the weights have no layer to which it would belong")
    gate = said.recurrent_activation or keras.default_gate
    _ask(keras, said, gate=not gated or gate is not None, dense=dense)
    for config in gated:
        config["recurrent_activation"] = gate
    for k, layer in enumerate(inner, 1):
        layer["config"]["return_sequences"] = k < recurrent or bool(said.return_sequences)
    for config in dense:
        config["activation"] = said.output_activation
    assumed = [
        "activation = tanh in the recurrent layers, the default of every Keras",
        "no step is masked",
    ]
    if said.return_sequences is None:
        assumed.append("the last recurrent layer gives its last step alone")
    if gated and said.recurrent_activation is None:
        assumed.append(f"recurrent_activation = {gate}, the default of Keras {keras.text or '1'}")
    return tuple(assumed)


def _ask(keras: KerasVersion, said: Said, *, gate: bool, dense: Sequence[dict[str, Any]]) -> None:
    """Raise MissingFact, with the ways to say it, for what no file tells.

    `gate` is false where the gates' function is not known; `dense` is the config of the Dense layer, if there is one.
    """
    missing, fields = [], []
    if not gate:
        fields.append("recurrent_activation")
        missing.append(
            "the function of its gates: --recurrent-activation sigmoid, the default since Keras 2.3 and TensorFlow 2, "
            f"or --recurrent-activation {'hard_sigmoid' if keras.known else 'hard_sigmoid_keras_2'}, the default before"
        )
    if dense and said.output_activation is None:
        fields.append("output_activation")
        one = dense[0]["units"] == 1
        kinds = "sigmoid (a probability)" if one else "softmax (classes), sigmoid (probabilities, each by itself)"
        missing.append(
            f"the activation of its output: --output-activation {kinds} or linear (numbers, or an activation that the "
            "client applies)"
        )
    if not dense and said.return_sequences is None:
        fields.append("return_sequences")
        missing.append(
            "whether its last layer answers with its last step alone or with every step: return_sequences=False or "
            "return_sequences=True of load_model"
        )
    if missing:
        raise MissingFact(
            f"the file holds weights alone, and no file tells {'; nor '.join(missing)}. The card and "
            f"load_model take it too, as {' and '.join(fields)}. {GIVE_ARCHITECTURE}"
        )


def split(arrays: Sequence[Array]) -> Groups | None:
    """A flat list cut into the layers of a plain stack; None where it could be cut in two ways, or in none."""
    groups: list[tuple[None, Sequence[Array]]] = []
    at = 0
    while at < len(arrays):
        size = _size_at(arrays[at:], first=at == 0)
        if size is None:
            return None
        groups.append((None, arrays[at : at + size]))
        at += size
    return groups


def _size_at(arrays: Sequence[Array], *, first: bool) -> int | None:
    """How many arrays the layer has with which the list begins."""
    shapes = [array.shape for array in arrays]
    cell = next((size for size in (3, 2) if _recurrent(arrays[:size]) is not None and len(arrays) >= size), None)
    if cell is None:
        dense = next((size for size in (2, 1) if _is_dense(arrays[:size])), None)
        return None if first else dense
    (features, columns), (units, _) = shapes[:2]
    plain = columns == units
    times = 1
    while shapes[times * cell : (times + 1) * cell] == shapes[:cell]:
        times += 1
    if times == 1:
        # After other layers, a square matrix may also be a Dense layer's.
        return cell if first or not plain else None
    if features == units:
        return None
    # A second layer of the same shapes would need as many features as units: these belong to one.
    gates = {2: 2, 3: 3, 4: 4, 6: 6, 8: 8} if plain and cell == 3 else {2: 2}
    return cell * gates[times] if times in gates else None


def _recurrent(group: Sequence[Array]) -> _Recurrent | None:
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
    return _Recurrent("Bidirectional", config, forward.features, 2 * forward.width)


# For each class its blocks of columns, and for each shape of a bias, in units, what it says besides.
CELLS: dict[str, tuple[int, dict[tuple[int, ...], dict[str, bool]]]] = {
    "LSTM": (4, {(4,): {}}),
    "CuDNNLSTM": (4, {(8,): {}}),
    "GRU": (3, {(3,): {"reset_after": False}, (2, 3): {"reset_after": True}}),
    "CuDNNGRU": (3, {(6,): {}}),
    "SimpleRNN": (1, {(1,): {}}),
}


def _cell(group: Sequence[Array]) -> _Recurrent | None:
    shapes = [array.shape for array in group]
    if len(group) in {9, 12} and len(shapes[0]) == 2:  # Keras 1
        features, units = shapes[0]
        if shapes != [(features, units), (units, units), (units,)] * (len(group) // 3):
            return None
        class_name = "LSTM" if len(group) == 12 else "GRU"
        return _Recurrent(class_name, {"units": units, "consume_less": "cpu"}, features, units)
    if len(group) not in {2, 3} or [len(shape) for shape in shapes[:2]] != [2, 2]:
        return None
    (features, columns), (units, same) = shapes[:2]
    for class_name, (blocks, biases) in CELLS.items():
        if columns != same or columns != blocks * units:
            continue
        if len(group) == 2 and class_name in {"LSTM", "SimpleRNN"}:  # of a GRU, reset_after would be open
            return _Recurrent(class_name, {"units": units, "use_bias": False}, features, units)
        for bias, told in biases.items():
            if len(group) == 3 and shapes[2] == (*bias[:-1], bias[-1] * units):
                return _Recurrent(class_name, {"units": units, **told}, features, units)
    return None


def _is_dense(group: Sequence[Array]) -> bool:
    return [array.ndim for array in group] in ([2], [2, 1]) and group[-1].shape[-1] == group[0].shape[1]


def _check_name(name: str | None, expected: frozenset[str] | set[str]) -> None:
    """Refuse a layer whose name is that of another class than its arrays say."""
    class_name = re.sub(r"_?\d+$", "", name or "").replace("_", "")
    known = class_name in ALL_NAMES and class_name not in expected
    if known or (expected is NAMES_WITHOUT_EFFECT and class_name not in expected):
        raise _not_plain(f"what its layer {str(name)[:100]!r} does, the weights do not tell")


def _not_plain(what: str) -> MissingFact:
    return MissingFact(
        "the file holds weights alone, and they are not those of recurrent layers followed by one Dense layer: "
        f"{what}. {GIVE_ARCHITECTURE}"
    )


def _shapes(group: Sequence[Array]) -> str:
    return ", ".join(str(array.shape) for array in group[:12])[:200]
