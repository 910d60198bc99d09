"""Which form a file has, by its content, and what each holds."""

import os
import zipfile
from collections.abc import Collection
from functools import partial
from io import BufferedReader
from pathlib import Path

from lstm_serve.errors import LstmServeError, MissingFact, ModelError, UnreadableFile, Unsupported
from lstm_serve.formats import hdf5, tensor_bundle, zip_file
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.text import decode
from lstm_serve.loading.config.strict_json import parse
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.files import foreign, hdf5_legacy, keras_v3, weight_lists
from lstm_serve.loading.sidecars.architecture_json import parse_model
from lstm_serve.loading.weights import assign as weights

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_JSON_BYTES = 16 << 20
MAX_JSON_LISTS = 1 << 19


def read(file: BufferedReader, budget: Budget) -> Contents:
    """Read a model file of any form, its arrays within the budget.

    Raises ModelError where it is none, with what to do about it.
    """
    file.seek(0)
    head = file.read(4096)
    if head.startswith((zip_file.MAGIC, zip_file.END_MAGIC)):
        with zip_file.opened(file) as archive:
            return _zip(archive, file, budget)
    if _is_hdf5(file):
        return _hdf5(file, budget)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"[", b'"'}:
        return _json(file)
    raise _refusal(head, file)


def is_model(path: Path) -> bool:
    """Whether a file is a model, or the weights of one, as far as a look at its beginning tells. JSON is not."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            if file.read(4) == zip_file.MAGIC:
                with zip_file.opened(file) as archive:
                    names = archive.namelist()
                return keras_v3.CONFIG in names or (any(map(_is_array, names)) and not _has_answers(names))
            return _is_hdf5(file) or (path.suffix == ".index" and _is_table(file))
    except (OSError, LstmServeError):
        return True  # loading it says what is wrong


def _zip(archive: zipfile.ZipFile, file: BufferedReader, budget: Budget) -> Contents:
    names = archive.namelist()
    if keras_v3.CONFIG in names:
        return keras_v3.read_zip(archive, file, budget)
    if _has_answers(names):
        raise UnreadableFile("holds inputs and the answers to them, x and y; name the model that they are of")
    if names and all(map(_is_array, names)):
        return weight_lists.from_npz(archive, file, budget)
    if any(name.endswith("data.pkl") for name in names):
        raise Unsupported(foreign.TORCH)
    raise UnreadableFile(
        "is a zip, and neither a .keras file, which has a config.json, nor an .npz file of arrays. "
        "Unpack it if the model is inside"
    )


def _is_array(name: str) -> bool:
    return name.endswith(".npy")


def _has_answers(names: Collection[str]) -> bool:
    """Whether an .npz file holds inputs and what is answered to them, as golden predictions do, and no weights."""
    return {"x.npy", "y.npy"} <= set(names) or {"x0.npy", "y0.npy"} <= set(names)


def _hdf5(file: BufferedReader, budget: Budget) -> Contents:
    with hdf5.opened(file, budget) as opened:
        whole = hdf5_legacy.is_whole(opened)
        if whole or hdf5_legacy.is_weights(opened):
            legacy = hdf5_legacy.read(opened)
            assign = partial(weights.by_group, groups=legacy.groups)
            form = "whole-model HDF5" if whole else "weights-only HDF5"
            return Contents(form, legacy.config, legacy.keras, assign, legacy.groups)
        if keras_v3.is_weights(opened):
            return keras_v3.read_weights(opened)
    raise UnreadableFile(
        "is an HDF5 file, and neither a model that Keras saved nor its weights. Save the model with model.save()"
    )


def _json(file: BufferedReader) -> Contents:
    file.seek(0)
    data = file.read(MAX_JSON_BYTES + 1)
    # An empty list takes three bytes here and some seventy in memory.
    if len(data) > MAX_JSON_BYTES or data.count(b"[") + data.count(b"{") > MAX_JSON_LISTS:
        raise UnreadableFile(
            f"is JSON of more than {MAX_JSON_BYTES >> 20} MiB, or of {MAX_JSON_LISTS} lists: use an .npz file instead"
        )
    if parse_model(data, "the JSON") is not None:
        raise MissingFact(
            "is a model's architecture without its weights. Name the weights' file instead, and give the two one stem "
            '(model.h5, model.json), or name this file as "architecture" in the card of the weights'
        )
    content = parse(decode(data), "the JSON")
    if isinstance(content, list):
        return weight_lists.from_json(content)
    if isinstance(content, dict) and "weight_map" in content:
        raise Unsupported("lists weights that Keras split over several files. Save them in one, without max_shard_size")
    if isinstance(content, dict) and ("modelTopology" in content or "weightsManifest" in content):
        raise Unsupported(foreign.TFJS)
    raise UnreadableFile("is JSON, and neither a model's architecture nor a list of weights")


def _refusal(head: bytes, file: BufferedReader) -> ModelError:
    """What to say of a file of none of the forms."""
    if _is_table(file):
        return UnreadableFile(
            "is the index of a TensorFlow checkpoint under another name. "
            "Name it as it was, NAME.index beside NAME.data-00000-of-00001"
        )
    return foreign.refusal(head, file)


def _is_table(file: BufferedReader) -> bool:
    file.seek(-min(len(tensor_bundle.MAGIC), file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read() == tensor_bundle.MAGIC


def _is_hdf5(file: BufferedReader) -> bool:
    # A user block of 512 bytes or a power of two more may come before the signature.
    size, at = file.seek(0, os.SEEK_END), 0
    while at < size:
        file.seek(at)
        if file.read(8) == HDF5_SIGNATURE:
            file.seek(0)
            return True
        at = at * 2 or 512
    file.seek(0)
    return False
