"""What is to be said of what slides over a sequence, or over the axes of a picture."""

from collections.abc import Sequence

from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.activations import formulas, pitfalls
from lstm_serve.explain.describe.description import LayerDescription, weights_line
from lstm_serve.formats.text import shown


def convolution(layer: Convolution, shape: Shape) -> LayerDescription:
    """Windows, and a product with each."""
    *sizes, features, filters = layer.kernel.shape
    n, groups = len(sizes), layer.groups
    bias = "" if layer.bias is None else " + bias"
    taken, of_kernel = [*range(n + 1, 2 * n + 1), n], [*range(n + 1)]
    product = f"np.tensordot(windows, kernel, ({taken}, {of_kernel}))"
    parts = []
    if groups > 1:
        parts = [f"parts = zip(np.split(windows, {groups}, axis={n}), np.split(kernel, {groups}, axis=-1))"]
        product = f"np.concatenate([np.tensordot(w, k, ({taken}, {of_kernel})) for w, k in parts], axis=-1)"
    grouped = f", in {groups} groups: each {features} features meet {filters // groups} filters" if groups > 1 else ""
    return LayerDescription(
        roles={
            "kernel": f"for each of {_times(sizes)} steps of a window, from {features * groups} features to {filters} "
            f"filters{grouped}",
            "bias": "added to the sums, one number a filter",
        },
        equations=[
            *_windows(layer.windows, shape, "steps of 0"),
            f"s = the sum over k of x[window's step k] @ kernel[k]{bias}, k being each of a window's steps",
            f"y = {layer.activation.name}(s), a row a window",
            *formulas([layer.activation]),
        ],
        pitfalls=[
            f"{shown(layer.name)}'s kernel is not turned round, as in np.convolve: kernel[0] meets the earliest step.",
            *pitfalls([layer.activation]),
        ],
        activations=[layer.activation],
        numpy=[
            weights_line(layer),
            *_padded(layer.windows, shape, ""),
            *_cut(layer.windows),
            *parts,
            f"y = {layer.activation.name}({product}{bias})",
        ],
    )


def conv_lstm(layer: ConvLSTM, shape: Shape) -> LayerDescription:
    """An LSTM of pictures."""
    *sizes, features, columns = layer.kernel.shape
    gate, activation = layer.recurrent_activation.name, layer.activation.name
    bias = "" if layer.bias is None else " + bias"
    order = "from the last step to the first" if layer.go_backwards else "from the first step to the last"
    return LayerDescription(
        roles={
            "kernel": f"for each of {_times(sizes)} places of a window, from {features} features to 4 gates of "
            f"{columns // 4} filters, in the order i, f, c, o",
            "recurrent_kernel": "the same from the h of the step before, padded so that h stays as large",
            "bias": "added to the sums, one number a filter of each gate",
        },
        equations=[
            f"h and c are 0; for each x_t {order}, with * for a convolution:",
            *_windows(layer.windows, shape[1:], "places of 0"),
            f"  z = x_t * kernel + h * recurrent_kernel{bias}",
            f"  i, f, o = {gate}(z_i), {gate}(z_f), {gate}(z_o)",
            f"  c = f c + i {activation}(z_c)",
            f"  h = o {activation}(c)",
            f"y = {'h of each step' if layer.return_sequences else 'the last h'}",
            *formulas([layer.activation, layer.recurrent_activation]),
        ],
        pitfalls=[
            f"{shown(layer.name)}'s h is padded with 0 at each step, whatever the padding of x is.",
            *pitfalls([layer.activation, layer.recurrent_activation]),
        ],
    )


def pooling(layer: Pooling, shape: Shape) -> LayerDescription:
    """Windows, and one number of each."""
    reduce = "nanmean" if layer.average else "nanmax"
    n = len(layer.windows)
    same = any(window.padding == "same" for window in layer.windows)
    return LayerDescription(
        roles={},
        equations=[
            *_windows(layer.windows, shape, "steps that do not count"),
            f"y = the {'mean' if layer.average else 'largest'} of each feature in each window, a row a window",
        ],
        pitfalls=[f"{shown(layer.name)} divides by the number of steps that a window really has, padding left out."]
        * (layer.average and same),
        numpy=[
            *_padded(layer.windows, shape, ", constant_values=np.nan"),
            *_cut(layer.windows),
            f"y = np.{reduce}(windows, axis={tuple(range(n + 1, 2 * n + 1))})",
        ],
    )


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _windows(windows: Sequence[Window], shape: Shape, filler: str) -> list[str]:
    if len(windows) == 1:
        return _along(windows[0], shape[0], filler)
    return [
        f"Along axis {k}: {line}"
        for k, (window, size) in enumerate(zip(windows, shape, strict=False), 1)
        for line in _along(window, size, filler)
    ]


def _along(window: Window, size: int | None, filler: str) -> list[str]:
    apart = f", {window.dilation} apart" if window.dilation > 1 else ""
    next_one = "1 step" if window.stride == 1 else f"{window.stride} steps"
    lines = [f"A window is {window.size} steps{apart}; each begins {next_one} after the one before."]
    if window.padding == "valid":
        return [*lines, "The first begins at the first step, and steps that fill no window are left out."]
    padding = _padding(window, size)
    if padding is None:
        return [
            *lines,
            f"x is padded with {filler} so that ceil(steps / {window.stride}) fit, the smaller half in front.",
        ]
    return [*lines, f"x is padded with {filler}: {padding[0]} in front, {padding[1]} behind."]


def _padding(window: Window, size: int | None) -> tuple[int, int] | None:
    """Steps to add in front and behind; None where the number of steps is free."""
    return None if size is None and window.padding == "same" else window.padded(size or 0)


def _padded(windows: Sequence[Window], shape: Shape, filled: str) -> list[str]:
    """Lines of NumPy that pad y as the windows ask."""
    lines, pads = [], []
    for k, (window, size) in enumerate(zip(windows, shape, strict=False)):
        padding = _padding(window, size)
        if padding is None:
            length = f"y.shape[{k}]"
            fitting = f"(-(-{length} // {window.stride}) - 1) * {window.stride} + {window.span + 1} - {length}"
            lines.append(f"pad{k} = max({fitting}, 0)")
        pads.append(f"(pad{k} // 2, pad{k} - pad{k} // 2)" if padding is None else str(padding))
    if set(pads) == {"(0, 0)"}:
        return []
    return [*lines, f"y = np.pad(y, ({', '.join([*pads, '(0, 0)'])}){filled})"]


def _cut(windows: Sequence[Window]) -> list[str]:
    """A line of NumPy: the windows of y, (*windows, features, *steps in each)."""
    spans, axes = (tuple(window.span + 1 for window in windows), tuple(range(len(windows))))
    parts = [f"::{window.stride}" for window in windows], [f"::{window.dilation}" for window in windows]
    chosen = ", ".join([*parts[0], ":", *parts[1]])
    at = f"[{chosen}]" if {*parts[0], *parts[1]} != {"::1"} else ""
    return [f"windows = np.lib.stride_tricks.sliding_window_view(y, {spans}, {axes}){at}"]
