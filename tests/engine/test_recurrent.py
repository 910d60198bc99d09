import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import run

from lstm_serve.engine.activations import ACTIVATIONS as ALL
from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, RELU, SIGMOID, SOFTMAX, TANH
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.recurrence import Recurrent

Array = npt.NDArray[Any]

GATES = {
    "sigmoid": (SIGMOID, reference.sigmoid),
    "hard_sigmoid": (HARD_SIGMOID_KERAS_2, reference.hard_sigmoid_2),
    # Over the units of one gate of one row, and never over those of several.
    "softmax": (SOFTMAX, reference.softmax),
}
ACTIVATIONS = {
    "tanh": (TANH, reference.tanh),
    "relu": (RELU, reference.relu),
    "log_softmax": (ALL["log_softmax"], reference.log_softmax),
}
CELLS = ["lstm", "gru_after", "gru_before", "simple_rnn"]


def made(
    cell: str,
    *,
    features: int = 3,
    units: int = 4,
    bias: bool = True,
    gate: str = "sigmoid",
    activation: str = "tanh",
    **options: Any,
) -> tuple[Recurrent, dict[str, Any], Any]:
    generator = np.random.default_rng(units * 31 + features)
    blocks = {"lstm": 4, "gru_after": 3, "gru_before": 3, "simple_rnn": 1}[cell]

    def array(*shape: int) -> Array:
        return generator.normal(0, 0.5, shape).astype(np.float32)

    arrays = {"kernel": array(features, blocks * units), "recurrent_kernel": array(units, blocks * units)}
    biases = array(2, blocks * units) if cell == "gru_after" else array(blocks * units)
    shared: dict[str, Any] = {
        "name": cell,
        "bias": biases if bias else None,
        "activation": ACTIVATIONS[activation][0],
        **arrays,
        **options,
    }
    plain: dict[str, Any] = arrays | ({"bias": biases} if bias else {}) | {"reset_after": cell == "gru_after"}
    if cell == "lstm":
        return LSTM(recurrent_activation=GATES[gate][0], **shared), plain, reference.lstm
    if cell == "simple_rnn":
        return SimpleRNN(**shared), plain, reference.simple_rnn
    layer = GRU(recurrent_activation=GATES[gate][0], reset_after=cell == "gru_after", **shared)
    return layer, plain, reference.gru


def batch(rows: int, timesteps: int, features: int = 3) -> Array:
    return np.random.default_rng(rows + timesteps).normal(0, 1, (rows, timesteps, features)).astype(np.float32)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_computes_what_the_plain_cell_computes(cell: str, *, bias: bool, activation: str, gate: str) -> None:
    layer, plain, step = made(cell, bias=bias, gate=gate, activation=activation, return_sequences=True)
    x = batch(3, 7)
    y, _ = run(layer, [x], [None])
    expected = reference.walk(step, x, plain, ACTIVATIONS[activation][1], GATES[gate][1])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    rows=st.integers(1, 4),
    timesteps=st.integers(1, 70),
    backwards=st.booleans(),
    zeros=st.booleans(),
    sequences=st.booleans(),
    seed=st.integers(0, 99),
)
def test_masks_hold_the_state_and_hold_or_zero_the_output(
    cell: str,
    rows: int,
    timesteps: int,
    backwards: bool,  # noqa: FBT001 - drawn
    zeros: bool,  # noqa: FBT001 - drawn
    sequences: bool,  # noqa: FBT001 - drawn
    seed: int,
) -> None:
    layer, plain, step = made(
        cell, return_sequences=sequences, go_backwards=backwards, zero_output_for_mask=zeros, units=2
    )
    x = batch(rows, timesteps)
    mask = np.random.default_rng(seed).random((rows, timesteps)) < 0.6
    y, mask_out = run(layer, [x], [mask])
    expected = reference.walk(step, x, plain, reference.tanh, reference.sigmoid, mask, backwards=backwards, zeros=zeros)
    np.testing.assert_allclose(y, expected if sequences else expected[:, -1], rtol=1e-4, atol=1e-5)
    assert mask_out is (mask if sequences else None)


@pytest.mark.parametrize("cell", CELLS)
def test_the_last_step_is_the_last_of_the_sequence_whatever_the_batch(cell: str) -> None:
    x = batch(5, 40)
    whole, _ = run(made(cell, return_sequences=True)[0], [x], [None])
    last, mask = run(made(cell)[0], [x], [None])
    assert mask is None
    np.testing.assert_array_equal(last, whole[:, -1])
    for row in range(5):
        alone, _ = run(made(cell)[0], [x[row : row + 1]], [None])
        np.testing.assert_allclose(alone[0], last[row], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_alone_leaves_nothing_behind_for_the_next(cell: str) -> None:
    layer, _, _ = made(cell)
    lengths = [5, 6, 5, 40, 33, 3, 5, 70]
    rows = [batch(1, timesteps) for timesteps in lengths]
    expected = [run(layer, [np.repeat(row, 2, axis=0)], [None])[0][:1] for row in rows]
    for _ in range(2):
        found = [run(layer, [row], [None])[0] for row in rows]
        assert all(np.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(found, expected, strict=True))
    with ThreadPoolExecutor(4) as threads:
        for row, y in zip(rows, expected, strict=True):
            assert all(
                np.allclose(came, y, rtol=0, atol=1e-6) for came, _ in threads.map(layer, [[row]] * 40, [[None]] * 40)
            )


@pytest.mark.parametrize("cell", CELLS)
def test_rows_in_one_thread_leave_those_in_another_alone(cell: str) -> None:
    layer, x = made(cell)[0], [batch(3, 20) * scale for scale in (1, 2)]
    expected = [run(layer, [each], [None])[0] for each in x]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(layer, [[each] for each in x] * 40, [[None]] * 80))
    finally:
        sys.setswitchinterval(interval)
    for (came, _), right in zip(found, expected * 40, strict=True):
        np.testing.assert_array_equal(came[0], right)


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_written_into_the_input(cell: str) -> None:
    x = batch(2, 5)
    before = x.copy()
    layer, *_ = made(cell, return_sequences=True)
    first, _ = run(layer, [x], [None])
    kept = first.copy()
    run(layer, [x + 1], [None])
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("gate", GATES)
def test_the_trace_ends_where_the_prediction_does(cell: str, gate: str) -> None:
    layer, *_ = made(cell, gate=gate)
    x = batch(2, 6)
    traced = layer.trace([x], [None])
    y, _ = run(layer, [x], [None])
    np.testing.assert_array_equal(traced["h"][:, -1], y)
    names = {"lstm": ["z", "i", "f", "c~", "o", "c", "h"], "simple_rnn": ["z", "h"]}
    assert list(traced) == names.get(cell, ["sums", "z", "r", "h~", "h"])


def test_the_trace_of_a_gru_gives_gates_between_0_and_1_and_sums_in_keras_order() -> None:
    for cell in ("gru_after", "gru_before"):
        layer, plain, _ = made(cell)
        x = batch(1, 2)
        traced = layer.trace([x], [None])
        bias = plain["bias"].sum(axis=0) if cell == "gru_after" else plain["bias"]
        update = (x[0, 0] @ plain["kernel"] + bias)[:4]
        np.testing.assert_allclose(traced["sums"][0, 0, :4], update, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(traced["z"][0, 0], reference.sigmoid(update), rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_shapes_and_names_are_those_of_keras(cell: str) -> None:
    layer, plain, _ = made(cell)
    assert list(layer.weights) == ["kernel", "recurrent_kernel", "bias"]
    assert list(made(cell, bias=False)[0].weights) == ["kernel", "recurrent_kernel"]
    assert layer.weights["bias"] is plain["bias"]
    assert layer.units == 4
    assert layer.last_activation is None
    assert layer.output_shapes([(7, 3)])[0] == (4,)
    assert made(cell, return_sequences=True)[0].output_shapes([(None, 3)])[0] == (None, 4)
