"""States as outputs and inputs: a sequence in two parts is the sequence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_models import lstm, numbers

from lstm_serve.engine.operations.wrappers import Bidirectional

X = numbers(3, 7, 3)
MASK = np.array([[True] * 7, [True, False] * 3 + [True], [False, True, True, True, False, True, False]])


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("sequences", [True, False])
def test_a_sequence_in_two_parts_with_its_states_is_the_sequence(mask: Any, *, sequences: bool) -> None:
    layer = lstm(3, 4, return_sequences=sequences, return_state=True)
    (whole, *ends), _ = layer([X], [mask])
    first, second = (None, None) if mask is None else (mask[:, :2], mask[:, 2:])
    (before, *states), _ = layer([X[:, :2]], [first])
    (after, *last), masks = layer([X[:, 2:], *states], [second, None, None])
    came = np.concatenate([before, after], axis=1) if sequences else after
    for one, other in zip([came, *last], [whole, *ends], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert masks == (second if sequences else None, None, None)


def test_each_direction_has_states_of_its_own() -> None:
    forward, backward = (lstm(3, 4, return_state=True, go_backwards=back) for back in (False, True))
    both = Bidirectional(name="b", forward=forward, backward=backward, merge_mode="concat")
    states = [numbers(3, 4, seed=k) for k in range(4)]
    (y, *ends), _ = both([X, *states], [None] * 5)
    assert [end.shape for end in ends] == [(3, 4)] * 4
    assert both.output_shapes([(7, 3), *[(4,)] * 4]) == ((8,), *[(4,)] * 4)
    (one, *_), _ = forward([X, *states[:2]], [None] * 3)
    (other, *_), _ = backward([X, *states[2:]], [None] * 3)
    np.testing.assert_array_equal(y, np.concatenate([one, other], axis=1))


def test_a_mask_that_is_ignored_is_passed_on() -> None:
    """As Keras 3 does where a layer is called on states too."""
    layer = replace(lstm(3, 4, return_sequences=True), ignores_mask=True)
    (y,), (mask,) = layer([X], [MASK])
    np.testing.assert_array_equal(y, layer([X], [None])[0][0])
    assert mask is MASK


@pytest.mark.parametrize("sequences", [True, False])
def test_before_the_first_step_that_counts_the_output_is_0_whatever_the_states_are(*, sequences: bool) -> None:
    layer = lstm(3, 4, return_sequences=sequences, return_state=True)
    mask = np.array([[False] * 7, [False, False, *[True] * 4, False]])
    states = [numbers(2, 4, seed=k) for k in range(2)]
    (y, h, c), _ = layer([X[:2], *states], [mask, None, None])
    np.testing.assert_array_equal([h[0], c[0]], [states[0][0], states[1][0]])
    (plain, *_), _ = layer([X[1:2, 2:6], *(state[1:2] for state in states)], [None] * 3)
    if sequences:
        np.testing.assert_array_equal(y[0], 0)
        np.testing.assert_array_equal(y[1, :2], 0)
        np.testing.assert_allclose(y[1, 2:6], plain[0], atol=1e-6)
        np.testing.assert_array_equal(y[1, 6], y[1, 5])
    else:
        np.testing.assert_array_equal(y[0], 0)
        np.testing.assert_allclose(y[1], plain[0], atol=1e-6)
