"""A model that was saved before it was built: its file tells no shape, and its first weights do."""

from pathlib import Path

import numpy as np
import pytest
from kerasfiles import Array, dense, lstm, numbers, save, sequential

from lstm_serve import load_model

ONES = np.ones(3, np.float32)
# Layers before which and after which the shape is the same: their options, and how many arrays (3,) they have.
BEFORE: dict[str, tuple[dict[str, object], int]] = {
    "Masking": ({"mask_value": 0.0}, 0),
    "Activation": ({"activation": "tanh"}, 0),
    "LeakyReLU": ({"alpha": 0.5}, 0),
    "PReLU": ({"shared_axes": [1]}, 1),
    "BatchNormalization": ({"axis": -1, "epsilon": 0.001}, 4),
    "LayerNormalization": ({"axis": -1, "epsilon": 0.001}, 2),
    "GroupNormalization": ({"groups": 3, "axis": -1, "epsilon": 0.001}, 2),
    "RMSNormalization": ({"axis": -1, "epsilon": 0.001}, 1),
    "UnitNormalization": ({"axis": -1}, 0),
    "Dropout": ({"rate": 0.5}, 0),
    "Identity": ({}, 0),
    "SpatialDropout1D": ({"rate": 0.5}, 0),
    "GaussianNoise": ({"stddev": 0.5}, 0),
    "GaussianDropout": ({"rate": 0.5}, 0),
    "AlphaDropout": ({"rate": 0.5}, 0),
    "ActivityRegularization": ({"l1": 0.5, "l2": 0.5}, 0),
    "Rescaling": ({"scale": 2.0, "offset": 0.0}, 0),
}


@pytest.mark.parametrize("name", BEFORE)
def test_its_features_are_those_of_the_first_recurrent_layer(name: str, tmp_path: Path) -> None:
    options, count = BEFORE[name]
    arrays: list[Array] = [ONES] * count if name != "PReLU" else [numbers(1, 3)]
    layers = [(name, options, arrays), lstm(), dense()]
    config = sequential(layers)
    del config["config"]["layers"][0]["config"]["batch_input_shape"]
    keras = "3.9.0" if name == "RMSNormalization" else "2.15.0"
    path = save(tmp_path / "m.h5", config, {f"layer_{k}": of for k, (*_, of) in enumerate(layers)}, keras=keras)
    assert load_model(path).input_shape == (None, 3)
