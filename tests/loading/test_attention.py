"""Attention: as Keras answers, or refused by name."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import save

from lstm_serve import load_model
from lstm_serve.errors import Unsupported

GOLDEN = Path(__file__).parents[1] / "golden" / "attention"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.h5")), ids=lambda path: path.stem)
def test_answers_are_those_of_keras(path: Path) -> None:
    assert load_model(path).origin.verified


def graph(shape: list[int | None], *calls: tuple[str, Any, dict[str, Any]]) -> dict[str, Any]:
    given = {"name": "x", "batch_input_shape": [None, *shape]}
    entries: list[dict[str, Any]] = [{"class_name": "InputLayer", "name": "x", "config": given, "inbound_nodes": []}]
    for k, (class_name, call, config) in enumerate(calls):
        entry = {"class_name": class_name, "name": f"l{k}", "config": {"name": f"l{k}", **config}}
        entries.append({**entry, "inbound_nodes": [[*call]]})
    last = f"l{len(calls) - 1}"
    config = {"layers": entries, "input_layers": [["x", 0, 0]], "output_layers": [[last, 0, 0]]}
    return {"class_name": "Functional", "config": config}


X = ["x", 0, 0, {}]
REFUSED = {
    "scores of a length that is not known": (graph([None, 3], ("Attention", [X, X], {})), "more than one axis"),
    "scores without end": (graph([9000, 3], ("Attention", [X, X], {})), "more than 16777216 numbers for one row"),
    "a mask of one's own": (
        graph([6, 3], ("Attention", [["x", 0, 0, {"attention_mask": ["x", 0, 0]}], X], {})),
        "called with attention_mask",
    ),
    "an input of another rank": (graph([6, 3, 2], ("Attention", [X, X], {})), "supported are sequences"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, model: Any, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        load_model(save(tmp_path / "m.h5", model, {}))


def test_a_sequence_that_is_all_masked_weighs_all_alike(tmp_path: Path) -> None:
    """As in Keras, where the scores that are left out are all the same number."""
    masking = ("Masking", [X], {"mask_value": 0.0})
    model = load_model(save(tmp_path / "m.h5", graph([4, 2], masking, ("Attention", [["l0", 0, 0, {}], X], {})), {}))
    x = np.array([[[1, 2], [3, 4], [0, 0], [0, 0]]], np.float32)
    y = model.predict(x)
    assert not y[0, 2:].any()  # where the query is masked
    assert y[0, :2].any()


def bytes_to_load(path: Path) -> int:
    """The most memory that loading takes at once."""
    tracemalloc.start()
    try:
        load_model(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_causal_mask_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    causal = [["x", 0, 0, {"use_causal_mask": True}], X]
    calls = [("Attention", causal, {"use_scale": False}) for _ in range(8)]
    last: Any = ("Add", [[f"l{k}", 0, 0, {}] for k in range(8)], {})
    assert bytes_to_load(save(tmp_path / "m.h5", graph([2000, 1], *calls, last), {})) < 4 << 20


def test_a_causal_mask_of_more_queries_than_keys_and_of_fewer(tmp_path: Path) -> None:
    """Scaled by 0 each score is the same: an answer is the mean of the values up to the query's place."""
    largest = ("MaxPooling1D", [X], {"pool_size": 3, "strides": 1})
    call = [["l0", 0, 0, {"use_causal_mask": True}], X], [["x", 0, 0, {"use_causal_mask": True}], ["l0", 0, 0, {}]]
    x = np.array([[[0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]], np.float32)
    for given, mean in zip(call, ([1, 1.5, 2], [3, 3.5, 4, 4, 4]), strict=True):
        model = graph([5, 2], largest, ("Attention", given, {"use_scale": True}))
        y = load_model(save(tmp_path / "m.h5", model, {"l1": [np.zeros((), np.float32)]})).predict(x)
        assert np.allclose(y[0, :, 1], mean)


def test_heads_that_share_a_key_have_no_kernel_each(tmp_path: Path) -> None:
    config = {"num_query_heads": 2000, "num_key_value_heads": 1, "head_dim": 1, "use_bias": False}
    queries = ("Dense", [X], {"units": 1, "use_bias": False})
    model = graph([3, 2000], queries, ("GroupQueryAttention", [["l0", 0, 0, {}], X], config))
    ones = np.ones((2000, 1), np.float32)
    arrays = [ones.reshape(1, 2000, 1), ones[:, :, None], ones[:, :, None], ones.reshape(2000, 1, 1)]
    assert bytes_to_load(save(tmp_path / "m.h5", model, {"l0": [ones], "l1": arrays})) < 4 << 20
