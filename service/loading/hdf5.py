"""The guard through which every byte of an HDF5 file is read.

h5py follows whatever a file says: external storage reads any file of the machine into a "weight", links lead elsewhere,
1,400 bytes may declare 16 GiB. Keras writes none of that, so all of it is refused here, before anything is read.
What the format allows: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import h5py
import numpy as np

from service.engine.activations import Array
from service.errors import ModelError, UnreadableFile, Unsupported

# All arrays of one file, as they are in memory.
MAX_ARRAY_BYTES = 256 << 20
# The longest text, such as the model's architecture: 350 KB were seen.
MAX_TEXT_BYTES = 4 << 20
# The longest path: Keras nests some ten groups for a model in a model in a wrapper.
MAX_DEPTH = 32
# Kerases split a list of names over 64 KB into numbered attributes.
MAX_NAME_PARTS = 64


@contextmanager
def opened(source: BinaryIO | io.BytesIO) -> Iterator["Hdf5"]:
    """Open an HDF5 file for guarded reading. Whatever h5py raises on a damaged file becomes UnreadableFile."""
    try:
        with h5py.File(source, "r") as file:
            yield Hdf5(file)
    except ModelError:
        raise
    except RecursionError:
        raise UnreadableFile("the HDF5 file is nested too deeply") from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableFile(
            f"the HDF5 file is damaged or cut short: {reason[:200]}. Copy it again, or compare its size"
        ) from error


class Hdf5:
    """Groups, attributes and arrays of an open file, each checked before it is read."""

    def __init__(self, file: h5py.File) -> None:
        """Start at the root of `file`."""
        self.root: h5py.Group = file
        self._bytes_left = MAX_ARRAY_BYTES

    def child(self, group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
        """What `path` names below `group`, reached over plain links only."""
        parts = path.split("/")
        if len(parts) > MAX_DEPTH or any(part in {"", ".", ".."} for part in parts):
            raise UnreadableFile(f"the name {path[:200]!r} is not one that Keras writes: it leads out of its group")
        found: h5py.Group | h5py.Dataset = group
        for part in parts:
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                raise UnreadableFile(f"the file has no {path[:200]!r} in {group.name}: it is incomplete")
            if not isinstance(link, h5py.HardLink):
                raise UnreadableFile(
                    f"{path[:200]!r} is a {type(link).__name__} to elsewhere, which Keras never writes"
                )
            found = found[part]
        return found

    def group(self, parent: h5py.Group, path: str) -> h5py.Group:
        """The group `path` below `parent`."""
        found = self.child(parent, path)
        if not isinstance(found, h5py.Group):
            raise UnreadableFile(f"{path[:200]!r} is not a group")
        return found

    def array(self, parent: h5py.Group, path: str) -> Array:
        """The dataset `path` below `parent`, as float32."""
        dataset = self.child(parent, path)
        if not isinstance(dataset, h5py.Dataset):
            raise UnreadableFile(f"{path[:200]!r} is not an array")
        self._check(dataset, path[:200])
        # Converted while it is read, so that float64 is never in memory as such.
        array = np.asarray(dataset.astype(np.float32)[()], dtype=np.float32)
        if not np.isfinite(array).all():
            raise UnreadableFile(
                f"the weight {path[:200]!r} holds NaN, infinity or numbers beyond float32: "
                "a training that diverged, or a damaged file"
            )
        return array

    def _check(self, dataset: h5py.Dataset, path: str) -> None:
        if dataset.external is not None or dataset.is_virtual:
            raise UnreadableFile(f"{path!r} keeps its data in another file, which Keras never does")
        dtype, shape = dataset.dtype, dataset.shape
        if dataset.attrs.get("dtype") is not None or dtype.kind == "V":
            raise Unsupported(
                f"{path!r} is stored as bfloat16 or another type without a NumPy dtype. Save the model in float32"
            )
        if shape is None or not (
            (dtype.kind == "f" and dtype.itemsize in {2, 4, 8}) or (dtype.kind in "iu" and shape == ())
        ):
            raise UnreadableFile(f"{path!r} is of type {dtype} and shape {shape}, where floats were expected")
        size = math.prod(shape) * dtype.itemsize
        # float16 grows to float32 here, so count the larger.
        self._bytes_left -= math.prod(shape) * max(dtype.itemsize, 4)
        if self._bytes_left < 0:
            raise UnreadableFile(f"the arrays up to {path!r} need more than {MAX_ARRAY_BYTES >> 20} MiB")
        filters = {
            dataset.id.get_create_plist().get_filter(k)[0] for k in range(dataset.id.get_create_plist().get_nfilters())
        }
        if filters - {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}:
            raise UnreadableFile(f"{path!r} is compressed by something other than gzip, which Keras never does")
        if not filters and dataset.id.get_storage_size() < size:
            raise UnreadableFile(
                f"{path!r} declares {size} bytes and stores {dataset.id.get_storage_size()}: the file is incomplete"
            )

    def text(self, group: h5py.Group, name: str) -> str | None:
        """The text attribute `name`, or None where there is none."""
        if name not in group.attrs:
            return None
        self._check_attribute(group, name)
        return _text(group.attrs[name])

    def texts(self, group: h5py.Group, name: str) -> list[str] | None:
        """The list of texts in the attribute `name`, or in `name0`, `name1`, ... where it was too long; or None."""
        if name in group.attrs:
            parts = [name]
        else:
            parts = []
            while f"{name}{len(parts)}" in group.attrs and len(parts) < MAX_NAME_PARTS:
                parts.append(f"{name}{len(parts)}")
            if not parts:
                return None
        texts: list[str] = []
        for part in parts:
            self._check_attribute(group, part)
            # A list without elements is stored as an empty float64 array.
            texts += [_text(value) for value in np.atleast_1d(group.attrs[part]).ravel()]
        return texts

    def _check_attribute(self, group: h5py.Group, name: str) -> None:
        attribute = group.attrs.get_id(name)
        if math.prod(attribute.shape or (1,)) * attribute.dtype.itemsize > MAX_TEXT_BYTES:
            raise UnreadableFile(f"the attribute {name!r} is longer than {MAX_TEXT_BYTES >> 20} MiB")


def _text(value: object) -> str:
    """A text of an attribute: `bytes`, `str` or a NumPy string, as h5py 2 and 3 and the Kerases differ."""
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise UnreadableFile(f"an attribute holds {type(value).__name__} where a text was expected")
    if len(text) > MAX_TEXT_BYTES:
        raise UnreadableFile(f"an attribute holds a text longer than {MAX_TEXT_BYTES >> 20} MiB")
    return text
