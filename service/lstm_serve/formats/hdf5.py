"""The guard through which every byte of an HDF5 file is read.

h5py follows whatever a file says: external storage reads any file of the machine into a "weight", links lead elsewhere,
1,400 bytes may declare 16 GiB. Keras writes none of that, so all of it is refused here, before anything is read.
What the format allows: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import io
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import h5py
import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.errors import ModelError, UnreadableFile, Unsupported
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.hdf5_attributes import Attribute, Attributes
from lstm_serve.formats.memory_limit import bounded

# What reading takes beside the arrays, and beside a byte for each of their numbers while they are checked.
SPARE_BYTES = 80 << 20
# The longest path: Keras nests some ten groups for a model in a model in a wrapper.
MAX_DEPTH = 32
# Of one group.
MAX_OBJECTS = 20_000
# Of all ways to a group or an array that are gone: several may lead to one.
MAX_LOOKUPS = 12_000
# A gzipped array is read in pieces, each whole, however little of it is asked for, and also where it is not there.
MAX_PIECES = 1 << 16
MAX_SPARE_BYTES = 1 << 20
# gzip has a checksum of its own, fletcher32 is one: the library compares them.
FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
LZF = h5py.h5z.FILTER_LZF
# Kerases split a list of names over 64 KB into numbered attributes.
MAX_NAME_PARTS = 64


@contextmanager
def opened(source: BinaryIO | io.BytesIO, budget: Budget) -> Iterator["Hdf5"]:
    """Open an HDF5 file for guarded reading, its arrays within the budget.

    Whatever h5py raises on a damaged file becomes UnreadableFile.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    try:
        # 15 KB can make the library allocate 8 GB for the header of an object.
        with bounded(budget.left * 5 // 4 + SPARE_BYTES + 4 * size), h5py.File(source, "r") as file:
            yield Hdf5(file, Attributes(source, file.userblock_size), budget)
    except ModelError:
        raise
    except RecursionError:
        raise UnreadableFile("the HDF5 file is nested too deeply") from None
    except MemoryError:
        raise UnreadableFile(
            "reading the HDF5 file takes more memory than there is, or than a file of its size may take. Load it into "
            "Keras, and model.save('model.h5') it again, without compression"
        ) from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableFile(
            f"the HDF5 file is damaged or cut short: {reason[:200]}. Copy it again, or compare its size"
        ) from error


class Hdf5:
    """Groups, attributes and arrays of an open file, each checked before it is read."""

    def __init__(self, file: h5py.File, attributes: Attributes, budget: Budget) -> None:
        """Start at the root of `file`."""
        self.root: h5py.Group = file
        self._attributes = attributes
        self._budget = budget
        self._lookups_left = MAX_LOOKUPS

    def child(self, group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
        """What `path` names below `group`, reached over plain links only."""
        parts = path.split("/")
        if len(parts) > MAX_DEPTH or any(part in {"", ".", ".."} for part in parts):
            raise UnreadableFile(f"the name {path[:200]!r} is not one that Keras writes: it leads out of its group")
        self._lookups_left -= 1
        if self._lookups_left < 0:
            raise UnreadableFile(f"the HDF5 file leads to more than {MAX_LOOKUPS} groups and arrays")
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

    def datasets(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """The paths of all datasets below those children of the root that are wanted, reached over plain links."""
        waiting = [name for name in self.children(self.root) if wanted(name)]
        while waiting:
            path = waiting.pop()
            found = self.child(self.root, path)
            if isinstance(found, h5py.Group):
                waiting += [f"{path}/{name}" for name in self.children(found)]
            else:
                yield path

    def children(self, group: h5py.Group) -> list[str]:
        """The names in a group."""
        if len(group) > MAX_OBJECTS:
            raise UnreadableFile(f"the HDF5 file holds more than {MAX_OBJECTS} objects")
        return list(group)

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
        if self.has(dataset, "dtype") or dtype.kind == "V":
            raise Unsupported(
                f"{path!r} is stored as bfloat16 or another type without a NumPy dtype. Save the model in float32"
            )
        if shape is None or not (
            (dtype.kind == "f" and dtype.itemsize in {2, 4, 8}) or (dtype.kind in "iu" and shape == ())
        ):
            raise UnreadableFile(f"{path!r} is of type {dtype} and shape {shape}, where floats were expected")
        size = math.prod(shape) * dtype.itemsize
        # float16 grows to float32 here, so count the larger.
        self._budget.take(math.prod(shape) * max(dtype.itemsize, 4), path)
        pieces = dataset.chunks or shape
        count = math.prod(-(-n // piece) for n, piece in zip(shape, pieces, strict=True))
        if count > MAX_PIECES or math.prod(pieces) * dtype.itemsize > size + MAX_SPARE_BYTES:
            raise UnreadableFile(f"{path!r}, of shape {shape}, is stored in pieces of {pieces}, too many or too large")
        _check_filters(dataset.id.get_create_plist(), path)
        # What is not stored, the library makes up.
        if dataset.chunks is not None:
            whole, stored, what = count, dataset.id.get_num_chunks(), "pieces"
        else:
            whole, stored, what = size, dataset.id.get_storage_size(), "bytes"
        if stored < whole:
            raise UnreadableFile(f"{path!r} declares {whole} {what} and stores {stored}: the file is incomplete")
        if not all(_whole_pieces(dataset)):
            raise UnreadableFile(f"{path!r} has a piece that unpacks to less than it should: the file is damaged")

    def has(self, node: h5py.Group | h5py.Dataset, name: str) -> bool:
        """Whether there is an attribute `name`."""
        return name in self._of(node)

    def text(self, group: h5py.Group, name: str) -> str | None:
        """The text attribute `name`, or None where there is none."""
        if not self.has(group, name):
            return None
        texts = self._attributes.texts(self._of(group)[name])
        if len(texts) != 1:
            raise UnreadableFile(f"the attribute {name!r} holds {len(texts)} texts, where one was expected")
        return texts[0]

    def texts(self, group: h5py.Group, name: str) -> list[str] | None:
        """The list of texts in the attribute `name`, or in `name0`, `name1`, ... where it was too long; or None."""
        found = self._of(group)
        parts = [name] if name in found else []
        while not self.has(group, name) and f"{name}{len(parts)}" in found and len(parts) < MAX_NAME_PARTS:
            parts.append(f"{name}{len(parts)}")
        return [text for part in parts for text in self._attributes.texts(found[part])] if parts else None

    def _of(self, node: h5py.Group | h5py.Dataset) -> dict[str, Attribute]:
        return self._attributes.of(h5py.h5o.get_info(node.id).addr)


def _whole_pieces(dataset: h5py.Dataset) -> Iterator[bool]:
    """Of each gzipped piece, whether it unpacks to its size: of one that does not, the library makes up the rest."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    place = filters.index(h5py.h5z.FILTER_DEFLATE)
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    packed = size + 4 * filters[:place].count(h5py.h5z.FILTER_FLETCHER32)  # a checksum that was put behind it before
    offsets: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda piece: offsets.append(piece.chunk_offset))
    for offset in offsets:
        left_out, data = dataset.id.read_direct_chunk(offset)
        gzipped = not left_out >> place & 1
        yield (len(zlib.decompressobj().decompress(data, packed)) if gzipped else len(data)) >= packed


def _check_filters(stored: h5py.h5p.PropDCID, path: str) -> None:
    """Refuse what the bytes of an array went through, unless reading them tells whether they are still the same."""
    for code, _, _, name in map(stored.get_filter, range(stored.get_nfilters())):
        if code in FILTERS:
            continue
        words = name.decode("ascii", "replace")[:40] or f"filter {code}"
        why = "which has no checksum, and of which h5py takes a damaged piece for whole" if code == LZF else "not gzip"
        raise Unsupported(
            f"{path!r} is compressed by {words}, {why}. Load the file into Keras, and model.save('model.h5') it again"
        )
