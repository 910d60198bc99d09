"""Training data of three kinds of columns, and a small model beside which its profile lies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serving import SMALL

from lstm_serve.model.profile import Profile, column

FEATURES = ["a", "b", "c"]


def train_of(rows: int, seed: int = 1) -> NDArray[np.float64]:
    """A column that is continuous, one of few values, and one that is constant."""
    rng = np.random.default_rng(seed)
    few = rng.choice([21.6, 21.61], rows, p=[0.02, 0.98])
    return np.column_stack([rng.normal(10, 2, rows), few, np.full(rows, 518.67)])


def carded(folder: Path) -> Path:
    (folder / "m.h5").write_bytes((SMALL / "binary.h5").read_bytes())
    (folder / "m.card.json").write_text(json.dumps({"features": FEATURES}))
    return folder / "m.h5"


def write(path: Path, rows: NDArray[np.float64]) -> Path:
    lines = [",".join(FEATURES), *(",".join(f"{value:.9g}" for value in row) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def profile_of(x: NDArray[Any]) -> Profile:
    return Profile(len(x), tuple(column(f"feature {k}", x[:, k]) for k in range(x.shape[1])))
