"""Small files that would cost much: each is refused by what it is, before much of the processor's time is spent."""

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import pytest
from kerasfiles import Layers, dense, functional, lstm, numbers, save, save_sequential, sequential

from lstm_serve import load_model
from lstm_serve.errors import ModelError, UnreadableFile, Unsupported

Entry = dict[str, Any]


def wrapped(times: int, class_name: str) -> Entry:
    name, config, _ = lstm()
    layer: Entry = {"class_name": name, "config": config}
    for _ in range(times):
        layer = {"class_name": class_name, "config": {"layer": layer}}
    return layer


def in_models(times: int) -> Entry:
    model = sequential([lstm(), dense()])
    for _ in range(times):
        model = {"class_name": "Sequential", "config": {"name": "outer", "layers": [model]}}
    return model


def nothing_called_twice(times: int) -> Entry:
    """A model that calls the one in it twice, and that one the one in it: 2 ** times calls, and no layer at all."""
    model = functional([("InputLayer", {"name": "in", "batch_input_shape": [None, 5, 3]}, [])])
    for _ in range(times):
        layers = [
            {"class_name": "InputLayer", "name": "in", "config": {"batch_input_shape": [None, 5, 3]}},
            {
                "class_name": "Functional",
                "name": "inner",
                "config": model["config"],
                "inbound_nodes": [[["in", 0, 0, {}]], [["inner", 1, 0, {}]]],
            },
        ]
        config = {"layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [["inner", 2, 0]]}
        model = {"class_name": "Functional", "config": config}
    return model


def deep_reference(times: int) -> Entry:
    model = functional(
        [
            ("InputLayer", {"name": "in", "batch_input_shape": [None, 5, 3]}, []),
            ("LSTM", lstm()[1] | {"name": "lstm"}, ["in"]),
        ]
    )
    node: Any = ["in", 0, 0, {}]
    for _ in range(times):
        node = [node]
    model["config"]["layers"][1]["inbound_nodes"] = node
    return model


CONFIGS: dict[str, Entry] = {
    "a Bidirectional in another": {"class_name": "Sequential", "config": [wrapped(22, "Bidirectional")]},
    "very many of them": {"class_name": "Sequential", "config": [wrapped(300, "Bidirectional")]},
    "steps of steps": {"class_name": "Sequential", "config": [wrapped(300, "TimeDistributed")]},
    "a model that calls nothing": nothing_called_twice(22),
    "models in models": in_models(300),
    "references in lists": deep_reference(400),
    "a class that is a list": {"class_name": ["Sequential"], "config": [wrapped(0, "")]},
    "a layer's class that is an object": {"class_name": "Sequential", "config": [wrapped(0, "") | {"class_name": {}}]},
    "a dtype's class that is a list": sequential([lstm(dtype={"class_name": ["Policy"], "config": {}}), dense()]),
    "cells that are a number": sequential(
        [("RNN", {"cell": {"class_name": "StackedRNNCells", "config": {"cells": 2}}}, [])]
    ),
    "a name that no terminal can show": sequential([lstm(name="\x1b[2J"), dense()]),
    "a name that is half a character": sequential([lstm(name="\ud800"), dense()]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_refused_soon(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "model.h5", json.dumps(CONFIGS[name]), {"layer_0": lstm()[2], "layer_1": dense()[2]})
    start = time.process_time()
    with pytest.raises(ModelError, match=r"model\.h5") as refused:
        load_model(path)
    assert time.process_time() - start < 2
    assert str(refused.value).isprintable()


def test_models_in_models_load_as_deep_as_people_make_them(tmp_path: Path) -> None:
    groups = {"outer": [*lstm()[2], *dense()[2]]}
    assert load_model(save(tmp_path / "model.h5", in_models(10), groups)).output_shape == (2,)


def listed(path: Path, layers: list[str], weights: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["layer_names"] = layers
        for name in dict.fromkeys(layers):
            group = file.create_group(name)
            group.attrs["weight_names"] = weights
            for weight in dict.fromkeys(weights):
                group[weight] = numbers(2, 2)
    return path


@pytest.mark.parametrize(("layers", "weights"), [(["a"] * 3000, ["w"]), (["a"], ["w"] * 3000)])
def test_what_is_listed_twice_is_refused(tmp_path: Path, layers: list[str], weights: list[str]) -> None:
    with pytest.raises(UnreadableFile, match="twice"):
        load_model(listed(tmp_path / "model.h5", layers, weights))


@pytest.mark.long
def test_one_array_under_very_many_names_is_refused(tmp_path: Path) -> None:
    path = listed(tmp_path / "model.h5", ["a"], [f"w{k}" for k in range(3000)])
    with h5py.File(path, "r+") as file:
        names = [f"l{k}" for k in range(3000)]
        for name in names:
            file[name] = file["a"]  # a further link to the same group
        file.attrs["layer_names"] = names
    start = time.process_time()
    with pytest.raises(UnreadableFile, match="more than"):
        load_model(path)
    assert time.process_time() - start < 15


@pytest.mark.parametrize("chunks", [(8000, 8000), (1, 1)])
def test_chunks_that_are_too_large_or_too_many_are_refused(tmp_path: Path, chunks: tuple[int, int]) -> None:
    shape = (3, 16) if chunks[0] > 1 else (3, 1 << 22)
    path = save_sequential(tmp_path / "model.h5", [lstm(), dense()])
    with h5py.File(path, "r+") as file:
        group = file["model_weights/layer_0"]
        del group["layer_0/w0:0"]
        array = group.create_dataset("layer_0/w0:0", shape, "f4", chunks=chunks, maxshape=(None, None), compression=1)
        array[:1, :1] = 1
    start = time.process_time()
    with pytest.raises(UnreadableFile, match="in pieces"):
        load_model(path)
    assert time.process_time() - start < 2


def test_half_precision_of_a_layer_that_computes_nothing_loosens_nothing(tmp_path: Path) -> None:
    dropout: tuple[str, Entry, list[Any]] = ("Dropout", {"rate": 0.5, "dtype": "float16"}, [])
    path = save_sequential(tmp_path / "model.h5", [lstm(), dropout, dense()])
    assert load_model(path).origin.tolerance == 1e-5
    path = save_sequential(tmp_path / "model.h5", [lstm(dtype="float16"), dense()])
    assert load_model(path).origin.tolerance == 5e-3


def test_a_version_that_no_terminal_can_show_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.h5", sequential([lstm(), dense()]), {}, keras="2.15.0\n\x1b[2J")
    with pytest.raises(UnreadableFile, match="is not a version number") as refused:
        load_model(path)
    assert str(refused.value).isprintable()


def wide(count: int, steps: int) -> Entry:
    """A model of so many wide layers, all of them used at the end."""
    names = [f"a{k}" for k in range(count)]
    return functional(
        [
            ("InputLayer", {"name": "in", "batch_input_shape": [None, 4]}, []),
            ("RepeatVector", {"name": "r", "n": steps}, ["in"]),
            *[("Activation", {"name": name, "activation": "tanh"}, ["r"]) for name in names],
            ("Add", {"name": "all"}, names),
            ("GlobalMaxPooling1D", {"name": "top"}, ["all"]),
        ]
    )


def test_layers_that_are_all_kept_until_the_end_are_bounded_together(tmp_path: Path) -> None:
    path = save(tmp_path / "m.h5", wide(40, 1 << 21), {})
    with pytest.raises(Unsupported, match=r"one row needs 3\d{8} numbers in memory at once .* more than 67108864"):
        load_model(path)


def test_fewer_rows_are_computed_at_once_where_many_layers_are_kept(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m.h5", wide(20, 1 << 14), {}))
    rows = model.rows_at_once((4,))
    assert rows * 21 * (4 << 14) <= 1 << 22
    assert model.predict(numbers(2 * rows + 1, 4)).shape == (2 * rows + 1, 4)


def test_what_no_layer_needs_any_more_is_let_go_of(tmp_path: Path) -> None:
    """Sixty layers one after the other take what two do, not sixty."""
    layers: Layers = [("RepeatVector", {"n": 1 << 18}, []), *[("Activation", {"activation": "tanh"}, [])] * 60]
    model = load_model(save_sequential(tmp_path / "m.h5", [*layers, ("GlobalMaxPooling1D", {}, [])], [4]))
    x = numbers(1, 4)
    tracemalloc.start()
    try:
        model.predict(x)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * (4 << 20)


def between(shape: list[int], *calls: tuple[str, dict[str, Any], list[str]]) -> Entry:
    """A graph of functions called one after the other, a0, a1 and so on, as Keras 3 writes it."""

    def tensor(name: str) -> Entry:
        return {"class_name": "__keras_tensor__", "config": {"dtype": "float32", "keras_history": [name, 0, 0]}}

    layers: list[Entry] = [
        {"class_name": "InputLayer", "module": "keras", "name": "in", "config": {"batch_shape": [None, *shape]}}
    ]
    for k, (function, options, inputs) in enumerate(calls):
        node = {"args": [tensor(name) for name in inputs], "kwargs": {}}
        entry = {"class_name": function, "module": "keras.src.ops.numpy", "config": options, "inbound_nodes": [node]}
        layers.append(entry | {"name": f"a{k}"})
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [[f"a{len(calls) - 1}", 0, 0]]}
    return {"class_name": "Functional", "config": {"layers": layers, **ends}}


CALLS: dict[str, tuple[Entry, str]] = {
    "products": (
        between([1000, 1000], *[("Matmul", {}, [f"a{k - 1}" if k else "in"] * 2) for k in range(300)]),
        "one row takes 300000000000 multiplications",
    ),
    "broadcasting": (
        between(
            [1000],
            *[("Reshape", {"newshape": [-1, *[1] * k, 1000, *[1] * (3 - k)]}, ["in"]) for k in range(4)],
            *[("Add", {}, [f"a{3 + k or 0}", f"a{k}"]) for k in range(4)],
        ),
        "more than 16777216 numbers for one row",
    ),
    "einsum": (between([1000, 1000], ("Einsum", {"subscripts": "bij,bkl->bijkl"}, ["in", "in"])), "16777216 numbers"),
    "parts": (between([9], ("Split", {"indices_or_sections": 10**9, "axis": 1}, ["in"])), "gives 1000000000 parts"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_calls_would_cost_is_refused(tmp_path: Path, name: str) -> None:
    model, why = CALLS[name]
    with pytest.raises(Unsupported, match=why):
        load_model(save(tmp_path / "m.h5", model, {}, keras="3.15.0"))
