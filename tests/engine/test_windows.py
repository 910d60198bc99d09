"""Convolutions and pooling along several axes, against their plain definitions in float64."""

import math
import tracemalloc
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import numbers, run

from lstm_serve.engine.activations import LINEAR
from lstm_serve.engine.operations import windows
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window

Doubles = npt.NDArray[np.float64]


def held(x: Doubles, cut: tuple[Window, ...]) -> Doubles:
    """What each window has, (b, *windows, *steps in each, features), NaN where it is outside."""
    b, *sizes, features = x.shape
    made = [math.ceil((size - (w.span if w.padding == "valid" else 0)) / w.stride)
            for w, size in zip(cut, sizes, strict=True)]  # fmt: skip
    y = np.full((b, *made, *(w.size for w in cut), features), np.nan)
    at: Any
    for at in product(*(range(n) for n in made)):
        step: Any
        for step in product(*(range(w.size) for w in cut)):
            place: list[Any] = []
            for w, size, n, k, i in zip(cut, sizes, made, step, at, strict=True):
                total = max((n - 1) * w.stride + w.span + 1 - size, 0)
                before = {"valid": 0, "same": total // 2, "causal": w.span}[w.padding]
                place.append(i * w.stride + k * w.dilation - before)
            if all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
                y[:, *at, *step] = x[:, *place]
    return y


axes = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.builds(
            Window,
            size=st.integers(1, 4),
            stride=st.integers(1, 3),
            dilation=st.integers(1, 2),
            padding=st.sampled_from(["valid", "same", "causal"]),
        ),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(axes=axes, groups=st.integers(1, 3), wide=st.integers(1, 2), at_once=st.sampled_from([1, 30, 1 << 20]))
def test_windows_along_axes_are_as_defined(axes: Any, groups: int, wide: int, at_once: int) -> None:
    sizes, cut = [size for size, _ in axes], tuple(window for _, window in axes)
    if any((window.count(size) or 0) < 1 for size, window in axes):
        return
    x = numbers(2, *sizes, groups * wide, seed=1)
    taken = held(x.astype(float), cut)
    n = len(cut)
    kernel = numbers(*(window.size for window in cut), wide, 2 * groups, seed=2)
    layer = Convolution(
        name="c", kernel=kernel, bias=numbers(2 * groups), windows=cut, groups=groups, activation=LINEAR
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(windows, "AT_ONCE", at_once)
        y, mask = run(layer, [x], [None])
    parts = zip(np.split(np.nan_to_num(taken), groups, -1), np.split(kernel.astype(float), groups, -1), strict=True)
    over = [*range(n + 1, 2 * n + 2)]
    expected = np.concatenate([np.tensordot(part, k, (over, [*range(n + 1)])) for part, k in parts], -1)
    np.testing.assert_allclose(y, expected + numbers(2 * groups), atol=1e-5)
    assert y.shape[1:] == layer.output_shapes([x.shape[1:]])[0]
    assert mask is None
    if any(window.padding == "causal" or window.dilation > 1 for window in cut):
        return  # no pooling has those, and a window of padding alone has no number
    inside = tuple(range(n + 1, 2 * n + 1))
    np.testing.assert_array_equal(run(Pooling(name="p", windows=cut, average=False), [x], [None])[0],
                                  np.nanmax(taken, axis=inside).astype(np.float32))  # fmt: skip
    mean, _ = run(Pooling(name="p", windows=cut, average=True), [x], [None])
    np.testing.assert_allclose(mean, np.nanmean(taken, axis=inside), atol=1e-5)


def test_a_large_kernel_on_a_large_picture_takes_little_memory() -> None:
    """All windows at once would hold 233 MB."""
    cut = (Window(size=9, padding="same"),) * 2
    layer = Convolution(name="c", kernel=numbers(9, 9, 8, 1), bias=None, windows=cut, activation=LINEAR)
    x = numbers(1, 300, 300, 8)
    tracemalloc.start()
    try:
        run(layer, [x], [None])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 4 * windows.AT_ONCE
