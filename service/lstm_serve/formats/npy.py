"""NumPy's .npy and .npz files, read without pickle and without trusting the sizes that they declare.

Formats: numpy.lib.format, and a zip of .npy members.
"""

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Collection
from typing import BinaryIO

import numpy as np

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.zip_file import MAX_MEMBERS, check_directory

NPY_MAGIC = b"\x93NUMPY"
READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # which differs by names of fields alone
}
MAX_BYTES = 128 << 20
MAX_AXES = 32


class HoldsObjects(UnreadableFile):
    """An array of Python objects, which is a pickle."""


class HoldsText(UnreadableFile):
    """An array of text."""


class HoldsTooMuch(UnreadableFile):
    """Arrays of more bytes than they may take."""


def read_npy(source: BinaryIO, name: str = "the .npy file", limit: int = MAX_BYTES) -> AnyArray:
    """The array of a .npy file. Raises UnreadableFile for anything but plain numbers of the declared size."""
    data = source.read(limit + 1)
    if len(data) > limit:
        raise HoldsTooMuch(f"{name} is larger than {limit >> 20} MiB")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = READ_HEADER[version]
        shape, fortran_order, dtype = read_header(stream)
    except MemoryError:
        raise UnreadableFile(f"reading {name} takes more memory than there is") from None
    except Exception:  # noqa: BLE001 - its header is a Python literal: a tokenizer's error, an IndexError ...
        # NumPy's own words repeat what came.
        raise UnreadableFile(f"{name} is not a NumPy array, or is damaged: expected what np.save writes") from None
    if dtype.hasobject:
        raise HoldsObjects(
            f"{name} holds Python objects, which only pickle can read, and a pickle can run any code. "
            "Save plain numbers instead, with np.save, or np.savez for several arrays"
        )
    if dtype.kind in "US":
        raise HoldsText(f"{name} holds text, where numbers were expected")
    if dtype.kind not in "fiub":
        # By its name: the fields of records have others, which whoever wrote the file chose.
        raise UnreadableFile(f"{name} holds {dtype.name} {shape}, where numbers were expected")
    if len(shape) > MAX_AXES or any(type(size) is not int or not 0 <= size <= limit for size in shape):
        raise UnreadableFile(f"{name} declares the shape {str(shape)[:100]}, which is none of an array")
    expected, came = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if expected != came:
        raise UnreadableFile(f"{name} declares {dtype} {shape}, {expected} bytes of numbers, and holds {came}")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran_order else "C")


def member_names(source: BinaryIO) -> list[str]:
    """The names of the arrays in a .npz file that was read."""
    with zipfile.ZipFile(source) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(
    source: BinaryIO,
    only: Collection[str] | None = None,
    limit: int = MAX_BYTES,
    most: int = MAX_MEMBERS,
    *,
    told: bool = True,
) -> dict[str, AnyArray]:
    """The arrays of a .npz file, by name, in the file's order; of the named ones alone, where some are named.

    They may take `limit` bytes, and be `most`. Raises UnreadableFile, which names them where they may be `told`.
    """
    check_directory(source, most)
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(members) > most or len({name.removesuffix(".npy") for name in names}) != len(names):
                raise UnreadableFile(f"the .npz file has {len(members)} members, too many or some of them twice")
            if sum(member.file_size for member in members) > limit:
                raise HoldsTooMuch(f"the .npz file unpacks to more than {limit >> 20} MiB")
            # Of any other kind zipfile unpacks at once all that the packed bytes hold, whatever size they declare.
            if any(member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for member in members):
                raise UnreadableFile(
                    "the .npz file is packed unusually; np.savez and np.savez_compressed write it well"
                )
            arrays = {}
            for number, name in enumerate(names, 1):
                if only is not None and name.removesuffix(".npy") not in only:
                    continue
                called = f"the member {name[:100]!r}" if told else f"member {number} of the .npz file"
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = read_npy(member, called, limit)  # type: ignore[arg-type]
            return arrays
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise UnreadableFile(f"the .npz file is damaged{f': {str(error)[:100]}' if told else ''}") from None
