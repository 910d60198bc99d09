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
    first, second = (None, None) if mask is None else (mask[:, :3], mask[:, 3:])
    (before, *states), _ = layer([X[:, :3]], [first])
    (after, *last), masks = layer([X[:, 3:], *states], [second, None, None])
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
