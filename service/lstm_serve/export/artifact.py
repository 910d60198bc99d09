"""What all targets share of what they write: its header, its golden predictions, and files that appear whole."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_serve import __version__
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Normalization, Scaling, Unscaling
from lstm_serve.engine.operations.temporal import Embedding, Masking
from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import ModelError, SettingsError
from lstm_serve.formats.whole_files import write_whole
from lstm_serve.loading.sidecars import golden as goldens
from lstm_serve.model.files import ModelFiles
from lstm_serve.model.graph import INPUT, Source
from lstm_serve.model.inputs import Input
from lstm_serve.model.model import Model

# Of the golden predictions so many numbers go along at most; one row always does.
MAX_GOLDEN_FLOATS = 1 << 16
MADE_ROWS = 8
FREE_TIMESTEPS = 12
MADE = "made for this model and answered by lstm-serve, for there are no predictions of Keras"


class Golden(NamedTuple):
    """An array (n, ...) for each input, the answers expected of each output, and in words whose they are.

    A difference is relative to an answer above its unit, 1 or what the card multiplies by; it broadcasts against it.
    """

    xs: Sequence[AnyArray]
    ys: Sequence[Array]
    whose: str
    units: Sequence[Array]

    @property
    def made(self) -> bool:
        """Whether they are not Keras' own."""
        return self.whose == MADE

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """All by their names in a file: x and y, or x0, x1, ... in their order, as golden predictions are read."""
        named = {"x": self.xs, "y": self.ys}
        return {
            letter if len(arrays) == 1 else f"{letter}{k}": array
            for letter, arrays in named.items()
            for k, array in enumerate(arrays)
        }

    def worst(self, came: Sequence[Array]) -> float:
        """The largest difference between these answers and those that came."""
        pairs = zip(came, self.ys, self.units, strict=True)
        differences = [np.abs(here.reshape(y.shape) - y) / np.maximum(unit, np.abs(y)) for here, y, unit in pairs]
        return float(np.max([difference.max() for difference in differences]))


def read_golden(path: Path, model: Model) -> Golden | None:
    """As many of the golden predictions beside a model as go along; None where there are none.

    They are what Keras answered; what the card does after that is done to them.
    """
    try:
        xs, ys = goldens.read(ModelFiles.of(path).golden, model)
    except FileNotFoundError:
        return None
    rows = max(1, MAX_GOLDEN_FLOATS // max(1, sum(x[0].size for x in xs)))
    found: list[Array] = []
    names = ["Keras' own predictions"]
    for given, added in zip(ys, _added(model), strict=True):
        y = given[:rows].astype(np.float32)
        for operation in added:
            (y,), _ = operation([y], [None])
        found.append(y)
        names += [f"after the card's {operation.name}" for operation in added]
    return Golden([x[:rows] for x in xs], found, ", ".join(dict.fromkeys(names)), _units(model))


def _added(model: Model) -> list[list[Operation]]:
    """For each output what the card does before it, after the last layer."""
    found = []
    for end in model.results:
        added: list[Operation] = []
        while end.node >= len(model.nodes) - model.added:
            operation, (end,) = model.nodes[end.node]  # noqa: PLW2901 - each of the card's has one input
            added.insert(0, operation)
        found.append(added)
    return found


def _units(model: Model) -> list[Array]:
    units = []
    for added in _added(model):
        scales = [np.abs(operation.scale) for operation in added if isinstance(operation, Unscaling)]
        units.append(np.maximum(1, *scales).astype(np.float32) if scales else np.ones(1, np.float32))
    return units


def made_golden(model: Model) -> Golden:
    """Inputs made for the model, some with masked steps where it has a mask, and this engine's answers."""
    random = np.random.default_rng(0)
    xs = [_made(model, k, each, random) for k, each in enumerate(model.takes)]
    with np.errstate(over="ignore", invalid="ignore"):
        y = model.predict(xs if len(xs) > 1 else xs[0])
    return Golden(xs, list(y.values()) if isinstance(y, dict) else [y], MADE, _units(model))


def _made(model: Model, number: int, given: Input, random: np.random.Generator) -> AnyArray:
    """Rows for one of the inputs."""
    shape = tuple(FREE_TIMESTEPS if size is None else size for size in given.shape)
    first = [node.operation for node in model.nodes if Source(INPUT, number) in node.inputs]
    if given.id_limit is not None:
        x: AnyArray = random.integers(0, given.id_limit, (MADE_ROWS, *shape))
        fill: float = 0
    else:
        x = random.standard_normal((MADE_ROWS, *shape))
        for operation in first:
            if isinstance(operation, Scaling):
                x = x * operation.scale + operation.offset
            elif isinstance(operation, Normalization):
                x = x * np.sqrt(operation.variance) + operation.mean
        fill = next((n.operation.mask_value for n in model.nodes if isinstance(n.operation, Masking)), 0)
    if any(isinstance(node.operation, Masking | Embedding) for node in model.nodes) and x.ndim > 1:
        steps = x.shape[1]
        x[1, steps - steps // 3 :] = fill
        x[2, : steps // 2] = fill
        x[3, steps // 2] = fill
    return x.astype(given.dtype)


def already_beside(path: Path, model: Model, golden: Golden) -> bool:
    """Whether the file of golden predictions of a model at `path` begins with these, such as that of its source."""
    try:
        xs, ys = goldens.read(ModelFiles.of(path).golden, model)
    except (OSError, ModelError):
        return False
    found = [*xs, *(y.astype(np.float32) for y in ys)]
    return all(np.array_equal(a[: len(b)], b) for a, b in zip(found, [*golden.xs, *golden.ys], strict=True))


def check_card(path: Path, model: Model) -> None:
    """Raise SettingsError where a card at hand would do to a model at `path` what is in it already."""
    card = ModelFiles.of(path).card
    if card.exists() and (scaled_by_card(model) or model.added):
        raise SettingsError(
            f"{_shown(card)} would be read as the card of what is written, and what it does to the numbers is part of "
            "that already; name another with -o"
        )


def npz(**arrays: npt.NDArray[np.generic]) -> bytes:
    """The arrays as an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub has no keyword arguments of arrays
    return file.getvalue()


def plain(text: str, width: int = 60) -> str:
    """Text of a model, fit for a comment of any language and for any name: ASCII without what could end either."""
    kept = "".join(char if re.match(r"[A-Za-z0-9 _.,:;()=+<>@%/-]", char) else _escaped(char) for char in text)
    kept = kept.replace("//", "/_").replace("--", "-_")
    return kept if len(kept) <= width else f"{kept[: width - 3]}..."


def _escaped(char: str) -> str:
    return f"<U+{ord(char):04X}>" if ord(char) > 126 else "_"


def scaled_by_card(model: Model) -> bool:
    """Whether the card scales an input, which is then float64."""
    return any(spec.dtype == np.float64 for spec in model.inputs)


def header(model: Model) -> list[str]:
    """What stands above what is written: the model, where it comes from, what was assumed. Lines of 100 at most."""
    origin, about = model.origin, model.about
    keras = f"Keras {plain(origin.keras)}" if origin.keras else "a Keras whose version the file does not tell"
    assumed = plain("; ".join(origin.assumed), 2000)
    facts = [
        f"{plain(about.name, 300)}, version {plain(about.version)}: exported by lstm-serve {__version__}.",
        f"Source: {plain(origin.file, 300)}, {origin.format}, sha256 {origin.sha256}.",
        f"Saved by: {keras}.",
        f"Assumed: {assumed or 'nothing: the file says all that the numbers depend on'}.",
        f"Verified: {_verified(model)}.",
    ]
    if about.description is not None:
        facts.insert(1, plain(about.description, 1000))
    if about.classes is not None:
        facts.append(f"Classes: {plain(', '.join(about.classes), 2000)}.")
    if about.features is not None:
        facts.append(f"Features: {plain(', '.join(feature.name for feature in about.features), 2000)}.")
    return [line for fact in facts for line in textwrap.wrap(fact, 100, break_on_hyphens=False)]


def _verified(model: Model) -> str:
    origin = model.origin
    if not origin.verified:
        return "no: there are no golden predictions of Keras beside it"
    return f"yes: it reproduces {origin.golden_rows} predictions of Keras to {origin.golden_difference:.2g}"


def expect_free_path(path: Path, *, folder: bool, force: bool) -> None:
    """Raise SettingsError where something at `path` is in the way."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() != folder:
            here, wanted = ("a file", "a folder") if folder else ("a folder", "a file")
            raise SettingsError(f"{_shown(path)} is {here}, and {wanted} is to be written; name another with -o")
    except OSError as error:
        raise _cannot(path, error) from None
    if not force:
        raise SettingsError(f"{_shown(path)} exists already; --force replaces what it is to hold")


def check_name(path: Path, suffix: str) -> None:
    """Raise SettingsError where a file at `path` would not be known by its name for what it is."""
    if path.suffix != suffix:
        raise SettingsError(f"{_shown(path)}: its name should end in {suffix}, by which it is read")


def write(path: Path, files: Mapping[str, bytes], *, folder: bool, force: bool) -> None:
    """Write the files of a target: in the folder `path`, or as `path` and beside it. All or none.

    What is beside it is called after it: {name} and {stem} stand for its name, with and without extension.

    Raises SettingsError where something is in the way, or it cannot be written.
    """
    expect_free_path(path, folder=folder, force=force)
    names = {"name": path.name, "stem": path.stem}
    fills = {
        path / name if folder else path.with_name(name.format(**names)): partial(_fill, data)
        for name, data in files.items()
    }
    for beside in {*fills} - {path}:
        if not folder:
            expect_free_path(beside, folder=False, force=force)
    try:
        write_whole(fills, path if folder and not path.exists() else None)
    except OSError as error:
        raise _cannot(path, error) from None


def _fill(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def _cannot(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{_shown(path)}: cannot be written: {error.strerror or error}")


def _shown(path: Path) -> str:
    return str(path)[:200]
