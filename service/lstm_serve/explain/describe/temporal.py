"""What is to be said of the layers that see a sequence, or a row, as a whole."""

from lstm_serve.engine.operations.temporal import (
    Conv1D,
    Embedding,
    GlobalPooling1D,
    Masking,
    Permute,
    Pooling1D,
    RepeatVector,
    Reshape,
    Window,
)
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.activations import formulas, slips
from lstm_serve.explain.describe.description import Words, axes, unpacked
from lstm_serve.formats.text import shown

MASKED = (
    "At a masked step a recurrent layer keeps its states, and its output is the last one again, or 0 inside a "
    "Bidirectional of most Kerases. Computed without the mask, answers differ wherever there is padding."
)


def embedding(layer: Embedding, _: Shape) -> Words:
    """A table."""
    ids, width = layer.embeddings.shape
    masks = ["A step of id 0 is masked for the layers after it; its row is looked up all the same."]
    return Words(
        roles={"embeddings": f"a row of {width} numbers for each of {ids} ids"},
        way=[f"y_t = embeddings[x_t] for each id x_t, an integer from 0 to {ids - 1}", *masks * layer.mask_zero],
        slips=[
            f"{shown(layer.name)} takes ids from 0 to {ids - 1}, counted as they were in training.",
            *[MASKED] * layer.mask_zero,
        ],
        numpy=[unpacked(layer), *["mask = y != 0"] * layer.mask_zero, "y = embeddings[y]"],
    )


def masking(layer: Masking, _: Shape) -> Words:
    """A mask."""
    value = f"{layer.mask_value:g}"
    return Words(
        roles={},
        way=[f"A step at which every number is {value} is masked for the layers after it, and set to 0; else y = x."],
        slips=[
            f"{shown(layer.name)} masks the steps whose features are all {value}, not some of them.",
            MASKED,
        ],
        numpy=[f"mask = (y != np.float32({layer.mask_value!r})).any(axis=-1)", "y = y * mask[:, np.newaxis]"],
    )


def conv1d(layer: Conv1D, shape: Shape) -> Words:
    """Windows, and a product with each."""
    size, features, filters = layer.kernel.shape
    window = layer.window
    bias = "" if layer.bias is None else " + bias"
    span = (size - 1) * window.dilation + 1
    taken = f"y[t:t + {span}{f':{window.dilation}' if window.dilation > 1 else ''}]"
    return Words(
        roles={
            "kernel": f"for each of {size} steps of a window, from {features} features to {filters} filters",
            "bias": "added to the sums, one number a filter",
        },
        way=[
            *_windows(window, shape, "steps of 0"),
            f"s = the sum over k of x[window's step k] @ kernel[k]{bias}, with k from 0 to {size - 1}",
            f"y = {layer.activation.name}(s), a row a window",
            *formulas([layer.activation]),
        ],
        slips=[
            f"{shown(layer.name)}'s kernel is not turned round, as in np.convolve: kernel[0] meets the earliest step.",
            *slips([layer.activation]),
        ],
        activations=[layer.activation],
        numpy=[
            unpacked(layer),
            *_padded(window, shape, ""),
            f"windows = [{taken} for t in range(0, len(y) - {span - 1}, {window.stride})]",
            f"y = {layer.activation.name}(np.tensordot(windows, kernel, 2){bias})",
        ],
    )


def pooling(layer: Pooling1D, shape: Shape) -> Words:
    """Windows, and one number of each."""
    window = layer.window
    reduce = "nanmean" if layer.average else "nanmax"
    return Words(
        roles={},
        way=[
            *_windows(window, shape, "steps that do not count"),
            f"y = the {'mean' if layer.average else 'largest'} of each feature in each window, a row a window",
        ],
        slips=[f"{shown(layer.name)} divides by the number of steps that a window really has, padding left out."]
        * (layer.average and window.padding == "same"),
        numpy=[
            *_padded(window, shape, ", constant_values=np.nan"),
            f"windows = [y[t:t + {window.size}] for t in range(0, len(y) - {window.size - 1}, {window.stride})]",
            f"y = np.{reduce}(windows, axis=1)",
        ],
    )


def _windows(window: Window, shape: Shape, filler: str) -> list[str]:
    apart = f", {window.dilation} apart" if window.dilation > 1 else ""
    next_one = "1 step" if window.stride == 1 else f"{window.stride} steps"
    lines = [f"A window is {window.size} steps{apart}; each begins {next_one} after the one before."]
    if window.padding == "valid":
        return [*lines, "The first begins at the first step, and steps that fill no window are left out."]
    padding = _padding(window, shape)
    if padding is None:
        return [
            *lines,
            f"x is padded with {filler} so that ceil(steps / {window.stride}) fit, the smaller half in front.",
        ]
    return [*lines, f"x is padded with {filler}: {padding[0]} in front, {padding[1]} behind."]


def _padding(window: Window, shape: Shape) -> tuple[int, int] | None:
    """Steps to add in front and behind; None where the number of steps is free."""
    span = (window.size - 1) * window.dilation
    if window.padding != "same":
        return (span if window.padding == "causal" else 0), 0
    timesteps, windows = shape[0], window.count(shape[0])
    if timesteps is None or windows is None:
        return None
    total = max((windows - 1) * window.stride + span + 1 - timesteps, 0)
    return total // 2, total - total // 2


def _padded(window: Window, shape: Shape, filled: str) -> list[str]:
    """Lines of NumPy that pad y as the window asks."""
    padding = _padding(window, shape)
    if padding == (0, 0):
        return []
    if padding is not None:
        return [f"y = np.pad(y, ({padding}, (0, 0)){filled})"]
    stride, span = window.stride, (window.size - 1) * window.dilation
    return [
        f"pad = max((-(-len(y) // {stride}) - 1) * {stride} + {span + 1} - len(y), 0)",
        f"y = np.pad(y, ((pad // 2, pad - pad // 2), (0, 0)){filled})",
    ]


def global_pooling(layer: GlobalPooling1D, _: Shape) -> Words:
    """One number for a feature."""
    what = "mean" if layer.average else "max"
    return Words(
        roles={},
        way=[f"y = the {'mean' if layer.average else 'largest'} of each feature over all steps"],
        slips=[
            f"{shown(layer.name)} "
            + ("leaves masked steps out, where there is a mask." if layer.average else "counts masked steps too.")
        ],
        numpy=[f"y = y.{what}(axis=0{', keepdims=True' * layer.keepdims})"],
        masked=[f"y = y[mask].mean(axis=0{', keepdims=True' * layer.keepdims})"] if layer.average else None,
    )


def repeat_vector(layer: RepeatVector, _: Shape) -> Words:
    """A row again and again."""
    return Words(
        roles={},
        way=[f"y = x, {layer.n} times over, a step each"],
        numpy=[f"y = np.repeat(y[np.newaxis], {layer.n}, axis=0)"],
    )


def reshape(layer: Reshape, _: Shape) -> Words:
    """Another shape."""
    return Words(
        roles={},
        way=[f"y = the numbers of x in their order, the last axis fastest, as {axes(layer.target)}"],
        numpy=[f"y = y.reshape({layer.target})"],
    )


def permute(layer: Permute, _: Shape) -> Words:
    """Axes in another order."""
    order = tuple(dim - 1 for dim in layer.dims)
    return Words(
        roles={},
        way=[f"y = x with its axes in the order {axes(layer.dims)}, counted from 1, the batch left out"],
        numpy=[f"y = y.transpose{order}"],
    )
