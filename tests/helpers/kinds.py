"""Models of each kind of answer, as files with a card, and their answers."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from kerasfiles import Layers, dense, lstm, numbers, save_sequential
from serving import Answered

from lstm_serve.cli import main

STEPS = lstm(return_sequences=True)
TAGGER: Layers = [STEPS, ("TimeDistributed", {"layer": {"class_name": "Dense", "config": dense(3)[1]}}, dense(3)[2])]
LABELS: Layers = [lstm(), dense(3, activation="sigmoid")]
BINARY: Layers = [lstm(), dense(1, activation="sigmoid")]
NAMES = ["a", "b", "c"]
X = numbers(6, 5, 3) * 4


def made(folder: Path, layers: Layers, **card: Any) -> Path:
    """The file of a model of five steps of three features, with a card."""
    path = save_sequential(folder / "m.h5", layers)
    (folder / "m.card.json").write_text(json.dumps(card))
    return path


def json_of(answer: Answered) -> Any:
    assert answer.status == 200, answer.body
    return answer.json


def lines_of(path: Path, folder: Path) -> list[list[str]]:
    np.save(folder / "x.npy", X)
    assert main.main(["predict", str(path), str(folder / "x.npy"), "-o", str(folder / "y.csv")]) == 0
    return list(csv.reader((folder / "y.csv").read_text().splitlines()))
