"""What is checked of a layer before it is built: its arrays, its input's shape, its numbers."""

import math
from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.refusals import QUANTIZED

# The floats of one row of one layer's output, and the steps that a convolution may reach.
MAX_ROW = 1 << 24
# The axes of one row. NumPy's arrays have 64 at most, and some operations add one or two.
MAX_AXES = 32


def with_bias(
    options: Options, arrays: Sequence[Array], bias: tuple[int, ...], **kernels: tuple[int, ...]
) -> tuple[Sequence[Array], Array | None]:
    """The kernels and the bias of a layer; the bias is None where `use_bias` is false."""
    if options.take("use_bias", bool, default=True):
        *weights, last = expect(options, arrays, **kernels, bias=bias)
        return weights, last
    return expect(options, arrays, **kernels), None


def expect(options: Options, arrays: Sequence[Array], **shapes: tuple[int, ...]) -> Sequence[Array]:
    """The arrays, once their number and shapes are those that the layer's options call for."""
    expected = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
    if [array.shape for array in arrays] != list(shapes.values()):
        came = ", ".join(str(array.shape) for array in arrays[:12]) or "none"
        raise UnreadableFile(f"the {options} should have the arrays {expected}; the file has {came}")
    return arrays


def last_axis(options: Options, shapes: Sequence[Shape], rank: int | None = None) -> int:
    """The size of the input's last axis; `rank` is how many axes are wanted, the batch left out."""
    (shape,) = shapes
    if not shape or shape[-1] is None or (rank is not None and len(shape) != rank):
        wanted = "(timesteps, features)" if rank == 2 else "a last axis of known size"
        raise UnreadableFile(f"the {options} is given the shape {shape}, where {wanted} was expected")
    return shape[-1]


def channels_last(options: Options) -> None:
    """Refuse features that come before time, or before the axes of a picture."""
    options.refuse_unless("data_format", expected="channels_last", why="the features have to come last")


def plain_weights(options: Options) -> None:
    """Refuse a kernel that is quantized, or that LoRA has changed."""
    options.refuse_unless("quantization_config", expected=None, why=QUANTIZED)
    options.refuse_unless("lora_rank", expected=None, why="LoRA weights are not read")
    options.ignore("lora_alpha")


def numbers(options: Options, key: str) -> Array:
    """The option `key`, a number or a list of them, or NumPy numbers as Keras writes them."""
    value = options.take(key, object, default=0.0)
    if isinstance(value, dict):
        config = value.get("config")
        value = (config if isinstance(config, dict) else value).get("value")
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array(np.nan, np.float32)
    if not np.isfinite(numbers).all():
        raise UnreadableFile(f"the {options} has {key} = {str(value)[:40]!r}, where finite numbers were expected")
    return numbers


def kept_axes(options: Options, shapes: Sequence[Shape]) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    """The axes that the option `axis` keeps apart, where the batch is 0, and their sizes.

    Then these sizes with 1 between them, as they broadcast against x.
    """
    (shape,) = shapes
    axes = options.integers("axis", [-1])
    rank = len(shape) + 1
    if any(not -rank <= axis < rank for axis in axes):
        raise UnreadableFile(f"the {options} keeps the axes {axes} apart, of an input of the shape {shape}")
    axes = sorted({axis % rank for axis in axes})
    sizes = tuple(size for size in (shape[axis - 1] for axis in axes if axis > 0) if size is not None)
    if len(sizes) != len(axes):
        raise Unsupported(f"the {options} keeps the axes {axes} apart, where the size of one is not known")
    first = axes[0] if axes else rank
    return axes, sizes, tuple(sizes[axes.index(axis)] if axis in axes else 1 for axis in range(first, rank))


def check_output(options: Options, layer: Operation, shapes: Sequence[Shape]) -> None:
    """Refuse an output that is empty, or larger than a row may be."""
    for shape in layer.output_shapes(shapes):
        for size in shape:
            if size is not None and size < 1:
                raise UnreadableFile(f"the {options} would give an empty output for the input shape {shapes[0]}")
        if len(shape) > MAX_AXES:
            raise Unsupported(f"the {options} gives an output of {len(shape)} axes; at most {MAX_AXES} are supported")
        if math.prod(size or 1 for size in shape) > MAX_ROW:
            raise Unsupported(f"the {options} gives {shape}, more than {MAX_ROW} numbers for one row")
