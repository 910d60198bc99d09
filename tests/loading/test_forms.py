"""Every form that a model has on disk, told apart by its content."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kerasfiles import dense, lstm, numbers, save, save_sequential, sequential
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.errors import MissingFact, UnreadableFile, Unsupported, WrongNumbers
from lstm_serve.model.model import Model

ASKER = GOLDEN / "asker"


def arrays_of(name: str) -> list[Any]:
    with np.load(ASKER / name) as file:
        return [file[f"arr_{k}"] for k in range(len(file.files))]


def reproduces(model: Model, keras: str) -> None:
    with np.load(ASKER / f"{keras}_golden.npz") as golden:
        x, y = (golden[name] for name in golden.files)
    np.testing.assert_allclose(model.predict(x), y, atol=1e-5)


FORMS = [
    ("k122", "k122_weights.h5", "weights-only HDF5"),
    ("k215", "k215_weights.h5", "weights-only HDF5"),
    ("tf215", "tf215_weights.h5", "weights-only HDF5"),
    ("k3", "k3_model.weights.h5", ".weights.h5"),
    ("k122", "k122_weights_arr.npz", ".npz"),
    ("k3", "k3_weights_arr.npz", ".npz"),
]
IDS = [name for _, name, _ in FORMS]
OUTPUT: Any = {"output_activation": "softmax"}
BOTH: Any = {"recurrent_activation": "sigmoid", **OUTPUT}


@pytest.mark.parametrize(("keras", "name", "form"), FORMS, ids=IDS)
def test_weights_with_the_json_beside_them(tmp_path: Path, keras: str, name: str, form: str) -> None:
    suffix = ".weights.h5" if form == ".weights.h5" else Path(name).suffix
    path = Path(shutil.copy(ASKER / name, tmp_path / f"model{suffix}"))
    shutil.copy(ASKER / f"{keras}_arch.json", tmp_path / "model.json")
    model = load_model(path)
    assert (model.origin.format, model.input_shape) == (form, (20, 15))
    reproduces(model, keras)


@pytest.mark.parametrize(("keras", "name", "form"), FORMS, ids=IDS)
def test_weights_with_the_json_that_their_card_names(tmp_path: Path, keras: str, name: str, form: str) -> None:
    del form
    path = Path(shutil.copy(ASKER / name, tmp_path / name))
    shutil.copy(ASKER / f"{keras}_arch.json", tmp_path / "architecture.json")
    (tmp_path / f"{path.stem}.card.json").write_text('{"architecture": "architecture.json"}')
    reproduces(load_model(path), keras)


@pytest.mark.parametrize(("keras", "name", "form"), FORMS, ids=IDS)
def test_weights_alone_with_what_no_file_tells(tmp_path: Path, keras: str, name: str, form: str) -> None:
    path = Path(shutil.copy(ASKER / name, tmp_path / name))
    told = keras == "k122" or form == "weights-only HDF5"
    with pytest.raises(MissingFact, match="--output-activation softmax") as raised:
        load_model(path)
    assert ("--recurrent-activation" in str(raised.value)) is not told
    gate = None if told else "sigmoid"
    model = load_model(path, recurrent_activation=gate, output_activation="softmax")
    assert model.input_shape == (None, 15)
    assert any("recurrent_activation" in what for what in model.origin.assumed) is told
    reproduces(model, keras)
    card = {"output_activation": "softmax", "timesteps": 20} | ({} if told else {"recurrent_activation": gate})
    (tmp_path / f"{path.stem}.card.json").write_text(json.dumps(card))
    assert load_model(path).input_shape == (20, 15)


def test_a_flag_must_not_contradict_the_card(tmp_path: Path) -> None:
    path = Path(shutil.copy(ASKER / "k122_weights.h5", tmp_path / "m.h5"))
    (tmp_path / "m.card.json").write_text('{"output_activation": "softmax"}')
    assert load_model(path, output_activation="softmax").kind == "classes"
    with pytest.raises(UnreadableFile, match="its card says output_activation"):
        load_model(path, output_activation="linear")


def test_a_flag_that_the_file_answers_itself_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="says its recurrent_activation itself"):
        load_model(ASKER / "k3_model.h5", recurrent_activation="sigmoid")


def listed(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_json_list_of_arrays_flat_by_layer_and_doubled(tmp_path: Path) -> None:
    flat = [array.tolist() for array in arrays_of("k3_weights_arr.npz")]
    said: Any = {"recurrent_activation": "sigmoid", "output_activation": "softmax"}
    for content in (flat, [flat[:3], [], flat[3:]], [flat]):
        reproduces(load_model(listed(tmp_path / "w.json", content), **said), "k3")
    for content in ([flat, flat], flat + flat):
        model = load_model(listed(tmp_path / "w.json", content), **said)
        assert "2 times over" in model.origin.assumed[0]
        reproduces(model, "k3")


def test_a_doubled_npz_is_taken_once(tmp_path: Path) -> None:
    arrays = arrays_of("k3_weights_arr.npz")
    np.savez(tmp_path / "w.npz", *arrays, *arrays, *arrays)
    model = load_model(tmp_path / "w.npz", recurrent_activation="sigmoid", output_activation="softmax")
    assert "3 times over" in model.origin.assumed[0]
    reproduces(model, "k3")


def test_the_arrays_of_an_npz_are_taken_by_number_or_else_as_they_come(tmp_path: Path) -> None:
    arrays = arrays_of("k122_weights_arr.npz")
    order = [10, 2, 0, 1, *range(3, 10), 13, 12, 11]
    np.savez(tmp_path / "w.npz", **{f"arr_{k}": arrays[k] for k in order})
    reproduces(load_model(tmp_path / "w.npz", output_activation="softmax"), "k122")
    np.savez(tmp_path / "w.npz", **{f"lstm/{k}": array for k, array in enumerate(arrays)})
    reproduces(load_model(tmp_path / "w.npz", output_activation="softmax"), "k122")


LAYERS = [
    {"class_name": "LSTM", "config": {"units": 101, "recurrent_activation": "sigmoid"}},
    {"class_name": "Dense", "config": {"units": 5, "activation": "softmax"}},
]


def with_card(tmp_path: Path, **card: Any) -> Path:
    path = Path(shutil.copy(ASKER / "k3_weights_arr.npz", tmp_path / "m.npz"))
    (tmp_path / "m.card.json").write_text(json.dumps(card))
    return path


def test_layers_written_out_in_the_card(tmp_path: Path) -> None:
    model = load_model(with_card(tmp_path, architecture=LAYERS, timesteps=20))
    assert (model.input_shape, model.origin.keras) == ((20, 15), None)
    reproduces(model, "k3")
    gate: Any = [LAYERS[0] | {"config": {"units": 101}}, LAYERS[1]]
    with pytest.raises(MissingFact, match="recurrent_activation of the LSTM layer"):
        load_model(with_card(tmp_path, architecture=gate))
    ambiguous: Any = [LAYERS[0] | {"config": {"units": 101, "recurrent_activation": "hard_sigmoid"}}, LAYERS[1]]
    with pytest.raises(MissingFact, match="hard_sigmoid_keras_2"):
        load_model(with_card(tmp_path, architecture=ambiguous))
    with pytest.raises(UnreadableFile, match="says its output_activation itself"):
        load_model(with_card(tmp_path, architecture=LAYERS, output_activation="softmax"))


def test_which_hard_sigmoid_may_be_said(tmp_path: Path) -> None:
    path = with_card(tmp_path, output_activation="softmax")
    with pytest.raises(MissingFact, match="hard_sigmoid_keras_3"):
        load_model(path, recurrent_activation="hard_sigmoid")
    for name in ("hard_sigmoid_keras_2", "hard_sigmoid_keras_3"):
        layer: Any = load_model(path, recurrent_activation=name).nodes[0].operation
        assert layer.recurrent_activation.name == "hard_sigmoid"


def test_an_architecture_in_the_card_as_keras_gives_it(tmp_path: Path) -> None:
    path = Path(shutil.copy(ASKER / "k3_model.weights.h5", tmp_path))
    text = (ASKER / "k3_arch.json").read_text()
    for architecture in (json.loads(text), text, json.dumps(text)):
        (tmp_path / f"{path.stem}.card.json").write_text(json.dumps({"architecture": architecture}))
        reproduces(load_model(path), "k3")


def test_a_pipe_is_no_golden_predictions(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "k3_model.golden.npz")
    with pytest.raises(UnreadableFile, match="cannot be read: it is no plain file"):
        load_model(shutil.copy(ASKER / "k3_model.h5", tmp_path))


def test_a_pipe_is_no_architecture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "k3_model.json")
    with pytest.raises(UnreadableFile, match=r"its architecture k3_model\.json cannot be read: it is no plain file"):
        load_model(shutil.copy(ASKER / "k3_model.weights.h5", tmp_path))


def test_a_link_to_nothing_is_no_architecture(tmp_path: Path) -> None:
    (tmp_path / "k3_model.json").symlink_to("gone.json")
    with pytest.raises(
        UnreadableFile, match=r"k3_model\.json cannot be read: it is a link to a file that is not there"
    ):
        load_model(shutil.copy(ASKER / "k3_model.weights.h5", tmp_path))


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({"config": {}}, "no class_name"),
        ('{"config": {}}', "no class_name"),
        ("absent.json", "is not there"),
        ("a\0.json", "is not there"),
        ("../elsewhere.json", "give a file beside it"),
        ("/etc/passwd", "give a file beside it"),
        ("m.card.json", "no model's JSON"),
        ("large.json", "larger than 4 MiB"),
        ("latin.json", "not text in UTF-8"),
    ],
)
def test_an_architecture_that_is_none_is_refused(tmp_path: Path, architecture: Any, reason: str) -> None:
    (tmp_path / "large.json").write_text(" " * (5 << 20))
    (tmp_path / "latin.json").write_bytes(b'{"class_name": "\xe9"}')
    with pytest.raises(UnreadableFile, match=reason):
        load_model(with_card(tmp_path, architecture=architecture))


def test_json_that_was_encoded_twice_is_decoded_twice(tmp_path: Path) -> None:
    path = with_card(tmp_path, architecture="a.json")
    (tmp_path / "a.json").write_text(json.dumps((ASKER / "k3_arch.json").read_text()))
    reproduces(load_model(path), "k3")


def test_json_beside_the_weights_that_is_no_model_is_left_alone(tmp_path: Path) -> None:
    path = with_card(tmp_path, output_activation="softmax", recurrent_activation="sigmoid")
    (tmp_path / "m.json").write_text('{"loss": [1, 2]}')
    reproduces(load_model(path), "k3")


def test_weights_and_architecture_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="calls for 6 arrays, the file has 5"):
        load_model(with_card(tmp_path, architecture=[LAYERS[0], LAYERS[0]]))
    path = save(tmp_path / "w.h5", None, {"a": lstm()[2]})
    (tmp_path / "w.json").write_text(json.dumps(sequential([lstm(), dense()]) | {"keras_version": "2.15.0"}))
    with pytest.raises(UnreadableFile, match="2 layers with weights"):
        load_model(path)


def test_an_architecture_alone_asks_for_its_weights() -> None:
    with pytest.raises(MissingFact, match="Name the weights' file"):
        load_model(ASKER / "k215_arch.json")


def stack(tmp_path: Path, groups: dict[str, list[Any]], keras: str = "2.15.0", **said: Any) -> Model:
    return load_model(save(tmp_path / "m.h5", None, groups, keras=keras), **said)


def kinds(model: Model) -> list[str]:
    return [type(node.operation).__name__ for node in model.nodes]


def test_classes_units_and_features_are_read_from_the_shapes(tmp_path: Path) -> None:
    groups = {
        "lstm_1": [numbers(3, 400), numbers(100, 400), numbers(400)],
        "dropout_1": [],
        "mine": [numbers(100, 24), numbers(8, 24), numbers(2, 24)],
        "bidirectional_1": [numbers(8, 12), numbers(4, 12), numbers(12)] * 2,
        "simple_rnn": [numbers(8, 5), numbers(5, 5)],
        "gru": [numbers(5, 6), numbers(2, 6), numbers(12)],
        "output": [numbers(2, 7), numbers(7)],
    }
    model = stack(tmp_path, groups, output_activation="linear")
    assert kinds(model) == ["LSTM", "GRU", "Bidirectional", "SimpleRNN", "GRU", "Dense"]
    assert model.shapes == ((None, 100), (None, 8), (None, 8), (None, 5), (2,), (7,))
    layers: Any = [node.operation for node in model.nodes]
    assert (layers[1].reset_after, layers[2].forward.reset_after, layers[4].reset_after) == (True, False, True)


@pytest.mark.parametrize(
    ("keras", "gate"), [("2.2.4", "hard_sigmoid"), ("2.3.1", "sigmoid"), ("2.1.6-tf", "hard_sigmoid")]
)
def test_the_version_of_the_weights_fixes_a_default(tmp_path: Path, keras: str, gate: str) -> None:
    model = stack(tmp_path, {"lstm": lstm()[2]}, keras, return_sequences=False)
    layer: Any = model.nodes[0].operation
    assert layer.recurrent_activation.name == gate
    assert f"recurrent_activation = {gate}" in model.origin.assumed[-1]


def test_the_one_version_that_fixes_none_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingFact, match="--recurrent-activation hard_sigmoid, the default before"):
        stack(tmp_path, {"lstm": lstm()[2]}, "2.2.4-tf")


NOT_PLAIN: dict[str, dict[str, list[Any]]] = {
    "a mask": {"masking_7": [], "lstm": lstm()[2]},
    "an activation": {"lstm": lstm()[2], "activation_1": []},
    "an unknown layer": {"lstm": lstm()[2], "mine": []},
    "statistics": {"lstm": lstm()[2], "batch_normalization": [numbers(4)] * 4},
    "a lookup that is not the first": {"lstm": lstm()[2], "embedding": [numbers(9, 4)]},
    "a Dense layer in front": {"dense": [numbers(9, 3)], "lstm": lstm()[2]},
    "a lookup alone": {"embedding": [numbers(9, 3)]},
    "two lookups": {"embedding": [numbers(9, 3)], "embedding_1": [numbers(3, 3)], "lstm": lstm()[2]},
    "a convolution": {"conv1d": [numbers(3, 3, 3), numbers(3)], "lstm": lstm()[2]},
    "a hidden layer": {"lstm": lstm()[2], "dense": dense(4)[2], "dense_1": dense(4)[2]},
    "a layer for each step": {"lstm": lstm()[2], "time_distributed": dense()[2]},
    "no recurrence": {"dense": dense()[2]},
    "nothing": {"dropout": []},
    "a GRU without bias": {"gru": [numbers(3, 6), numbers(2, 6)]},
    "a merge by other ways": {"bidirectional": lstm()[2] * 2, "dense": dense()[2]},
    "widths that do not fit": {"lstm": lstm()[2], "dense": dense(features=5)[2]},
    "gates of a Keras 1 that do not fit": {"lstm": [numbers(3, 2), numbers(2, 2), numbers(3)] * 4},
    "two directions of two shapes": {"bidirectional": [*lstm()[2], *lstm(features=5)[2]]},
    "a matrix": {"lstm": [numbers(3, 7), numbers(2, 8), numbers(8)]},
}


@pytest.mark.parametrize("groups", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_weights_that_do_not_tell_their_layers_need_an_architecture(tmp_path: Path, groups: Any) -> None:
    with pytest.raises(MissingFact, match=r"model\.to_json\(\)"):
        stack(tmp_path, groups, output_activation="softmax")


def test_whether_the_last_layer_gives_every_step_is_asked_for(tmp_path: Path) -> None:
    groups = {"lstm": lstm()[2], "gru": [numbers(4, 6), numbers(2, 6), numbers(2, 6)]}
    with pytest.raises(MissingFact, match=r"no file tells whether its last layer .* as return_sequences"):
        stack(tmp_path, groups)
    last, every = (stack(tmp_path, groups, return_sequences=said) for said in (False, True))
    assert (last.output_shape, every.output_shape) == ((2,), (None, 2))
    x = numbers(1, 5, 3)
    np.testing.assert_array_equal(every.predict(x)[:, -1], last.predict(x))
    assert last.origin.digest != every.origin.digest
    assert not any("last step" in assumed for assumed in (*last.origin.assumed, *every.origin.assumed))
    (tmp_path / "m.card.json").write_text('{"return_sequences": true}')
    assert stack(tmp_path, groups).output_shape == (None, 2)
    with pytest.raises(UnreadableFile, match="card says return_sequences = True"):
        stack(tmp_path, groups, return_sequences=False)


def test_a_dense_layer_on_the_last_step_is_assumed_and_may_be_told_otherwise(tmp_path: Path) -> None:
    groups = {"lstm": lstm()[2], "dense": dense()[2]}
    assert "the last recurrent layer gives its last step alone" in stack(tmp_path, groups, **OUTPUT).origin.assumed
    assert stack(tmp_path, groups, **OUTPUT, return_sequences=True).output_shape == (None, 2)


def test_an_embedding_in_front_and_several_dense_layers(tmp_path: Path) -> None:
    groups = {
        "embedding": [numbers(9, 3)],
        "lstm": lstm()[2],
        "dense": [numbers(4, 6), numbers(6)],
        "dense_1": dense(1, 6)[2],
    }
    with pytest.raises(
        MissingFact, match=r"mask_zero=False.*nor the activation of the Dense layer .*nor the activation"
    ):
        stack(tmp_path, groups)
    said: Any = {"hidden_activation": "relu", "output_activation": "sigmoid"}
    ids = np.array([[3, 0, 1, 0]], np.float32)
    plain, masked = (stack(tmp_path, groups, mask_zero=zero, **said) for zero in (False, True))
    assert kinds(plain) == ["Embedding", "LSTM", "Dense", "Dense"]
    assert not np.allclose(plain.predict(ids), masked.predict(ids))
    np.testing.assert_allclose(masked.predict(ids[:, [0, 2]]), masked.predict(ids), atol=1e-6)
    assert plain.origin.digest != masked.origin.digest
    flat = [array for group in groups.values() for array in group]
    np.savez(tmp_path / "w.npz", *flat)
    said |= {"recurrent_activation": "sigmoid"}
    listed = load_model(tmp_path / "w.npz", mask_zero=True, **said)
    np.testing.assert_array_equal(listed.predict(ids), masked.predict(ids))
    with pytest.raises(MissingFact, match="hidden_activation is given"):
        stack(tmp_path, {"lstm": lstm()[2], "dense": dense()[2]}, **said)
    with pytest.raises(MissingFact, match="mask_zero is given"):
        stack(tmp_path, {"lstm": lstm()[2], "dense": dense()[2]}, mask_zero=False, output_activation="linear")


def test_the_order_of_classes_is_taken_where_widths_tell_it(tmp_path: Path) -> None:
    def saved(groups: dict[str, list[Any]]) -> Path:
        with h5py.File(tmp_path / "m.weights.h5", "w") as file:
            for name, arrays in groups.items():
                place = f"layers/{name}/vars" if name.startswith(("dense", "embedding")) else f"layers/{name}/cell/vars"
                for k, array in enumerate(arrays):
                    file[f"{place}/{k}"] = array
                file.require_group(f"layers/{name}/vars")
            file.create_group("layers/dropout/vars")
        return tmp_path / "m.weights.h5"

    said: Any = {"recurrent_activation": "sigmoid", "output_activation": "linear"}
    gru = [numbers(5, 24), numbers(8, 24), numbers(2, 24)]
    model = load_model(saved({"dense": dense(4)[2], "gru": gru, "lstm": lstm(features=8)[2]}), **said)
    assert kinds(model) == ["GRU", "LSTM", "Dense"]
    with pytest.raises(MissingFact, match="do not tell their layers"):  # a Dense layer may stand before the LSTM
        load_model(saved({"dense": dense(4, 4)[2], "dense_1": dense(4, 2)[2], "lstm": lstm(features=4)[2]}), **said)
    with pytest.raises(MissingFact, match="do not tell their layers"):
        load_model(saved({"dense": dense(2, 9)[2], "lstm": lstm()[2]}), **said)


def test_a_layer_that_is_called_as_another_class_is_no_dense_layer(tmp_path: Path) -> None:
    for name in ("layer_normalization_1", "einsum_dense", "separable_conv1d_2"):
        with pytest.raises(MissingFact, match=f"what its layer '{name}' does"):
            stack(tmp_path, {"lstm": lstm()[2], name: dense()[2]}, **BOTH)


def test_what_would_belong_to_no_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFact, match="output_activation is given"):
        stack(tmp_path, {"lstm": lstm()[2]}, output_activation="softmax")
    simple = [numbers(3, 4), numbers(4, 4), numbers(4)]
    assert kinds(stack(tmp_path, {"simple_rnn": simple}, return_sequences=False)) == ["SimpleRNN"]
    with pytest.raises(MissingFact, match="recurrent_activation is given"):
        stack(tmp_path, {"simple_rnn": simple}, recurrent_activation="sigmoid")


KERAS_1 = [numbers(3, 4), numbers(4, 4), numbers(4)]
LAST: dict[str, Any] = {"return_sequences": False}
CUT: dict[str, tuple[list[Any], list[str], dict[str, Any]]] = {
    "LSTM, LSTM, Dense": ([*lstm()[2], *lstm(features=4)[2], *dense()[2]], ["LSTM", "LSTM", "Dense"], BOTH),
    "both directions": ([*lstm()[2], *lstm()[2], *dense(features=8)[2]], ["Bidirectional", "Dense"], BOTH),
    "LSTM of Keras 1": ([*KERAS_1 * 4, *dense()[2]], ["LSTM", "Dense"], OUTPUT),
    "GRU of Keras 1": (KERAS_1 * 3, ["GRU"], LAST),
    "both directions of Keras 1": ([*KERAS_1 * 8, *dense(features=8)[2]], ["Bidirectional", "Dense"], OUTPUT),
    "SimpleRNN": ([*KERAS_1, *dense()[2][:1]], ["SimpleRNN", "Dense"], OUTPUT),
    "both directions of a SimpleRNN": (KERAS_1 * 2, ["Bidirectional"], LAST),
}
UNCUT: dict[str, list[Any]] = {
    "two layers, or two directions": [*lstm(features=4)[2], *lstm(features=4)[2], *dense()[2]],
    "a square Dense, or a SimpleRNN": [*lstm()[2], numbers(4, 5), numbers(5, 5), numbers(5)],
    "five of a kind": KERAS_1 * 5,
    "Dense first": dense()[2],
    "a vector": [*lstm()[2], numbers(3)],
}


def savez(path: Path, arrays: list[Any]) -> Path:
    # Different numbers, so that no list looks doubled.
    np.savez(path, *(array + 0.01 * k for k, array in enumerate(arrays)))
    return path


@pytest.mark.parametrize("case", CUT.values(), ids=CUT)
def test_a_flat_list_is_cut_into_layers_where_there_is_one_way(tmp_path: Path, case: Any) -> None:
    arrays, layers, said = case
    assert kinds(load_model(savez(tmp_path / "w.npz", arrays), **said)) == layers


@pytest.mark.parametrize("arrays", UNCUT.values(), ids=UNCUT)
def test_a_flat_list_that_could_be_cut_in_two_ways_needs_an_architecture(tmp_path: Path, arrays: list[Any]) -> None:
    with pytest.raises(MissingFact, match="do not tell their layers"):
        load_model(savez(tmp_path / "w.npz", arrays), **BOTH)


def v3(path: Path, groups: dict[str, list[Any]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in groups.items():
            file.create_group(f"layers/{name}")
            for k, array in enumerate(arrays):
                file[f"layers/{name}/vars/{k}"] = array
    return path


def test_a_keras_3_file_alone_tells_its_layers_where_one_class_is_recurrent(tmp_path: Path) -> None:
    said: Any = {"recurrent_activation": "sigmoid", "output_activation": "softmax"}
    plain = {"lstm/cell": lstm()[2], "lstm_2/cell": lstm(features=4)[2], "dense": dense()[2], "dropout": []}
    model = load_model(v3(tmp_path / "m.weights.h5", plain), **said)
    assert kinds(model) == ["LSTM", "LSTM", "Dense"]
    for more in (
        {"gru/cell": [numbers(4, 12), numbers(4, 12), numbers(12)]},
        {"batch_normalization": [numbers(4)] * 4},
    ):
        with pytest.raises(MissingFact, match="do not tell their layers"):
            load_model(v3(tmp_path / "m.weights.h5", plain | more), **said)
    with pytest.raises(MissingFact, match="masking"):
        load_model(v3(tmp_path / "m.weights.h5", plain | {"masking": []}), **said)


def test_seeds_are_no_weights(tmp_path: Path) -> None:
    path = v3(tmp_path / "m.weights.h5", {"lstm/cell": lstm()[2], "lstm/seed_generator": [np.zeros(2, np.uint32)]})
    assert kinds(load_model(path, recurrent_activation="sigmoid", return_sequences=False)) == ["LSTM"]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch hacked",)


PICKLES = {f"protocol {k}": pickle.dumps([np.zeros(3), Evil()], protocol=k) for k in range(6)}
PICKLES |= {f"protocol {k} of an object": pickle.dumps(Evil(), protocol=k) for k in range(6)}
PICKLES |= {f"protocol {k} of a dict": pickle.dumps({"a": [Evil()]}, protocol=k) for k in range(6)}


@pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)
def test_a_pickle_is_refused_with_the_lines_that_turn_it_into_arrays(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.h5").write_bytes(data)
    with pytest.raises(Unsupported, match=r"np\.savez"):
        load_model(tmp_path / "w.h5")
    assert not Path("hacked").exists()


def objects(*items: Any) -> Any:
    """An array of objects, as NumPy made it of arrays of several shapes."""
    array = np.empty(len(items), object)
    for k, item in enumerate(items):
        array[k] = item
    return array


# No bias, and as many features as units: two arrays of one shape, which must not become one.
K, R, D = numbers(4, 16), numbers(4, 16) + 1, numbers(4, 2)
HELD: dict[str, Any] = {
    "a list": [K, R, D],
    "a tuple": (K, R, D),
    "a list in a list": [[K, R, D]],
    "a list a layer": [[], [K, R], [], [D]],
    "by layer": {"lstm": [K, R], "dense": [D]},
    "by name": {"kernel": K, "recurrent_kernel": R, "dense": D},
    "numbers": [K.tolist(), R.tolist(), D.tolist()],
    "numbers in a list": [[K.tolist(), R.tolist(), D.tolist()]],
    "objects": objects(K, R, D),
    "objects a layer": objects([K, R], [D]),
    "objects of objects": objects(objects(K, R), objects(D)),
}


def dump(path: Path, held: Any) -> None:
    if path.suffix == ".npy":
        np.save(path, held if isinstance(held, np.ndarray) else objects(*held), allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, held if isinstance(held, np.ndarray) else objects(*held), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(held))


def lines_for(path: Path) -> list[str]:
    """The lines of Python that the refusal of a file gives: for weights, and for a model."""
    with pytest.raises(Unsupported, match="can run any code") as refused:
        load_model(path)
    lines = re.findall(r"import (?:numpy|pickle|joblib).*?\)(?=\. Or|$)", str(refused.value))
    assert len(lines) == 2
    return lines


def run(line: str, path: Path) -> None:
    """As somebody would paste it, with no name but the file's before it."""
    names: dict[str, Any] = {"FILE": str(path)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the file is closed with the session
        exec(line, names)  # noqa: S102 - what we tell people to paste
        names.clear()


@pytest.mark.parametrize(
    ("held", "suffix"),
    [(held, suffix) for held in HELD for suffix in (".pkl", ".npy", ".npz") if suffix == ".pkl" or held[:2] != "by"],
)
def test_the_lines_for_weights_in_a_pickle_turn_them_into_a_file_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str, suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    dump(path, HELD[held])
    monkeypatch.chdir(tmp_path)
    run(lines_for(path)[0], path)
    with np.load("weights.npz") as made:
        for name, array in zip(made.files, (K, R, D), strict=True):
            assert np.array_equal(made[name], array)
    architecture = sequential([lstm(features=4, use_bias=False), dense(use_bias=False)], [5, 4])
    Path("weights.json").write_text(json.dumps(architecture))
    assert load_model("weights.npz").output_shape == (2,)


class Kept:
    """Stands for a model of Keras, which a pickle names by its module and class."""

    def save(self, path: str) -> None:
        save_sequential(Path(path), [lstm(), dense()])


def test_the_line_for_a_model_in_a_pickle_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Kept()))
    monkeypatch.chdir(tmp_path)
    run(lines_for(path)[1], path)
    assert load_model("model.h5").output_shape == (2,)


def test_of_joblib_another_function_loads_it(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(b"\x80\x04\x95\x9a\0\0\0\0\0\0\0]\x94\x8c\x13joblib.numpy_pickle\x94")
    assert all("joblib" in line for line in lines_for(tmp_path / "w.pkl"))


def test_one_array_is_no_model(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros(3))
    with pytest.raises(Unsupported, match="one array"):
        load_model(tmp_path / "w.npy")


def test_weights_of_tensorflow_js_are_known_by_the_file_beside_them(tmp_path: Path) -> None:
    manifest = {"weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": []}]}
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    for name, reason in (("group1-shard1of1.bin", "tensorflowjs_converter"), ("other.bin", "no model in any form")):
        (tmp_path / name).write_bytes(numbers(3, 16).tobytes())
        with pytest.raises((UnreadableFile, Unsupported), match=reason):
            load_model(tmp_path / name)


def another_zip(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, b"")
    return data.getvalue()


def npz(*arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, *arrays)
    return data.getvalue()


STRANGE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
    "YAML": ((ASKER / "k122_arch.yaml").read_bytes(), "model_from_yaml"),
    "a web page with a mark": (b"\xef\xbb\xbf<html>", "web page"),
    "a web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "a checkpoint's index": (bytes(40) + bytes.fromhex("57fb808b247547db"), "checkpoint under another name"),
    "a SavedModel": (b"\x08\x01\x12\xfa", "no model in any form"),
    "zeros": (bytes(3000), "no model in any form"),
    "text": (b"hello", "no model in any form"),
    "another zip": (another_zip("notes.txt"), "neither a .keras file"),
    "PyTorch": (another_zip("archive/data.pkl"), "PyTorch"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite.*model.save"),
    "ONNX": (b"\x08\x07\x12\x07tf2onnx\x1a\x061.15.0" + bytes(64), "ONNX.*model.save"),
    "ONNX of nobody": (b"\x08\x08:\xff\x01\n" + bytes(64), "ONNX.*model.save"),
    "TensorFlow.js": (b'{"format": "layers-model", "modelTopology": {}}', "tensorflowjs_converter"),
    "TensorFlow.js, old": (b'\xef\xbb\xbf{"modelTopology": {}, "weightsManifest": []}', "tensorflowjs_converter"),
    "gzip": (gzip.compress(b"hello"), "gunzip"),
    "bzip2": (bz2.compress(b"hello"), "bunzip2"),
    "xz": (lzma.compress(b"hello"), "unxz"),
    "an empty zip": (b"PK\x05\x06" + bytes(18), "neither a .keras file"),
    "half a zip": (another_zip("notes.txt")[:60], "cut short"),
    "half a signature": (b"\x89HDF\r\n\x1a\n" + bytes(100), "cut short"),
    "other JSON": (b'{"loss": 3}', "neither a model's architecture nor"),
    "a JSON number in quotes": (b'"3"', "neither a model's architecture nor"),
    "JSON that is none": (b"{loss}", "not valid JSON"),
    "JSON without end": (b"[" * 100_000, "nested too deeply|not valid JSON"),
    "JSON in another encoding": (b'{"a": "\xe9"}', "UTF-8"),
    "JSON with NaN": (b"[[NaN]]", "holds NaN"),
    "JSON beyond float32": (b"[[1e39]]", "beyond float32"),
    "an empty list": (b"[]", "is empty"),
    "a list of texts": (b'[["a"]]', "neither an array of numbers"),
    "a list of numbers": (b"[1, [2]]", "neither an array of numbers"),
    "large JSON": (b"[" + b" " * (17 << 20), "more than 16 MiB"),
    "weights in several files": (b'{"weight_map": {}}', "max_shard_size"),
    "an npz of texts": (npz(np.array(["a"])), "where numbers were expected"),
    "an npz of truths": (npz(np.array([True])), "floats were expected"),
    "an npz with NaN": (npz(np.array([np.nan])), "NaN"),
}


@pytest.mark.parametrize(("data", "reason"), STRANGE.values(), ids=STRANGE)
def test_what_is_no_model_is_recognized_and_answered_with_what_to_do(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(data)
    with pytest.raises((UnreadableFile, Unsupported), match=reason) as raised:
        load_model(path)
    assert str(raised.value).startswith(str(path))


def test_an_hdf5_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UnreadableFile, match="neither a model that Keras saved"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize(("name", "keras"), [("k122_model.h5", "k122"), ("k3_model.keras", "k3")])
def test_an_extension_is_never_believed(tmp_path: Path, name: str, keras: str) -> None:
    for suffix in (".h5", ".keras", ".npz", ".json", ".pkl", ""):
        reproduces(load_model(shutil.copy(ASKER / name, tmp_path / f"m{suffix}")), keras)


def test_a_folder_with_one_model_is_taken(tmp_path: Path) -> None:
    path = save_sequential(tmp_path / "anything", [lstm(), dense()])
    x = numbers(2, 5, 3)
    np.savez(tmp_path / "anything.golden.npz", x=x, y=load_model(path).predict(x))
    (tmp_path / "anything.card.json").write_text('{"name": "engine"}')
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "variables").mkdir()
    model = load_model(tmp_path)
    assert (model.origin.file, model.about.name, model.origin.golden_rows) == ("anything", "engine", 2)
    np.savez(tmp_path / "anything.golden.npz", x=x, y=load_model(path, replay=False).predict(x) + 1)
    with pytest.raises(WrongNumbers):
        load_model(tmp_path)


def test_of_numbered_folders_the_highest_is_taken(tmp_path: Path) -> None:
    for version, units in (("1", 2), ("9", 3), ("10", 4), ("x", 5)):
        (tmp_path / version).mkdir()
        save_sequential(tmp_path / version / "m.h5", [lstm(), dense(units)])
    assert load_model(tmp_path).output_shape == (4,)


def test_of_two_models_none_is_taken(tmp_path: Path) -> None:
    shutil.copy(ASKER / "k3_model.h5", tmp_path / "a.h5")
    shutil.copy(ASKER / "k3_model.keras", tmp_path / "b.h5")
    with pytest.raises(UnreadableFile, match=r"2 models \(a\.h5, b\.h5\)"):
        load_model(tmp_path)
    (tmp_path / "b.h5").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UnreadableFile, match="2 models"):
        load_model(tmp_path)


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="without a model"):
        load_model(tmp_path)
    (tmp_path / "ck.index").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="without a model"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnreadableFile, match=r"saved_model\.pb holds no model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("saved_model.pb", "name the folder that it is in"), ("m.golden.npz", "name the model that they are of")],
)
def test_what_belongs_to_a_model_is_none(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        load_model(shutil.copy(ASKER / "k3_model.h5", tmp_path / name))


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="no plain file"):
        load_model(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="without a model"):
        load_model(tmp_path)


def test_a_file_that_may_not_be_read_says_who_wants_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_sequential(tmp_path / "m.h5", [lstm()])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableFile, match=r"cannot be read|user id"):
        load_model(path)


def test_a_softmax_over_one_unit_is_refused_and_a_sigmoid_named(tmp_path: Path) -> None:
    groups = {"lstm": lstm()[2], "dense": dense(units=1)[2]}
    with pytest.raises(MissingFact, match=r"--output-activation sigmoid \(a probability\) or linear"):
        stack(tmp_path, groups)
    with pytest.raises(UnreadableFile, match=r"one unit: a softmax .* --output-activation sigmoid"):
        stack(tmp_path, groups, output_activation="softmax")
    (tmp_path / "m.card.json").write_text('{"output_activation": "softmax"}')
    with pytest.raises(UnreadableFile, match="a softmax over one unit is 1"):
        stack(tmp_path, groups)
    (tmp_path / "m.card.json").write_text('{"output_activation": "sigmoid"}')
    assert stack(tmp_path, groups).kind == "binary"


@pytest.mark.parametrize("sequences", [True, False])
def test_a_file_with_a_softmax_over_one_unit_is_refused(tmp_path: Path, *, sequences: bool) -> None:
    layers = [lstm(return_sequences=sequences), dense(units=1), ("Dropout", {}, [])]
    with pytest.raises(Unsupported, match=r"one unit with softmax: .* in Keras as well.* activation='sigmoid'"):
        load_model(save_sequential(tmp_path / "m.h5", layers))
