"""The warm-up: of any model that can be loaded, in bounded time."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kerasfiles import Layers, dense, lstm, numbers, save_sequential

from lstm_serve import load_model
from lstm_serve.engine.types import Array
from lstm_serve.errors import Unsupported
from lstm_serve.model.model import Model
from lstm_serve.serving import warmup
from lstm_serve.serving.warmup import warm_up

CONV: dict[str, Any] = {"filters": 4, "kernel_size": 40}

LONG: dict[str, tuple[Layers, list[int | None]]] = {
    "a kernel longer than the usual warm-up": (
        [("Conv1D", CONV, [numbers(40, 3, 4), numbers(4)]), lstm(features=4), dense()],
        [None, 3],
    ),
    "a pool longer than it": ([("MaxPooling1D", {"pool_size": 40}, []), lstm(), dense()], [None, 3]),
    "a pool far longer than the sequence": (
        [("MaxPooling1D", {"pool_size": 1 << 23, "padding": "same"}, []), lstm(), dense()],
        [5, 3],
    ),
    "a row repeated very often": ([lstm(), ("RepeatVector", {"n": 1 << 21}, []), lstm(features=4), dense()], [5, 3]),
    "a row of many numbers": ([("GlobalMaxPooling1D", {}, []), dense(features=1 << 10)], [1 << 14, 1 << 10]),
}


@pytest.mark.parametrize("name", LONG)
def test_warms_up_in_bounded_time(tmp_path: Path, name: str) -> None:
    layers, shape = LONG[name]
    model = load_model(save_sequential(tmp_path / "model.h5", layers, shape))
    start = time.process_time()
    assert warm_up(model, 128) > 0
    assert time.process_time() - start < 10


def test_says_how_long_a_full_batch_takes(tmp_path: Path) -> None:
    model = load_model(save_sequential(tmp_path / "model.h5", [lstm(), dense()]))
    assert warm_up(model, 128) > 0


def test_a_row_alone_is_tried_once_where_a_full_batch_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(save_sequential(tmp_path / "model.h5", [lstm(), dense()]))
    forward, rows = Model.forward, list[int]()

    def counted(self: Model, x: Array) -> Array:
        rows.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Model, "forward", counted)
    monkeypatch.setattr(warmup, "CLOCK", lambda: 2e-5 * sum(rows))  # a row takes so long, however busy the machine is
    warm_up(model, 1024)
    assert rows[:2] == [1, 1]
    assert len(rows) > 3  # a full batch is too long for the loop, and is tried again
    assert {*rows[2:]} == {1024}


@pytest.mark.skipif(sys.platform == "win32", reason="its clock of a thread is too coarse")
def test_what_a_batch_waits_for_is_none_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(save_sequential(tmp_path / "model.h5", [lstm(), dense()]))
    forward, waits = Model.forward, 0.05

    def after_others(self: Model, x: Array) -> Array:
        time.sleep(waits)
        return forward(self, x)

    monkeypatch.setattr(Model, "forward", after_others)
    assert warm_up(model, 1) < waits


def test_an_input_beyond_all_memory_is_refused(tmp_path: Path) -> None:
    path = save_sequential(tmp_path / "model.h5", [("GlobalMaxPooling1D", {}, [])], [(1 << 24) - 1, (1 << 24) - 1])
    with pytest.raises(Unsupported, match="more than 16777216 numbers for one row"):
        load_model(path)
