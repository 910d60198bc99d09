"""What a card adds to a model: its targets' scaling undone, probabilities of logits; and the digest over all of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import Array, Layers, dense, lstm, sequential
from kinds import BINARY, LABELS, NAMES, STEPS, X, json_of, lines_of, made
from open_inference import tensor
from scraping import one_of, scraped
from serving import ASKER, call, in_loop, started

from lstm_serve import load_model
from lstm_serve.cli import main
from lstm_serve.errors import UnreadableFile, WrongNumbers
from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

FORECAST: Layers = [lstm(), dense(2, activation="linear")]
FORECAST_STEPS: Layers = [STEPS, dense(2, activation="linear")]
LOGITS: Layers = [lstm(), dense(3, activation="linear")]
LOGIT: Layers = [lstm(), dense(1, activation="linear")]
LOGITS_EACH_STEP: Layers = [lstm(), dense(15, activation="linear"), ("Reshape", {"target_shape": [5, 3]}, [])]


def softmax(y: Array) -> Array:
    e = np.exp(y.astype(np.float64))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


# Targets.


@pytest.mark.parametrize(
    ("scaling", "undone"),
    [
        ({"mean": [1000, -3], "scale": [250, 0.5]}, lambda y: y * [250, 0.5] + [1000, -3]),
        ({"center": [1000], "scale": [250]}, lambda y: y * 250 + 1000),
        ({"mean": 1000, "scale": 250.5}, lambda y: y * 250.5 + 1000),
        ({"min": [10, 0], "max": [30, 1], "range": [-1, 1]}, lambda y: (y + 1) / 2 * [20, 1] + [10, 0]),
    ],
)
@pytest.mark.parametrize("layers", [FORECAST, FORECAST_STEPS])
def test_targets_come_out_in_their_own_units(
    tmp_path: Path, layers: Layers, scaling: dict[str, Any], undone: Any
) -> None:
    y = load_model(made(tmp_path, layers)).predict(X).astype(np.float64)
    model = load_model(made(tmp_path, layers, output_scaling=scaling))
    assert model.kind == "values"
    came = model.predict(X)
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, undone(y), rtol=1e-6)
    np.testing.assert_array_equal(model.trace(X)[-1]["output"], came)


def test_golden_predictions_are_what_keras_answered(tmp_path: Path) -> None:
    path = made(tmp_path, FORECAST)
    y = load_model(path).predict(X)
    np.savez(tmp_path / "m.golden.npz", x=X, y=y)
    made(tmp_path, FORECAST, output_scaling={"mean": [1e6], "scale": [1e4]})
    model = load_model(path)
    assert model.origin.verified
    np.savez(tmp_path / "m.golden.npz", x=X, y=model.predict(X))
    with pytest.raises(WrongNumbers, match="y must be what Keras answered, before the card's output_scaling"):
        load_model(path)


def test_one_sigmoid_whose_target_was_scaled_is_a_value(tmp_path: Path) -> None:
    assert load_model(made(tmp_path, BINARY, output_scaling={"min": [0], "max": [90]})).kind == "values"


@pytest.mark.parametrize(
    ("layers", "card", "said"),
    [
        (FORECAST, {"output_scaling": {"mean": [1, 2, 3], "scale": [1, 2, 3]}}, "is of 3 numbers, the output has 2"),
        ([lstm(), dense(2)], {"output_scaling": {"mean": [1], "scale": [2]}}, "the model answers probabilities"),
        (LABELS, {"output_scaling": {"mean": [1], "scale": [2]}, "classes": NAMES}, "the model answers plain values"),
        (LOGITS, {"classes": NAMES}, r"from_logits=True\), the card says \"output_activation\""),
        (LOGITS, {"output_activation": "relu"}, "may be given where it ends in linear"),
        (LOGIT, {"output_activation": "softmax"}, "a softmax over one unit is 1, whatever the input"),
        ([lstm(), dense(2)], {"output_activation": "softmax"}, "it ends in softmax; leave it out, and out of its card"),
        ([lstm()], {"output_activation": "softmax"}, "it ends in no layer with an activation"),
        (LABELS, {"output_activation": "sigmoid"}, "it ends in sigmoid"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, layers: Layers, card: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        load_model(made(tmp_path, layers, **card))


# Logits.


@pytest.mark.parametrize(
    ("layers", "activation", "classes", "kind"),
    [
        (LOGITS, "softmax", None, "classes"),
        (LOGITS, "softmax", NAMES, "classes"),
        (LOGIT, "sigmoid", ["no", "yes"], "binary"),
        (LOGITS, "sigmoid", NAMES, "labels"),
        (LOGITS, "sigmoid", None, "values"),
        ([STEPS, dense(3, activation="linear")], "softmax", NAMES, "steps"),
        (LOGITS_EACH_STEP, "softmax", NAMES, "steps"),
        ([*LOGITS, ("Activation", {"activation": "linear"}, [])], "softmax", NAMES, "classes"),
    ],
)
def test_probabilities_of_logits(
    tmp_path: Path, layers: Layers, activation: str, classes: list[str] | None, kind: str
) -> None:
    path = made(tmp_path, layers)
    y = load_model(path).predict(X)
    np.savez(tmp_path / "m.golden.npz", x=X, y=y)
    made(tmp_path, layers, output_activation=activation, **({} if classes is None else {"classes": classes}))
    model = load_model(path)
    assert (model.kind, model.origin.verified) == (kind, True)
    expected = softmax(y) if activation == "softmax" else 1 / (1 + np.exp(-y.astype(np.float64)))
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-6)
    assert load_model(made(tmp_path, layers), output_activation=activation).last_activation is model.last_activation


def test_in_weights_alone_it_is_still_the_last_layers(tmp_path: Path) -> None:
    path = shutil.copy(ASKER / "k3_model.weights.h5", tmp_path)
    model = load_model(path, output_activation="softmax", recurrent_activation="sigmoid")
    assert (model.kind, model.added) == ("classes", 0)
    (tmp_path / "k3_model.json").write_text(
        json.dumps(sequential([lstm(101, 15), dense(5, 101, activation="linear")], [20, 15]))
    )
    assert (load_model(path).kind, load_model(path).added) == ("values", 0)
    assert load_model(path, output_activation="softmax").added == 1


@in_loop
async def test_every_dialect(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("units")
    y = load_model(made(folder, FORECAST)).predict(X).astype(np.float64) * 250 + 1000
    path = made(folder, FORECAST, output_scaling={"mean": [1000], "scale": [250]})
    app = create_app(Settings(model=path))
    async with started(app):
        body = json.dumps({"sequences": X.tolist()}).encode()
        native = json_of(await call(app, "/predict/batch", body))["predictions"]
        rows = json.dumps({"instances": X.tolist()}).encode()
        v1 = json_of(await call(app, "/v1/models/m:predict", rows))["predictions"]
        v2 = json_of(await call(app, "/v2/models/m/infer", json.dumps({"inputs": [tensor(X)]}).encode()))
        layers = json_of(await call(app, "/model"))["layers"]
    for found in ([answer["values"] for answer in native], v1, np.reshape(v2["outputs"][0]["data"], y.shape)):
        np.testing.assert_allclose(found, y, rtol=1e-6)
    assert layers[-1]["name"] == "output_scaling"
    _, *lines = lines_of(path, folder)
    np.testing.assert_allclose(np.array([line[1:] for line in lines], float), y, rtol=1e-6)


def test_inspect_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(tmp_path, FORECAST, output_scaling={"mean": [1000, 1], "scale": [250, 2]})
    assert main.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "output_scaling (Unscaling)" in said
    assert f"digest      {load_model(path).origin.digest}" in said
    names: dict[str, Any] = {}
    exec(said.partition("THE SAME IN NUMPY\n")[2], names)  # noqa: S102 - it is for this
    np.testing.assert_allclose(names["predict"](X[0]), load_model(path).predict(X)[0], rtol=1e-5)


# The digest.


def test_the_digest_tells_all_that_the_numbers_depend_on(tmp_path: Path) -> None:
    def digest(**card: Any) -> str:
        origin = load_model(made(tmp_path, LOGIT, **card)).origin
        assert origin.sha256 == plain.sha256
        return origin.digest

    plain = load_model(made(tmp_path, LOGIT)).origin
    assert plain.digest == plain.sha256 == digest(description="words", version=2, features=NAMES)
    zero, one = {"mean": [0, 0, 0], "scale": [1, 1, 1]}, {"mean": [0, 0, 0], "scale": [1, 1, 2]}
    cards: list[dict[str, Any]] = [
        {},
        {"scaling": zero},
        {"scaling": one},
        {"output_scaling": {"mean": [0], "scale": [1]}},
        {"output_scaling": {"mean": [0], "scale": [2]}},
        {"output_activation": "sigmoid"},
        {"output_activation": "sigmoid", "threshold": 0.4},
    ]
    found = [digest(**card) for card in cards]
    assert len(set(found)) == len(cards)
    assert found == [digest(**card) for card in cards]
    assert digest(scaling={"center": [0, 0, 0], "scale": [1, 1, 2]}) == digest(scaling=one)


def test_the_digest_of_weights_tells_their_architecture_and_what_was_said(tmp_path: Path) -> None:
    path = shutil.copy(ASKER / "k3_model.weights.h5", tmp_path)
    said: Any = {"output_activation": "softmax", "recurrent_activation": "sigmoid"}
    digests = [load_model(path, **said).origin.digest]
    (tmp_path / "k3_model.weights.card.json").write_text(json.dumps(said))
    assert [load_model(path).origin.digest] == digests
    (tmp_path / "k3_model.weights.card.json").unlink()
    for units in ("sigmoid", "hard_sigmoid"):
        layers = [lstm(101, 15, recurrent_activation=units), dense(5, 101)]
        (tmp_path / "k3_model.json").write_text(json.dumps(sequential(layers, [20, 15])))
        digests.append(load_model(path).origin.digest)
    assert len({load_model(path).origin.sha256, *digests}) == 4


@in_loop
async def test_the_digest_is_in_the_header_and_the_metrics(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("digest")
    path = made(folder, LABELS, scaling={"mean": [0, 0, 0], "scale": [1, 1, 2]})
    origin = load_model(path).origin
    app = create_app(Settings(model=path))
    async with started(app):
        answer = await call(app, "/predict", json.dumps({"sequence": X[0].tolist()}).encode())
        about = json_of(await call(app, "/model"))
        samples = await scraped(app)
    assert answer.headers["x-model-sha256"] == about["digest"] == origin.digest != about["sha256"]
    assert about["sha256"] == origin.sha256
    labels = {"model": "m", "version": "1", "sha256": origin.sha256, "digest": origin.digest, "keras": "2.15.0"}
    assert one_of(samples, "model_info", **labels, verified="false") == 1
