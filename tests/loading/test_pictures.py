"""Convolutions and pooling along any axes: as Keras answers, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
from kerasfiles import Layers, numbers, save_sequential
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import Unsupported

FILES = sorted(path for path in (GOLDEN / "pictures").iterdir() if path.suffix in {".h5", ".keras"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_are_those_of_keras(path: Path) -> None:
    assert load_model(path).origin.verified


CONV: dict[str, Any] = {"filters": 2, "kernel_size": [2, 2]}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "features first": ("Conv2D", CONV | {"data_format": "channels_first"}, "the features have to come last"),
    "a transposed one of steps apart": ("Conv2DTranspose", CONV | {"dilation_rate": [2, 1]}, "dilation_rate"),
    "padding of the output": ("Conv2DTranspose", CONV | {"output_padding": [1, 1]}, "output_padding"),
    "a picture without end": ("UpSampling2D", {"size": [1 << 12, 1 << 12]}, "numbers for one row"),
    "zeros without end": ("ZeroPadding2D", {"padding": [[0, 0], [0, 1 << 23]]}, "numbers for one row"),
    "another way between": ("UpSampling2D", {"interpolation": "bicubic"}, "interpolation"),
    "sides without a number": ("Cropping2D", {"cropping": [[1, 2], [3, "x"]]}, "cropping"),
}


@pytest.mark.parametrize(("class_name", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, class_name: str, config: dict[str, Any], reason: str
) -> None:
    layers: Layers = [(class_name, config, [numbers(2, 2, 3, 2), numbers(2)] if "filters" in config else [])]
    with pytest.raises(Unsupported, match=reason):
        load_model(save_sequential(tmp_path / "m.h5", layers, [6, 5, 3]))
