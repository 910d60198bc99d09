"""A model that is a folder: plain files are read from it, by name, and nothing outside of it.

A symbolic link in a downloaded folder may lead to any file of the machine, and a FIFO waits for ever: both are refused.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.polling import NOT_WAITING

LFS_POINTER = b"version https://git-lfs"


class Folder:
    """A folder of the model's files. The way to it is the user's own, and may be over links."""

    def __init__(self, path: Path, budget: Budget | None = None, files: set[Path] | None = None) -> None:
        """Look at nothing yet. `budget` is for the arrays in it.

        `files` collects what is read, here and in the folders in this one.
        """
        self.path = path
        self.budget = Budget() if budget is None else budget
        self.files = set() if files is None else files

    def __contains__(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def folder(self, name: str) -> "Folder":
        """The folder `name` in this one."""
        path = self.path / name
        if not os.path.lexists(path):
            raise UnreadableFile(f"the folder {name} is missing. Copy the whole folder that Keras saved")
        if path.is_symlink() or not path.is_dir():
            raise UnreadableFile(f"{name} is a link or a file, where a folder was expected")
        return Folder(path, self.budget, self.files)

    @contextmanager
    def opened(self, name: str) -> Iterator[BufferedReader]:
        """Open the plain file `name` for reading."""
        try:
            file = open(self.path / name, "rb", opener=_open_no_link)  # noqa: SIM115 - what opening raises is told apart
        except FileNotFoundError:
            raise UnreadableFile(f"the file {name} is missing. Copy the whole folder that Keras saved") from None
        except OSError as error:
            reason = "it is a symbolic link, which is not followed" if error.errno == errno.ELOOP else error.strerror
            raise UnreadableFile(f"{name} cannot be read: {reason}. Copy the file itself there") from None
        with file:
            if file.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
                raise UnreadableFile(f"{name} is a git-lfs pointer, not the file: run git lfs pull, and copy it again")
            self.files.add(self.path / name)
            yield file

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of the plain file `name`, at most `limit` of them."""
        with self.opened(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise UnreadableFile(f"{name} is larger than {limit >> 20} MiB")
            return file.read(size)

    def size(self, name: str) -> int:
        """The bytes of the file `name`; 0 where there is none."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return 0

    def sha256(self) -> str:
        """Of all files that were read: the sha256 of what `sha256sum` prints for them, in the order of their names."""
        lines = hashlib.sha256()
        for path in sorted(self.files):
            name = path.relative_to(self.path).as_posix()
            with self.opened(name) as file:
                lines.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode())
        return lines.hexdigest()


def opened(path: Path) -> BufferedReader:
    """What lies beside a model, for reading; links are followed.

    Raises FileNotFoundError where there is nothing, and OSError else, also for what is no plain file, and for a link to
    nothing: whoever put it there means a file.
    """
    try:
        return open(path, "rb", opener=_open_plainly)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.EINVAL, "it is a link to a file that is not there") from None
        raise


def _open_no_link(path: str, flags: int) -> int:
    no_follow: int = getattr(os, "O_NOFOLLOW", 0)
    if not no_follow and Path(path).is_symlink():  # Windows
        raise OSError(errno.ELOOP, "it is a symbolic link")
    return _open_plainly(path, flags | no_follow)


def _open_plainly(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | NOT_WAITING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file")
    return descriptor
