import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import run

from lstm_serve.engine.activations import LINEAR, RELU, SIGMOID, SOFTMAX, TANH
from lstm_serve.engine.operations.base import BaseOperation, Operation
from lstm_serve.engine.operations.merging import Concatenate, MaskRule, Merge
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
)
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.loading.layers import gate_layouts

Array = npt.NDArray[Any]
X = np.random.default_rng(3).normal(0, 1, (2, 6, 3)).astype(np.float32)
MASK = np.array([[True, True, False, True, False, True], [False, True, True, True, True, False]])


def array(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def lstm(*, features: int = 3, units: int = 4, **options: Any) -> LSTM:
    return LSTM(
        name="lstm",
        kernel=array(features, 4 * units),
        recurrent_kernel=array(units, 4 * units),
        bias=array(4 * units),
        activation=TANH,
        recurrent_activation=SIGMOID,
        **options,
    )


LAYERS: list[Operation] = [
    Identity(name="dropout", keras_class="Dropout"),
    Dense(name="dense", kernel=array(3, 4), bias=array(4), activation=RELU),
    Dense(name="dense", kernel=array(3, 4), bias=None, activation=SOFTMAX),
    Activate(name="activation", activation=TANH),
    PReLU(name="p_re_lu", alpha=array(1, 3)),
    Normalization(name="normalization", mean=array(3), variance=np.abs(array(3))),
    Rescaling(name="rescaling", scale=np.array(2, np.float32), offset=array(3)),
    BatchNormalization(name="batch", gamma=array(3), beta=None, mean=array(3), variance=np.abs(array(3)), epsilon=1e-3),
    BatchNormalization(name="batch", gamma=None, beta=array(3), mean=array(3), variance=np.abs(array(3)), epsilon=0.1),
    LayerNormalization(name="layer", gamma=array(3), beta=array(3), epsilon=1e-3),
    LayerNormalization(name="layer", gamma=None, beta=None, epsilon=1e-3),
    Masking(name="masking", mask_value=0),
    Convolution(name="conv", kernel=array(3, 3, 5), bias=array(5), windows=(Window(size=3),), activation=RELU),
    Convolution(
        name="conv", kernel=array(2, 3, 5), bias=None, windows=(Window(size=2, padding="causal"),), activation=LINEAR
    ),
    Pooling(name="max", windows=(Window(size=2, stride=2),), average=False),
    Pooling(name="average", windows=(Window(size=4, stride=3, padding="same"),), average=True),
    GlobalPooling1D(name="max", average=False, keepdims=False),
    GlobalPooling1D(name="average", average=True, keepdims=True),
    Reshape(name="flatten", target=(-1,)),
    Reshape(name="reshape", target=(9, -1)),
    Permute(name="permute", dims=(2, 1)),
    lstm(),
    lstm(return_sequences=True),
    Stacked(name="rnn", layers=(lstm(return_sequences=True), lstm(features=4, units=2))),
    Bidirectional(name="bi", forward=lstm(), backward=lstm(go_backwards=True), merge_mode="concat"),
    Bidirectional(name="bi", forward=lstm(), backward=lstm(go_backwards=True), merge_mode="ave"),
    TimeDistributed.of(name="td", layer=Dense(name="dense", kernel=array(3, 2), bias=None, activation=LINEAR)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "masked"])
def test_a_layer_gives_the_shape_that_it_says_and_leaves_its_input_alone(layer: Operation, mask: Array | None) -> None:
    x = X.copy()
    y, mask_out = run(layer, [x], [mask])
    assert y.dtype == np.float32
    assert y.shape[1:] == layer.output_shapes([(6, 3)])[0]
    np.testing.assert_array_equal(x, X)
    assert mask_out is None or mask_out.shape == y.shape[:2]
    assert all(steps.shape[0] == 2 for steps in layer.trace([x], [mask]).values())
    assert all(values.dtype == np.float32 for values in layer.weights.values())
    assert layer.last_activation is None or isinstance(layer, (Dense, Activate, Convolution, TimeDistributed))


@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if not isinstance(layer, (Reshape, Permute))], ids=lambda k: type(k).__name__
)
def test_a_free_number_of_steps_stays_free(layer: Operation) -> None:
    shape = layer.output_shapes([(None, 3)])[0]
    assert shape == tuple(None if k == 0 and len(shape) > 1 and shape[0] != 1 else n for k, n in enumerate(shape))


PASSES = (Identity, Dense, Activate, PReLU, Normalization, Rescaling, BatchNormalization, LayerNormalization)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_masks_pass_where_keras_passes_them(layer: Operation) -> None:
    _, mask = run(layer, [X], [MASK])
    if isinstance(layer, (*PASSES, TimeDistributed)) or (
        isinstance(layer, Recurrent | Stacked) and layer.return_sequences
    ):
        assert mask is MASK
    elif isinstance(layer, Masking):
        assert mask is not None
        assert mask.all()
    else:
        assert mask is None


def test_statistics_of_tensorflow_keras_drop_the_mask() -> None:
    one = np.ones(3, np.float32)
    assert run(Normalization(name="n", mean=one, variance=one, keeps_mask=False), [X], [MASK])[1] is None
    assert run(Rescaling(name="r", scale=one, offset=one, keeps_mask=False), [X], [MASK])[1] is None


def test_dense_names_its_arrays_and_its_sums() -> None:
    dense = LAYERS[1]
    assert isinstance(dense, Dense)
    assert dense.bias is not None
    assert list(dense.weights) == ["kernel", "bias"]
    np.testing.assert_allclose(dense.trace([X], [None])["sums"], X @ dense.kernel + dense.bias, rtol=1e-5, atol=1e-6)


def test_normalizations_are_their_formulas() -> None:
    gamma, beta, mean, variance = array(3), array(3), array(3), np.abs(array(3))
    batch = BatchNormalization(name="b", gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=0.01)
    expected = (X - mean) / np.sqrt(variance + 0.01) * gamma + beta
    np.testing.assert_allclose(run(batch, [X], [None])[0], expected, rtol=1e-4, atol=1e-5)
    assert list(batch.weights) == ["gamma", "beta", "moving_mean", "moving_variance"]
    row = LayerNormalization(name="l", gamma=gamma, beta=beta, epsilon=0.01)
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 0.01) * gamma + beta
    np.testing.assert_allclose(run(row, [X], [None])[0], expected, rtol=1e-4, atol=1e-5)
    assert list(row.weights) == ["gamma", "beta"]
    slope = PReLU(name="p", alpha=gamma)
    np.testing.assert_allclose(run(slope, [X], [None])[0], np.where(X > 0, X, gamma * X), rtol=1e-6)
    flat = Normalization(name="n", mean=mean, variance=np.zeros(3, np.float32))
    np.testing.assert_allclose(run(flat, [X], [None])[0], (X - mean) / np.float32(1e-7), rtol=1e-6)
    scaling = Scaling(name="s", offset=np.array([1.0, 2, 3]), scale=np.array([2.0, 2, 4]))
    np.testing.assert_allclose(run(scaling, [X], [None])[0], (X - [1, 2, 3]) / [2, 2, 4], rtol=1e-6)


def test_embedding_looks_up_and_masks_id_0() -> None:
    layer = Embedding(name="e", embeddings=array(5, 3), mask_zero=True)
    ids = np.array([[0, 4, 1], [2, 0, 0]])
    y, mask = run(layer, [ids], [None])
    np.testing.assert_array_equal(y, array(5, 3)[ids])
    np.testing.assert_array_equal(mask, ids != 0)
    assert layer.output_shapes([(None,)])[0] == (None, 3)
    assert list(layer.weights) == ["embeddings"]
    assert run(Embedding(name="e", embeddings=array(5, 3), mask_zero=False), [ids], [None])[1] is None


def test_masking_masks_the_steps_that_are_all_of_its_value_and_sets_them_to_0() -> None:
    x = X.copy()
    x[0, 1] = -1
    x[1, 2, :2] = -1
    y, mask = run(Masking(name="m", mask_value=-1), [x], [None])
    assert mask is not None
    assert (~mask).sum() == 1
    np.testing.assert_array_equal(y[0, 1], 0)
    np.testing.assert_array_equal(y[1], x[1])


@settings(deadline=None)
@given(
    timesteps=st.integers(1, 20),
    size=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same", "causal"]),
)
def test_windows_are_those_of_padded_time(timesteps: int, size: int, stride: int, dilation: int, padding: Any) -> None:
    window = Window(size=size, stride=stride, dilation=dilation, padding=padding)
    x = np.arange(1, 2 * timesteps + 1, dtype=np.float32).reshape(1, timesteps, 2)
    span = (size - 1) * dilation
    n = window.count(timesteps)
    assert n == (math.ceil(timesteps / stride) if padding != "valid" else (timesteps - span - 1) // stride + 1)
    if n < 1:
        return
    total = max((n - 1) * stride + span + 1 - timesteps, 0)
    before = {"valid": 0, "same": total // 2, "causal": span}[padding]
    padded = np.full((1, before + timesteps + span + stride, 2), np.nan, np.float32)
    padded[:, before : before + timesteps] = x
    taken = np.stack([padded[:, k * stride : k * stride + span + 1 : dilation] for k in range(n)], axis=1)
    kernel = np.random.default_rng(size).normal(0, 1, (size, 2, 3)).astype(np.float32)
    y, _ = run(Convolution(name="c", kernel=kernel, bias=None, windows=(window,), activation=LINEAR), [x], [None])
    np.testing.assert_allclose(y, np.einsum("bnkf,kfo->bno", np.nan_to_num(taken), kernel), rtol=1e-3, atol=1e-3)
    if padding == "causal" or dilation > 1:
        return
    highest, _ = run(Pooling(name="p", windows=(window,), average=False), [x], [None])
    np.testing.assert_array_equal(highest, np.nanmax(taken, axis=2))
    mean, _ = run(Pooling(name="p", windows=(window,), average=True), [x], [None])
    np.testing.assert_allclose(mean, np.nanmean(taken, axis=2), rtol=1e-5)


def test_only_the_global_average_leaves_masked_steps_out() -> None:
    average, _ = run(GlobalPooling1D(name="g", average=True, keepdims=False), [X], [MASK])
    expected = [x[mask].mean(axis=0) for x, mask in zip(X, MASK, strict=True)]
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)
    highest, _ = run(GlobalPooling1D(name="g", average=False, keepdims=True), [X], [MASK])
    np.testing.assert_array_equal(highest, X.max(axis=1, keepdims=True))


def test_repeat_vector_repeats() -> None:
    layer = RepeatVector(name="r", n=4)
    y, _ = run(layer, [X[:, 0]], [None])
    np.testing.assert_array_equal(y, np.stack([X[:, 0]] * 4, axis=1))
    assert layer.output_shapes([(3,)])[0] == (4, 3)


def test_flattening_a_free_number_of_steps_gives_a_free_width() -> None:
    assert Reshape(name="f", target=(-1,)).output_shapes([(None, 3)])[0] == (None,)


@pytest.mark.parametrize(("join", "mean"), [(np.add, False), (np.subtract, False), (np.maximum, False), (np.add, True)])
def test_merges_one_by_one(join: Any, *, mean: bool) -> None:
    layer = Merge(name="m", join=join, mean=mean, mask_rule=MaskRule.ALL)
    y, _ = run(layer, [X, 2 * X], [None, None])
    np.testing.assert_allclose(y, join(X, 2 * X) / (2 if mean else 1), rtol=1e-6)
    assert layer.output_shapes([(6, 3), (6, 3)])[0] == (6, 3)
    assert layer.output_shapes([(None, 1), (6, 3)])[0] == (6, 3)
    assert layer.output_shapes([(1, 1), (1, 1)])[0] == (1, 1)
    assert layer.output_shapes([(None, 3), (1, 3)])[0] == (None, 3)


def test_masks_meet_as_that_keras_joined_them() -> None:
    other = ~MASK
    old = Merge(name="m", join=np.add, mean=False, mask_rule=MaskRule.ALL)
    new = Merge(name="m", join=np.add, mean=False, mask_rule=MaskRule.ANY)
    np.testing.assert_array_equal(run(old, [X, X], [MASK, other])[1], np.zeros_like(MASK))
    np.testing.assert_array_equal(run(new, [X, X], [MASK, other])[1], np.ones_like(MASK))
    np.testing.assert_array_equal(run(old, [X, X], [MASK, None])[1], MASK)
    assert run(new, [X, X], [MASK, None])[1] is None
    assert run(new, [X, X], [None, None])[1] is None
    wide_old = Concatenate(name="c", axis=2, mask_rule=MaskRule.ALL)
    wide_new = Concatenate(name="c", axis=2, mask_rule=MaskRule.ANY)
    np.testing.assert_array_equal(run(wide_old, [X, X], [MASK, None])[1], MASK)
    np.testing.assert_array_equal(run(wide_new, [X, X], [MASK, None])[1], np.ones_like(MASK))
    long = Concatenate(name="c", axis=1, mask_rule=MaskRule.ALL)
    y, mask = run(long, [X, X], [MASK, None])
    assert y.shape == (2, 12, 3)
    np.testing.assert_array_equal(mask, np.hstack([MASK, np.ones_like(MASK)]))
    assert long.output_shapes([(6, 3), (None, 3)])[0] == (None, 3)
    assert wide_old.output_shapes([(None, 3), (6, 2)])[0] == (6, 5)
    assert run(wide_old, [X, X], [None, None])[1] is None


@pytest.mark.parametrize(
    ("mode", "merge"),
    [
        ("concat", lambda a, b: np.concatenate([a, b], axis=-1)),
        ("sum", np.add),
        ("mul", np.multiply),
        ("ave", lambda a, b: (a + b) / 2),
    ],
)
@pytest.mark.parametrize("sequences", [True, False])
def test_both_directions_meet_at_equal_times(mode: Any, merge: Any, *, sequences: bool) -> None:
    forward = lstm(return_sequences=sequences)
    backward = lstm(return_sequences=sequences, go_backwards=True)
    layer = Bidirectional(name="bi", forward=forward, backward=backward, merge_mode=mode)
    y, mask = run(layer, [X], [MASK])
    turned, _ = run(lstm(return_sequences=sequences), [X[:, ::-1]], [MASK[:, ::-1]])
    expected = merge(run(forward, [X], [MASK])[0], turned[:, ::-1] if sequences else turned)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert mask is (MASK if sequences else None)
    assert y.shape[1:] == layer.output_shapes([(6, 3)])[0]
    assert [name.partition("/")[0] for name in layer.weights] == ["forward"] * 3 + ["backward"] * 3
    assert {name.partition("/")[0] for name in layer.trace([X], [MASK])} == {"forward", "backward"}


def test_stacked_cells_are_layers_one_above_the_other() -> None:
    first = GRU(
        name="a",
        kernel=array(3, 12),
        recurrent_kernel=array(4, 12),
        bias=array(2, 12),
        activation=TANH,
        recurrent_activation=SIGMOID,
        reset_after=True,
        return_sequences=True,
        go_backwards=True,
    )
    second = SimpleRNN(name="b", kernel=array(4, 2), recurrent_kernel=array(2, 2), bias=None, activation=TANH)
    layer = Stacked(name="rnn", layers=(first, second))
    y, _ = run(layer, [X], [MASK])
    between, _ = run(first, [X], [MASK])
    np.testing.assert_array_equal(y, run(second, [between], [MASK[:, ::-1]])[0])
    assert list(layer.weights) == ["0/kernel", "0/recurrent_kernel", "0/bias", "1/kernel", "1/recurrent_kernel"]
    assert "1/h" in layer.trace([X], [MASK])
    assert layer.go_backwards
    assert not layer.return_sequences


def test_one_layer_for_each_step_sees_each_step_alone() -> None:
    inner = Convolution(name="c", kernel=array(2, 3, 4), bias=None, windows=(Window(size=2),), activation=LINEAR)
    layer = TimeDistributed.of(name="td", layer=inner)
    x = array(2, 5, 6, 3)
    y, _ = run(layer, [x], [None])
    assert y.shape[1:] == layer.output_shapes([(5, 6, 3)])[0] == (5, 5, 4)
    np.testing.assert_allclose(y[:, 3], run(inner, [x[:, 3]], [None])[0], rtol=1e-5, atol=1e-6)
    assert list(layer.weights) == ["kernel"]


def test_a_plain_layer_has_nothing() -> None:
    plain = BaseOperation(name="p")
    assert (plain.weights, plain.last_activation, plain.trace([X], [None])) == ({}, None, {})
    assert plain.output_shapes([(6, 3)])[0] == (6, 3)


def test_keras_1_arrays_that_do_not_fit_together_are_left_to_the_check() -> None:
    arrays = [np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32), np.zeros(3, np.float32)] * 4
    arrays[-1] = np.zeros((), np.float32)
    assert gate_layouts.lstm(arrays, 3) is arrays
    assert gate_layouts.gru(arrays[3:], 3) is not arrays
