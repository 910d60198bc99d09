"""What is to be said of the layers that see a sequence, or a row, as a whole."""

from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.description import LayerDescription, axes, weights_line
from lstm_serve.formats.text import shown

MASKED = (
    "At a masked step a recurrent layer keeps its states, and its output is the last one again, or 0 inside a "
    "Bidirectional of most Kerases. Computed without the mask, answers differ wherever there is padding."
)


def embedding(layer: Embedding, _: Shape) -> LayerDescription:
    """A table."""
    ids, width = layer.embeddings.shape
    if not layer.learnt:
        return LayerDescription(
            roles={},
            equations=[
                f"y = {ids} numbers for each id, an integer from 0 to {ids - 1}: 1 in the id's place, 0 elsewhere"
            ],
            numpy=[f"y = np.eye({ids}, dtype=np.float32)[y]"],
        )
    masks = ["A step of id 0 is masked for the layers after it; its row is looked up all the same."]
    return LayerDescription(
        roles={"embeddings": f"a row of {width} numbers for each of {ids} ids"},
        equations=[f"y_t = embeddings[x_t] for each id x_t, an integer from 0 to {ids - 1}", *masks * layer.mask_zero],
        pitfalls=[
            f"{shown(layer.name)} takes ids from 0 to {ids - 1}, counted as they were in training.",
            *[MASKED] * layer.mask_zero,
        ],
        numpy=[weights_line(layer), *["mask = y != 0"] * layer.mask_zero, "y = embeddings[y]"],
    )


def masking(layer: Masking, _: Shape) -> LayerDescription:
    """A mask."""
    value = f"{layer.mask_value:g}"
    return LayerDescription(
        roles={},
        equations=[
            f"A step at which every number is {value} is masked for the layers after it, and set to 0; else y = x."
        ],
        pitfalls=[
            f"{shown(layer.name)} masks the steps whose features are all {value}, not some of them.",
            MASKED,
        ],
        numpy=[f"mask = (y != np.float32({layer.mask_value!r})).any(axis=-1)", "y = y * mask[:, np.newaxis]"],
    )


def global_pooling(layer: GlobalPooling1D, _: Shape) -> LayerDescription:
    """One number for a feature."""
    what = "mean" if layer.average else "max"
    return LayerDescription(
        roles={},
        equations=[f"y = the {'mean' if layer.average else 'largest'} of each feature over all steps"],
        pitfalls=[
            f"{shown(layer.name)} "
            + ("leaves masked steps out, where there is a mask." if layer.average else "counts masked steps too.")
        ],
        numpy=[f"y = y.{what}(axis=0{', keepdims=True' * layer.keepdims})"],
        masked=[f"y = y[mask].mean(axis=0{', keepdims=True' * layer.keepdims})"] if layer.average else None,
    )


def repeat_vector(layer: RepeatVector, _: Shape) -> LayerDescription:
    """A row again and again."""
    return LayerDescription(
        roles={},
        equations=[f"y = x, {layer.n} times over, a step each"],
        numpy=[f"y = np.repeat(y[np.newaxis], {layer.n}, axis=0)"],
    )


def reshape(layer: Reshape, _: Shape) -> LayerDescription:
    """Another shape."""
    return LayerDescription(
        roles={},
        equations=[f"y = the numbers of x in their order, the last axis fastest, as {axes(layer.target)}"],
        numpy=[f"y = y.reshape({layer.target})"],
    )


def permute(layer: Permute, _: Shape) -> LayerDescription:
    """Axes in another order."""
    order = tuple(dim - 1 for dim in layer.dims)
    return LayerDescription(
        roles={},
        equations=[f"y = x with its axes in the order {axes(layer.dims)}, counted from 1, the batch left out"],
        numpy=[f"y = y.transpose{order}"],
    )
