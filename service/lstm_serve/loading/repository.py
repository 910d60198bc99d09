"""A folder of models, each under its name, as Triton and TensorFlow Serving mount them, or each as a file.

    pump/model.h5    pump/1/model.h5, pump/2/model.keras    pump.h5    fan.card.json beside fan.keras

What lies in the folder itself is called as it is alone: as its card says, or as its file. What lies in a folder of its
own is called as that, and a number is a version there. Nothing that is hidden is looked at, nor `lost+found`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lstm_serve.errors import ModelError, UnreadableFile
from lstm_serve.formats.text import printable
from lstm_serve.loading import locate
from lstm_serve.loading.files import detect
from lstm_serve.loading.sidecars import card as cards
from lstm_serve.model.files import GOLDEN, ModelFiles, stem_of


class ListedModel(NamedTuple):
    """A model as it lies in a folder: its name there, its versions, and why what else is there is none of them.

    `name` is None where it is for its card and its file to say. `versions` has the newest first; None is the version
    of a model that has one alone, which its card may say. `root` is what no file of it may lie outside of.
    """

    name: str | None
    path: Path
    versions: dict[str | None, Path]
    wrong: str | None = None
    root: Path | None = None


def is_several(path: Path) -> bool:
    """Whether a path is a folder of models, rather than one model or its versions."""
    try:
        if not path.is_dir() or locate.is_folder_model(path):
            return False
        entries = _visible(path)
    except (OSError, UnreadableFile):
        return False  # loading it says what is wrong
    files = [entry for entry in entries if _is_meant(entry)]
    return len(files) > 1 or any(
        _holds_one(entry) for entry in entries if entry not in files and not locate.is_number(entry)
    )


def list_models(path: Path, *, several: bool) -> list[ListedModel]:
    """The models that a path stands for: one, where it is not `several`. Raises UnreadableFile where there is none."""
    if not several:
        return [_listed_alone(path)]
    try:
        found = [_listed(entry, path.resolve()) for entry in _visible(path) if _is_meant(entry) or _may_hold_one(entry)]
    except UnreadableFile as error:
        raise UnreadableFile(f"{path}: {error}") from None
    if not found:
        raise UnreadableFile(f"{path}: is a folder without a model in it")
    return [_alone(listed, found) for listed in found]


def expect_inside(root: Path, model: Path) -> None:
    """Raise UnreadableFile where a model of a folder, or what lies beside it, is a link that leads out of `root`."""
    for path in ModelFiles.of(model):
        try:
            inside = path.resolve().is_relative_to(root)
        except (OSError, RuntimeError) as error:  # before Python 3.13 a link to itself is a RuntimeError
            raise UnreadableFile(f"{path}: cannot be followed: {error}") from None
        if not inside:
            raise UnreadableFile(f"{path}: leads out of the folder of models, which is not followed. Copy it there")


def _alone(listed: ListedModel, found: Iterable[ListedModel]) -> ListedModel:
    """A model whose name is no other's; without versions where it is."""
    same = sorted(printable(other.path.name) for other in found if other.name == listed.name)
    if len(same) == 1:
        return listed
    wrong = f"{', '.join(same)} are all called {listed.name}. Rename all but one, or remove them"
    return listed._replace(versions={}, wrong=wrong)


def _listed(entry: Path, root: Path) -> ListedModel:
    """What lies at an entry of a folder of models."""
    name = printable(entry.name)  # one that is no UTF-8, or has control characters, is in no answer and no log as it is
    try:
        if not entry.exists() or not entry.resolve().is_relative_to(root):
            wrong = "is a link to nothing, or out of the folder, which is not followed"
            return ListedModel(_called(entry), entry, {}, wrong, root)
        if _is_meant(entry):
            return ListedModel(_called(entry), entry, {None: entry}, None, root)
        if locate.has_model(entry):
            return ListedModel(name, entry, {None: entry}, _beside(entry), root)
        versions, wrong = _versions(entry)
    except (OSError, UnreadableFile) as error:
        wrong = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        return ListedModel(name, entry, {}, wrong, root)
    if not versions:
        wrong = f"is a folder without a model or a version, which is a number from 1 on, in it{wrong and f'; {wrong}'}"
    return ListedModel(name, entry, versions, wrong or None, root)


def _listed_alone(path: Path) -> ListedModel:
    """A model that is given alone; where it has no numbered folders, or cannot be looked at, as its only version."""
    versions, wrong = dict[str | None, Path](), None
    try:
        if path.is_dir() and locate.has_model(path):
            wrong = _beside(path)
        elif path.is_dir():
            versions, _ = _versions(path)
    except (OSError, UnreadableFile):
        pass  # loading it says what is wrong
    return ListedModel(None, path, versions or {None: path}, wrong)


def _versions(folder: Path) -> tuple[dict[str | None, Path], str]:
    """The numbered folders in a folder, the newest first, and of the others that they are none."""
    entries = [entry for entry in _visible(folder) if entry.is_dir()]
    numbers = sorted(
        (entry for entry in entries if re.fullmatch(cards.VERSION, entry.name)), key=lambda e: -int(e.name)
    )
    others = ", ".join(printable(entry.name) for entry in entries if entry not in numbers)
    wrong = f"no version, which is a number from 1 on: {others[:200]}" if others else ""
    return {entry.name: entry for entry in numbers}, wrong


def _beside(folder: Path) -> str | None:
    """What is wrong where versions lie beside a model's file, which alone is served; None where there are none."""
    numbers = [entry.name for entry in _visible(folder) if re.fullmatch(cards.VERSION, entry.name)]
    found = ", ".join(number for number in sorted(numbers, key=int) if _holds_one(folder / number))
    if not found:
        return None
    return f"not served, since a model lies beside it: version {found}. Move that model into a numbered folder too"


def _called(entry: Path) -> str:
    """How a model that lies in the folder itself is called."""
    try:
        return cards.read(ModelFiles.of(entry)).name or printable(stem_of(entry))
    except ModelError:
        return printable(stem_of(entry))


def _may_hold_one(entry: Path) -> bool:
    """Whether an entry of a folder of models is a folder, or cannot be looked at, which `_listed` says."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def _holds_one(entry: Path) -> bool:
    """Whether a folder looks like that of one model."""
    try:
        return entry.is_dir() and any(
            _is_meant(inner) or (locate.is_number(inner) and inner.is_dir()) for inner in _visible(entry)
        )
    except (OSError, UnreadableFile):
        return False


def _is_meant(entry: Path) -> bool:
    """Whether an entry is a model by what it holds, or by its name is meant as one."""
    if entry.name.endswith(GOLDEN):
        return False
    return entry.suffix in locate.MEANT or detect.is_model(entry) or locate.holds_folder_model(entry)


def _visible(folder: Path) -> list[Path]:
    try:
        # A file system's own folder lies at the root of each volume.
        return sorted(
            entry for entry in locate.entries(folder) if not entry.name.startswith(".") and entry.name != "lost+found"
        )
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror or error}") from None
