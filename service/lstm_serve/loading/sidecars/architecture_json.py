"""An architecture that lies beside the weights: a Keras JSON file, or layers written out in the card."""

from pathlib import Path
from typing import Any, NamedTuple

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.folder import opened
from lstm_serve.formats.text import decode, not_utf8
from lstm_serve.loading.config.keras_version import KERAS_3, KerasVersion
from lstm_serve.loading.config.strict_json import check_nesting, parse
from lstm_serve.loading.sidecars.card import Card
from lstm_serve.model.files import ModelFiles, look_alikes

MAX_BYTES = 4 << 20


class Described(NamedTuple):
    """A model's parsed JSON, and the Keras that wrote it; None where that does not say."""

    config: dict[str, Any]
    keras: KerasVersion | None


def read(card: Card, files: ModelFiles) -> Described | None:
    """The architecture of weights: what their card says, else `<stem>.json` where it is Keras' own."""
    given: Any = card.architecture
    if isinstance(given, str) and given.lstrip("\ufeff \t\r\n").startswith(("{", '"')):
        given = parse_model(given.encode(errors="surrogatepass"), "its card's architecture") or {}
    if isinstance(given, list):
        given = {"class_name": "Sequential", "config": given}
    if isinstance(given, dict):
        check_nesting(given, "its card's architecture")
        if "class_name" not in given:
            raise UnreadableFile("its card's architecture is not what model.to_json() gives: it has no class_name")
        return Described(given, None if isinstance(card.architecture, list) else version_of(given))
    if given is not None:
        if Path(given).name != given:
            raise UnreadableFile(f"its card names the architecture {given[:100]!r}: give a file beside it")
        described = _read(files.model.with_name(given))
        if described is None:
            raise UnreadableFile(f"its architecture {given[:100]!r} is not there, or is no model's JSON")
        return described
    return None if files.architecture == files.model else _beside(files)


def _beside(files: ModelFiles) -> Described | None:
    for other in look_alikes(files, files.architecture):
        if _is_architecture(other.path):
            raise UnreadableFile(
                f"there is {other.name}, an architecture that is not read under this name. Call it "
                f"{files.architecture.name} if it is of these weights, or take it away"
            )
    return _read(files.architecture)


def _is_architecture(path: Path) -> bool:
    try:
        return _read(path) is not None
    except UnreadableFile:
        return False


def _read(path: Path) -> Described | None:
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):  # ValueError of a name that no file can have
        return None
    except OSError as error:
        raise UnreadableFile(f"its architecture {path.name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"its architecture {path.name} is larger than {MAX_BYTES >> 20} MiB")
    model = parse_model(data, path.name)
    return None if model is None else Described(model, version_of(model))


def parse_model(data: bytes, name: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Keras' JSON of a model, also where it was encoded twice; None where it is the JSON of something else."""
    try:
        model = parse(decode(data), name)
    except UnicodeDecodeError:
        raise UnreadableFile(f"{name} {not_utf8(data)}") from None
    if isinstance(model, str):  # json.dump(model.to_json())
        model = parse(model, name)
    return model if isinstance(model, dict) and "class_name" in model else None


def version_of(model: dict[str, Any]) -> KerasVersion:
    """The Keras that wrote a model's JSON. Keras 3 does not say it, and names modules; 1.0 says neither."""
    version = model.get("keras_version")
    if version is None and "module" in model:
        return KERAS_3
    return KerasVersion.parse(version if isinstance(version, str) else None)
