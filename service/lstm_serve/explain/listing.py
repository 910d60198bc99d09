"""A folder of models, told to a person: which of them `serve` would serve, and why not the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lstm_serve.errors import ModelError
from lstm_serve.loading.load import resolve
from lstm_serve.loading.repository import ListedModel, expect_inside, list_models
from lstm_serve.model import notebook
from lstm_serve.model.model import Model

Load = Callable[[Path], Model]


def listing(folder: Path, load: Load) -> tuple[str, bool]:
    """Return a line for each version of each model, and whether all would be served. Raises ModelError."""
    lines: list[str] = []
    good = True
    names = set[str]()
    for listed in list_models(folder, several=True):
        newest = True
        if listed.wrong:
            good = False
            lines.append(f"{listed.name}: {'' if listed.versions else 'not served: '}{listed.wrong}")
        for version, told, model in _versions(listed, load):
            if model is None:
                good = False
                lines.append(f"{listed.name} {version or ''}".rstrip() + f": not served: {told}")
                continue
            names.add(str(listed.name))
            answers = "answers" if newest else "where it is asked for"
            lines.append(f"{listed.name} {version or model.about.version}: {told}; {answers}")
            newest = False
    count = f"{len(names)} model{'s' * (len(names) != 1)} would be served"
    return "\n".join([*dict.fromkeys(lines), count, ""]), good


def _versions(listed: ListedModel, load: Load) -> Iterator[tuple[str | None, str, Model | None]]:
    """Each version of a listed model: what it is and itself, or why it cannot be served."""
    for version, path in listed.versions.items():
        try:
            if listed.root is not None:
                expect_inside(listed.root, resolve(path))
            model = load(path)
        except ModelError as error:
            yield version, str(error), None
            continue
        verified = "verified" if model.origin.verified else "not verified"
        alone = f"{model.kind}, {model.input_shape} -> {model.output_shape}"
        told = alone if model.is_single else notebook.shapes(model)
        yield version, f"{told}, {verified}", model
