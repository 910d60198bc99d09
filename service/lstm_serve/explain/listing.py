"""A folder of models, told to a person: which of them `serve` would serve, and why not the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lstm_serve.errors import ModelError
from lstm_serve.loading.load import resolve
from lstm_serve.loading.repository import ModelPlace, expect_inside, places
from lstm_serve.model import notebook
from lstm_serve.model.model import Model

Load = Callable[[Path], Model]


def listing(folder: Path, load: Load) -> tuple[str, bool]:
    """Return a line for each version of each model, and whether all would be served. Raises ModelError."""
    lines: list[str] = []
    good = True
    names = set[str]()
    for place in places(folder, several=True):
        newest = True
        if place.wrong:
            good = False
            lines.append(
                f"{place.name}: not served: {place.wrong}" if not place.versions else f"{place.name}: {place.wrong}"
            )
        for version, told, model in _versions(place, load):
            if model is None:
                good = False
                lines.append(f"{place.name} {version or ''}".rstrip() + f": not served: {told}")
                continue
            names.add(str(place.name))
            answers = "answers" if newest else "where it is asked for"
            lines.append(f"{place.name} {version or model.about.version}: {told}; {answers}")
            newest = False
    count = f"{len(names)} model{'s' * (len(names) != 1)} would be served"
    return "\n".join([*dict.fromkeys(lines), count, ""]), good


def _versions(place: ModelPlace, load: Load) -> Iterator[tuple[str | None, str, Model | None]]:
    """Each version of a place: what it is and itself, or why it cannot be served."""
    for version, path in place.versions.items():
        try:
            if place.root is not None:
                expect_inside(place.root, resolve(path))
            model = load(path)
        except ModelError as error:
            yield version, str(error), None
            continue
        verified = "verified" if model.origin.verified else "not verified"
        alone = f"{model.kind}, {model.input_shape} -> {model.output_shape}"
        told = alone if model.is_single else notebook.shapes(model)
        yield version, f"{told}, {verified}", model
