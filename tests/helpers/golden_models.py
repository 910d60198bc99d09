"""Every model in the repository that has golden predictions, and these."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from serving import ASKER, GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import ModelError
from lstm_serve.export import Golden
from lstm_serve.loading.sidecars.golden import read
from lstm_serve.model.model import Model


def _pairs() -> list[tuple[Path, Path]]:
    """The models, and what has their golden predictions."""
    pairs = [(path.with_name(path.name.removesuffix(".golden.npz")), path) for path in GOLDEN.rglob("*.golden.npz")]
    askers = [*ASKER.glob("*_model.h5"), ASKER / "k3_model.keras"]
    pairs += [(path, path.with_name(f"{path.name.split('_')[0]}_golden.npz")) for path in askers]
    return sorted(pairs)


def _group_of(path: Path) -> str:
    """Its folder, and where its name says it, the Keras that saved it."""
    keras, apart, _ = path.name.partition("__")
    return f"{path.parent.name}/{keras}" if apart else path.parent.name


def groups() -> list[str]:
    """What the models are parted into for tests that workers share."""
    return sorted({_group_of(path) for path, _ in _pairs()})


def golden_models(every: int = 1, group: str | None = None) -> Iterator[tuple[str, Model, Golden]]:
    """Each so-manieth model that has golden predictions, of all or of a group, and these."""
    pairs = [(path, beside) for path, beside in _pairs() if group in {None, _group_of(path)}]
    for path, beside in pairs[::every]:
        try:
            model = load_model(path, replay=False)
        except ModelError:  # a few files are there for their refusal
            continue
        xs, ys = read(beside, model)
        yield f"{path.parent.name}/{path.name}", model, golden_of(xs, ys, "Keras")


def golden_of(xs: Sequence[Any], ys: Sequence[Any], whose: str) -> Golden:
    """The same as an exporter takes them."""
    return Golden(xs, ys, whose, [np.ones(1, np.float32)] * len(ys))
