"""Whether the arrays and the input of a layer fit its options: the checks that every layer's builder makes."""

from collections.abc import Sequence

from service.engine.activations import Array
from service.engine.recurrent import Shape
from service.errors import UnreadableFile
from service.loading.keras_json import Options


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
