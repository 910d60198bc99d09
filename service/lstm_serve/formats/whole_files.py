"""Files that are written whole, or not at all."""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO


def write_whole(files: Mapping[Path, Callable[[BinaryIO], object]], new_folder: Path | None = None) -> None:
    """Fill files beside their paths that take these once all are whole, so that a full disk leaves what was there.

    Those of a folder that is not there yet are filled in one beside it, which takes its place. A link stays one. What
    fails, or is given up, leaves nothing. One function: Ctrl-C may come between any two lines, of a context manager's
    too. Raises OSError.
    """
    beside = None if new_folder is None else _beside(new_folder)
    parts: dict[Path, Path] = {}
    try:
        if beside is not None:
            beside.mkdir()
        for link, fill in files.items():
            path = Path(os.path.realpath(link))  # whatever a link is to, a loop too
            part = _beside(path) if beside is None else beside / path.name
            parts[part] = path
            with part.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
        if beside is not None and new_folder is not None:
            beside.rename(new_folder)
        else:
            for part, path in parts.items():
                part.replace(path)
    except BaseException:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
        for part in parts:
            part.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    # As many characters of four bytes each fit into what a file system takes as a name.
    return path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
