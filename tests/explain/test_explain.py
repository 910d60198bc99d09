import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from every_activation import EVERY_ACTIVATION
from numpy.typing import NDArray
from serving import ASKER, GOLDEN, ROOT
from small_models import ACTIVATION_OF_LAYER, dense, lstm, model, numbers

from lstm_serve import Model, load_model
from lstm_serve.engine.activations import (
    ACTIVATIONS,
    HARD_SIGMOID_KERAS_2,
    HARD_SIGMOID_KERAS_3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
    leaky_relu,
    relu,
)
from lstm_serve.engine.operations import OPERATIONS
from lstm_serve.engine.operations.base import BaseOperation, Operation
from lstm_serve.engine.operations.merging import Concatenate, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Activate, Identity, Normalization, PReLU, Rescaling, Scaling
from lstm_serve.engine.operations.recurrent import GRU, SimpleRNN
from lstm_serve.engine.operations.temporal import Embedding, GlobalPooling1D, Masking
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked, TimeDistributed
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Mask, Outputs
from lstm_serve.errors import SettingsError, UnreadableFile, WrongNumbers
from lstm_serve.explain import numpy_program
from lstm_serve.explain.describe.activations import numpy_of
from lstm_serve.explain.describe.registry import TABLE, describe
from lstm_serve.explain.report import head, loading, report
from lstm_serve.explain.trace import report as trace
from lstm_serve.model.graph import INPUT, Node, Source
from lstm_serve.model.metadata import Origin
from lstm_serve.scoring.inputs import Sequences, UnitSequences
from lstm_serve.web.schemas import model_info

TURBOFAN = ROOT / "models" / "turbofan.h5"
M_H5 = Path("m.h5")
Doubles = NDArray[np.float64]
Predict = Callable[[Any], Array]


@pytest.fixture(scope="module")
def asker() -> Model:
    return load_model(ASKER / "k215_model.h5")


def unwrapped(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def program(text: str) -> Predict:
    """Run the program that a report prints, and give its `predict`."""
    names: dict[str, object] = {}
    exec(text.partition("THE SAME IN NUMPY\n")[2], names)  # noqa: S102 - it is for this
    predict = names["predict"]
    assert callable(predict)
    return predict


def sketched(text: str, x: NDArray[Any], loaded: Model, monkeypatch: pytest.MonkeyPatch) -> Array:
    """What the printed program makes of x, with a model that stands in for the file."""
    monkeypatch.setattr("lstm_serve.loading.load.load_model", lambda _: loaded)
    predict = program(text)
    return np.stack([predict(row) for row in x])


# What is known


def test_a_verified_model_is_known_by_all_that_it_carries() -> None:
    text = unwrapped(report(load_model(TURBOFAN), TURBOFAN))
    for said in (
        "format whole-model HDF5 saved by Keras 3.15.1 sha256 0a27ee656d0e30d3",
        "card turbofan.card.json",
        "name turbofan, version 1",
        "input (None, 20, 15), the first axis being the batch; 20 time steps of 15 features each",
        "features T24 [degR], T30 [degR]",
        "output (None, 5): the probabilities of 5 classes",
        "0 = 0-29 cycles left, 1 = 30-59 cycles left",
        "verified yes: it reproduces the 32 predictions of Keras in turbofan.golden.npz; the worst difference is",
    ):
        assert said in text


def test_a_model_without_golden_predictions_says_how_to_make_them(asker: Model) -> None:
    text = report(asker, Path("some/k215_model.h5"))
    assert "not verified: there is no k215_model.golden.npz beside it." in text
    assert "card        none: there is no file k215_model.card.json\n" in text
    assert "\n                y = model.predict(x)\n" in text
    assert '\n                np.savez("k215_model.golden.npz", x=x, y=y)\n' in text


def test_a_model_that_misses_says_so_loudly(asker: Model) -> None:
    text = unwrapped(report(asker, M_H5, WrongNumbers("it misses by 0.2")))
    assert "verified *** NO: THIS MODEL DOES NOT GIVE WHAT KERAS GAVE *** it misses by 0.2 It is not served" in text


def test_golden_predictions_that_cannot_be_read_are_not_called_wrong(asker: Model) -> None:
    text = unwrapped(report(asker, M_H5, UnreadableFile("the .npz file is damaged")))
    assert "*** NO: ITS GOLDEN PREDICTIONS CANNOT BE READ *** the .npz file is damaged" in text


def test_what_was_assumed_and_a_wider_tolerance_are_said() -> None:
    small = model([lstm(3, 2)], (None, 3), keras=None)
    origin = Origin(file="m", sha256="0", format="f", keras=None, assumed=("gates are sigmoids",), tolerance=5e-3)
    text = unwrapped(report(Model(**{**vars(small), "origin": origin}), M_H5))
    assert "saved by a Keras whose version the file does not tell" in text
    assert "any number of time steps of 3 features each" in text
    assert "assumed gates are sigmoids" in text
    assert "held to 0.005 of what Keras answers" in text
    assert "output (None, 2): values, not probabilities" in text


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    text = report(model([lstm(3, 2, name="\x1b[2J" + "a" * 500)]), Path("\x1b[2J.h5"))
    assert "\x1b" not in text
    assert "\\x1b[2Jaaa" in text


# Layers and arrays


def test_the_summary_is_keras_own(asker: Model) -> None:
    text = unwrapped(report(asker, M_H5))
    assert (
        "(input) InputLayer (None, 20, 15) 0 lstm_1 LSTM (None, 101) 47,268 dense_1 Dense (None, 5) 510 total 47,778"
        in text
    )
    assert "fed by" not in text


def test_what_feeds_a_layer_is_shown_where_the_layers_are_no_chain() -> None:
    chain = model([dense(3, 2, name="first"), dense(3, 2, name="second")], (3,))
    branch = Model(**{**vars(chain), "nodes": (chain.nodes[0], Node(chain.nodes[1].operation, (Source(INPUT),)))})
    text = unwrapped(report(branch, M_H5))
    assert "parameters fed by" in text
    assert "second Dense (None, 2) 8 (input)" in text
    assert "x (3,) is the model's input so y" not in text
    assert "no short form in NumPy" in text


def test_each_array_has_its_shape_and_its_role(asker: Model) -> None:
    text = unwrapped(report(asker, M_H5))
    for said in (
        "[0] kernel (15, 404) from a step's 15 features to the gates, 4 x 101 columns",
        "[1] recurrent_kernel (101, 404) from the 101 numbers of h to the gates, the same columns",
        "[2] bias (404,) added to the gates, one vector of 4 x 101",
        "[0] kernel (101, 5) from 101 inputs to 5 outputs",
        "[1] bias (5,) added to the outputs",
    ):
        assert said in text


# The asker's questions


def test_what_people_get_wrong_is_answered_from_the_models_own_arrays(asker: Model) -> None:
    text = unwrapped(report(asker, M_H5).partition("EASILY MISTAKEN")[2])
    gates = "i [0:101], f [101:202], c~ [202:303], o [303:404]"
    for said in (
        "The arrays are 5: 3 of lstm_1 (kernel, recurrent_kernel, bias), 2 of dense_1 (kernel, bias).",
        "An input layer has none.",
        f"lstm_1: the four blocks of columns are the gates {gates}, in this order",
        "They are not input, previous memory, current memory and previous output",
        "lstm_1: the bias is one vector of 4 x 101 = 404, in the same blocks; each gate has one.",
        "101 units make 4 x 101 = 404 columns; 400 columns are another model's, one of 100 units.",
        "Dropout does nothing at inference",
        "nothing is rescaled for it",
        "hard_sigmoid is that of Keras 1 and 2 in this model, clip(0.2 x + 0.5, 0, 1).",
        "In Keras 3 the name means clip(x + 3, 0, 6) / 6",
        "[model.get_weights() for layer in model.layers] gives the whole list 2 times;",
        "[layer.get_weights() for layer in model.layers] gives each layer's.",
    ):
        assert said in text
    assert text.count("Dropout") == 1
    assert "standardises" not in text


def test_only_what_applies_is_mentioned() -> None:
    layers: list[Operation] = [
        lstm(3, 1, bias=False),
        Identity(name="drop", keras_class="Dropout"),
        dense(1, 1, bias=False),
    ]
    text = unwrapped(report(model(layers), M_H5).partition("EASILY MISTAKEN")[2])
    assert text.count("Dropout does nothing at inference") == 1
    assert "The arrays are 3: 2 of lstm (kernel, recurrent_kernel), 1 of dense (kernel). An" in text
    assert "4 columns; any other number is another model's." in text
    assert "the bias" not in text
    assert "hard_sigmoid" not in text
    alone = unwrapped(report(model([Activate(name="act", keras_class="Activation", activation=RELU)]), M_H5))
    assert "model.layers]" not in alone
    assert "The arrays are" not in alone
    assert "act (Activation): none" in alone


def test_keras_3_has_its_own_hard_sigmoid() -> None:
    text = unwrapped(report(model([lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_3)]), M_H5))
    assert "is that of Keras 3 in this model, clip(x + 3, 0, 6) / 6. In Keras 1 and 2 the name means clip(0.2" in text
    assert "i = hard_sigmoid(z[0:2])" in text
    assert "hard_sigmoid(x) = clip(x + 3, 0, 6) / 6" in text


# The program in NumPy


def golden_models() -> list[Path]:
    """One file of each kind of model, of the newest Keras that is there; and of a few others by Keras 1 and 2."""
    refused = {"encdec_state.h5", "func2.h5"}
    features = sorted((GOLDEN / "features").glob("*.h5"))
    newest = {kind: path for path in features if (kind := path.name.partition("__")[2]) not in refused}
    return [
        TURBOFAN,
        ASKER / "k215_model.h5",
        *newest.values(),
        *(GOLDEN / "features" / f"{name}.h5" for name in ("k122__lstm_mem", "k122__bi", "k224__gru_nra", "k224__acts")),
        *sorted((GOLDEN / "keras3").glob("*.keras")),
        GOLDEN / "savedmodel" / "tf2.21__stacked_cells_nt",
    ]


@pytest.mark.parametrize("path", golden_models(), ids=lambda path: path.name)
def test_every_golden_model_is_explained_and_its_program_gives_what_it_gives(path: Path) -> None:
    loaded = load_model(path)
    text = report(loaded, path)
    assert "as Keras computes it" not in text
    assert re.search(r"\[\d\] \S+ +\([\d, ]*\)$", text, re.MULTILINE) is None  # every array has a role
    shape = [n or 6 for n in loaded.input_shape]
    random = np.random.default_rng(1)
    x = numbers(2, *shape) if loaded.id_limit is None else random.integers(0, loaded.id_limit, (2, *shape))
    traced = trace(loaded, Sequences((UnitSequences(x, range(1, 3)),), "sequence"), 2, loading="")
    for node in loaded.nodes:
        assert f"  {node.operation.name} ({node.operation.keras_class})\n" in traced
    assert traced.isascii()
    if "no short form in NumPy" not in text:
        predict = program(text)
        with np.errstate(over="ignore"):  # of exp, where a sigmoid is 0
            came = np.stack([predict(row.tolist()) for row in x])
        assert came.dtype == np.float32
        np.testing.assert_allclose(came, loaded.predict(x), rtol=1e-5, atol=1e-5)
        for given, expected in answered_by_keras(path):
            with np.errstate(over="ignore"):
                came = np.stack([predict(row.tolist()) for row in given])
            tolerance = loaded.origin.tolerance
            np.testing.assert_allclose(came, expected, rtol=tolerance, atol=tolerance)


def answered_by_keras(path: Path) -> list[tuple[NDArray[Any], Array]]:
    """The golden inputs beside a model, with their padding, and what Keras answered."""
    file = path.with_name(f"{path.stem}.golden.npz")
    if not file.exists():
        file = path.with_name(f"{path.name.partition('_')[0]}_golden.npz")
    if not file.exists():
        return []
    with np.load(file) as golden:
        pairs = [("x", "y")] if "x" in golden.files else [(f"x{k}", f"y{k}") for k in range(len(golden.files) // 2)]
        return [(golden[x], golden[y]) for x, y in pairs]


@pytest.mark.long
def test_all_models_that_are_a_chain_have_a_program() -> None:
    reasons = {}
    for path in golden_models():
        lines = numpy_program.lines(load_model(path, replay=False), path, {}, "load_model()")
        found = re.search(r"no short form in NumPy: (.*?)\. `inspect", unwrapped("\n".join(lines)))
        if found is not None:
            reasons[path.name] = found[1]
    assert len(reasons) < len(golden_models()) / 3
    assert all(
        "takes" in reason and "a program is of one layer after the other" in reason for reason in reasons.values()
    )


def test_a_file_of_weights_is_loaded_as_it_was_told() -> None:
    path = ASKER / "k122_weights_arr.npz"
    told = {"recurrent_activation": "hard_sigmoid_keras_2", "output_activation": "softmax"}
    loaded = load_model(path, recurrent_activation="hard_sigmoid_keras_2", output_activation="softmax")
    text = report(loaded, path, told=told)
    assert f"load_model({str(path)!r}, recurrent_activation='hard_sigmoid_keras_2', output_activation='sof" in text
    x = numbers(1, *(n or 4 for n in loaded.input_shape))
    np.testing.assert_allclose(program(text)(x[0]), loaded.predict(x)[0], atol=1e-5)


def test_arrays_have_their_paths_in_the_file() -> None:
    text = report(load_model(TURBOFAN), TURBOFAN)
    assert "4 x 101 columns\n        model_weights/lstm/turbofan/lstm/lstm_cell/kernel\n" in text
    assert "service" not in text.partition("THE SAME IN NUMPY")[2]
    # Keras 1 keeps the gates apart, so what is shown is not there as it is.
    apart = GOLDEN / "features" / "k122__lstm_mem.h5"
    text = report(load_model(apart), apart)
    assert "model_weights" not in text
    assert "from lstm_serve import load_model" in text


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", [SIGMOID, HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3])
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"go_backwards": True, "return_sequences": True}])
def test_the_printed_program_is_right_for_every_layer(
    gate: Activation, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, bias: bool
) -> None:
    layers: list[Operation] = [
        Scaling(name="scaling", offset=np.array([1.0, 2, 3]), scale=np.array([2.0, 3, 4])),
        Rescaling(name="rescaling", scale=np.array(0.5, np.float32), offset=numbers(3)),
        Normalization(name="norm", mean=numbers(1, 3), variance=numbers(1, 3, seed=8) ** 2),
        PReLU(name="prelu", alpha=numbers(4, 1)),
        lstm(3, 5, recurrent_activation=gate, bias=bias, **options),
        Identity(name="drop", keras_class="Dropout"),
        dense(5, 4, RELU, bias=bias),
        dense(4, 2, LINEAR, name="dense_1"),
        Activate(name="softmax", activation=SOFTMAX),
    ]
    whole = model(layers)
    x = numbers(3, 4, 3, seed=7)
    np.testing.assert_allclose(sketched(report(whole, M_H5), x, whole, monkeypatch), whole.predict(x), atol=1e-5)


TWO_GATES = Bidirectional(
    name="bi",
    keras_class="Bidirectional",
    forward=lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_2),
    backward=lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_2, go_backwards=True),
    merge_mode="concat",
)


class Doubled(BaseOperation):
    """A class that no table knows."""

    @property
    def weights(self) -> dict[str, Array]:
        return {"two": np.full((1,), 2, np.float32)}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        return (xs[0] * 2,), (masks[0],)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([Doubled(name="new", keras_class="Doubled")], "new (Doubled) has none"),
        (
            [Activate(name="act", keras_class="Activation", activation=Activation("new", "new(x)", lambda x: x))],
            "act (Activation) has the activation new, new(x)",
        ),
        ([dense(3, 3, name="same"), dense(3, 3, name="same")], "same (Dense) has the name of another layer"),
        (
            [replace(TWO_GATES, backward=lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_3, go_backwards=True))],
            "bi (Bidirectional) has two functions of the name hard_sigmoid",
        ),
        (
            [TimeDistributed.of(name="each", keras_class="TimeDistributed", layer=Masking(name="m", mask_value=0))],
            "each (TimeDistributed) has none",
        ),
    ],
)
def test_where_a_program_would_not_be_right_there_is_none(layers: list[Operation], reason: str) -> None:
    text = unwrapped(report(model(layers), M_H5))
    assert f"This model has no short form in NumPy: {reason}. `inspect --trace INPUT` shows" in text


PADDED = np.array([[3, 1, 2, 0, 0, 0], [0, 0, 5, 4, 0, 1], [0, 0, 0, 0, 0, 7], [8, 8, 8, 8, 8, 8]])
DIRECTIONS: dict[str, Operation] = {
    f"{'zeroed' if zeroed else 'held'} {'steps' if steps else 'last'} {mode}": Bidirectional(
        name="bi",
        forward=lstm(3, 2, return_sequences=steps, zero_output_for_mask=zeroed),
        backward=lstm(3, 2, name="back", go_backwards=True, return_sequences=steps, zero_output_for_mask=zeroed),
        merge_mode=mode,
    )
    for zeroed in (True, False)
    for steps in (True, False)
    for mode in ("concat", "ave")
}
TWO = Stacked(
    name="two",
    layers=(lstm(3, 3, return_sequences=True, go_backwards=True), lstm(3, 2, name="second", return_sequences=True)),
)
TWICE: list[Operation] = [
    Activate(name="a", activation=HARD_SIGMOID_KERAS_3),
    Activate(name="b", activation=leaky_relu(0.1)),
    Activate(name="c", activation=leaky_relu(0.3)),
]
MASKED: dict[str, list[Operation]] = {
    **{name: [layer] for name, layer in DIRECTIONS.items()},
    "backwards": [lstm(3, 2, return_sequences=True, go_backwards=True), lstm(2, 2, name="next")],
    "backwards, zeroed": [lstm(3, 2, go_backwards=True, zero_output_for_mask=True)],
    "cells": [TWO, lstm(2, 2, name="next")],
    "cells in both directions": [
        Bidirectional(
            name="bi",
            forward=replace(TWO, layers=(lstm(3, 2, return_sequences=True),)),
            backward=TWO.layers[0],
            merge_mode="concat",
        )
    ],
    "average": [dense(3, 2), GlobalPooling1D(name="mean", average=True, keepdims=True)],
    "largest": [dense(3, 2), GlobalPooling1D(name="max", average=False, keepdims=False)],
    "dropped": [RESCALED := Rescaling(name="r", scale=numbers(), offset=numbers(), keeps_mask=False), lstm(3, 2)],
    "called twice": [TWICE_CALLED := dense(3, 3), TWICE_CALLED, lstm(3, 2)],
    "of one name": [lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_2), *TWICE],
    "kept": [replace(RESCALED, keeps_mask=True), lstm(3, 2), Activate(name="gelu", activation=ACTIVATIONS["gelu"])],
}


@pytest.mark.parametrize("layers", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize("timesteps", [6, None])
def test_masks_are_in_the_printed_program(
    layers: list[Operation], timesteps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = model([Embedding(name="words", embeddings=numbers(9, 3), mask_zero=True), *layers], (timesteps,))
    came = sketched(report(words, M_H5), PADDED, words, monkeypatch)
    np.testing.assert_allclose(came, words.predict(PADDED), atol=1e-6)
    rows = model([Masking(name="masking", mask_value=-0.1), *layers], (timesteps, 3))
    x = np.where(PADDED[..., np.newaxis] == 0, np.float32(-0.1), numbers(4, 6, 3, seed=7))
    x[0, 0, 0] = -0.1  # one number of a step
    came = sketched(report(rows, M_H5), x, rows, monkeypatch)
    np.testing.assert_allclose(came, rows.predict(x), atol=1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_are_padded_in_the_printed_program(dilation: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    same = Window(size=4, stride=stride, dilation=dilation, padding="same")
    layers: list[Operation] = [
        Convolution(name="conv", kernel=numbers(4, 3, 2), bias=numbers(2), activation=RELU, windows=(same,)),
        Pooling(name="pool", windows=(Window(size=3, stride=2, padding="same"),), average=True),
        Pooling(name="max", windows=(Window(size=2, stride=2, padding="same"),), average=False),
    ]
    free = model(layers, (None, 3))
    for timesteps in (1, 5, 8, 13):
        x = numbers(2, timesteps, 3, seed=6)
        came = sketched(report(free, M_H5), x, free, monkeypatch)
        np.testing.assert_allclose(came, free.predict(x), atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pictures_are_in_the_printed_program(padding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, high = Window(size=3, stride=2, padding=padding), Window(size=2, dilation=2, padding=padding)
    layers: list[Operation] = [
        Convolution(
            name="conv", kernel=numbers(3, 2, 2, 6), bias=numbers(6), activation=RELU, windows=(wide, high), groups=2
        ),
        Convolution(name="last", kernel=numbers(2, 3, 6, 2), bias=None, activation=TANH, windows=(high, wide)),
        Pooling(name="pool", windows=(Window(size=2, padding=padding),) * 2, average=padding == "same"),
    ]
    sizes = (9, 11) if padding == "valid" else (None, None)
    over = model(layers, (*sizes, 4))
    x = numbers(2, 9, 11, 4, seed=6)
    came = sketched(report(over, M_H5), x, over, monkeypatch)
    np.testing.assert_allclose(came, over.predict(x), atol=1e-6)


def test_an_unknown_class_is_told_by_name_class_and_arrays() -> None:
    text = unwrapped(report(model([Doubled(name="new", keras_class="Double")]), M_H5))
    assert "new (Double), in the order of its get_weights(): [0] two (1,)" in text
    assert "y = Double(x), as Keras computes it" in text


def test_a_file_of_keras_1_has_the_gates_apart() -> None:
    path = ASKER / "k122_model.h5"
    text = unwrapped(report(load_model(path, replay=False), path))
    assert "lstm_1 (LSTM), each gate's side by side: [0] kernel (15, 404)" in text
    assert "dense_1 (Dense), in the order of its get_weights(): [0] kernel (101, 5)" in text
    assert "The arrays are 5 here:" in text
    assert "Keras 1's own get_weights() has those of each gate apart: of an LSTM 12 arrays, of a GRU 9." in text


def test_reports_are_narrow_and_the_same_each_time(asker: Model) -> None:
    for loaded, path in ((asker, ASKER / "k215_model.h5"), (load_model(TURBOFAN), TURBOFAN)):
        texts = [
            report(loaded, Path(path.name))
            + head(loaded, Path(path.name))
            + trace(
                loaded,
                Sequences((UnitSequences(numbers(1, 20, 15), range(1, 2)),), "sequence"),
                loading=loading(path, {}),
            )
            for _ in range(2)
        ]
        assert max(len(line) for line in texts[0].splitlines() if "load_model" not in line) <= 100
        assert texts[0].isascii()
        assert texts[0] == texts[1]


# The words


def test_every_operation_is_described() -> None:
    assert set(OPERATIONS) == set(TABLE)


@pytest.mark.parametrize("activation", [*EVERY_ACTIVATION, *ACTIVATION_OF_LAYER.values()])
def test_every_activation_has_a_formula_and_its_numpy(activation: Activation) -> None:
    code = numpy_of(activation)
    assert activation.formula
    assert code is not None
    x = numbers(7, 5, seed=3) * 8
    came = eval(code, {"np": np, "math": math, "x": x})  # noqa: S307 - it is for this
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, activation.apply(x.copy()), rtol=1e-5, atol=1e-5)


def test_an_activation_in_numpy_has_the_numbers_of_the_engine() -> None:
    activation = relu(1234567.5, 0.123456789, -1234.56789)
    x = np.array([-1e7, -1e4, 0, 1e7], np.float32)
    came = eval(str(numpy_of(activation)), {"np": np, "x": x})  # noqa: S307 - it is for this
    np.testing.assert_array_equal(came, activation.apply(x.copy()))


def classes_in(model: dict[str, Any]) -> dict[str, str]:
    """The classes of the layers in a model's config, by their names, and of those in the models in it."""
    found: dict[str, str] = {}
    for entry in model["config"]["layers"]:
        if "layers" in entry["config"]:
            found |= classes_in(entry)
        elif entry["class_name"] != "InputLayer" and not entry["module"].startswith("keras.src.ops"):
            found[entry["config"]["name"]] = entry["class_name"]
    return found


@pytest.mark.parametrize(
    "path",
    sorted([*(GOLDEN / "keras3").glob("*.keras"), *(GOLDEN / "nested").glob("k3*.keras")]),
    ids=lambda path: path.name,
)
def test_layers_have_the_classes_that_they_had_in_keras(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        classes = classes_in(json.loads(archive.read("config.json")))
    loaded = load_model(path)
    layers = model_info(loaded).layers
    named = {layer.name.rpartition("/")[2]: layer.class_name for layer in layers}
    # Of a layer that is several operations, all but the last are numbered.
    assert {name: class_name for name, class_name in named.items() if not name.isdigit()} == classes
    text = report(loaded, path)
    assert all(f"\n  {layer.name} ({layer.class_name})" in text for layer in layers)


def test_the_classes_of_keras_1_have_todays_names() -> None:
    loaded = load_model(GOLDEN / "features" / "k122__conv.h5")
    assert {layer.class_name for layer in model_info(loaded).layers} == {"Conv1D", "MaxPooling1D", "LSTM"}


def test_the_layer_that_the_card_adds_is_no_class_of_keras(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN / "small" / "values.h5", tmp_path))
    card = {"scaling": {"mean": [1, 2, 3], "scale": [4, 5, 6]}}
    path.with_name("values.card.json").write_text(json.dumps(card))
    assert [layer.class_name for layer in model_info(load_model(path)).layers] == ["Scaling", "LSTM", "Dense"]


def test_joins_say_what_they_do() -> None:
    rule = MaskRule.ALL
    assert describe(Merge(name="a", join=np.subtract, mean=False, mask_rule=rule), (3,)).equations == [
        "y = the first input less the second, element by element, as NumPy broadcasts"
    ]
    assert "mean of the inputs" in describe(Merge(name="a", join=np.add, mean=True, mask_rule=rule), (3,)).equations[0]
    assert "along the last axis" in describe(Concatenate(name="a", axis=2, mask_rule=rule), (4, 3)).equations[0]
    assert (
        "along axis 1, the batch being axis 0"
        in describe(Concatenate(name="a", axis=1, mask_rule=rule), (4, 3)).equations[0]
    )


def both(mode: Literal["concat", "sum", "mul", "ave"], *, sequences: bool) -> Bidirectional:
    return Bidirectional(
        name="bi",
        forward=lstm(3, 2, return_sequences=sequences),
        backward=lstm(3, 2, name="other", go_backwards=True, return_sequences=sequences),
        merge_mode=mode,
    )


def test_both_directions_are_told_once_where_they_are_alike() -> None:
    text = "\n".join(describe(both("concat", sequences=True), (4, 3)).equations)
    assert text.count("z  = x_t @ kernel") == 1
    assert "forward goes first to last, and backward last to first, each with its own arrays:" in text
    assert "Backward's h of every step are turned round" in text
    assert "y is forward's numbers, then backward's, at every step." in text
    last = "\n".join(describe(both("ave", sequences=False), (4, 3)).equations)
    assert "backward's is the one at the first row" in last
    assert "y is (forward + backward) / 2." in last
    wider = replace(both("concat", sequences=False), backward=lstm(3, 4, go_backwards=True))
    assert "\n".join(describe(wider, (4, 3)).equations).count("z  = x_t @ kernel") == 2


def test_a_gru_is_told_by_its_kind() -> None:
    after = GRU(
        name="gru",
        kernel=numbers(3, 6),
        recurrent_kernel=numbers(2, 6),
        bias=numbers(2, 6),
        activation=TANH,
        recurrent_activation=SIGMOID,
        reset_after=True,
    )
    text = "\n".join([*describe(after, (4, 3)).equations, *describe(after, (4, 3)).pitfalls])
    assert "h~ = tanh(a[4:6] + r * b[4:6])" in text
    assert "reset_after is True, so r is multiplied with the product" in text
    assert "the bias is two rows" in text
    before = replace(after, bias=numbers(6), reset_after=False)
    text = "\n".join([*describe(before, (4, 3)).equations, *describe(before, (4, 3)).pitfalls])
    assert "h~ = tanh(a[4:6] + (r * h) @ recurrent_kernel[:, 4:6])" in text
    assert "reset_after is False, so r is multiplied with h before the product" in text
    assert "two rows" not in text


def test_a_cell_that_no_one_knows_is_no_silence() -> None:
    class Strange(SimpleRNN):
        pass

    class Stranger(Recurrent):
        buffers = SimpleRNN.buffers
        bind = SimpleRNN.bind

    options: dict[str, Any] = {
        "name": "s",
        "kernel": numbers(3, 2),
        "recurrent_kernel": numbers(2, 2),
        "bias": None,
        "activation": TANH,
    }
    assert describe(Stacked(name="a", layers=(Strange(**options),)), (4, 3)).equations
    with pytest.raises(TypeError):
        describe(Stacked(name="a", layers=(Stranger(**options),)), (4, 3))


def test_windows_say_how_they_are_padded() -> None:
    def way(timesteps: int | None, **options: Any) -> str:
        layer = Pooling(name="p", windows=(Window(size=4, stride=2, **options),), average=True)
        return "\n".join(describe(layer, (timesteps, 3)).equations)

    assert "steps that fill no window are left out" in way(6)
    assert "x is padded with steps that do not count: 1 in front, 1 behind." in way(6, padding="same")
    assert "so that ceil(steps / 2) fit, the smaller half in front" in way(None, padding="same")


# The trace


def plain_lstm(model: Model, x: Doubles, step: int) -> tuple[dict[str, Doubles], Doubles]:
    """The values at a step (from 1) of the asker's first layer, and its last h: a loop in float64."""
    kernel, recurrent_kernel, bias = (array.astype(float) for array in model.nodes[0].operation.weights.values())
    units = len(recurrent_kernel)
    h = c = np.zeros(units)
    at: dict[str, Doubles] = {}
    for t, x_t in enumerate(x, start=1):
        z = x_t @ kernel + h @ recurrent_kernel + bias
        gate = np.clip(0.2 * z + 0.5, 0, 1)
        i, f, o = gate[:units], gate[units : 2 * units], gate[3 * units :]
        candidate = np.tanh(z[2 * units : 3 * units])
        c = f * c + i * candidate
        h = o * np.tanh(c)
        if t == step:
            at = {"z": z, "i": i, "f": f, "c~": candidate, "o": o, "c": c, "h": h}
    return at, h


def printed(text: str) -> dict[str, list[float]]:
    """The numbers of each vector of a trace, by its title, least and greatest first; the first where two have it."""
    found: dict[str, list[float]] = {}
    for title, least, greatest, first in re.findall(
        r"^    (\S.*?)  \(\d+,\)  (\S+) to (\S+)\n((?: +[-+.e\d]+)+)$", text, re.MULTILINE
    ):
        found.setdefault(title, [float(number) for number in (least, greatest, *first.split())])
    return found


@pytest.mark.parametrize("step", [1, 7, 20, None])
def test_the_trace_agrees_with_a_plain_lstm(asker: Model, step: int | None) -> None:
    x = np.load(ASKER / "k215_golden.npz")["x0"]
    text = trace(asker, Sequences((UnitSequences(x, range(1, 17)),), "sequence"), step, loading="load_model('m.h5')")
    expected, last = plain_lstm(asker, x[0].astype(float), step or 20)
    expected |= {"x": x[0, (step or 20) - 1].astype(float), "output, after step 20": last}
    kernel, bias = (array.astype(float) for array in asker.nodes[1].operation.weights.values())
    expected["sums, after step 20"] = last @ kernel + bias
    came = printed(text)
    assert came.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(came[name], [values.min(), values.max(), *values[:8]], atol=1e-5, rtol=1e-4)
    assert text.startswith(f"TRACE of sequence 1, step {step or 20} of 20\n")
    assert "lstm_serve.load_model('m.h5').trace(x)" in text


def test_the_trace_ends_in_the_models_answer(asker: Model) -> None:
    golden = np.load(ASKER / "k215_golden.npz")
    text = trace(asker, Sequences((UnitSequences(golden["x0"], range(20, 36)),), "row"), loading="")
    assert "TRACE of rows 1 to 20 of the series, step 20 of 20" in text
    listed = re.search(r"probabilities: \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    np.testing.assert_allclose([float(number) for number in listed[1].split()], golden["y0"][0], atol=1e-5)
    assert f"predicted_class: {golden['y0'][0].argmax()}\n" in text
    assert "label" not in text


def traced(loaded: Model, step: int | None = None, x: NDArray[Any] | None = None) -> str:
    return trace(
        loaded,
        Sequences((UnitSequences(numbers(1, 4, 3) if x is None else x, range(1, 2)),), "sequence"),
        step,
        loading="",
    )


def test_the_trace_of_a_binary_model_and_of_values() -> None:
    assert re.search(r"\n    probability: 0\.\d+\n", traced(model([lstm(3, 5), dense(5, 1, SIGMOID)])))
    backwards = traced(model([lstm(3, 5, return_sequences=True, go_backwards=True)]), 2)
    assert "goes backwards, so its first step is at the last row" in backwards
    assert "    values: [[" in backwards


def test_the_trace_of_both_directions_is_of_one_time() -> None:
    layer = both("concat", sequences=True)
    text = traced(model([layer]), 3)
    steps = layer.trace([numbers(1, 4, 3)], [None])
    came = printed(text)
    np.testing.assert_allclose(came["forward/h"][2:], steps["forward/h"][0, 2], rtol=1e-5)
    np.testing.assert_allclose(came["backward/h, its own step 2"][2:], steps["backward/h"][0, 1], rtol=1e-5)
    np.testing.assert_allclose(
        came["output"][2:], [*came["forward/h"][2:], *came["backward/h, its own step 2"][2:]], rtol=1e-5
    )


class Last(BaseOperation):
    """A layer that shortens a sequence to its last two steps."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        return (xs[0][:, -2:],), (masks[0],)


def test_a_layer_of_fewer_steps_shows_its_last_and_says_so() -> None:
    assert "    output, row 2 of 2  (3,)  " in traced(model([Last(name="last")]), 3)


def test_the_trace_of_ids_and_of_plain_rows() -> None:
    ids = model([Embedding(name="words", embeddings=numbers(9, 3), mask_zero=False), lstm(3, 2)], (4,))
    text = traced(ids, 2, np.array([[1, 8, 0, 3]]))
    assert "step 2 of 4\n" in text
    assert "masked" not in text
    assert printed(text)["x"] == [0, 8, 1, 8, 0, 3]
    np.testing.assert_allclose(printed(text)["output"][2:], numbers(9, 3)[8], rtol=1e-5)
    rows = model([dense(3, 2)], (3,))
    assert traced(rows, x=numbers(1, 3)).startswith("TRACE of sequence 1\n")
    with pytest.raises(SettingsError, match="--step means nothing here: the model has no time steps"):
        traced(rows, 1, numbers(1, 3))


def test_the_trace_says_what_a_mask_does() -> None:
    assert "At a masked step the states stay" in traced(model([Masking(name="mask", mask_value=0), lstm(3, 2)]))


def test_a_step_beyond_the_sequence_is_refused(asker: Model) -> None:
    with pytest.raises(SettingsError, match="--step 21 is beyond the sequence, which has 20 steps"):
        traced(asker, 21, numbers(1, 20, 15))
