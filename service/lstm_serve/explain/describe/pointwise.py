"""What is to be said of the layers that work on each time step, or on each row, by itself, and of joins."""

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.operations.merging import Concatenate, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Dense,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.activations import formulas, pitfalls
from lstm_serve.explain.describe.description import DROPOUT, LayerDescription, weights_line
from lstm_serve.formats.text import shown


def dense(layer: Dense, shape: Shape) -> LayerDescription:
    """A matrix product, and a bias, and an activation."""
    features, units = layer.kernel.shape
    bias = "" if layer.bias is None else " + bias"
    each = "each step's x" if len(shape) > 1 else "x"
    return LayerDescription(
        roles={
            "kernel": f"from {features} inputs to {units} outputs: a row an input, a column an output",
            "bias": "added to the outputs, one number each",
        },
        equations=[
            f"s = x @ kernel{bias}",
            f"    ({features},) @ {layer.kernel.shape}{f' + ({units},)' if bias else ''} -> ({units},), of {each}",
            f"y = {layer.activation.name}(s)",
            *formulas([layer.activation]),
        ],
        pitfalls=pitfalls([layer.activation]),
        activations=[layer.activation],
        numpy=[weights_line(layer), f"y = {layer.activation.name}(y @ kernel{bias})"],
    )


def identity(_: Identity, __: Shape) -> LayerDescription:
    """What works in training alone."""
    return LayerDescription(roles={}, equations=["y = x: it works in training alone."], pitfalls=[DROPOUT], numpy=[])


def activate(layer: Activate, _: Shape) -> LayerDescription:
    """An activation."""
    name = layer.activation.name
    return LayerDescription(
        roles={},
        equations=[f"y = {name}(x)", *formulas([layer.activation])],
        pitfalls=pitfalls([layer.activation]),
        activations=[layer.activation],
        numpy=[f"y = {name}(y)"],
    )


def prelu(layer: PReLU, _: Shape) -> LayerDescription:
    """Slopes that were learnt."""
    return LayerDescription(
        roles={"alpha": "the slope below 0; it meets x from the right, as NumPy broadcasts"},
        equations=["y = max(x, 0) + alpha * min(x, 0)"],
        numpy=[weights_line(layer), "y = np.maximum(y, 0) + alpha * np.minimum(y, 0)"],
    )


def normalization(layer: Normalization, _: Shape) -> LayerDescription:
    """What was learnt of the data before training."""
    return LayerDescription(
        roles={
            "mean": "of each feature, in the data that the layer was adapted to",
            "variance": "of each feature, in the same data",
        },
        equations=["y = (x - mean) / max(sqrt(variance), 1e-7)"],
        pitfalls=[
            (
                f"{shown(layer.name)} standardises inside the model: give raw values, not standardised ones. Keras "
                "counts one array more where it was adapted, `count`, which nothing uses at inference."
            )
        ],
        numpy=[weights_line(layer), "y = (y - mean) / np.maximum(np.sqrt(variance), 1e-7)"],
    )


def batch_normalization(layer: BatchNormalization, _: Shape) -> LayerDescription:
    """The moving statistics."""
    affine = _affine(layer)
    return LayerDescription(
        roles={
            "gamma": "the scale that was learnt",
            "beta": "the offset that was learnt",
            "moving_mean": "the mean that training left",
            "moving_variance": "the variance that training left",
        },
        equations=[f"y = (x - moving_mean) / sqrt(moving_variance + {layer.epsilon:g}){affine}"],
        pitfalls=[
            (
                f"{shown(layer.name)} takes the moving mean and variance that training left, never those of the batch. "
                f"epsilon, {layer.epsilon:g}, is inside the root."
            )
        ],
        numpy=[weights_line(layer), f"y = (y - moving_mean) / np.sqrt(moving_variance + {layer.epsilon!r}){affine}"],
    )


def layer_normalization(layer: LayerNormalization, _: Shape) -> LayerDescription:
    """The statistics of each step's own numbers."""
    affine = _affine(layer)
    return LayerDescription(
        roles={"gamma": "the scale that was learnt", "beta": "the offset that was learnt"},
        equations=[
            f"y = (x - mean(x)) / sqrt(variance(x) + {layer.epsilon:g}){affine}",
            "mean and variance are those of the last axis, of each step by itself; the variance divides by n.",
        ],
        numpy=[
            *([weights_line(layer)] if layer.weights else []),
            f"y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + {layer.epsilon!r}){affine}",
        ],
    )


def _affine(layer: BatchNormalization | LayerNormalization) -> str:
    return ("" if layer.gamma is None else " * gamma") + ("" if layer.beta is None else " + beta")


def rescaling(layer: Rescaling, _: Shape) -> LayerDescription:
    """Fixed numbers."""
    return LayerDescription(
        roles={},
        equations=["y = x * scale + offset", f"  scale   {_span(layer.scale)}", f"  offset  {_span(layer.offset)}"],
        pitfalls=[f"{shown(layer.name)} rescales inside the model: give values as they are before it."],
        numpy=[f"y = y * {_literal(layer.scale, np.float32)} + {_literal(layer.offset, np.float32)}"],
    )


def scaling(layer: Scaling, _: Shape) -> LayerDescription:
    """What the card says was done to the data before training."""
    return _in_float64(
        layer,
        "({} - offset) / scale",
        "The card's scaling is done here: give raw values. Keras' own model wants them scaled.",
    )


def unscaling(layer: Unscaling, _: Shape) -> LayerDescription:
    """What the card says was done to the targets before training, undone."""
    return _in_float64(
        layer,
        "{} * scale + offset",
        "The card's output_scaling is undone here. Keras' own model answers what comes in.",
    )


def _in_float64(layer: Scaling | Unscaling, formula: str, pitfall: str) -> LayerDescription:
    return LayerDescription(
        roles={},
        equations=[
            f"y = {formula.format('x')}, in float64 and then rounded to float32; the card gives",
            f"  offset  {_span(layer.offset)}",
            f"  scale   {_span(layer.scale)}",
        ],
        pitfalls=[pitfall],
        numpy=[
            f"offset = {_literal(layer.offset, np.float64)}",
            f"scale = {_literal(layer.scale, np.float64)}",
            f"y = ({formula.format('y')}).astype(np.float32)",
        ],
    )


def _span(values: npt.NDArray[np.floating]) -> str:
    if values.ndim == 0:
        return f"{values:g}"
    return f"({values.size},), from {values.min():.6g} to {values.max():.6g}"


def _literal(values: npt.NDArray[np.floating], dtype: type[np.floating]) -> str:
    """The values in Python, on one line; each reads back as the same number."""
    numbers = [str(value) for value in values.astype(dtype).ravel()]
    return f"np.array([{', '.join(numbers)}], np.{dtype.__name__})" if values.ndim else numbers[0]


JOINS = {
    np.add: "the sum of the inputs",
    np.subtract: "the first input less the second",
    np.multiply: "the product of the inputs",
    np.maximum: "the largest of the inputs",
    np.minimum: "the smallest of the inputs",
}


def merge(layer: Merge, _: Shape) -> LayerDescription:
    """Inputs joined one by one."""
    what = "the mean of the inputs" if layer.mean else JOINS[layer.join]  # type: ignore[index]
    return LayerDescription(roles={}, equations=[f"y = {what}, element by element, as NumPy broadcasts"])


def concatenate(layer: Concatenate, shape: Shape) -> LayerDescription:
    """Inputs one after the other."""
    where = "the last axis" if layer.axis == len(shape) else f"axis {layer.axis}, the batch being axis 0"
    return LayerDescription(
        roles={}, equations=[f"y = the inputs in the order given, one after the other along {where}"]
    )
