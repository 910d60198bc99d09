"""What each operation of the engine says of its steps, and that they give what its call does."""

from typing import Any

import numpy as np
import pytest

from lstm_serve.engine.activations import LINEAR, RELU, SIGMOID, SOFTMAX, TANH
from lstm_serve.engine.operations import OPERATIONS
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.base import NO_STEP, Operation
from lstm_serve.engine.operations.conv_lstm import ConvLSTM
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
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
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.types import Array

STEPS = 6


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def lstm(features: int = 3, *, return_sequences: bool = False, go_backwards: bool = False) -> LSTM:
    return LSTM(
        name="l",
        kernel=numbers(features, 16),
        recurrent_kernel=numbers(4, 16),
        bias=numbers(16),
        activation=TANH,
        recurrent_activation=SIGMOID,
        return_sequences=return_sequences,
        go_backwards=go_backwards,
    )


def gru(*, reset_after: bool, return_sequences: bool = False) -> GRU:
    return GRU(
        name="g",
        kernel=numbers(3, 12),
        recurrent_kernel=numbers(4, 12),
        bias=None,
        activation=TANH,
        recurrent_activation=SIGMOID,
        reset_after=reset_after,
        return_sequences=return_sequences,
    )


def conv(size: int = 3, **options: Any) -> Convolution:
    made = Window(size=size, **options)
    return Convolution(name="c", kernel=numbers(size, 3, 5), bias=numbers(5), windows=(made,), activation=RELU)


def rnn(*, return_sequences: bool = False, go_backwards: bool = False) -> SimpleRNN:
    return SimpleRNN(
        name="r",
        kernel=numbers(3, 2),
        recurrent_kernel=numbers(2, 2),
        bias=None,
        activation=SOFTMAX,
        return_sequences=return_sequences,
        go_backwards=go_backwards,
    )


def normalized(*shape: int) -> list[Operation]:
    mean, variance = numbers(*shape), np.abs(numbers(*shape))
    return [
        PReLU(name="p", alpha=mean),
        Normalization(name="n", mean=mean, variance=variance),
        BatchNormalization(name="b", gamma=None, beta=mean, mean=mean, variance=variance, epsilon=0.1),
    ]


CAUSAL: list[Operation] = [
    Identity(name="i"),
    Dense(name="d", kernel=numbers(3, 4), bias=numbers(4), activation=SOFTMAX),
    Activate(name="a", activation=SOFTMAX),
    *normalized(3),
    *normalized(1, 3),
    *normalized(1, 1, 3),
    Rescaling(name="r", scale=np.array(2, np.float32), offset=numbers(3)),
    LayerNormalization(name="l", gamma=numbers(3), beta=None, epsilon=0.1),
    Scaling(name="s", offset=np.array([1.0, 2, 3]), scale=np.array([1.0, 2, 3])),
    Unscaling(name="u", offset=np.array([1.0]), scale=np.array([2.0])),
    Merge(name="m", join=np.add, mean=True, mask_rule=MaskRule.ANY),
    Concatenate(name="c", axis=2, mask_rule=MaskRule.ALL),
    Slice(name="s", slices=(slice(None), slice(1, None))),
    Binary(name="b", function=np.subtract, constant=numbers(3), constant_first=True),
    Binary(name="b", function=np.multiply, constant=np.array(2, np.float32)),
    Reduce(name="r", function="mean", axes=(2,), keepdims=True),
    MaskedBy(name="m", zeroed=True),
    conv(padding="causal"),
    conv(padding="causal", dilation=3),
    conv(size=1),
    lstm(return_sequences=True),
    lstm(),
    gru(reset_after=True, return_sequences=True),
    gru(reset_after=False),
    rnn(return_sequences=True),
    Stacked(name="s", layers=(lstm(return_sequences=True), lstm(4, return_sequences=True))),
    TimeDistributed.of(name="t", layer=Dense(name="d", kernel=numbers(3, 2), bias=None, activation=LINEAR)),
]

NOT_CAUSAL: list[Operation] = [
    *normalized(STEPS, 1),
    *normalized(1, STEPS, 1),
    Concatenate(name="c", axis=1, mask_rule=MaskRule.ALL),
    Slice(name="s", slices=(slice(-1, None), slice(None))),
    Binary(name="b", function=np.add, constant=numbers(STEPS, 3)),
    Reduce(name="r", function="max", axes=(1,), keepdims=False),
    MatMul(name="m"),
    Embedding(name="e", embeddings=numbers(5, 2), mask_zero=True),
    Masking(name="m", mask_value=0),
    conv(),
    conv(padding="same"),
    conv(padding="causal", stride=2),
    conv(padding="causal", dilation=1 << 30),
    Pooling(name="p", windows=(Window(size=2),), average=True),
    GlobalPooling1D(name="p", average=False, keepdims=False),
    RepeatVector(name="r", n=3),
    ConvLSTM(
        name="c",
        kernel=numbers(2, 3, 8),
        bias=None,
        activation=TANH,
        recurrent_kernel=numbers(2, 2, 8),
        windows=(Window(size=2),),
        recurrent_activation=SIGMOID,
    ),
    Reshape(name="r", target=(-1,)),
    Permute(name="p", dims=(2, 1)),
    lstm(go_backwards=True),
    rnn(go_backwards=True),
    Stacked(name="s", layers=(lstm(go_backwards=True, return_sequences=True), lstm(4))),
    Bidirectional(name="b", forward=lstm(), backward=lstm(go_backwards=True), merge_mode="ave"),
]


@pytest.mark.parametrize("operation", CAUSAL, ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("n", [1, 2, 70])
def test_steps_give_what_the_call_does(operation: Operation, n: int) -> None:
    assert operation.not_causal is None
    inputs = [numbers(n, STEPS, 3), numbers(n, STEPS, 3) * 2][
        : 2 if isinstance(operation, Merge | Concatenate | MaskedBy) else 1
    ]
    state = operation.start(n)
    given = [array.copy() for array in state]
    outputs = []
    for t in range(STEPS):
        xs = [x[:, t] for x in inputs]
        kept = [x.copy() for x in xs]
        before = [array.copy() for array in state]
        (y,), after = operation.step(xs, state)
        outputs.append(y.copy())
        for was, array in zip([*kept, *before], [*xs, *state], strict=True):
            np.testing.assert_array_equal(was, array)
        state = after
        assert [array.shape for array in state] == [array.shape for array in given]
        assert all(array.dtype == np.float32 for array in (y, *state))
    (whole,), _ = operation(inputs, (None,) * len(inputs))
    came = np.stack(outputs, axis=1) if whole.ndim == 3 else outputs[-1]
    assert came.shape == whole.shape
    np.testing.assert_allclose(came, whole, rtol=1e-6, atol=1e-6)


def test_steps_of_fewer_series_after_those_of_more() -> None:
    """As where some series have gone, or other ones are due together."""
    layer, state = lstm(), lstm().start(5)
    for n in (5, 3, 1, 2, 5):
        x, some = numbers(n, 3), tuple(array[:n] for array in state)
        ((y,), after), ((expected,), _) = layer.step([x], some), lstm().step([x], some)
        np.testing.assert_array_equal(y, expected)
        state = tuple(np.concatenate((new, old[n:])) for new, old in zip(after, state, strict=True))


@pytest.mark.parametrize("n", [1, 3])
def test_a_look_up_of_one_id_at_a_time(n: int) -> None:
    table = Embedding(name="e", embeddings=numbers(5, 2), mask_zero=False)
    ids: Any = np.arange(n)
    (y,), _ = table.step([ids], table.start(n))
    np.testing.assert_array_equal(y, table.embeddings[:n])


@pytest.mark.parametrize("operation", NOT_CAUSAL, ids=lambda operation: type(operation).__name__)
def test_what_has_no_step_says_why(operation: Operation) -> None:
    assert operation.not_causal


def test_every_operation_has_a_step_or_says_why_not() -> None:
    said = [*CAUSAL, Embedding(name="e", embeddings=numbers(5, 2), mask_zero=False), *NOT_CAUSAL]
    assert {type(operation) for operation in said} == set(OPERATIONS)
    assert NO_STEP not in {operation.not_causal for operation in said}
