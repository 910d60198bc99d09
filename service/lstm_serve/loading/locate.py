"""A folder with one model in it, as KServe and TensorFlow Serving mount them."""

from collections.abc import Iterable
from pathlib import Path

from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.files import detect, keras_v3
from lstm_serve.model.files import GOLDEN, MAX_ENTRIES

# Names of files that are meant as models, whatever is in them.
MEANT = frozenset({".h5", ".hdf5", ".keras"})


def model_in(folder: Path) -> Path:
    """The folder if it is a model itself; the one model in it; or else what is in its highest numbered folder.

    What a file is, its content says; JSON is not looked at, since it may be anything.
    """
    inside = entries(folder)
    if _is_model(inside):
        return folder.absolute()  # what "." is called, its card and golden predictions are
    models = _models(inside)
    if len(models) > 1:
        listed = ", ".join(model.name for model in models[:10])
        raise UnreadableFile(
            f"is a folder with {len(models)} models ({listed[:200]}); "
            "name one of them, or give each a folder of its own"
        )
    if models:
        return models[0]
    versions = [entry for entry in inside if is_number(entry) and entry.is_dir()]
    if not versions and (damaged := _meant(inside)):
        return damaged[0]  # loading it says what is wrong
    if not versions:
        raise UnreadableFile("is a folder without a model in it, where a file that model.save() wrote was expected")
    return model_in(max(versions, key=lambda version: int(version.name[:20])))


def has_model(folder: Path) -> bool:
    """Whether a folder is a model, or has one, or several, right in it; or, without versions, what is meant as one."""
    inside = entries(folder)
    if _is_model(inside) or _models(inside):
        return True
    return bool(_meant(inside)) and not any(is_number(entry) and entry.is_dir() for entry in inside)


def is_folder_model(folder: Path) -> bool:
    """Whether a folder is a model itself, as Keras saves them."""
    return _is_model(entries(folder))


def holds_folder_model(entry: Path) -> bool:
    """Whether an entry of a folder is a model and a folder, where that can be told: `lost+found` is only root's."""
    try:
        return entry.is_dir() and is_folder_model(entry)
    except (OSError, UnreadableFile):
        return False


def entries(folder: Path) -> list[Path]:
    """What is in a folder. Raises UnreadableFile where that is too much, and OSError."""
    found = []
    for entry in folder.iterdir():
        found.append(entry)
        if len(found) > MAX_ENTRIES:
            raise UnreadableFile(f"is a folder of more than {MAX_ENTRIES} files; name the model's file")
    return found


def _is_model(inside: Iterable[Path]) -> bool:
    """Whether what is in a folder makes it a model."""
    names = {entry.name for entry in inside}
    return "saved_model.pb" in names or keras_v3.is_folder(names)


def _models(inside: Iterable[Path]) -> list[Path]:
    """The files of those in a folder that are models; where there are none, the folders that are."""
    files = sorted(entry for entry in inside if not entry.name.endswith(GOLDEN) and detect.is_model(entry))
    return files or sorted(entry for entry in inside if not is_number(entry) and holds_folder_model(entry))


def _meant(inside: Iterable[Path]) -> list[Path]:
    """The files that are meant as models by their names, and hold none: damaged, or no more than a pointer."""
    return sorted(
        entry for entry in inside if entry.suffix in MEANT and not entry.name.startswith(".") and entry.is_file()
    )


def is_number(entry: Path) -> bool:
    """Whether it is called by a number, as a folder of a version is."""
    return entry.name.isascii() and entry.name.isdigit()
