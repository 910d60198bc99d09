"""Models of several inputs and outputs: each form of each Keras, fed in order and by name, and what their cards say."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import dense, lstm, numbers, save, save_sequential
from serving import GOLDEN

from lstm_serve import Model, load_model
from lstm_serve.cli.main import main
from lstm_serve.errors import InvalidInput, UnreadableFile, Unsupported, WrongNumbers
from lstm_serve.loading.sidecars import golden
from lstm_serve.model.answers import answers

SEVERAL = GOLDEN / "several"
FILES = sorted(
    [*SEVERAL.glob("*.h5"), *SEVERAL.glob("*.keras"), *(path for path in SEVERAL.iterdir() if path.is_dir())]
)
NAMES = {
    "state_and_rul": (["words", "static", "sensors"], ["state", "rul"]),
    "by_keys": (["site", "wind"], ["alarm", "power"]),
    "shared_layers": (["left", "right", "unused"], ["judge", "judge_1", "lstm", "judge_2", "left"]),
    "models_inside": (["b", "a"], ["inner", "inner_1", "add"]),
    "free_lengths": (["a", "b"], ["dense", "add"]),
}
KINDS = {
    "state_and_rul": ["classes", "values"],
    "by_keys": ["binary", "values"],
    "shared_layers": ["classes", "classes", "values", "classes", "values"],
    "models_inside": ["values", "values", "values"],
    "free_lengths": ["classes", "values"],
}


def golden_of(path: Path) -> dict[str, Any]:
    name = path.name if path.is_dir() else path.name.partition(".")[0]
    with np.load(SEVERAL / f"{name}.golden.npz") as arrays:
        return dict(arrays)


def numbered(arrays: dict[str, Any], letter: str) -> list[Any]:
    return [arrays[f"{letter}{k}"] for k in range(len(arrays)) if f"{letter}{k}" in arrays]


def copied(name: str, folder: Path, **card: Any) -> Path:
    path = Path(shutil.copy(SEVERAL / f"{name}.h5", folder / "m.h5"))
    shutil.copy(SEVERAL / f"{name}.golden.npz", folder / "m.golden.npz")
    (folder / "m.card.json").write_text(json.dumps(card))
    return path


def near(came: Any, expected: Any) -> bool:
    return bool(came.shape == expected.shape and np.allclose(came, expected, atol=1e-6, rtol=1e-6))


def test_every_form_of_each_keras_is_there() -> None:
    assert len(FILES) == len(NAMES) * (4 + 3)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_what_the_keras_that_saved_it_answered(path: Path) -> None:
    case = path.name.partition("__")[2].partition(".")[0]
    golden = golden_of(path)
    xs, ys = numbered(golden, "x"), numbered(golden, "y")
    model = load_model(path, replay=False)
    assert ([spec.name for spec in model.inputs], [spec.name for spec in model.outputs]) == NAMES[case]
    assert [spec.kind for spec in model.outputs] == KINDS[case]
    assert golden["names"].tolist() == NAMES[case][0]
    in_order = model.predict(xs)
    assert [*in_order] == NAMES[case][1]
    assert all(near(came, y) for came, y in zip(in_order.values(), ys, strict=True))
    named = dict(zip(NAMES[case][0], xs, strict=True))
    by_name = model.predict(dict(reversed(named.items())))
    assert all(np.array_equal(came, by_name[name]) for name, came in in_order.items())
    shapes = model.output_shapes_for(*(x.shape[1:] for x in xs))
    assert [(len(xs[0]), *shape) for shape in shapes] == [y.shape for y in ys]


@pytest.mark.parametrize("case", NAMES)
def test_golden_predictions_are_replayed_by_number_or_by_name(tmp_path: Path, case: str) -> None:
    path = copied(f"k3__{case}", tmp_path)
    assert load_model(path).origin.golden_rows == 4
    arrays = golden_of(path.with_name(f"k3__{case}.h5"))
    inputs, outputs = NAMES[case]
    named = {f"x_{name}": x for name, x in zip(inputs, numbered(arrays, "x"), strict=True)}
    named |= {f"y_{name}": y for name, y in zip(outputs, numbered(arrays, "y"), strict=True)}
    np.savez(tmp_path / "m.golden.npz", **named)
    assert load_model(path).origin.golden_difference is not None
    last = f"y_{outputs[-1]}"
    named[last] = named[last] + np.float32(0.01)
    np.savez(tmp_path / "m.golden.npz", **named)
    with pytest.raises(WrongNumbers, match="misses its golden predictions"):
        load_model(path)
    named.pop(last)
    np.savez(tmp_path / "m.golden.npz", **named)
    with pytest.raises(UnreadableFile, match=rf"should hold the arrays x_{inputs[0]} .* {last}.*np\.savez\(f, x0=x0"):
        load_model(path)


def test_golden_predictions_go_by_the_name_in_the_file_or_the_cards(tmp_path: Path) -> None:
    path = save_sequential(tmp_path / "m.h5", [lstm(), dense()])
    x = numbers(4, 5, 3)
    y = load_model(path).predict(x)
    (tmp_path / "m.card.json").write_text(
        json.dumps({"inputs": {"layer_0_input": {"name": "rows"}}, "outputs": {"layer_1": {"name": "state"}}})
    )
    for names in (("x", "y"), ("x0", "y0"), ("x_layer_0_input", "y_layer_1"), ("x_rows", "y_state"), ("x", "y_state")):
        np.savez(tmp_path / "m.golden.npz", **dict(zip(names, (x, y), strict=True)))
        assert load_model(path).origin.verified, names


@pytest.mark.parametrize("path", [path for path in FILES if "by_keys" in path.name], ids=lambda path: path.name)
def test_the_lines_that_make_golden_predictions_take_the_dict_that_keras_answers(tmp_path: Path, path: Path) -> None:
    arrays = golden_of(path)
    model = load_model(path, replay=False)
    code = golden.savez(model, "f")
    assert code.endswith('np.savez(f, x0=x0, x1=x1, y_alarm=y["alarm"], y_power=y["power"])')
    here = {"model": model, "np": np, "f": tmp_path / "g.npz", "x0": arrays["x0"], "x1": arrays["x1"]}
    exec(code, here)  # noqa: S102 - it is what is shown to be run
    xs, ys = golden.read(tmp_path / "g.npz", model)
    assert all(map(np.array_equal, [*xs, *ys], [arrays["x0"], arrays["x1"], here["y"]["alarm"], here["y"]["power"]]))
    np.savez(tmp_path / "g.npz", x0=arrays["x0"], x1=arrays["x1"], y0="alarm", y1="power")
    with pytest.raises(
        UnreadableFile, match=r"'y0.npy' holds text.* A dict taken apart gives its keys.*y = model.pred"
    ):
        golden.read(tmp_path / "g.npz", model)


def test_golden_predictions_of_other_shapes_are_refused(tmp_path: Path) -> None:
    path = copied("k3__by_keys", tmp_path)
    arrays = golden_of(path.with_name("k3__by_keys.h5"))
    np.savez(tmp_path / "m.golden.npz", **{**arrays, "x1": arrays["x1"][:3]})
    with pytest.raises(WrongNumbers, match="as many rows of each input, got site 4, wind 3"):
        load_model(path)
    np.savez(tmp_path / "m.golden.npz", **{**arrays, "x1": arrays["x1"][:, :3]})
    with pytest.raises(WrongNumbers, match=r"wind: expected an array of shape \(n, 4, 2\)"):
        load_model(path)
    np.savez(tmp_path / "m.golden.npz", **{**arrays, "y1": arrays["y0"]})
    with pytest.raises(WrongNumbers, match=r"answers of shape \(4, 1\) for power, and the model gives \(4, 2\)"):
        load_model(path)


@pytest.fixture(scope="module")
def several() -> Model:
    return load_model(SEVERAL / "k3__state_and_rul.h5", replay=False)


WORDS, STATIC, SENSORS = np.ones((2, 5), int), np.zeros((2, 3)), np.zeros((2, 6, 4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"words": WORDS, "static": STATIC}, "the inputs words, static, sensors, each by its name: sensors is missing"),
        ({"words": WORDS}, "each by its name: static, sensors are missing"),
        (
            {"words": WORDS, "static": STATIC, "sensors": SENSORS, "x": 1},
            "by its name: 4 came, so 1 of them is none of these",
        ),
        (
            {"words": WORDS, "static": STATIC, "sensor": SENSORS},
            "by its name: sensors is missing; 3 came, so 1 of them is none of these",
        ),
        ([WORDS, STATIC], "a dict of the inputs words, static, sensors, or a list .* got 2 of them"),
        (SENSORS, "got one array"),
        ([WORDS, STATIC, SENSORS[:1]], "as many rows of each input, got words 2, static 2, sensors 1"),
        ([WORDS, STATIC, SENSORS[:, :5]], r"sensors: expected an array of shape \(n, 6, 4\), got .*\(2, 5, 4\)"),
        ([WORDS + 8, STATIC, SENSORS], r"words: expected .* of integers from 0 to 8, got another number at \(0, 0\)"),
        ([WORDS, STATIC * np.nan, SENSORS], r"static: expected finite float32 numbers, got another at \(0, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(several: Model, given: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        several.predict(given)


def test_lengths_that_do_not_fit_together_are_refused() -> None:
    model = load_model(SEVERAL / "tf215__free_lengths.h5", replay=False)
    a, b = np.zeros((2, 7, 2)), np.zeros((2, 7, 3))
    assert model.predict([a, b])["add"].shape == (2, 7, 3)
    with pytest.raises(InvalidInput, match=r"do not fit together: a \(7, 2\), b \(5, 3\)"):
        model.predict([a, b[:, :5]])
    with pytest.raises(InvalidInput, match=r"2 inputs \(.*\), and a series needs one: load_model"):
        model.predict_series(a[0])


def test_many_rows_are_computed_in_parts(several: Model) -> None:
    generator = np.random.default_rng(0)
    xs = [generator.integers(0, 9, (300, 5)), generator.normal(size=(300, 3)), generator.normal(size=(300, 6, 4))]
    whole = several.predict(xs)
    part = several.predict([x[250:] for x in xs])
    assert all(np.allclose(whole[name][250:], part[name], atol=1e-6) for name in part)


def test_each_of_several_outputs_has_a_threshold_of_its_own(tmp_path: Path) -> None:
    plain = load_model(SEVERAL / "k3__by_keys.h5", replay=False)
    x = {spec.name: np.ones((1, *(size or 1 for size in spec.shape)), spec.dtype) for spec in plain.inputs}
    probability = float(plain.predict(x)["alarm"][0, 0])
    for threshold, said in ((probability * 0.9, 1), (min(1.0, probability * 1.1), 0)):
        path = copied("k3__by_keys", tmp_path, outputs={"alarm": {"threshold": threshold}})
        model = load_model(path, replay=False)
        (answer,) = answers(model, model.forward(model.checked(x)))
        assert answer["outputs"]["alarm"]["predicted_class"] == said


def test_a_card_names_scales_and_labels_each(tmp_path: Path) -> None:
    path = copied(
        "k3__state_and_rul",
        tmp_path,
        inputs={
            "static": {"name": "plant", "features": ["a", "b", "c"], "scaling": {"mean": [0] * 3, "scale": [2] * 3}}
        },
        outputs={
            "state": {"classes": ["new", "worn", "gone"]},
            "rul": {"name": "left", "scaling": {"min": 0, "max": 10}},
        },
    )
    plain, model = load_model(SEVERAL / "k3__state_and_rul.h5", replay=False), load_model(path, replay=False)
    assert [spec.name for spec in model.inputs] == ["words", "plant", "sensors"]
    assert [spec.in_file for spec in model.inputs] == [None, "static", None]
    assert [np.dtype(spec.dtype).name for spec in model.inputs] == ["int32", "float64", "float32"]
    assert [spec.name for spec in model.outputs] == ["state", "left"]
    assert model.heads["state"].about.classes == ("new", "worn", "gone")
    x = {"words": WORDS, "sensors": SENSORS, "plant": STATIC + 4}
    came, expected = model.predict(x), plain.predict([WORDS, STATIC + 2, SENSORS])
    assert near(came["state"], expected["state"])
    assert near(came["left"], expected["rul"] * 10)
    assert model.origin.digest != model.origin.sha256
    # Keras was given what is scaled, and its answers are as they were before the card's.
    arrays = golden_of(path.with_name("k3__state_and_rul.h5"))
    np.savez(tmp_path / "m.golden.npz", **{**arrays, "x1": arrays["x1"] * 2})
    assert load_model(path).origin.verified


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (
            {"features": ["a"]},
            'features and not of which input; say it by name, as "inputs": {"words": {"features": ...}}',
        ),
        ({"output_scaling": {"min": 0, "max": 1}}, 'as "outputs": {"state": {"scaling": ...}}'),
        ({"inputs": {"sensor": {}}}, "its card names the input 'sensor', and the model has words, static, sensors"),
        ({"inputs": {"words": {"name": "static"}}}, "calls two inputs by one name: static, static, sensors"),
        ({"inputs": {"words": {"scaling": {"min": 0, "max": 1}}}}, "scales the input words, which is ids"),
        ({"inputs": {"static": {"features": ["a", "b"]}}}, "names 2 features, the input static has 3"),
        (
            {"inputs": {"static": {"feature": ["a", "b"]}}},
            "inputs.static.feature is not a field; did you mean features?",
        ),
        ({"outputs": {"rul": {"classes": ["a", "b"]}}}, "names 2 classes; the model answers plain values"),
        ({"outputs": {"rul": {"threshold": 2}}}, "outputs.rul.threshold: expected a number above 0, and at most 1"),
        ({"outputs": {"state": {"scaling": {"min": 0, "max": 1}}}}, "an output_scaling, and the model answers prob"),
        ({"timesteps": 6}, "says timesteps, and the model has 3 inputs"),
        ({"output_activation": "softmax"}, "says output_activation, and the model has several outputs"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, card: dict[str, Any], said: str) -> None:
    path = copied("k3__state_and_rul", tmp_path, **card)
    with pytest.raises(UnreadableFile) as error:
        load_model(path, replay=False)
    assert said in str(error.value)


def test_what_takes_one_input_and_one_output_says_so(several: Model) -> None:
    told = r"3 inputs \(words, static, sensors\) and 2 outputs \(state, rul\), and it needs one of each: load_model"
    with pytest.raises(Unsupported, match=told):
        several.expect_one("it")
    assert several.not_one("it", "output") == (
        "the model has 2 outputs (state, rul), and it needs one: load_model(...).predict({...}) answers it, and "
        "POST /predict/batch, as .npz or JSON"
    )
    assert several.stepper() is None
    assert not several.has_time_axis


def test_inspect_tells_each_input_and_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(SEVERAL / "k3__state_and_rul.h5")]) == 0
    told = capsys.readouterr().out
    assert "  input       words (None, 5), the first axis being the batch; 5 time steps of one id each" in told
    assert "  input       static (None, 3), the first axis being the batch; each row is 3 numbers" in told
    assert "  output      state (None, 3): the probabilities of 3 classes" in told
    assert "  output      rul (None, 1): values, not probabilities" in told
    assert "  (static)      InputLayer" in told
    assert "Of state: The y of state are the probabilities." in told
    assert "no short form in NumPy: it has several inputs or outputs" in told
    assert "--trace" not in told


def test_a_folder_and_python_tell_each_input_and_output(
    several: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = "words (None, 5), static (None, 3), sensors (None, 6, 4) to state (None, 3) classes, rul (None, 1) values"
    assert repr(several) == f"<Model k3__state_and_rul, version 1: {shapes}, not verified>"
    copied("k3__state_and_rul", tmp_path)
    shutil.copy(SEVERAL / "k3__by_keys.h5", tmp_path / "other.h5")
    assert main(["inspect", str(tmp_path)]) == 0
    assert f"m 1: {shapes}, verified" in capsys.readouterr().out
    many = "<tr><td>(static)</td><td>InputLayer</td><td>(None, 3)</td><td>0</td></tr>"
    assert many in several._repr_html_()


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["predict"], "a file of inputs"),
        (["evaluate"], "an evaluation"),
        (["profile"], "a profile"),
        (["explain"], "lstm-serve explain"),
        (["inspect", "--trace"], "lstm-serve inspect --trace"),
        (["follow"], "lstm-serve follow"),
    ],
)
def test_commands_that_take_one_input_refuse_by_name_and_say_what_answers(
    capsys: pytest.CaptureFixture[str], command: list[str], what: str
) -> None:
    name, *flags = command
    files = [] if name == "follow" else [str(SEVERAL / "k3__state_and_rul.golden.npz")]
    assert main([name, str(SEVERAL / "k3__state_and_rul.h5"), *flags, *files]) == 3
    assert capsys.readouterr().err == (
        "lstm-serve: the model has 3 inputs (words, static, sensors) and 2 outputs (state, rul), and "
        f"{what} needs one of each: load_model(...).predict({{...}}) answers it, and POST /predict/batch, "
        "as .npz or JSON\n"
    )


def listed(entries: list[tuple[str, str, list[str]]], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    """A functional model of layers (class, name, names of what it is called on)."""
    layers = []
    for class_name, name, sources in entries:
        config = {"name": name} | ({} if sources else {"batch_input_shape": [None, 4, 3]})
        calls = [[[source, 0, 0, {}] for source in sources]] if sources else []
        layers.append({"class_name": class_name, "name": name, "config": config, "inbound_nodes": calls})
    ends = {"input_layers": [[name, 0, 0] for name in inputs], "output_layers": [[name, 0, 0] for name in outputs]}
    return {"class_name": "Functional", "config": {"layers": layers, **ends}}


X: tuple[str, str, list[str]] = ("InputLayer", "x", [])
MANY = [f"x{k}" for k in range(1001)]


def test_one_output_many_times_over_has_as_many_names(tmp_path: Path) -> None:
    model = listed([X, ("ReLU", "y", ["x"]), ("ReLU", "y_1", ["x"])], ["x"], ["y", "y_1", *["y"] * 998])
    names = load_model(save(tmp_path / "m.h5", model, {})).output_names
    assert names == ("y", "y_1", *(f"y_{k}" for k in range(2, 1000)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (listed([X, ("ReLU", "y", ["x"])], ["x"], ["y"] * 1001), "the model has 1001 outputs; at most 1000"),
        (listed([X, ("Add", "y", ["x"] * 1001)], ["x"], ["y"]), "the layer 'y' is called on 1001 inputs; at most 1000"),
        (
            listed([*(("InputLayer", name, []) for name in MANY), ("ReLU", "y", ["x0"])], MANY, ["y"]),
            "the model has 1001 inputs; at most 1000",
        ),
    ],
)
def test_more_inputs_or_outputs_than_any_model_has_are_refused(tmp_path: Path, model: Any, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        load_model(save(tmp_path / "m.h5", model, {}))
