"""Weights alone, of a model so plain that they tell what it is: [Embedding,] recurrent layers[, Dense layers].

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
from lstm_serve.loading.weights.layer_shapes import is_dense, is_embedding, recurrent_of

LayerGroups = Sequence[tuple[str | None, Sequence[Array]]]

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
    hidden_activation: str | None = None
    return_sequences: bool | None = None
    mask_zero: bool | None = None


# Of these an architecture leaves none open.
OF_LAYERS = tuple(name for name in Said._fields if name != "output_activation")


def read(groups: LayerGroups, keras: KerasVersion, said: Said) -> Plain:
    """The architecture of weights, given by layer. Raises MissingFact with what would have to be said, and how."""
    stack = _Stack([], [], [])
    arrays: list[Sequence[Array]] = []
    width: int | None = None
    for name, group in groups:
        if not group:
            _check_name(name, NAMES_WITHOUT_EFFECT)
            continue
        config, features, after = _placed(stack, name, group)
        if width is not None and width != features:
            raise _not_plain(f"the layer with the arrays {_shapes(group)} does not fit the {width} numbers before it")
        if not arrays:
            config["batch_input_shape"] = [None, None] if features is None else [None, None, features]
        width = after
        arrays.append(group)
    if not stack.recurrent:
        raise _not_plain("none of its layers is recurrent")
    if any(len(group) in {9, 12, 18, 24} for group in arrays) and not keras.known:
        keras = KerasVersion.parse(None)  # Keras 1 alone keeps the gates apart
    assumed = _complete(stack, keras, said)
    wiring = architecture.read({"class_name": "Sequential", "config": stack.entries})
    return Plain(wiring, arrays, keras, assumed)


def _placed(stack: "_Stack", name: str | None, group: Sequence[Array]) -> tuple[dict[str, Any], int | None, int]:
    """Put a layer on the stack; its config, what it takes, None for ids, and what it gives."""
    layer = recurrent_of(group)
    rows, columns = group[0].shape if group[0].ndim == 2 else (0, 0)
    features: int | None = rows
    if layer is not None and not stack.dense:
        _check_name(name, RECURRENT_NAMES)
        entries, class_name, config = stack.recurrent, layer.class_name, layer.config
        features, columns = layer.features, layer.width
    elif is_dense(group) and stack.recurrent:
        _check_name(name, {"dense"})
        entries, class_name, config = stack.dense, "Dense", {"units": columns, "use_bias": len(group) == 2}
    elif is_embedding(group) and not stack.entries:
        _check_name(name, {"embedding"})
        entries, class_name, config = stack.embedding, "Embedding", {"input_dim": rows, "output_dim": columns}
        features = None
    else:
        raise _not_plain(f"the layer with the arrays {_shapes(group)} is none of these, or not in that order")
    config["name"] = name or f"{snake_case(class_name)}_{len(stack.entries)}"
    entries.append({"class_name": class_name, "config": config})
    return config, features, columns


class _Stack(NamedTuple):
    """The layers of a plain model, as a config has them."""

    embedding: list[dict[str, Any]]
    recurrent: list[dict[str, Any]]
    dense: list[dict[str, Any]]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All, in their order."""
        return [*self.embedding, *self.recurrent, *self.dense]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The recurrent layers, those in Bidirectional ones for them."""
        return [entry["config"].get("layer", entry) for entry in self.recurrent]

    @property
    def gated(self) -> list[dict[str, Any]]:
        """The configs of the layers whose gates have a function of their own."""
        return [layer["config"] for layer in self.cells if layer["class_name"] in {"LSTM", "GRU"}]


def _check_said(stack: _Stack, said: Said) -> None:
    """Refuse what is said of no layer."""
    for name, value, layers in (
        ("recurrent_activation", said.recurrent_activation, stack.gated),
        ("output_activation", said.output_activation, stack.dense),
        ("hidden_activation", said.hidden_activation, stack.dense[:-1]),
        ("mask_zero", said.mask_zero, stack.embedding),
    ):
        if value is not None and not layers:
            raise MissingFact(f"{name} is given, and the weights have no layer to which it would belong")


def _complete(stack: _Stack, keras: KerasVersion, said: Said) -> tuple[str, ...]:
    """Put activations, sequences and masks into the configs.

    Returns what was assumed, in words. Raises MissingFact for what no file tells, or what is said of no layer.
    """
    _check_said(stack, said)
    gate = said.recurrent_activation or keras.default_gate
    _ask(stack, keras, said, gate=not stack.gated or gate is not None)
    for config in stack.gated:
        config["recurrent_activation"] = gate
    for k, layer in enumerate(stack.cells, 1):
        layer["config"]["return_sequences"] = k < len(stack.recurrent) or bool(said.return_sequences)
    for entry in stack.dense:
        entry["config"]["activation"] = said.output_activation if entry is stack.dense[-1] else said.hidden_activation
    assumed = ["activation = tanh in the recurrent layers, the default of every Keras"]
    for entry in stack.embedding:
        entry["config"]["mask_zero"] = said.mask_zero
    if not stack.embedding:
        assumed.append("no step is masked")
    if not stack.dense and stack.recurrent[-1]["class_name"] == "Bidirectional":
        assumed.append("the two directions are joined by concat, the default of every Keras")
    if said.return_sequences is None:
        assumed.append("the last recurrent layer gives its last step alone")
    if stack.gated and said.recurrent_activation is None:
        assumed.append(f"recurrent_activation = {gate}, the default of Keras {keras.text or '1'}")
    return tuple(assumed)


def _ask(stack: _Stack, keras: KerasVersion, said: Said, *, gate: bool) -> None:
    """Raise MissingFact, with the ways to say it, for what no file tells.

    `gate` is false where the gates' function is not known.
    """
    missing: dict[str, str] = {}
    if stack.embedding and said.mask_zero is None:
        missing["mask_zero"] = (
            "whether its Embedding masks the id 0: mask_zero=False, Keras' default, or mask_zero=True of load_model"
        )
    if not gate:
        missing["recurrent_activation"] = (
            "the function of its gates: --recurrent-activation sigmoid, the default since Keras 2.3 and TensorFlow 2, "
            f"or --recurrent-activation {'hard_sigmoid' if keras.known else 'hard_sigmoid_keras_2'}, the default before"
        )
    if stack.dense[:-1] and said.hidden_activation is None:
        missing["hidden_activation"] = (
            f"the activation of the {'Dense layer' if len(stack.dense) == 2 else 'Dense layers'} before the last: "
            'hidden_activation="relu" of load_model, or whichever it is'
        )
    if stack.dense and said.output_activation is None:
        one = stack.dense[-1]["config"]["units"] == 1
        choices = "sigmoid (a probability)" if one else "softmax (classes), sigmoid (probabilities, each by itself)"
        missing["output_activation"] = (
            f"the activation of its output: --output-activation {choices} or linear (numbers, or an activation that "
            "the client applies)"
        )
    if not stack.dense and said.return_sequences is None:
        missing["return_sequences"] = (
            "whether its last layer answers with its last step alone or with every step: return_sequences=False or "
            "return_sequences=True of load_model"
        )
    if missing:
        raise MissingFact(
            f"the file holds weights alone, and no file tells {'; nor '.join(missing.values())}. The card and "
            f"load_model take it too, as {' and '.join(missing)}. {GIVE_ARCHITECTURE}"
        )


def split(arrays: Sequence[Array]) -> LayerGroups | None:
    """A flat list cut into the layers of a plain stack; None where it could be cut in two ways, or in none."""
    ways = [_cut(arrays)]
    if is_embedding(arrays[:1]) and (after := _cut(arrays[1:])):
        first = recurrent_of(after[0][1])
        if first is not None and first.features == arrays[0].shape[1]:
            ways.append([(None, arrays[:1]), *after])
    found = [way for way in ways if way is not None]
    return found[0] if len(found) == 1 else None


def _cut(arrays: Sequence[Array]) -> list[tuple[None, Sequence[Array]]] | None:
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
    cell = next((size for size in (3, 2) if recurrent_of(arrays[:size]) is not None and len(arrays) >= size), None)
    if cell is None:
        dense = next((size for size in (2, 1) if is_dense(arrays[:size])), None)
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


def _check_name(name: str | None, expected: frozenset[str] | set[str]) -> None:
    """Refuse a layer whose name is that of another class than its arrays say."""
    class_name = re.sub(r"_?\d+$", "", name or "").replace("_", "")
    known = class_name in ALL_NAMES and class_name not in expected
    if known or (expected is NAMES_WITHOUT_EFFECT and class_name not in expected):
        raise _not_plain(f"what its layer {str(name)[:100]!r} does, the weights do not tell")


def _not_plain(what: str) -> MissingFact:
    return MissingFact(
        "the file holds weights alone, and they are not those of recurrent layers, with at most an Embedding before "
        "them and Dense layers after: "
        f"{what}. {GIVE_ARCHITECTURE}"
    )


def _shapes(group: Sequence[Array]) -> str:
    return ", ".join(str(array.shape) for array in group[:12])[:200]
