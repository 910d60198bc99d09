"""Files in, a Model out. Knows no HTTP. What a file is, its content says, never its extension."""

import hashlib
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

from service.engine.activations import Array
from service.engine.layers import Scaling
from service.engine.model import About, Model, Node, Origin
from service.engine.recurrent import Shape
from service.errors import MissingFact, ModelError, UnreadableFile
from service.loading import card as cards
from service.loading import golden, keras_hdf5, layers
from service.loading.architecture import Architecture
from service.loading.card import Card
from service.loading.keras_json import KerasVersion, Options

MAX_FILE_BYTES = 1 << 30
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


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
            _expect_hdf5(file)
            whole = keras_hdf5.read(file)
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
    assumed: list[str] = []
    input_shape = _input_shape(whole.architecture, card)
    nodes = _nodes(whole.architecture, whole.arrays, input_shape, whole.keras, assumed)
    origin = Origin(
        file=path.name, sha256=sha256, format="whole-model HDF5", keras=whole.keras.text, assumed=tuple(assumed)
    )
    return _with_card(nodes, input_shape, origin, card, path)


def _digest(file: BufferedReader) -> str:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UnreadableFile("is empty: the copy or the download failed")
    if size > MAX_FILE_BYTES:
        raise UnreadableFile(f"is larger than {MAX_FILE_BYTES >> 30} GiB")
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _expect_hdf5(file: BinaryIO) -> None:
    # A user block of 512 bytes or a power of two more may come before the signature.
    size, at = file.seek(0, os.SEEK_END), 0
    while at < size:
        file.seek(at)
        if file.read(8) == HDF5_SIGNATURE:
            file.seek(0)
            return
        at = at * 2 or 512
    raise UnreadableFile("is not an HDF5 file. Save the model with model.save('model.h5')")


def _input_shape(architecture: Architecture, card: Card) -> Shape:
    """The model's input shape, batch axis left out; the card's `timesteps` fills a free time axis."""
    shape = architecture.input_shape
    if shape is None:
        raise MissingFact(
            "the file does not tell the input's shape: the model was saved before it was built. "
            "Call it once on data, and save it again"
        )
    if card.timesteps is not None:
        if shape[0] not in {None, card.timesteps}:
            raise UnreadableFile(f"its card says timesteps = {card.timesteps}, the file says {shape[0]}")
        shape = (card.timesteps, *shape[1:])
    return shape


def _nodes(
    architecture: Architecture,
    arrays: Mapping[str, list[Array]],
    input_shape: Shape,
    keras: KerasVersion,
    assumed: list[str],
) -> tuple[Node, ...]:
    shapes: list[Shape] = [input_shape]
    nodes: list[Node] = []
    for spec in architecture.layers:
        options = Options(spec.class_name, spec.config, keras, assumed)
        inputs = [shapes[k] for k in spec.inputs]
        layer = layers.build(spec.class_name, options, arrays.get(spec.name, []), inputs)
        nodes.append(Node(layer, spec.inputs))
        shapes.append(layer.output_shape(inputs))
    return tuple(nodes)


def _with_card(nodes: tuple[Node, ...], input_shape: Shape, origin: Origin, card: Card, path: Path) -> Model:
    """The model, with the card's words, and its scaling as the first layer."""
    features = input_shape[-1]
    if card.scaling is not None:
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
        input_dtype=np.dtype(np.float32 if card.scaling is None else np.float64),
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
