"""`.keras` files: what this package reads of them, and what Keras 3 does, where there is one."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exporting import EVERY, KERAS_PYTHON, difference, run, written
from golden_models import golden_models
from serving import ASKER, GOLDEN
from small_models import classes, dense, lstm, model, numbers

from lstm_serve import load_model
from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, TANH
from lstm_serve.engine.operations.arithmetic import Binary, Reduce
from lstm_serve.engine.operations.pointwise import Activate, Scaling
from lstm_serve.engine.operations.recurrent import SimpleRNN
from lstm_serve.engine.operations.temporal import Masking
from lstm_serve.engine.operations.wrappers import Bidirectional, TimeDistributed
from lstm_serve.errors import Unsupported
from lstm_serve.export import to_keras
from lstm_serve.model.graph import INPUT, Node, Source


def test_read_back_by_this_package(tmp_path: Path) -> None:
    count = 0
    for name, path, golden in written("keras", tmp_path):
        y = load_model(path).predict(list(golden.xs) if len(golden.xs) > 1 else golden.xs[0])
        assert difference([*y.values()] if isinstance(y, dict) else [y], golden) <= 1e-5, name
        count += 1
    assert count >= 60 // EVERY["keras"]


def test_what_is_written_is_verified_by_the_golden_predictions_beside_it(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "small/values.h5", tmp_path / "m.h5")
    shutil.copy(GOLDEN / "small/values.golden.npz", tmp_path / "m.golden.npz")
    before = (tmp_path / "m.golden.npz").read_bytes()
    (tmp_path / "n.golden.npz").write_bytes(b"of another model")
    assert run("export", "m.h5", "--to", "keras", cwd=tmp_path).returncode == 0
    assert (tmp_path / "m.golden.npz").read_bytes() == before  # they are its own already
    done = run("export", "m.h5", "--to", "keras", "-o", "n.keras", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "lstm-serve: n.golden.npz exists already; --force replaces what it is to hold\n",
    )
    assert not (tmp_path / "n.keras").exists()
    assert run("export", "m.h5", "--to", "keras", "-o", "n.keras", "--force", cwd=tmp_path).returncode == 0
    for name in ("m.keras", "n.keras"):
        assert load_model(tmp_path / name).origin.verified


def test_predictions_that_are_not_those_of_keras_verify_nothing(tmp_path: Path) -> None:
    to_keras(classes(), tmp_path / "m.keras")
    assert {path.name for path in tmp_path.iterdir()} == {"m.keras", "m.keras.made.npz"}
    assert not load_model(tmp_path / "m.keras").origin.verified


def test_a_card_that_would_scale_twice(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "small/values.h5", tmp_path / "m.h5")
    (tmp_path / "m.card.json").write_text(json.dumps({"output_scaling": {"mean": [2e6], "scale": [3e5]}}), "utf-8")
    done = run("export", "m.h5", "--to", "keras", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "m.card.json would be read as the card of what is written" in done.stderr
    assert run("export", "m.h5", "--to", "keras", "-o", "n.keras", cwd=tmp_path).returncode == 0
    with np.load(GOLDEN / "small/values.golden.npz") as arrays:
        y, scaled = arrays["y"], load_model(tmp_path / "n.keras").predict(arrays["x"])
    np.testing.assert_allclose(scaled, y * 3e5 + 2e6, rtol=1e-6)


def test_the_card_that_goes_beside_what_is_written(tmp_path: Path) -> None:
    """As the documentation has it: of the old card all but what it does to the numbers."""
    shutil.copy(ASKER / "k215_model.h5", tmp_path / "m.h5")
    names = {"classes": list("abcde"), "features": [f"f{k}" for k in range(15)], "series": {"gap": "last"}}
    scaling = {"scaling": {"mean": [0.25] * 15, "scale": [2.0] * 15}}
    (tmp_path / "m.card.json").write_text(json.dumps({**names, **scaling}), "utf-8")
    old = load_model(tmp_path / "m.h5")
    assert run("export", "m.h5", "--to", "keras", "-o", "n.keras", cwd=tmp_path).returncode == 0
    (tmp_path / "n.card.json").write_text(json.dumps(names), "utf-8")
    new, x = load_model(tmp_path / "n.keras"), numbers(4, 20, 15)
    np.testing.assert_allclose(new.predict(x), old.predict(x), atol=1e-6)
    assert (new.about.classes, new.about.features, new.about.series) == (
        old.about.classes,
        old.about.features,
        old.about.series,
    )


def test_the_gates_are_told_to_be_multiplied(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    to_keras(load_model(ASKER / "k122_model.h5"), path)
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert "is 1.2 times the source's" in metadata["description"]
    lstms = [load_model(file).nodes[0].operation for file in (ASKER / "k122_model.h5", path)]
    old, new = (np.split(each.weights["kernel"], 4, axis=1) for each in lstms)
    for block, times in enumerate((1.2, 1.2, 1, 1.2)):  # i, f, c, o
        np.testing.assert_allclose(new[block], old[block] * times, rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        dense(3, 2, HARD_SIGMOID_KERAS_2),
        Activate(name="a", activation=HARD_SIGMOID_KERAS_2),
        SimpleRNN(
            name="r",
            kernel=numbers(3, 4),
            recurrent_kernel=numbers(4, 4),
            bias=numbers(4),
            activation=HARD_SIGMOID_KERAS_2,
        ),
        lstm(3, 4, recurrent_activation=HARD_SIGMOID_KERAS_2),
        TimeDistributed.of(name="t", layer=Activate(name="a", activation=HARD_SIGMOID_KERAS_2)),
        Scaling(name="s", offset=np.array([1e3, 2.0, 3.0]), scale=np.array([1.0, 2.0, 3.0])),
    ],
)
def test_the_old_hard_sigmoid_and_scaling(layer: object, tmp_path: Path) -> None:
    made = model([layer])  # type: ignore[list-item] # each is an operation
    to_keras(made, tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(0, 2, (5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(load_model(tmp_path / "m.keras").predict(x), made.predict(x), atol=1e-4, rtol=1e-6)


def test_a_mean_at_each_time_step(tmp_path: Path) -> None:
    """Keras 3 has no layer of it to wrap, as it would pool pictures: it is the mean along the axes of all steps."""
    mean = Reduce(name="mean", function="mean", axes=(1, 2), keepdims=False)
    made = model([TimeDistributed.of(name="pooled", layer=mean), lstm(3, 4)], (5, 2, 2, 3))
    to_keras(made, tmp_path / "m.keras")
    x = numbers(6, 5, 2, 2, 3)
    np.testing.assert_allclose(load_model(tmp_path / "m.keras").predict(x), made.predict(x), atol=1e-6)


def test_several_layers_at_each_time_step(tmp_path: Path) -> None:
    nodes = (
        Node(dense(3, 4, HARD_SIGMOID_KERAS_2, name="a"), (Source(INPUT),)),
        Node(Activate(name="b", activation=HARD_SIGMOID_KERAS_2), (Source(0),)),
        Node(lstm(4, 5, name="c"), (Source(1),)),
    )
    made = model([TimeDistributed(name="t", nodes=nodes, end=Source(2)), lstm(5, 2)], (4, 6, 3))
    to_keras(made, tmp_path / "m.keras")
    x = numbers(5, 4, 6, 3)
    np.testing.assert_allclose(load_model(tmp_path / "m.keras").predict(x), made.predict(x), atol=1e-6)
    joined = TimeDistributed(
        name="t", nodes=(*nodes, Node(Binary(name="d", function=np.add), (Source(2), Source(2)))), end=Source(3)
    )
    with pytest.raises(Unsupported, match="it masks something at each step, or joins several"):
        to_keras(model([joined], (4, 6, 3)), tmp_path / "n.keras")


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([lstm(3, 4, activation=HARD_SIGMOID_KERAS_2)], "its activation is the hard_sigmoid of Keras 1 and 2"),
        (
            [
                Masking(name="masking", mask_value=0),
                Bidirectional(
                    name="bi",
                    forward=lstm(3, 4, return_sequences=True),
                    backward=lstm(3, 4, return_sequences=True, go_backwards=True),
                    merge_mode="sum",
                ),
            ],
            "at masked steps its Keras held the last output",
        ),
    ],
)
def test_refused_by_name_and_nothing_written(layers: list[object], why: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=why) as refused:
        to_keras(model(layers), tmp_path / "m.keras")  # type: ignore[arg-type]
    assert layers[-1].name in str(refused.value)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_a_masked_bidirectional_that_nobody_sees_the_masked_steps_of(tmp_path: Path) -> None:
    sequences = Bidirectional(
        name="bi",
        forward=lstm(3, 4, return_sequences=True, activation=TANH),
        backward=lstm(3, 4, return_sequences=True, go_backwards=True),
        merge_mode="sum",
    )
    to_keras(model([Masking(name="masking", mask_value=0), sequences, lstm(4, 2)]), tmp_path / "m.keras")


@pytest.mark.skipif(KERAS_PYTHON is None, reason="needs Keras 3 in an environment of its own: make exports")
def test_keras_3_opens_computes_and_trains(tmp_path: Path) -> None:
    cases = list(written("keras", tmp_path))
    listed = []
    for k, (_, path, golden) in enumerate(cases):
        np.savez(tmp_path / f"{k}.x.npz", *golden.xs)
        listed.append([str(path), str(tmp_path / f"{k}.x.npz"), str(tmp_path / f"{k}.y.npz")])
    (tmp_path / "list.json").write_text(json.dumps(listed), "utf-8")
    script = Path(__file__).with_name("keras_answers.py")
    subprocess.run([str(KERAS_PYTHON), str(script), str(tmp_path / "list.json")], check=True, capture_output=True)
    wrong = [path.read_text("utf-8") for path in tmp_path.glob("*.txt")]
    assert wrong == []
    missed = [
        name
        for k, (name, _, golden) in enumerate(cases)
        if difference(list(np.load(listed[k][2]).values()), golden) > 1e-5
    ]
    assert missed == []
    assert len(cases) >= 0.8 * sum(1 for _ in golden_models())
