"""Keras 3's own files, which tf.keras writes since 2.12: the `.keras` zip or folder, and weights as `.weights.h5`."""

import zipfile
from collections.abc import Collection
from functools import partial
from io import BufferedReader
from typing import Any, BinaryIO

from lstm_serve.engine.types import Array
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats import hdf5, zip_file
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.hdf5 import Hdf5
from lstm_serve.formats.text import decode
from lstm_serve.loading.config.keras_version import UNKNOWN, KerasVersion
from lstm_serve.loading.config.strict_json import parse
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.weights import assign, layer_order

CONFIG, METADATA, WEIGHTS = PARTS = "config.json", "metadata.json", "model.weights.h5"

# Where the layers stand: tf.keras 2.12 to 2.14, and all others.
ROOTS = {"_layer_checkpoint_dependencies": "layers", "layers": "layers"}


def read_zip(archive: zipfile.ZipFile, file: BufferedReader, budget: Budget) -> Contents:
    """Read a `.keras` file. Of its members three are looked at, by their fixed names."""
    names = archive.namelist()
    if WEIGHTS not in names:
        sharded = any(name.startswith("model.weights") for name in names)
        reason = "are in a form that is not supported" if sharded else "are missing"
        raise Unsupported(f"the weights in the .keras file {reason}; {WEIGHTS} was expected")
    config = parse(zip_file.text(archive, CONFIG), f"the member {CONFIG}")
    metadata = parse(zip_file.text(archive, METADATA), f"the member {METADATA}") if METADATA in names else None
    return _whole(".keras", config, metadata, zip_file.member(archive, WEIGHTS, file, budget), budget)


def is_folder(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is a model, as `model.save(path, zipped=False)` writes it."""
    return {METADATA, WEIGHTS} <= set(names)  # a config.json may be of anything


def read_folder(folder: Folder) -> Contents:
    """Read a folder with what a `.keras` file has as members."""
    folder.budget.expect(folder.size(WEIGHTS))
    config, metadata = (_json(folder, name) for name in (CONFIG, METADATA))
    with folder.opened(WEIGHTS) as file:
        return _whole(".keras folder", config, metadata, file, folder.budget)


def _json(folder: Folder, name: str) -> Any:  # noqa: ANN401 - JSON is anything
    try:
        return parse(decode(folder.read(name, zip_file.MAX_TEXT_BYTES)), name)
    except UnicodeDecodeError:
        raise UnreadableFile(f"{name} is not text in UTF-8") from None


def _whole(
    form: str,
    config: Any,  # noqa: ANN401 - JSON is anything
    metadata: Any,  # noqa: ANN401
    file: BinaryIO,
    budget: Budget,
) -> Contents:
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str):
        raise UnreadableFile(f"its {METADATA} does not say its keras_version")
    with hdf5.opened(file, budget) as opened:
        tree = read_tree(opened)
    return Contents(form, config, KerasVersion.parse(version), partial(assign.by_class, tree=tree), None)


def is_weights(file: Hdf5) -> bool:
    """Whether an HDF5 file has this layout."""
    return any(_parts(name)[0] in ROOTS for name in file.root)


def read_weights(file: Hdf5) -> Contents:
    """Read a `.weights.h5` file. It has no version, and says of its layers their classes alone."""
    tree = read_tree(file)
    stack = layer_order.stack_of(tree, _tops(file))
    return Contents(".weights.h5", None, UNKNOWN, partial(assign.by_class, tree=tree), stack)


def read_tree(file: Hdf5) -> dict[tuple[str, ...], list[Array]]:
    """The arrays of the layers, by the path of the object that has them, each list in the order of its numbers."""
    numbered: dict[tuple[str, ...], dict[int, str]] = {}
    for path in file.datasets(lambda name: _parts(name)[0] in ROOTS):
        *owner, variables, number = ["layers" if part in ROOTS else part for part in _parts(path)]
        if any("seed_generator" in part or "random_generator" in part for part in owner):
            continue
        if variables != "vars" or not number.isascii() or not number.isdigit() or len(number) > 6:
            raise UnreadableFile(f"the array {path[:200]!r} is not named as Keras names them")
        numbered.setdefault(tuple(owner), {})[int(number)] = path
    return {
        owner: [file.array(file.root, paths[number]) for number in sorted(paths)]
        for owner, paths in sorted(numbered.items())
    }


def _tops(file: Hdf5) -> set[str]:
    """The names of the model's own layers, weightless ones among them."""
    tops: set[str] = set()
    for name in file.children(file.root):
        parts = _parts(name)
        if parts[0] in ROOTS:
            tops |= {parts[1]} if len(parts) > 1 else set(file.children(file.group(file.root, name)))
    return tops


def _parts(path: str) -> list[str]:
    # On Windows tf.keras wrote a group of the name "layers\\lstm\\cell".
    return [part for part in path.replace("\\", "/").split("/") if part] or [""]
