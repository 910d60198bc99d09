"""Files in, a Model out. Knows no HTTP. What a file is, its content says, never its extension."""

import hashlib
import os
import re
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from lstm_serve.engine.types import Array
from lstm_serve.errors import MissingFact, ModelError, UnreadableFile
from lstm_serve.formats.array_budget import Budget
from lstm_serve.formats.folder import Folder
from lstm_serve.formats.text import printable
from lstm_serve.limits import MAX_MODEL_BYTES
from lstm_serve.loading import apply_card, locate
from lstm_serve.loading.assembly import assemble
from lstm_serve.loading.config import architecture, keras1_names
from lstm_serve.loading.config.architecture import Architecture
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.contents import Contents
from lstm_serve.loading.digest import digest_of
from lstm_serve.loading.files import checkpoint, detect, keras_v3, saved_model
from lstm_serve.loading.sidecars import architecture_json as described_beside
from lstm_serve.loading.sidecars import card as cards
from lstm_serve.loading.sidecars import golden, misnamed
from lstm_serve.loading.sidecars import profile as profiles
from lstm_serve.loading.sidecars.architecture_json import Described
from lstm_serve.loading.sidecars.card import Card
from lstm_serve.loading.weights import assign as weights
from lstm_serve.loading.weights import infer_architecture
from lstm_serve.loading.weights.infer_architecture import GIVE_ARCHITECTURE
from lstm_serve.model.files import GOLDEN, ModelFiles
from lstm_serve.model.metadata import Origin
from lstm_serve.model.model import Model


def load_model(  # noqa: PLR0913 - a keyword each
    path: str | os.PathLike[str],
    *,
    replay: bool = True,
    profile: bool = True,
    recurrent_activation: str | None = None,
    output_activation: str | None = None,
    hidden_activation: str | None = None,
    return_sequences: bool | None = None,
    mask_zero: bool | None = None,
    max_bytes: int = MAX_MODEL_BYTES,
) -> Model:
    """Load a model that Keras saved, with the card and the golden predictions beside it.

    `path` is a file of any form, a folder that Keras saved, a checkpoint with or without .index, or a folder with one
    such. The activations, `return_sequences` and `mask_zero` say, as the card's fields do, what weights alone do not.
    Where there are golden predictions, the model has reproduced them when this returns; `replay=False` leaves that out,
    `profile=False` what lies beside it of the training data.
    All arrays may take `max_bytes` of memory. Raises ModelError, with the file's name and what to do.
    """
    path = told = Path(path)
    try:
        files = ModelFiles.of(resolve(path))
        if files.model.is_relative_to(path):
            told = files.model  # in a folder the file is named, since it is what may be damaged
        misnamed.check(files)
        card = _told(
            cards.read(files),
            recurrent_activation=recurrent_activation,
            output_activation=output_activation,
            hidden_activation=hidden_activation,
            return_sequences=return_sequences,
            mask_zero=mask_zero,
        )
        model = _load(files, card, Budget(max_bytes))
        if profile:
            model = profiles.added(model, files)
        return golden.replay(model, files) if replay else model
    except ModelError as error:
        raise type(error)(printable(f"{told}: {error}")) from error
    except RecursionError:
        raise UnreadableFile(f"{told}: the model is nested too deeply") from None


def resolve(path: Path) -> Path:
    """The file, or the folder that is a model, that `path` stands for: card and golden predictions lie beside it."""
    try:
        # A checkpoint as TensorFlow calls it.
        if not path.exists() and (index := path.with_name(f"{path.name}.index")).exists():
            return index
        if path.is_dir():
            return locate.model_in(path)
        if path.exists() and not path.is_file():
            raise UnreadableFile("is no plain file")
        if data := re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name):
            raise UnreadableFile(f"is a part of a checkpoint; name {data[1]}.index, or {data[1]}")
        if path.name == "saved_model.pb":
            raise UnreadableFile("is a part of a SavedModel; name the folder that it is in")
        if path.name in keras_v3.PARTS and all((path.parent / name).is_file() for name in keras_v3.PARTS):
            raise UnreadableFile("is a part of a model that Keras saved as a folder; name the folder that it is in")
        if path.name.endswith(GOLDEN):
            raise UnreadableFile("holds golden predictions, by its name; name the model that they are of")
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror or error}") from None
    return path


def _told(card: Card, **said: str | bool | None) -> Card:
    """The card with what was said besides, which must not contradict it."""
    update = {name: value for name, value in said.items() if value is not None}
    for name, value in update.items():
        if getattr(card, name) not in {None, value}:
            raise UnreadableFile(
                f"its card says {name} = {getattr(card, name)!r}, and {str(value)[:40]!r} was asked for"
            )
    return card.model_copy(update=update)


def _load(files: ModelFiles, card: Card, budget: Budget) -> Model:
    try:
        sha256, contents = _read(files.model, budget)
    except FileNotFoundError:
        raise UnreadableFile("there is no such file") from None
    except PermissionError:
        user = f", which runs as user id {os.getuid()}" if hasattr(os, "getuid") else ""
        raise UnreadableFile(f"cannot be read by this process{user}") from None
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror or error}") from None
    described = None if contents.config is not None else described_beside.read(card, files)
    wiring, arrays, keras, assumed = _wired(contents, card, described)
    assembled = assemble(wiring, arrays, keras, card.timesteps)
    origin = Origin(
        file=printable(files.model.name),
        sha256=sha256,
        format=contents.format,
        keras=keras.text,
        assumed=(*contents.notes, *assumed, *assembled.assumed),
        tolerance=assembled.tolerance,
        told_sha256=digest_of(sha256, card, described),
        answers_dict=wiring.by_key,
    )
    by_itself = described is None and contents.config is None  # then the architecture was made of what was said
    return apply_card.model(
        assembled, origin, card, files.model, from_logits=None if by_itself else card.output_activation
    )


def _read(path: Path, budget: Budget) -> tuple[str, Contents]:
    """The sha256 of the model's file or files, and what they hold."""
    if "saved_model.pb" in (folder := Folder(path, budget)):
        contents = saved_model.read(folder)
    elif path.is_dir():
        contents = keras_v3.read_folder(folder)
    elif path.suffix == ".index":
        folder = Folder(path.parent, budget)
        contents = checkpoint.read(folder, path.stem)
    else:
        with path.open("rb") as file:
            return _digest(file, budget), detect.read(file, budget)
    return folder.sha256(), contents


def _wired(
    contents: Contents, card: Card, described: Described | None
) -> tuple[Architecture, Sequence[Sequence[Array]], KerasVersion, tuple[str, ...]]:
    """The architecture, its arrays for each layer, the Keras that they are of, and what was assumed."""
    config, keras, assumed = contents.config, contents.keras, ()
    if config is None:
        if described is None and contents.stack is None:
            raise MissingFact(f"the file holds weights alone, and they do not tell their layers. {GIVE_ARCHITECTURE}")
        if described is None:
            said = infer_architecture.Said(*(getattr(card, name) for name in infer_architecture.Said._fields))
            return infer_architecture.read(contents.stack or (), keras, said)
        config = described.config
        keras = (described.keras or keras).with_backend("theano" if keras.theano else None)
    elif card.architecture is not None:
        raise UnreadableFile("a whole model says its architecture itself; remove that from its card")
    told = [name for name in infer_architecture.OF_LAYERS if getattr(card, name) is not None]
    if told:
        raise UnreadableFile(f"the architecture says its {', '.join(told)} itself; leave it out, and out of its card")
    wiring = architecture.read(config, keras1_names.modern if keras.major == 1 else None)
    if contents.listed:
        weights.check_order(wiring.layers, keras)
    return wiring, contents.assign(wiring.layers), keras.with_wiring(wiring.build_input_shape), assumed


def _digest(file: BufferedReader, budget: Budget) -> str:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UnreadableFile("is empty: the copy or the download failed")
    budget.expect(size)
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
