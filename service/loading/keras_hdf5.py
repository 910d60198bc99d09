"""Whole models in HDF5, as `model.save("x.h5")` has written them since Keras 1."""

from typing import BinaryIO, NamedTuple

from service.engine.activations import Array
from service.errors import UnreadableFile
from service.loading import architecture, hdf5
from service.loading.architecture import Architecture
from service.loading.keras_json import KerasVersion, parse


class WholeModel(NamedTuple):
    """What a whole-model file holds. `arrays` by layer name, in the order of `get_weights()`."""

    architecture: Architecture
    arrays: dict[str, list[Array]]
    keras: KerasVersion


def read(source: BinaryIO) -> WholeModel:
    """Read a whole-model HDF5 file."""
    with hdf5.opened(source) as file:
        config = file.text(file.root, "model_config")
        if config is None:
            raise UnreadableFile(
                "the HDF5 file has no attribute model_config, so it is no whole model: weights alone, or not Keras'. "
                "Save the model with model.save()"
            )
        weights = file.group(file.root, "model_weights")
        # Keras 1 wrote the version to the root alone, and 1.0 not at all.
        keras = KerasVersion.parse(file.text(weights, "keras_version") or file.text(file.root, "keras_version"))
        arrays = {}
        for layer in file.texts(weights, "layer_names") or []:
            group = file.group(weights, layer)
            arrays[layer] = [file.array(group, name) for name in file.texts(group, "weight_names") or []]
    return WholeModel(architecture.read(parse(config, "the attribute model_config")), arrays, keras)
