"""Which form a file has, by its content, and what each holds."""

import os
from functools import partial
from typing import BinaryIO

from service.errors import UnreadableFile
from service.loading import hdf5, keras_hdf5, weights
from service.loading.contents import Contents

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read(file: BinaryIO) -> Contents:
    """Read a model file of any form. Raises UnreadableFile where it is none, with what to do about it."""
    if not _is_hdf5(file):
        raise UnreadableFile("is not an HDF5 file. Save the model with model.save('model.h5')")
    return _hdf5(file)


def _hdf5(file: BinaryIO) -> Contents:
    with hdf5.opened(file) as opened:
        if keras_hdf5.is_whole(opened):
            legacy = keras_hdf5.read(opened)
            assign = partial(weights.by_group, groups=legacy.groups)
            return Contents("whole-model HDF5", legacy.config, legacy.keras, assign, None)
    raise UnreadableFile(
        "the HDF5 file has no attribute model_config, so it is no whole model: weights alone, or not Keras'. "
        "Save the model with model.save()"
    )


def _is_hdf5(file: BinaryIO) -> bool:
    # A user block of 512 bytes or a power of two more may come before the signature.
    size, at = file.seek(0, os.SEEK_END), 0
    while at < size:
        file.seek(at)
        if file.read(8) == HDF5_SIGNATURE:
            file.seek(0)
            return True
        at = at * 2 or 512
    file.seek(0)
    return False
