import math
from collections.abc import Callable

import numpy as np
import pytest

from lstm_serve.engine.activations import (
    ACTIVATIONS,
    HARD_SIGMOID_KERAS_2,
    HARD_SIGMOID_KERAS_3,
    RELU,
    celu,
    elu,
    leaky_relu,
    relu,
)


def _softplus(v: float) -> float:
    return max(v, 0) + math.log1p(math.exp(-abs(v)))


def _clip(v: float, low: float, high: float) -> float:
    return min(max(v, low), high)


# Of one number, in float64: what keras/src/activations/activations.py says.
PLAIN: dict[str, Callable[[float], float]] = {
    "linear": lambda v: v,
    "tanh": math.tanh,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "relu": lambda v: max(v, 0),
    "relu6": lambda v: _clip(v, 0, 6),
    "elu": lambda v: v if v > 0 else math.expm1(v),
    "celu": lambda v: v if v > 0 else math.expm1(v),
    "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * math.expm1(v)),
    "softplus": _softplus,
    "softsign": lambda v: v / (1 + abs(v)),
    "silu": lambda v: v / (1 + math.exp(-v)),
    "swish": lambda v: v / (1 + math.exp(-v)),
    "exponential": math.exp,
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "mish": lambda v: v * math.tanh(_softplus(v)),
    "hard_silu": lambda v: v * _clip(v + 3, 0, 6) / 6,
    "hard_swish": lambda v: v * _clip(v + 3, 0, 6) / 6,
    "leaky_relu": lambda v: v if v > 0 else 0.2 * v,
    "hard_tanh": lambda v: _clip(v, -1, 1),
    "tanh_shrink": lambda v: v - math.tanh(v),
    "log_sigmoid": lambda v: -_softplus(-v),
    "soft_shrink": lambda v: v - 0.5 if v > 0.5 else v + 0.5 if v < -0.5 else 0,
    "hard_shrink": lambda v: v if abs(v) > 0.5 else 0,
    "sparse_plus": lambda v: 0 if v <= -1 else (v + 1) ** 2 / 4 if v < 1 else v,
    "sparse_sigmoid": lambda v: _clip((v + 1) / 2, 0, 1),
    "squareplus": lambda v: (v + math.sqrt(v * v + 4)) / 2,
}
XS = np.concatenate([np.linspace(-12, 12, 401), [0.5, -0.5, 1, -1, 0, -0.0, 1e-7, -1e-7]]).astype(np.float32)


@pytest.mark.parametrize("name", PLAIN)
def test_is_the_function_of_its_name(name: str) -> None:
    expected = np.array([PLAIN[name](float(v)) for v in XS])
    np.testing.assert_allclose(ACTIVATIONS[name].apply(XS.copy()), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_works_in_place_on_any_shape(name: str) -> None:
    x = np.random.default_rng(1).normal(0, 2, (3, 4)).astype(np.float32)
    apart = np.stack([ACTIVATIONS[name].apply(row.copy()) for row in x])
    y = ACTIVATIONS[name].apply(x)
    assert y is x
    np.testing.assert_allclose(y, apart, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_large_numbers_give_no_nan(name: str) -> None:
    with np.errstate(all="ignore"):
        y = ACTIVATIONS[name].apply(np.array([[-1e4, -100, 100, 1e4]], np.float32))
    assert not np.isnan(y).any()


def test_softmax_and_its_logarithm_go_over_the_last_axis() -> None:
    x = np.random.default_rng(2).normal(0, 3, (2, 3, 4)).astype(np.float32)
    expected = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(ACTIVATIONS["softmax"].apply(x.copy()), expected, rtol=1e-5)
    np.testing.assert_allclose(ACTIVATIONS["log_softmax"].apply(x.copy()), np.log(expected), rtol=1e-4, atol=1e-6)
    assert ACTIVATIONS["softmax_v2"] is ACTIVATIONS["softmax"]


@pytest.mark.parametrize("width", [1, 2, 7])
def test_sparsemax_is_that_of_keras(width: int) -> None:
    """Of sums, where the function of this name elsewhere has the numbers themselves."""
    x = np.array([[0.3, 0.11, -0.2, 0.9]], np.float32)
    np.testing.assert_allclose(
        ACTIVATIONS["sparsemax"].apply(x), [[0, 0, 0, 0.9 - (0.9 + 1.2 + 1.31 - 1) / 3]], atol=1e-6
    )
    x = np.random.default_rng(3).normal(0, 1, (50, width)).astype(np.float32)
    x[1], x[2, :2] = 3, 0.25
    expected = []
    for row in x.astype(np.float64):
        falling = np.sort(row)[::-1]
        counts = np.arange(1, width + 1)
        enough = falling - (np.cumsum(falling) - 1) / counts > 0
        expected.append(np.maximum(row - (np.cumsum(falling)[enough].sum() - 1) / enough.sum(), 0))
    np.testing.assert_allclose(ACTIVATIONS["sparsemax"].apply(x.copy()), expected, atol=1e-6)


def test_hard_sigmoid_is_two_functions() -> None:
    x = np.array([-4, -2.6, -1, 0, 1, 2.6, 4], np.float32)
    np.testing.assert_allclose(HARD_SIGMOID_KERAS_2.apply(x.copy()), np.clip(0.2 * x + 0.5, 0, 1))
    np.testing.assert_allclose(HARD_SIGMOID_KERAS_3.apply(x.copy()), np.clip(x + 3, 0, 6) / 6)


def test_relu_has_a_ceiling_a_slope_and_a_threshold() -> None:
    assert relu() is RELU
    x = np.array([-2, 0.5, 1, 1.5, 3], np.float32)
    y = relu(max_value=2, negative_slope=0.1, threshold=1).apply(x.copy())
    np.testing.assert_allclose(y, [-0.3, -0.05, 1, 1.5, 2], rtol=1e-6)
    np.testing.assert_allclose(relu(max_value=2).apply(x.copy()), [0, 0.5, 1, 1.5, 2])


def test_slopes_and_scales_are_taken() -> None:
    x = np.array([-2, 3], np.float32)
    np.testing.assert_allclose(leaky_relu(0.3).apply(x.copy()), [-0.6, 3], rtol=1e-6)
    np.testing.assert_allclose(elu(0.5).apply(x.copy()), [0.5 * math.expm1(-2), 3], rtol=1e-6)
    np.testing.assert_allclose(celu(0.5).apply(x.copy()), [0.5 * math.expm1(-4), 3], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_says_its_formula(name: str) -> None:
    assert "x" in ACTIVATIONS[name].formula
