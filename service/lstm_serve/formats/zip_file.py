"""Zips, read without trusting what they declare: no member is unpacked to disk, and none larger than it says.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import BinaryIO

from lstm_serve.errors import ModelError, UnreadableFile
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.text import decode

MAGIC = b"PK\x03\x04"
END_MAGIC = b"PK\x05\x06"  # of the list's end; a zip without members begins with it
# A model's zip has three members, an .npz one for each array.
MAX_MEMBERS = 4096
MAX_DIRECTORY_BYTES = 1 << 20
ENTRY_BYTES = 512  # of a member in it: 46, and its name
MAX_TEXT_BYTES = 4 << 20
PIECE_BYTES = 1 << 20


@contextmanager
def opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open a zip, its directory bounded. Whatever is raised on a damaged one becomes UnreadableFile."""
    try:
        check_directory(file)
        with zipfile.ZipFile(file) as archive:
            _check_names(archive.namelist())
            yield archive
    except ModelError:
        raise
    except MemoryError:
        raise UnreadableFile("reading the zip takes more memory than there is") from None
    except Exception as error:
        reason = str(error)[:100] or type(error).__name__
        raise UnreadableFile(
            f"the zip is damaged or cut short: {reason}. Copy it again, or compare its size"
        ) from error


def text(archive: zipfile.ZipFile, name: str) -> str:
    """A member as text."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise UnreadableFile(f"the zip has no member {name}: it is no .keras file, or incomplete") from None
    if member.file_size > MAX_TEXT_BYTES:
        raise UnreadableFile(f"the member {name} is larger than {MAX_TEXT_BYTES >> 20} MiB")
    return decode(_unpacked(archive, member).getvalue())


def member(archive: zipfile.ZipFile, name: str, file: BufferedReader, budget: Budget) -> BinaryIO:
    """A member to read from and to move about in; `file` is the zip's own. Its checksum has been compared.

    One that is packed, as Keras never does it, is unpacked in memory within the budget for arrays, not at its cost.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        budget.check(info.file_size, name)
        return _unpacked(archive, info)
    with archive.open(info) as stream:  # the reading compares the checksum
        while stream.read(1 << 20):
            pass
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    return _Part(file, info.header_offset + 30 + name_length + extra_length, info.file_size)  # type: ignore[return-value]


def _check_names(names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise UnreadableFile("the zip has two members of one name")


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> io.BytesIO:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UnreadableFile(
            f"the member {info.filename[:100]!r} is packed unusually. Pack the file anew, with deflate or as it is"
        )
    data = io.BytesIO()
    with archive.open(info) as stream:  # it gives no more than the size that the zip says
        while piece := stream.read(PIECE_BYTES):
            data.write(piece)
    if data.tell() != info.file_size:
        raise UnreadableFile(f"the member {info.filename[:100]!r} is not of the size that the zip says")
    return data


def check_directory(file: BinaryIO, most: int = MAX_MEMBERS) -> None:
    """Bound the list of members before it is read: it is as long as it says, and may be most of the file.

    Raises UnreadableFile for more than `most`.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - (1 << 16) - 42)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(END_MAGIC)
    if at < 0 or len(tail) < at + 22:
        raise UnreadableFile("the zip is cut short: its list of members is missing. Copy it again, or compare its size")
    members, directory = struct.unpack("<HI", tail[at + 10 : at + 16])
    if tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):  # of more than 2 GiB: before that stand its own numbers
        record = tail[max(0, at - 76) : at - 20]
        if len(record) < 56 or not record.startswith(b"PK\x06\x06"):
            raise UnreadableFile("the zip is damaged: its list of members is not where it says. Copy it again")
        members, directory = struct.unpack("<QQ", record[32:48])
    room = min(MAX_DIRECTORY_BYTES, most * ENTRY_BYTES)
    if members > most or directory > room:
        raise UnreadableFile(
            f"the zip lists {members} members in {directory} bytes; expected at most {most} members in {room} bytes"
        )
    file.seek(0)


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BufferedReader, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        room = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[:room])  # an array at once, and not a copy of it beside
        self._at += count
        return count
