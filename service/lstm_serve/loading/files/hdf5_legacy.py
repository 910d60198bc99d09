"""Legacy HDF5: whole models, as `model.save("x.h5")` writes them since Keras 1, and weights as `save_weights` did."""

from typing import Any, NamedTuple

import h5py

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.hdf5 import Hdf5
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.strict_json import parse


class Legacy(NamedTuple):
    """What a legacy HDF5 file holds. `config` is the parsed model_config, or None where there are weights alone.

    `groups` are the layers of the model with their arrays, in the order of the model, weightless ones among them.
    """

    config: Any
    groups: list[tuple[str, list[Array]]]
    keras: KerasVersion


def is_whole(file: Hdf5) -> bool:
    """Whether the file is a whole model."""
    return file.has(file.root, "model_config")


def is_weights(file: Hdf5) -> bool:
    """Whether the file is the weights of a model."""
    return file.has(file.root, "layer_names") or file.has(file.root, "layer_names0")


def read(file: Hdf5) -> Legacy:
    """Read a whole model, or the weights of one."""
    config = file.text(file.root, "model_config")
    weights = file.root if config is None else file.group(file.root, "model_weights")
    # Keras 1 wrote the version to the root alone, and 1.0 not at all.
    keras = KerasVersion.parse(file.text(weights, "keras_version") or file.text(file.root, "keras_version"))
    keras = keras.with_backend(file.text(weights, "backend"))
    groups = [(name, _arrays(file, weights, name)) for name in _names(file, weights, "layer_names")]
    return Legacy(None if config is None else parse(config, "the attribute model_config"), groups, keras)


def _arrays(file: Hdf5, weights: h5py.Group, layer: str) -> list[Array]:
    group = file.group(weights, layer)
    return [file.array(group, name) for name in _names(file, group, "weight_names")]


def _names(file: Hdf5, group: h5py.Group, attribute: str) -> list[str]:
    names = file.texts(group, attribute) or []
    if len(set(names)) != len(names):
        raise UnreadableFile(f"the attribute {attribute} of {group.name} lists a name twice, which Keras never does")
    return names
