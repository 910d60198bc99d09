"""What is to be said of each class of layers: its arrays, its formulas, its lines of NumPy. One function a class.

Formulas and NumPy lines are filled with the layer's own sizes. To add a class: a function, and a line in `TABLE`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from service.engine.activations import (
    HARD_SIGMOID_KERAS_2,
    HARD_SIGMOID_KERAS_3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
)
from service.engine.layers import Activate, Dense, Identity, Layer, Normalization, Scaling
from service.engine.recurrent import LSTM, Shape

# An activation in NumPy, as a function of x. One that is missing here only costs the model its lines of NumPy.
NUMPY: Mapping[Activation, str] = {
    LINEAR: "x",
    TANH: "np.tanh(x)",
    SIGMOID: "1 / (1 + np.exp(-x))",
    RELU: "np.maximum(x, 0)",
    SOFTMAX: "(e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True)",
    HARD_SIGMOID_KERAS_2: "np.clip(0.2 * x + 0.5, 0, 1)",
    HARD_SIGMOID_KERAS_3: "np.clip(x + 3, 0, 6) / 6",
}


class Words(NamedTuple):
    """What is to be said of a layer.

    `roles` says what each array is, by its name. `way` is how the layer gets from its input x to its output y, in lines
    that are not wrapped. `slips` are sentences on what people get wrong. `numpy` are lines that make y, one sequence's
    output, of y, its input: `w` has the layers' arrays by name, `layers` the layers, and `activations` are those that
    the lines call by name. None where they cannot be short and right, as for a layer that makes or heeds a mask.
    """

    roles: Mapping[str, str]
    way: Sequence[str]
    slips: Sequence[str] = ()
    activations: Sequence[Activation] = ()
    numpy: Sequence[str] | None = None


def of(layer: Layer, shape: Shape) -> Words:
    """The words for a layer whose first input has this shape, the batch axis left out."""
    return TABLE.get(type(layer), _unknown)(layer, shape)


def class_of(layer: Layer) -> str:
    """The name of the layer's class in Keras."""
    if isinstance(layer, Identity):
        return layer.keras_class
    return {Activate: "Activation", Scaling: "(card's scaling)"}.get(type(layer), type(layer).__name__)


def axes(shape: Sequence[int | None]) -> str:
    """A shape as Keras prints it: (None, 20, 15)."""
    return f"({', '.join(str(n) for n in shape)}{',' if len(shape) == 1 else ''})"


def formulas(activations: Sequence[Activation]) -> list[str]:
    """A line for each activation, once, that says which function its name means here; tanh is tanh."""
    named = dict.fromkeys((f"{activation.name}(x)", activation.formula) for activation in activations)
    return [f"{call} = {formula}" for call, formula in named if call != formula]


def shown(text: str, width: int = 60) -> str:
    """A name out of a file, fit for a terminal: cut to `width`, without control characters."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _lstm(layer: LSTM, shape: Shape) -> Words:
    u, features = layer.units, shape[-1]
    blocks = {gate: f"{k * u}:{(k + 1) * u}" for k, gate in enumerate(("i", "f", "c~", "o"))}
    gate, squash = layer.recurrent_activation.name, layer.activation.name
    bias = "" if layer.bias is None else " + bias"
    order = "last to first" if layer.go_backwards else "first to last"
    answers = f"the h of every step, {axes((shape[0], u))}" if layer.return_sequences else f"the last h, ({u},)"
    if layer.go_backwards and layer.return_sequences:
        answers += ", in the order in which the steps were taken"
    name = shown(layer.name)
    parts = ", ".join(f"{gate_name} [{block}]" for gate_name, block in blocks.items())
    return Words(
        roles={
            "kernel": f"from a step's {features} features to the gates, 4 x {u} columns",
            "recurrent_kernel": f"from the {u} numbers of h to the gates, the same columns",
            "bias": f"added to the gates, one vector of 4 x {u}",
        },
        way=[
            f"h and c, ({u},) each, start as 0. Then for each step's {features} features x_t, {order}:",
            f"  z  = x_t @ kernel + h @ recurrent_kernel{bias}",
            f"       ({features},) @ {layer.kernel.shape} + ({u},) @ {layer.recurrent_kernel.shape}"
            + (f" + ({4 * u},)" if bias else "")
            + f" -> ({4 * u},)",
            f"  i  = {gate}(z[{blocks['i']}])".ljust(34) + "input gate: how much of the candidate comes in",
            f"  f  = {gate}(z[{blocks['f']}])".ljust(34) + "forget gate: how much of c stays",
            f"  c~ = {squash}(z[{blocks['c~']}])".ljust(34) + "candidate for c",
            f"  o  = {gate}(z[{blocks['o']}])".ljust(34) + "output gate: how much of c shows in h",
            "  c  = f * c + i * c~".ljust(34) + "element by element",
            f"  h  = o * {squash}(c)",
            f"y is {answers}.",
            *formulas([layer.recurrent_activation, layer.activation]),
        ],
        slips=[
            (
                f"The four blocks of columns in {name}'s kernel, and in its recurrent_kernel, are the gates i, f, c~ "
                f"and o in this order: {parts}, where a:b is Python's, b left out. They are not input, previous "
                "memory, current memory and previous output: each block makes one gate, out of the input "
                "(kernel) and of the previous output h (recurrent_kernel)."
            ),
            *([] if layer.bias is None else [_one_bias(name, u, parts)]),
            f"{u} units make 4 x {u} = {4 * u} columns. {_other(u)}",
            (
                f"dropout and recurrent_dropout, had {name} any, do nothing at inference, and nothing is rescaled "
                "for them: Keras scales while it trains."
            ),
            *_hard_sigmoid(layer, [layer.recurrent_activation, layer.activation]),
        ],
        activations=[layer.recurrent_activation, layer.activation],
        numpy=[
            f"kernel, recurrent_kernel{', bias' if bias else ''} = w[{layer.name!r}]",
            f"h = c = np.zeros({u})",
            *(["hs = []"] if layer.return_sequences else []),
            f"for x_t in y{'[::-1]' if layer.go_backwards else ''}:",
            f"    i, f, g, o = np.split(x_t @ kernel + h @ recurrent_kernel{bias}, 4)",
            f"    c = {gate}(f) * c + {gate}(i) * {squash}(g)",
            f"    h = {gate}(o) * {squash}(c)",
            *(["    hs.append(h)", "y = np.array(hs)"] if layer.return_sequences else ["y = h"]),
        ],
    )


def _one_bias(name: str, units: int, parts: str) -> str:
    return (
        f"The bias of {name} is one vector of 4 x {units} = {4 * units} numbers, not four vectors and not one for each "
        f"kernel; the gates' parts of it are {parts}."
    )


def _other(units: int) -> str:
    # The number that people misread: one unit less.
    if units == 1:
        return "Any other number of columns is another model's."
    return f"A kernel of {4 * (units - 1)} columns is another model's, one of {units - 1} units."


def _hard_sigmoid(layer: Layer, activations: Sequence[Activation]) -> list[str]:
    said = {
        HARD_SIGMOID_KERAS_2: ("Keras 1 and 2, which", HARD_SIGMOID_KERAS_3, "Keras 3"),
        HARD_SIGMOID_KERAS_3: ("Keras 3, which", HARD_SIGMOID_KERAS_2, "Keras 1 and 2"),
    }
    return [
        f"The hard_sigmoid of {shown(layer.name)} is that of {here} saved this file: {activation.formula}. {there} "
        f"means another function by that name, {other.formula}; with that one, or with sigmoid, the answers are wrong."
        for activation, (here, other, there) in said.items()
        if activation in activations
    ]


def _dense(layer: Dense, shape: Shape) -> Words:
    features, units = layer.kernel.shape
    bias = "" if layer.bias is None else " + bias"
    each = "each step's x" if len(shape) > 1 else "x"
    return Words(
        roles={
            "kernel": f"from {features} inputs to {units} outputs: a row an input, a column an output",
            "bias": "added to the outputs, one number each",
        },
        way=[
            f"s = x @ kernel{bias}",
            f"    ({features},) @ {layer.kernel.shape}{f' + ({units},)' if bias else ''} -> ({units},), of {each}",
            f"y = {layer.activation.name}(s)",
            *formulas([layer.activation]),
        ],
        slips=_hard_sigmoid(layer, [layer.activation]),
        activations=[layer.activation],
        numpy=[
            f"kernel, bias = w[{layer.name!r}]" if bias else f"(kernel,) = w[{layer.name!r}]",
            f"y = {layer.activation.name}(y @ kernel{bias})",
        ],
    )


def _identity(layer: Identity, _: Shape) -> Words:
    return Words(
        roles={},
        way=["y = x: it works in training alone."],
        slips=[
            (
                f"{shown(layer.name)} ({layer.keras_class}) does nothing at inference, and nothing is to be rescaled "
                "for it: Keras scales while it trains."
            )
        ],
        numpy=[],
    )


def _activate(layer: Activate, _: Shape) -> Words:
    return Words(
        roles={},
        way=[f"y = {layer.activation.name}(x)", *formulas([layer.activation])],
        slips=_hard_sigmoid(layer, [layer.activation]),
        activations=[layer.activation],
        numpy=[f"y = {layer.activation.name}(y)"],
    )


def _normalization(layer: Normalization, _: Shape) -> Words:
    return Words(
        roles={
            "mean": "of each feature, in the data that the layer was adapted to",
            "variance": "of each feature, in the same data",
        },
        way=["y = (x - mean) / max(sqrt(variance), 1e-7)"],
        slips=[
            (
                f"{shown(layer.name)} standardises inside the model: hand in raw values, not standardised ones. Its "
                "arrays are shown in the shape that meets x. Keras counts one more where the layer learnt them: "
                "`count`, a single number that says how much data it saw, and that nothing uses."
            )
        ],
        numpy=[
            f"mean, variance = w[{layer.name!r}][:2]",
            "y = (y - mean) / np.maximum(np.sqrt(variance), 1e-7)",
        ],
    )


def _scaling(layer: Scaling, _: Shape) -> Words:
    return Words(
        roles={},
        way=[
            "y = (x - offset) / scale, in float64 and then rounded to float32; the card gives",
            f"  offset ({len(layer.offset)},), from {layer.offset.min():.6g} to {layer.offset.max():.6g}",
            f"  scale  ({len(layer.scale)},), from {layer.scale.min():.6g} to {layer.scale.max():.6g}",
        ],
        slips=[
            (
                "The card's scaling is done here, before the model's first layer: hand in raw values, not scaled ones. "
                "Keras' own model wants them scaled."
            )
        ],
        numpy=[
            f"scaling = layers[{layer.name!r}]",
            "y = ((y - scaling.offset) / scaling.scale).astype(np.float32)",
        ],
    )


def _unknown(layer: Any, _: Shape) -> Words:  # noqa: ANN401 - any layer at all
    return Words(roles={}, way=[f"y = {type(layer).__name__}(x), as Keras computes it"])


TABLE: dict[type, Callable[[Any, Shape], Words]] = {
    LSTM: _lstm,
    Dense: _dense,
    Identity: _identity,
    Activate: _activate,
    Normalization: _normalization,
    Scaling: _scaling,
}
