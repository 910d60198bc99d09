import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import dense, lstm, model, numbers

from service import Model, load_model
from service.engine.activations import (
    HARD_SIGMOID_KERAS_2,
    HARD_SIGMOID_KERAS_3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    Activation,
    Array,
)
from service.engine.layers import Activate, Identity, Layer, Normalization, Plain, Scaling
from service.engine.model import Node, Origin
from service.engine.recurrent import Mask
from service.errors import SettingsError, UnreadableFile, WrongNumbers
from service.explain import report
from service.series import Sequences
from service.trace import report as trace

ROOT = Path(__file__).parent.parent
TURBOFAN = ROOT / "models" / "turbofan.h5"
ASKER = ROOT / "tests" / "golden" / "asker"
Doubles = NDArray[np.float64]


@pytest.fixture(scope="module")
def asker() -> Model:
    return load_model(ASKER / "k215_model.h5")


def unwrapped(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def sketched(text: str, x: Array, loaded: Model, monkeypatch: pytest.MonkeyPatch) -> Array:
    """Run the program that a report prints, on a model that stands in for the file."""
    monkeypatch.setattr("service.loading.load_model", lambda _: loaded)
    program = text.partition("THE SAME IN NUMPY\n")[2]
    names: dict[str, object] = {}
    exec("\n".join(line.removeprefix("    ") for line in program.splitlines()), names)  # noqa: S102 - it is for this
    predict = names["predict"]
    assert callable(predict)
    return np.stack([predict(row) for row in x])


# What is known


def test_a_verified_model_is_known_by_all_that_it_carries() -> None:
    text = unwrapped(report(load_model(TURBOFAN), "models/turbofan.h5"))
    for said in (
        "file models/turbofan.h5 format whole-model HDF5 saved by Keras 3.15.1 sha256 0a27ee656d0e30d3",
        "name turbofan, version 1",
        "input (None, 20, 15), None being the batch; 20 time steps of 15 features each",
        "features T24 [degR], T30 [degR]",
        "output (None, 5): the probabilities of 5 classes",
        "0 = 0-29 cycles left, 1 = 30-59 cycles left",
        "verified yes: it reproduces 32 predictions that Keras made",
    ):
        assert said in text


def test_a_model_without_golden_predictions_says_how_to_make_them(asker: Model) -> None:
    text = report(asker, "some/k215_model.h5")
    assert "not verified" in text
    assert "\n                y = model.predict(x)\n" in text
    assert '\n                np.savez("k215_model.golden.npz", x=x, y=y)\n' in text


def test_a_model_that_misses_says_so_loudly(asker: Model) -> None:
    text = unwrapped(report(asker, "m.h5", WrongNumbers("it misses by 0.2")))
    assert "verified *** NO: THIS MODEL DOES NOT GIVE WHAT KERAS GAVE *** it misses by 0.2 It is not served" in text


def test_golden_predictions_that_cannot_be_read_are_not_called_wrong(asker: Model) -> None:
    text = unwrapped(report(asker, "m.h5", UnreadableFile("the .npz file is damaged")))
    assert "*** NO: ITS GOLDEN PREDICTIONS CANNOT BE READ *** the .npz file is damaged" in text


def test_what_was_assumed_and_a_wider_tolerance_are_said() -> None:
    small = model([lstm(3, 2)], (None, 3), keras=None)
    origin = Origin(file="m", sha256="0", format="f", keras=None, assumed=("gates are sigmoids",), tolerance=5e-3)
    text = unwrapped(report(Model(**{**vars(small), "origin": origin}), "m.h5"))
    assert "saved by a Keras whose version the file does not tell" in text
    assert "any number of time steps of 3 features each" in text
    assert "assumed gates are sigmoids" in text
    assert "held to 0.005 of what Keras answers" in text
    assert "output (None, 2): values, not probabilities" in text


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    text = report(model([lstm(3, 2, name="\x1b[2J" + "a" * 500)]), "\x1b[2J.h5")
    assert "\x1b" not in text
    assert "\\x1b[2Jaaa" in text


# Layers and arrays


def test_the_summary_is_keras_own(asker: Model) -> None:
    text = unwrapped(report(asker, "m.h5"))
    assert (
        "(input) InputLayer (None, 20, 15) 0 lstm_1 LSTM (None, 101) 47,268 dense_1 Dense (None, 5) 510 total 47,778"
        in text
    )
    assert "fed by" not in text


def test_what_feeds_a_layer_is_shown_where_the_layers_are_no_chain() -> None:
    chain = model([dense(3, 2, name="first"), dense(3, 2, name="second")], (3,))
    branch = Model(**{**vars(chain), "nodes": (chain.nodes[0], Node(chain.nodes[1].layer, (0,)))})
    text = unwrapped(report(branch, "m.h5"))
    assert "parameters fed by" in text
    assert "second Dense (None, 2) 8 (input)" in text
    assert "x (3,) is the model's input so y" not in text
    assert "no short form in NumPy" in text


def test_each_array_has_its_shape_and_its_role(asker: Model) -> None:
    text = unwrapped(report(asker, "m.h5"))
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
    text = unwrapped(report(asker, "m.h5").partition("EASILY MISTAKEN")[2])
    gates = "i [0:101], f [101:202], c~ [202:303], o [303:404]"
    for said in (
        "The arrays are 5, not one a layer: 3 of lstm_1 (kernel, recurrent_kernel, bias), 2 of dense_1 (kernel, bias);",
        "none are of an input layer.",
        f"are the gates i, f, c~ and o in this order: {gates}",
        "They are not input, previous memory, current memory and previous output",
        "The bias of lstm_1 is one vector of 4 x 101 = 404 numbers, not four vectors and not one for each kernel;",
        f"the gates' parts of it are {gates}",
        "101 units make 4 x 101 = 404 columns. A kernel of 400 columns is another model's, one of 100 units.",
        "The hard_sigmoid of lstm_1 is that of Keras 1 and 2, which saved this file: clip(0.2 x + 0.5, 0, 1).",
        "Keras 3 means another function by that name, clip(x + 3, 0, 6) / 6",
        "[model.get_weights() for layer in model.layers] repeats the model's whole list once a layer, 2 times here;",
        "what was meant is [layer.get_weights() for layer in model.layers].",
    ):
        assert said in text
    assert "nothing is to be rescaled" not in text
    assert "standardises" not in text


def test_only_what_applies_is_mentioned() -> None:
    layers: list[Layer] = [
        lstm(3, 1, bias=False),
        Identity(name="drop", keras_class="Dropout"),
        dense(1, 1, bias=False),
    ]
    text = unwrapped(report(model(layers), "m.h5").partition("EASILY MISTAKEN")[2])
    assert "drop (Dropout) does nothing at inference, and nothing is to be rescaled for it" in text
    assert "2 of lstm (kernel, recurrent_kernel), 1 of dense (kernel); the other layers have none" in text
    assert "Any other number of columns is another model's." in text
    assert "bias of" not in text
    assert "hard_sigmoid" not in text
    alone = unwrapped(report(model([Activate(name="act", activation=RELU)]), "m.h5"))
    assert "model.layers]" not in alone
    assert "not one a layer" not in alone
    assert "act (Activation): none" in alone


def test_keras_3_has_its_own_hard_sigmoid() -> None:
    text = unwrapped(report(model([lstm(3, 2, recurrent_activation=HARD_SIGMOID_KERAS_3)]), "m.h5"))
    assert "is that of Keras 3, which saved this file: clip(x + 3, 0, 6) / 6. Keras 1 and 2 means another" in text
    assert "i = hard_sigmoid(z[0:2])" in text
    assert "hard_sigmoid(x) = clip(x + 3, 0, 6) / 6" in text


# The program in NumPy


@pytest.mark.parametrize(
    ("name", "golden", "x", "y"),
    [
        (TURBOFAN, ROOT / "models" / "turbofan.golden.npz", "x", "y"),
        (ASKER / "k215_model.h5", ASKER / "k215_golden.npz", "x0", "y0"),
    ],
)
def test_the_printed_program_gives_what_keras_gave(
    name: Path, golden: Path, x: str, y: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = np.load(golden)
    loaded = load_model(name)
    came = sketched(report(loaded, "m.h5"), arrays[x][:8], loaded, monkeypatch)
    np.testing.assert_allclose(came, arrays[y][:8], atol=1e-5)
    np.testing.assert_allclose(loaded.predict(arrays[x][:8]), arrays[y][:8], atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", [SIGMOID, HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3])
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"go_backwards": True, "return_sequences": True}])
def test_the_printed_program_is_right_for_every_layer(
    gate: Activation, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, bias: bool
) -> None:
    layers: list[Layer] = [
        Scaling(name="scaling", offset=np.array([1.0, 2, 3]), scale=np.array([2.0, 3, 4])),
        Normalization(name="norm", mean=numbers(1, 3), variance=numbers(1, 3, seed=8) ** 2),
        lstm(3, 5, recurrent_activation=gate, bias=bias, **options),
        Identity(name="drop", keras_class="Dropout"),
        dense(5, 4, RELU, bias=bias),
        dense(4, 2, LINEAR, name="dense_1"),
        Activate(name="softmax", activation=SOFTMAX),
    ]
    whole = model(layers)
    x = numbers(3, 4, 3, seed=7)
    np.testing.assert_allclose(sketched(report(whole, "m.h5"), x, whole, monkeypatch), whole.predict(x), atol=1e-5)


class Doubled(Plain):
    """A class that no table knows."""

    @property
    def weights(self) -> dict[str, Array]:
        return {"two": np.full((1,), 2, np.float32)}

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        return xs[0] * 2, masks[0]


@pytest.mark.parametrize(
    "layers",
    [
        [Doubled(name="new")],
        [Activate(name="act", activation=Activation("new", "new(x)", lambda x: x))],
        [dense(3, 3, name="same"), dense(3, 3, name="same")],
        [
            Activate(name="a", activation=HARD_SIGMOID_KERAS_2),
            Activate(name="b", activation=HARD_SIGMOID_KERAS_3),
        ],
    ],
)
def test_where_a_program_would_not_be_right_there_is_none(layers: list[Layer]) -> None:
    assert "This model has no short form in NumPy." in report(model(layers), "m.h5")


def test_an_unknown_class_is_told_by_name_class_and_arrays() -> None:
    text = unwrapped(report(model([Doubled(name="new")]), "m.h5"))
    assert "new (Doubled), in the order of its get_weights(): [0] two (1,)" in text
    assert "y = Doubled(x), as Keras computes it" in text


def test_reports_are_narrow_and_the_same_each_time(asker: Model) -> None:
    for loaded in (asker, load_model(TURBOFAN)):
        text = report(loaded, "m.h5") + trace(loaded, Sequences(numbers(1, 20, 15), range(1, 2), "sequence"))
        assert max(map(len, text.splitlines())) <= 100
        assert text.isascii()
        assert text == report(loaded, "m.h5") + trace(loaded, Sequences(numbers(1, 20, 15), range(1, 2), "sequence"))


# The trace


def plain_lstm(model: Model, x: Doubles, step: int) -> tuple[dict[str, Doubles], Doubles]:
    """The values at a step (from 1) of the asker's first layer, and its last h: a loop in float64."""
    kernel, recurrent_kernel, bias = (array.astype(float) for array in model.nodes[0].layer.weights.values())
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
    """The numbers of each line of a trace, by the name that begins it; the first layer's where two have it."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        match = re.match(r"    (\S+)\s+\(\d+,\)((?:\s+[-+.e\d]+)+)$", line)
        if match:
            found.setdefault(match[1], [float(number) for number in match[2].split()])
    return found


@pytest.mark.parametrize("step", [1, 7, 20, None])
def test_the_trace_agrees_with_a_plain_lstm(asker: Model, step: int | None) -> None:
    x = np.load(ASKER / "k215_golden.npz")["x0"]
    text = trace(asker, Sequences(x, range(1, 17), "sequence"), step)
    expected, last = plain_lstm(asker, x[0].astype(float), step or 20)
    expected |= {"x": x[0, (step or 20) - 1].astype(float), "output": last}
    kernel, bias = (array.astype(float) for array in asker.nodes[1].layer.weights.values())
    expected["sums"] = last @ kernel + bias
    came = printed(text)
    assert came.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(came[name], [values.min(), values.max(), *values[:4]], atol=1e-5, rtol=1e-4)
    assert text.startswith(f"TRACE of sequence 1, step {step or 20} of 20\n")


def test_the_trace_ends_in_the_models_answer(asker: Model) -> None:
    golden = np.load(ASKER / "k215_golden.npz")
    text = trace(asker, Sequences(golden["x0"], range(20, 36), "row"))
    assert "TRACE of rows 1 to 20, step 20 of 20" in text
    listed = re.search(r"probabilities: \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    np.testing.assert_allclose([float(number) for number in listed[1].split()], golden["y0"][0], atol=1e-5)
    assert f"predicted_class: {golden['y0'][0].argmax()}\n" in text
    assert "label" not in text


def test_the_trace_of_a_binary_model_and_of_values() -> None:
    sequence = Sequences(numbers(1, 4, 3), range(1, 2), "sequence")
    assert re.search(r"\n    probability: 0\.\d+\n", trace(model([lstm(3, 5), dense(5, 1, SIGMOID)]), sequence))
    backwards = trace(model([lstm(3, 5, return_sequences=True, go_backwards=True)]), sequence, 2)
    assert "goes backwards, so its first step is at the last row" in backwards
    assert "    values: [[" in backwards


class Last(Plain):
    """A layer that shortens a sequence to its last two steps."""

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> tuple[Array, Mask]:
        return xs[0][:, -2:], masks[0]


def test_a_layer_of_fewer_steps_shows_its_last_and_says_so() -> None:
    text = trace(model([Last(name="last")]), Sequences(numbers(1, 4, 3), range(1, 2), "sequence"), 3)
    assert re.search(r"output .*\(step 2\)", text)


def test_a_step_beyond_the_sequence_is_refused(asker: Model) -> None:
    with pytest.raises(SettingsError, match="--step 21 is beyond the sequence, which has 20 steps"):
        trace(asker, Sequences(numbers(1, 20, 15), range(1, 2), "sequence"), 21)
