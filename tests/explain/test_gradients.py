"""The gradient of each operation is that of central differences in float64, or a reason says why there is none."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from every_activation import EVERY_ACTIVATION
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ACTIVATION_OF_LAYER, dense, lstm, numbers

from lstm_serve.engine.activations import (
    ACTIVATIONS,
    LINEAR,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
    relu,
)
from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2 as HARD_2
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations import OPERATIONS
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.masks import gives_mask
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import (
    Activate,
    BatchNormalization,
    Identity,
    LayerNormalization,
    Normalization,
    PReLU,
    Rescaling,
    Scaling,
    Unscaling,
)
from lstm_serve.engine.operations.recurrent import GRU, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wiring import INPUT, Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.explain.gradients.table import TABLE, backward, forward, why_not
from lstm_serve.explain.gradients.tape import in_one

STEPS, WIDTH = 5, 3
SEQUENCE = (STEPS, WIDTH)


def gru(*, reset_after: bool = True, activation: Activation = TANH, features: int = WIDTH, **options: Any) -> GRU:
    return GRU(
        name="g",
        kernel=numbers(features, 12, seed=1),
        recurrent_kernel=numbers(4, 12, seed=2),
        bias=numbers(*([2] * reset_after), 12, seed=3),
        reset_after=reset_after,
        activation=activation,
        **{"recurrent_activation": SIGMOID, **options},
    )


def rnn(activation: Activation = TANH, *, bias: bool = True, **options: Any) -> SimpleRNN:
    return SimpleRNN(
        name="r",
        kernel=numbers(WIDTH, 4, seed=1),
        recurrent_kernel=numbers(4, 4, seed=2),
        bias=numbers(4, seed=3) if bias else None,
        activation=activation,
        **options,
    )


def both(layer: Any, merge_mode: Any, **options: Any) -> Bidirectional:
    return Bidirectional(
        name="b",
        forward=layer(**options),
        backward=layer(go_backwards=True, **options),
        merge_mode=merge_mode,
    )


def conv(activation: Activation = TANH, *, groups: int = 1, axes: int = 1, **options: Any) -> Convolution:
    windows = tuple(Window(**{"size": 3 - k, **options}) for k in range(axes))
    return Convolution(
        name="c",
        kernel=numbers(*(window.size for window in windows), WIDTH // groups, 2 * WIDTH),
        bias=numbers(2 * WIDTH, seed=2),
        activation=activation,
        windows=windows,
        groups=groups,
    )


def pool(*, average: bool, axes: int = 1, **options: Any) -> Pooling:
    windows = (Window(**{"size": 2, "stride": 2, **options}),) * axes
    return Pooling(name="p", windows=windows, average=average)


def merged(join: np.ufunc, *, mean: bool = False, rule: MaskRule = MaskRule.ALL) -> Merge:
    return Merge(name="m", join=join, mean=mean, mask_rule=rule)


def binary(function: np.ufunc, constant: Any = None, *, first: bool = False) -> Binary:
    return Binary(name="b", function=function, constant=constant, constant_first=first)


def reduced(function: Any, axes: tuple[int, ...] = (1,), *, keepdims: bool = False) -> Reduce:
    return Reduce(name="r", function=function, axes=axes, keepdims=keepdims)


def normalized(*shape: int) -> list[Any]:
    mean, variance = numbers(*shape), np.abs(numbers(*shape)) + np.float32(0.1)
    return [
        PReLU(name="p", alpha=mean),
        Normalization(name="n", mean=mean, variance=variance),
        BatchNormalization(name="b", gamma=None, beta=mean, mean=mean, variance=variance, epsilon=0.1),
        BatchNormalization(name="b", gamma=mean, beta=None, mean=mean, variance=variance, epsilon=0.1),
    ]


STATES = (SEQUENCE, (4,))
# The operation, and the shapes of its inputs.
CASES: list[tuple[Any, tuple[tuple[int, ...], ...]]] = [
    *((op, (SEQUENCE,)) for op in normalized(WIDTH)),
    *((op, (SEQUENCE,)) for op in normalized(1, STEPS, 1)),
    *(
        (op, (SEQUENCE,))
        for op in (
            Identity(name="i"),
            dense(WIDTH, 4, SOFTMAX),
            dense(WIDTH, 4, ACTIVATIONS["gelu"]),
            Activate(name="a", activation=SIGMOID),
            Rescaling(name="r", scale=numbers(WIDTH), offset=numbers(1)),
            LayerNormalization(name="l", gamma=numbers(WIDTH), beta=numbers(WIDTH), epsilon=0.01),
            LayerNormalization(name="l", gamma=None, beta=None, epsilon=0.01),
            Scaling(name="s", offset=np.array([1.0, 2, 3]), scale=np.array([1.0, 2, 3])),
            Unscaling(name="u", offset=np.array([1.0]), scale=np.array([2.0])),
            Masking(name="m", mask_value=0.0),
            conv(),
            conv(stride=2),
            conv(groups=3),
            conv(padding="same", stride=2),
            conv(ACTIVATIONS["silu"], padding="causal", dilation=2),
            pool(average=True),
            pool(average=False),
            pool(average=True, size=3, stride=1, padding="same"),
            pool(average=False, size=3, stride=1, padding="same"),
            *(GlobalPooling1D(name="p", average=average, keepdims=average) for average in (True, False)),
            Reshape(name="r", target=(-1,)),
            Permute(name="p", dims=(2, 1)),
            Slice(name="s", slices=(slice(-1, None), slice(None))),
            Slice(name="s", slices=(slice(None, None, -2), slice(1, None))),
            binary(np.add, numbers(WIDTH)),
            binary(np.subtract, numbers(STEPS, 1), first=True),
            binary(np.multiply, numbers(STEPS, WIDTH)),
            binary(np.true_divide, numbers(WIDTH), first=True),
            binary(np.true_divide, numbers(WIDTH)),
            binary(np.maximum, np.array(0.1, np.float32)),
            binary(np.minimum, np.array(0.1, np.float32), first=True),
            binary(np.power, np.array(3, np.float32)),
            binary(np.power, np.array(0, np.float32)),
            binary(np.power, np.array(2, np.float32), first=True),
            *(reduced(function, keepdims=keep) for function in ("mean", "sum", "max", "min") for keep in (True, False)),
            reduced("mean", (1, 2)),
            reduced("max", (2,)),
            lstm(WIDTH, 4),
            lstm(WIDTH, 4, bias=False, return_sequences=True, go_backwards=True),
            lstm(WIDTH, 4, activation=ACTIVATIONS["gelu"], recurrent_activation=HARD_2, return_sequences=True),
            lstm(WIDTH, 4, return_sequences=True, zero_output_for_mask=True),
            lstm(WIDTH, 4, zero_output_for_mask=True, go_backwards=True),
            lstm(WIDTH, 4, ignores_mask=True),
            *(gru(reset_after=after) for after in (True, False)),
            *(gru(reset_after=after, return_sequences=True, go_backwards=True) for after in (True, False)),
            *(gru(reset_after=after, activation=ACTIVATIONS["mish"]) for after in (True, False)),
            rnn(),
            rnn(relu(), bias=False, return_sequences=True),
            rnn(ACTIVATIONS["silu"], go_backwards=True),
            both(lambda **options: lstm(WIDTH, 4, **options), "concat"),
            both(lambda **options: lstm(WIDTH, 4, **options), "concat", return_sequences=True),
            both(gru, "mul", return_sequences=True),
            both(rnn, "ave"),
            both(gru, "sum"),
            Stacked(name="s", layers=(lstm(WIDTH, 4, return_sequences=True, go_backwards=True), gru(features=4))),
            TimeDistributed.of(name="t", layer=dense(WIDTH, 2, TANH)),
            TimeDistributed(
                name="t",
                nodes=(
                    Node(dense(WIDTH, 2, TANH), (Source(INPUT),)),
                    Node(reduced("sum"), (Source(INPUT),)),
                    Node(Reshape(name="r", target=(1,)), (Source(1),)),
                    Node(Concatenate(name="c", axis=1, mask_rule=MaskRule.ALL), (Source(0), Source(2))),
                ),
                end=Source(3),
            ),
        )
    ),
    (TimeDistributed.of(name="t", layer=conv()), ((2, *SEQUENCE),)),
    (conv(axes=2), ((*SEQUENCE, WIDTH),)),
    (conv(ACTIVATIONS["gelu"], axes=2, groups=3, stride=2, padding="same"), ((*SEQUENCE, WIDTH),)),
    (conv(axes=3), ((*SEQUENCE, 2, WIDTH),)),
    *((pool(average=average, axes=2), ((*SEQUENCE, 2),)) for average in (True, False)),
    *((pool(average=average, axes=2, stride=1, padding="same"), ((*SEQUENCE, 2),)) for average in (True, False)),
    (RepeatVector(name="r", n=3), ((WIDTH,),)),
    (lstm(WIDTH, 4, return_state=True, return_sequences=True), (*STATES, (4,))),
    (gru(return_state=True), STATES),
    (both(gru, "concat", return_state=True, return_sequences=True), (*STATES, (4,))),
    *((merged(join), (SEQUENCE,) * 3) for join in (np.add, np.multiply, np.maximum, np.minimum)),
    *((merged(join, rule=MaskRule.ANY), (SEQUENCE,) * 3) for join in (np.multiply, np.maximum, np.minimum)),
    (merged(np.subtract), (SEQUENCE,) * 2),
    (merged(np.add, mean=True), (SEQUENCE, (1, WIDTH))),
    (Concatenate(name="c", axis=1, mask_rule=MaskRule.ALL), (SEQUENCE, SEQUENCE)),
    (Concatenate(name="c", axis=2, mask_rule=MaskRule.ALL), (SEQUENCE, SEQUENCE)),
    *((MaskedBy(name="m", zeroed=zeroed), (SEQUENCE, SEQUENCE)) for zeroed in (True, False)),
    *(
        (binary(function), (SEQUENCE, (1, WIDTH)))
        for function in (np.add, np.subtract, np.multiply, np.true_divide, np.maximum, np.minimum, np.power)
    ),
    (MatMul(name="m"), (SEQUENCE, (WIDTH, 2))),
    (MatMul(name="m"), ((2, *SEQUENCE), (1, WIDTH, 2))),
]


def wide(value: Any) -> Any:
    """An operation with arrays of float64."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    if isinstance(value, tuple):
        made = map(wide, value)
        return value._make(made) if hasattr(value, "_make") else tuple(made)
    if is_dataclass(value) and not isinstance(value, type | Activation):
        return replace(value, **{field.name: wide(getattr(value, field.name)) for field in fields(value)})
    return value


def hold(op: Any, xs: Sequence[Any], masks: Sequence[Any], rng: np.random.Generator) -> None:
    """The gradients of a weighted sum of the outputs say how it changes along a line, as the differences do."""
    step = in_one(forward(op, xs, masks))
    ys, passed = op(xs, masks)
    for one, other in zip((*step.ys, *step.given), (*ys, *passed), strict=True):
        np.testing.assert_array_equal(one, other)
    weights = [rng.normal(size=y.shape) for y in ys]
    lines = [rng.normal(size=x.shape) for x in xs]
    # What rounds to float32, as the card's scaling does, is linear.
    size = 0.5 if isinstance(op, Scaling | Unscaling) else 1e-6

    def along(sign: int) -> float:
        moved, _ = op([x + sign * size * line for x, line in zip(xs, lines, strict=True)], masks)
        return float(sum((weight * y).sum() for weight, y in zip(weights, moved, strict=True)))

    found = in_one(backward(step, weights))
    assert len(found) == len(xs)
    assert all(g is None or g.shape == x.shape for g, x in zip(found, xs, strict=True))
    given_by = sum((g * line).sum() for g, line in zip(found, lines, strict=True) if g is not None)
    assert given_by == pytest.approx((along(1) - along(-1)) / (2 * size), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.parametrize("masked", [False, True])
@settings(derandomize=True, max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_a_gradient_is_that_of_central_differences(
    op: Any, shapes: tuple[tuple[int, ...], ...], seed: int, n: int, *, masked: bool
) -> None:
    rng = np.random.default_rng(seed)
    xs = [rng.normal(size=(n, *shape)) for shape in shapes]
    if isinstance(op, Binary) and op.function is np.power:
        xs = [np.abs(x) + 0.1 for x in xs]
    masks = [rng.random((n, STEPS)) < 0.6 if masked and shape == SEQUENCE else None for shape in shapes]
    if isinstance(op, GlobalPooling1D) and masks[0] is not None:
        masks[0][:, 0] = True
    with np.errstate(all="raise", under="ignore"):
        hold(wide(op), xs, masks, rng)


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=lambda each: getattr(each, "name", ""))
def test_where_a_mask_goes_is_known_beforehand(op: Any, shapes: tuple[tuple[int, ...], ...]) -> None:
    xs = [np.ones((1, *shape), np.float32) for shape in shapes]
    for masked in product((False, True), repeat=sum(len(shape) > 1 for shape in shapes)):
        given = [*masked, *(False for _ in range(len(shapes) - len(masked)))]
        masks = [np.ones(x.shape[:2], np.bool_) if there else None for x, there in zip(xs, given, strict=True)]
        _, passed = op(xs, masks)
        assert gives_mask(op, given) == (passed[0] is not None), given


@pytest.mark.parametrize(
    ("op", "count"),
    [
        (pool(average=False, axes=1), 1),
        (pool(average=False, stride=1, padding="same"), 1),
        (GlobalPooling1D(name="p", average=False, keepdims=False), 1),
        (reduced("max"), 1),
        (reduced("min", keepdims=True), 1),
        (merged(np.maximum), 3),
        (merged(np.minimum, rule=MaskRule.ANY), 2),
        (binary(np.maximum), 2),
        (binary(np.minimum), 2),
    ],
)
def test_where_several_are_the_extreme_they_have_its_gradient_once(op: Any, count: int) -> None:
    step = in_one(forward(op, [np.ones((2, *SEQUENCE), np.float32)] * count, [None] * count))
    weight = numbers(*step.ys[0].shape)
    found = in_one(backward(step, [weight]))
    assert sum(g.sum() for g in found if g is not None) == pytest.approx(weight.sum(), abs=1e-5)


ALL = [*EVERY_ACTIVATION, *FUNCTIONS.values(), *ACTIVATION_OF_LAYER.values()]


@pytest.mark.parametrize("activation", ALL, ids=lambda each: each.name)
def test_the_slope_of_every_activation(activation: Activation) -> None:
    rng = np.random.default_rng(2)
    x = 2 * rng.normal(size=(50, WIDTH))
    if activation.name in {"sqrt", "rsqrt", "log", "log1p"}:
        x = np.abs(x)
    hold(Activate(name="a", activation=activation), [x], [None], rng)


def test_every_operation_has_a_gradient_or_a_reason() -> None:
    assert set(TABLE) == set(OPERATIONS)
    table = Embedding(name="e", embeddings=numbers(5, 2), mask_zero=False)
    assert {type(op) for op, _ in CASES} | {Embedding, ConvLSTM} == set(OPERATIONS)
    assert [why_not(op) for op, _ in CASES] == [None] * len(CASES)
    assert why_not(table) == "between two ids there is nothing"
    assert "softmax is of all units together" in str(why_not(rnn(SOFTMAX)))
    assert why_not(TimeDistributed.of(name="t", layer=table)) == why_not(table)
    for each in (lambda **options: rnn(SOFTMAX, **options), lambda **_: rnn(SOFTMAX)):
        assert why_not(both(each, "sum")) is not None
    assert why_not(Stacked(name="s", layers=(rnn(return_sequences=True), rnn(SOFTMAX)))) is not None
    assert why_not(dense(3, 2, LINEAR)) is None
