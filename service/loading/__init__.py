"""Files in, a Model out. Knows no HTTP. What a file is, its content says, never its extension."""

import hashlib
import os
from io import BufferedReader
from pathlib import Path

import numpy as np

from service.engine.layers import Scaling
from service.engine.model import About, Model, Node, Origin
from service.engine.sequences import Embedding
from service.errors import ModelError, UnreadableFile
from service.loading import architecture, forms, golden, keras1
from service.loading import card as cards
from service.loading.assembly import Assembled, assemble
from service.loading.card import Card
from service.loading.layers import check_class

MAX_FILE_BYTES = 1 << 30


def load_model(path: str | os.PathLike[str], *, replay: bool = True) -> Model:
    """Load a model that Keras saved, with the card and the golden predictions beside it.

    Where there are golden predictions, the model has reproduced them when this returns; `replay=False` leaves that out.
    Raises ModelError, with the file's name and what to do.
    """
    path = Path(path)
    try:
        model = _load(path)
        return golden.replay(model, path) if replay else model
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from error


def _load(path: Path) -> Model:
    card = cards.read(path)
    try:
        with path.open("rb") as file:
            sha256 = _digest(file)
            contents = forms.read(file)
    except FileNotFoundError:
        raise UnreadableFile("there is no such file") from None
    except IsADirectoryError:
        raise UnreadableFile("is a folder, where a file that model.save() wrote was expected") from None
    except PermissionError:
        raise UnreadableFile(f"cannot be read by this process, which runs as user id {os.getuid()}") from None
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror or error}") from None
    contradicting = [
        name
        for name in ("architecture", "recurrent_activation", "output_activation")
        if getattr(card, name) is not None
    ]
    if contradicting:
        raise UnreadableFile(f"a whole model says its {', '.join(contradicting)} itself; remove that from its card")
    keras = contents.keras
    wiring = architecture.read(contents.config, keras1.modern if keras.major == 1 else None)
    keras = keras.with_wiring(wiring.build_input_shape)
    for layer, inputs in wiring.calls:
        check_class(wiring.layers[layer].class_name, wiring.layers[layer].name, len(inputs))
    assembled = assemble(wiring, contents.assign(wiring.layers), keras, card.timesteps)
    origin = Origin(
        file=path.name,
        sha256=sha256,
        format=contents.format,
        keras=keras.text,
        assumed=contents.notes + assembled.assumed,
        input_name=wiring.input_name,
        output_name=wiring.output_name,
        tolerance=assembled.tolerance,
    )
    return _with_card(assembled, origin, card, path)


def _digest(file: BufferedReader) -> str:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UnreadableFile("is empty: the copy or the download failed")
    if size > MAX_FILE_BYTES:
        raise UnreadableFile(f"is larger than {MAX_FILE_BYTES >> 30} GiB")
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _with_card(assembled: Assembled, origin: Origin, card: Card, path: Path) -> Model:
    """The model, with the card's words, and its scaling as the first layer."""
    nodes, input_shape = assembled.nodes, assembled.input_shape
    takes_ids = any(isinstance(node.layer, Embedding) for node in nodes)
    features = 1 if takes_ids else input_shape[-1] if input_shape else None
    if card.scaling is not None:
        if takes_ids:
            raise UnreadableFile("its card scales the input, which is ids")
        offset = np.array(card.scaling.offset, np.float64)
        if len(offset) != features:
            raise UnreadableFile(f"its card scales {len(offset)} features, the model has {features}")
        scaling = Scaling(name="scaling", offset=offset, scale=np.array(card.scaling.divisor, np.float64))
        nodes = (Node(scaling, (0,)), *(Node(layer, tuple(k + 1 for k in inputs)) for layer, inputs in nodes))
    about = About(
        name=card.name or path.stem,
        version=card.version,
        description=card.description,
        classes=None if card.classes is None else tuple(card.classes),
        features=card.columns,
        metadata=card.metadata,
    )
    model = Model(
        nodes=nodes,
        input_shape=input_shape,
        input_dtype=np.dtype(np.int32 if takes_ids else np.float32 if card.scaling is None else np.float64),
        origin=origin,
        about=about,
    )
    if about.features is not None and len(about.features) != features:
        raise UnreadableFile(f"its card names {len(about.features)} features, the model has {features}")
    labels = {"classes": model.output_shape[-1], "binary": 2, "values": None}[model.kind]
    if about.classes is not None and len(about.classes) != labels:
        wanted = "no classes" if labels is None else f"{labels} classes"
        raise UnreadableFile(f"its card names {len(about.classes)} classes; the model's output has {wanted}")
    return model
