"""What belongs to a model by its name: how its card, its golden predictions, its architecture and so on are called."""

import os
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

CARD, GOLDEN, ARCHITECTURE = ".card.json", ".golden.npz", ".json"
WEIGHTS = ".weights.h5"
EXAMPLE, SERIES = ".example.json", ".example.csv"
PROFILE = ".profile.json"

# What a model's file is called; a folder may be one too.
MODELS = frozenset({".h5", ".hdf5", ".keras", ".npz", ".index"})
MAX_ENTRIES = 10_000  # of a folder that are looked at


class ModelFiles(NamedTuple):
    """A model's file or folder, and what lies beside it, be it there or not.

    `architecture` is for weights alone; `example` is a request to try, and `series` a longer series; `profile` says
    what the training data were like.
    """

    model: Path
    card: Path
    golden: Path
    architecture: Path
    example: Path
    series: Path
    profile: Path

    @classmethod
    def of(cls, model: Path) -> Self:
        """Those of a model. They are called by a file's name without extension, by a folder's, which may have dots."""
        stem = stem_of(model)
        bare = stem.removesuffix(".weights") if model.name.endswith(WEIGHTS) else stem
        card, golden, *others = (model.with_name(stem + end) for end in (CARD, GOLDEN, EXAMPLE, SERIES, PROFILE))
        return cls(model, card, golden, model.with_name(bare + ARCHITECTURE), *others)


class LookAlike(NamedTuple):
    """A file that is not read, and whose name is nearly that of one beside a model.

    `name` is as seen from the model's folder; `named_after` says whether the model's own name is in it.
    """

    path: Path
    name: str
    named_after: bool


def stem_of(model: Path) -> str:
    """What the files beside a model are called by."""
    return model.name if model.is_dir() else model.stem


def look_alikes(files: ModelFiles, meant: Path) -> list[LookAlike]:
    """Files that may have been meant as `meant`, one of `files`, where that is not there; none of another model's.

    They are its name in another case, the model's name with its extension or without .weights.h5 before the same
    ending, and the ending alone; in the model itself too, where that is a folder.
    """
    if os.path.lexists(meant):
        return []
    model = files.model
    ending = next(ending for ending in (CARD, GOLDEN, ARCHITECTURE) if meant.name.endswith(ending))
    stems = {meant.name.removesuffix(ending), model.name, stem_of(model), model.name.removesuffix(WEIGHTS)}
    named_after = {(stem + ending).casefold() for stem in stems}
    near = {
        folder / name
        for folder in (model.parent, model)
        for name in _names(folder)
        if name.casefold() in named_after or name.casefold() == ending[1:]
    } - {*files}
    if near:
        # Every file beside a model begins as its name does, up to the first dot: a look at each model that does so.
        begun = (name for name in _names(model.parent) if any(path.name.startswith(_first(name)) for path in near))
        beside = (model.with_name(name) for name in begun if name != model.name)
        owners = (path for path in beside if path.suffix in MODELS or path.is_dir())
        near -= {path for owner in owners for path in ModelFiles.of(owner)[1:]}
    return [
        LookAlike(path, path.relative_to(model.parent).as_posix(), path.name.casefold() in named_after)
        for path in sorted(near)
    ]


def _first(name: str) -> str:
    return name.partition(".")[0]


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing in what is none."""
    try:
        return os.listdir(folder)[:MAX_ENTRIES]  # noqa: PTH208 - a Path for each is most of the time
    except OSError:
        return []


def around(path: Path) -> list[Path]:
    """The files of which a change may be one of the model that `path` stands for; those in it, if it is a folder.

    They are what begins as the model's own name does, and all JSON beside it that does not begin as another model's,
    since a card may name any as architecture. Raises OSError.
    """
    beside = [(file, _first(file.name)) for file in path.parent.iterdir()]
    own = _first(path.name)
    others = {first for file, first in beside if file.suffix in MODELS} - {own}
    near = [file for file, first in beside if first == own or (first not in others and file.suffix == ARCHITECTURE)]
    return near + (list(islice(path.rglob("*"), MAX_ENTRIES)) if path.is_dir() else [])
