"""Categories, and products that an equation says: as Keras answers, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import Layers, lstm, numbers, save_sequential
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import InvalidInput, Unsupported

FILES = sorted(path for path in (GOLDEN / "encoding").iterdir() if path.suffix in {".h5", ".keras"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_are_those_of_keras(path: Path) -> None:
    assert load_model(path).origin.verified


def test_an_id_without_a_place_is_no_input(tmp_path: Path) -> None:
    layers: Layers = [("CategoryEncoding", {"num_tokens": 3, "output_mode": "count"}, [])]
    model = load_model(save_sequential(tmp_path / "m.h5", layers, [2]))
    np.testing.assert_array_equal(model.predict([[2, 2], [0, 1]]), [[0, 0, 2], [1, 1, 0]])
    with pytest.raises(InvalidInput, match="from 0 to 2"):
        model.predict([[0, 3]])
    assert model.parameters == 0


def test_the_gated_activation_for_each_step_is_that_of_the_sequence(tmp_path: Path) -> None:
    gated: Any = ("Dense", {"units": 6, "activation": "glu"}, [numbers(3, 6), numbers(6)])
    each: Any = ("TimeDistributed", {"layer": {"class_name": "Dense", "config": {**gated[1], "name": "d"}}}, gated[2])
    x = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    x[0, 3:] = 0
    one, other = (
        load_model(save_sequential(tmp_path / "m.h5", [("Masking", {}, []), layer, lstm()], [5, 3]))
        for layer in (gated, each)
    )
    np.testing.assert_array_equal(one.predict(x), other.predict(x))
    halves = np.split(x @ gated[2][0] + gated[2][1], 2, axis=-1)
    alone = load_model(save_sequential(tmp_path / "m.h5", [each], [5, 3]))
    np.testing.assert_allclose(alone.predict(x), halves[0] / (1 + np.exp(-halves[1])), atol=1e-6)
    assert {node.operation.keras_class for node in alone.nodes} == {"TimeDistributed"}


BINS: Any = ("Discretization", {"bin_boundaries": [0.0, 1.0]}, [])
EINSUM: dict[str, Any] = {"output_shape": [None, 4], "bias_axes": None}
REFUSED: dict[str, tuple[Layers, str]] = {
    "more ids than rows": (
        [BINS, ("Embedding", {"input_dim": 2, "output_dim": 2}, [numbers(2, 2)])],
        "is not the first",
    ),
    "numbers that are no ids": (
        [("Rescaling", {"scale": 2.0}, []), ("Embedding", {"input_dim": 2, "output_dim": 2}, [numbers(2, 2)])],
        "is not the first",
    ),
    "boundaries that fall": ([("Discretization", {"bin_boundaries": [1.0, 0.0]}, [])], "that rise"),
    "bins not learnt": ([("Discretization", {"bin_boundaries": []}, []), ("Hashing", {}, [])], "Hashing"),
    "places of words": ([("IntegerLookup", {"vocabulary": [1, 2], "num_oov_indices": 2}, [])], "num_oov_indices"),
    "a place twice": ([("IntegerLookup", {"vocabulary": [1, 2, 1]}, [])], "distinct"),
    "an equation over the batch": ([("EinsumDense", EINSUM | {"equation": "abc,ad->bcd"}, [])], "the batch"),
    "an equation with a trace": ([("EinsumDense", EINSUM | {"equation": "abb,bd->ad"}, [])], "equation"),
    "an equation of one": ([("EinsumDense", EINSUM | {"equation": "abc->ab"}, [])], "equation"),
    "a normalized recurrence": (
        [("SpectralNormalization", {"layer": {"class_name": "Masking", "config": {}}}, [])],
        "which is not supported",
    ),
    "half of an odd number": (
        [("Dense", {"units": 3, "activation": "glu"}, [numbers(3, 3), numbers(3)]), lstm()],
        "halves the features",
    ),
}


@pytest.mark.parametrize(("layers", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, layers: Layers, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        load_model(save_sequential(tmp_path / "m.h5", layers, [5, 3]))
