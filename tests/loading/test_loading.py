import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import dense, functional, lstm, numbers, save, save_sequential, sequential
from serving import GOLDEN

from lstm_serve import load_model
from lstm_serve.engine.activations import HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3, SIGMOID
from lstm_serve.engine.operations.recurrent import GRU, LSTM
from lstm_serve.engine.operations.windows import Convolution
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.errors import MissingFact, ModelError, UnreadableFile, Unsupported
from lstm_serve.loading.config.options import ACTIVATION_LAYERS
from lstm_serve.model.model import Model

CASES = sorted(
    path.with_name(path.name.removesuffix(".golden.npz"))
    for folder in ("features", "masks")
    for path in (GOLDEN / folder).glob("*.golden.npz")
)


def worst(model: Model, x: Any, y: Any) -> float:
    came = model.predict(x)
    assert came.shape == y.shape
    return float((np.abs(came - y) / np.maximum(1, np.abs(y))).max())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_answers_what_the_keras_that_saved_it_answered(path: Path) -> None:
    golden = np.load(path.with_name(f"{path.name}.golden.npz"))
    model = load_model(path)
    x = [golden["x0"], golden["x1"]] if "x1" in golden else golden["x0"]
    assert worst(model, x, golden["y0"]) <= 1e-5
    traced = model.trace(x)
    np.testing.assert_allclose(traced[-1]["output"], golden["y0"], atol=1e-5, rtol=1e-5)


KERAS_3 = sorted([*(GOLDEN / "keras3").glob("*.h5"), *(GOLDEN / "keras3").glob("*.keras")])


@pytest.mark.parametrize("path", KERAS_3, ids=lambda path: path.name)
def test_answers_what_keras_3_answered(path: Path) -> None:
    model = load_model(path)
    assert model.origin.verified
    assert model.origin.tolerance == (5e-3 if "float16" in path.name else 1e-5)


@pytest.mark.parametrize("name", ["k122_model.h5", "k215_model.h5", "tf215_model.h5", "k3_model.h5", "k3_model.keras"])
def test_answers_what_keras_answered_for_the_asked_for_model(name: str) -> None:
    golden = np.load(GOLDEN / "asker" / f"{name.partition('_')[0]}_golden.npz")
    model = load_model(GOLDEN / "asker" / name)
    assert (
        worst(model, golden["x"] if "x" in golden else golden["x0"], golden["y"] if "y" in golden else golden["y0"])
        <= 1e-5
    )
    assert (model.kind, model.input_shape, model.output_shape) == ("classes", (20, 15), (5,))
    assert (model.inputs[0].name, model.outputs[0].name) in {
        ("lstm_1_input", "dense_1"),
        ("lstm_input", "dense"),
        ("input_layer", "dense"),
    }


def test_ids_are_integers_from_0_to_below_the_size_of_the_table() -> None:
    model = load_model(GOLDEN / "keras3" / "functional_ids.h5")
    assert (model.input_shape, model.input_dtype, model.id_limit) == ((6,), np.dtype(np.int32), 10)


def one(path: Path, layers: Any, shape: list[int | None] | None = None, **options: Any) -> Model:
    return load_model(save_sequential(path / "model.h5", layers, shape, **options))


@pytest.mark.parametrize(
    ("keras", "function"),
    [
        ("1.2.2", HARD_SIGMOID_KERAS_2),
        ("2.2.4", HARD_SIGMOID_KERAS_2),
        ("2.2.4-tf", HARD_SIGMOID_KERAS_2),
        ("2.15.0", HARD_SIGMOID_KERAS_2),
        ("3.0.0", HARD_SIGMOID_KERAS_3),
    ],
)
def test_hard_sigmoid_is_that_of_the_saving_version(tmp_path: Path, keras: str, function: object) -> None:
    model = one(tmp_path, [lstm(recurrent_activation="hard_sigmoid")], keras=keras)
    layer = model.nodes[0].operation
    assert isinstance(layer, LSTM)
    assert layer.recurrent_activation is function


@pytest.mark.parametrize(("keras", "gate"), [("2.1.5", "hard_sigmoid"), ("2.3.1", "sigmoid"), ("3.4.0", "sigmoid")])
def test_a_default_of_the_version_is_taken_and_put_on_record(tmp_path: Path, keras: str, gate: str) -> None:
    model = one(tmp_path, [lstm(recurrent_activation=None)], keras=keras)
    assert model.nodes[0].operation.recurrent_activation.name == gate  # type: ignore[attr-defined]
    assert f"recurrent_activation = {gate}" in model.origin.assumed[0]


def test_a_version_that_tells_no_default_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingFact, match="recurrent_activation"):
        one(tmp_path, [lstm(recurrent_activation=None)], keras="2.2.4-tf")


def test_cudnn_arrays_are_brought_into_order(tmp_path: Path) -> None:
    kernel, recurrent, bias = numbers(3, 16), numbers(4, 16), numbers(32)
    config = {"units": 4}
    layer = one(tmp_path, [("CuDNNLSTM", config, [kernel, recurrent, bias])], keras="2.2.4").nodes[0].operation
    assert isinstance(layer, LSTM)
    assert layer.recurrent_activation is SIGMOID
    np.testing.assert_array_equal(layer.kernel[:, 4:8], kernel[:, 4:8].T.reshape(3, 4, order="F"))
    np.testing.assert_array_equal(layer.recurrent_kernel[:, 4:8], recurrent[:, 4:8].T)
    np.testing.assert_array_equal(layer.bias, bias[:16] + bias[16:])
    arrays = [numbers(3, 12), numbers(4, 12), numbers(24)]
    gru = one(tmp_path, [("CuDNNGRU", config, arrays)], keras="2.2.4").nodes[0].operation
    assert isinstance(gru, GRU)
    assert gru.reset_after
    assert gru.bias is not None
    assert gru.bias.shape == (2, 12)


def test_theano_turned_its_kernels_round(tmp_path: Path) -> None:
    kernel = numbers(3, 3, 2)
    layers: Any = [("Conv1D", {"filters": 2, "kernel_size": [3]}, [kernel, numbers(2)])]
    turned = one(tmp_path, layers, keras="2.2.4", backend="theano").nodes[0].operation
    assert isinstance(turned, Convolution)
    np.testing.assert_array_equal(turned.kernel, kernel[::-1])


def bidirectional(keras: str, **inner: Any) -> Any:
    settings = {"units": 2, "activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": True, **inner}
    config = {"layer": {"class_name": "LSTM", "config": {"name": "lstm", **settings}}}
    return [("Bidirectional", config, [numbers(3, 8), numbers(2, 8), numbers(8)] * 2)], keras


@pytest.mark.parametrize(
    ("layers", "zeros"),
    [
        (bidirectional("2.2.4"), False),
        (bidirectional("2.1.6-tf"), False),
        (bidirectional("2.2.4-tf", time_major=False, zero_output_for_mask=True), True),
        (bidirectional("2.2.4-tf", time_major=False, kernel_initializer={"config": {"dtype": "float32"}}), True),
        (bidirectional("2.2.4-tf", time_major=False, kernel_initializer={"config": {}}), False),
        (bidirectional("2.2.4-tf", time_major=False, activation="relu"), True),
        (bidirectional("2.3.0-tf", time_major=False), False),
        (bidirectional("2.4.0", time_major=False), True),
        (bidirectional("3.4.0"), True),
        (bidirectional("3.4.0", return_sequences=False), False),
    ],
    ids=str,
)
def test_a_masked_bidirectional_does_as_that_version_did(tmp_path: Path, layers: Any, *, zeros: bool) -> None:
    made, keras = layers
    layer = one(tmp_path, made, keras=keras).nodes[0].operation
    assert isinstance(layer, Bidirectional)
    assert not isinstance(layer.forward, Stacked)
    assert not isinstance(layer.backward, Stacked)
    assert layer.forward.zero_output_for_mask == layer.backward.zero_output_for_mask == zeros


def test_what_cannot_be_told_of_a_functional_model_is_put_on_record(tmp_path: Path) -> None:
    (made,), keras = bidirectional("2.3.0-tf", time_major=False)
    class_name, config, arrays = made
    model = functional(
        [
            ("InputLayer", {"name": "in", "batch_input_shape": [None, 5, 3]}, []),
            (class_name, config | {"name": "bi"}, ["in"]),
        ]
    )
    assert "TensorFlow 2.2" in load_model(save(tmp_path / "m.h5", model, {"bi": arrays}, keras=keras)).origin.assumed[0]


def test_groups_of_other_names_are_taken_in_order(tmp_path: Path) -> None:
    layers = [lstm(), ("Dropout", {"rate": 0.5}, []), dense()]
    path = save(tmp_path / "m.h5", sequential(layers), {"a": layers[0][2], "b": [], "c": layers[2][2]})
    assert load_model(path).parameters == 4 * 4 * (3 + 4 + 1) + 4 * 2 + 2


def test_a_shape_that_no_config_tells_is_read_from_the_weights(tmp_path: Path) -> None:
    model = sequential([lstm(), dense()])
    del model["config"]["layers"][0]["config"]["batch_input_shape"]
    path = save(tmp_path / "m.h5", model, {"layer_0": lstm()[2], "layer_1": dense()[2]})
    assert load_model(path).input_shape == (None, 3)
    (tmp_path / "m.card.json").write_text('{"timesteps": 7}')
    assert load_model(path).input_shape == (7, 3)
    model = sequential([dense(features=3)])
    del model["config"]["layers"][0]["config"]["batch_input_shape"]
    with pytest.raises(MissingFact, match="input's shape"):
        load_model(save(tmp_path / "n.h5", model, {"layer_0": dense(features=3)[2]}))


def in_(*shape: int | None) -> tuple[str, dict[str, Any], list[str]]:
    return "InputLayer", {"name": "in", "batch_input_shape": [None, *shape]}, []


def call(class_name: str, name: str, sources: list[str], **config: Any) -> tuple[str, dict[str, Any], list[str]]:
    return class_name, {"name": name, **config}, sources


def with_node(model: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    for layer in model["config"]["layers"]:
        if layer["name"] == name:
            layer.update(changes)
    return model


def graph(**changes: Any) -> dict[str, Any]:
    model = functional([in_(5, 3), call("Activation", "a", ["in"], activation="tanh"), call("Flatten", "b", ["a"])])
    model["config"] |= changes
    return model


LAYERS = {
    "a class of one's own": ([("MyLSTM", {}, [])], "MyLSTM"),
    "Lambda": ([("Lambda", {"function": ["4wEAAA==", None, None]}, [])], "no code of a model is ever run"),
    "attention of one input": ([lstm(return_sequences=True), ("Attention", {}, [])], "supported are sequences"),
    "the last step by Lambda": ([("Lambda", {}, [])], "return_sequences=False"),
    "a slip of the pen": (
        [("LayerNormalisation", {}, [])],
        r"Most like it: LayerNormalization.*docs/supported",
    ),
    "a class like no other": ([("Zzz", {}, [])], r"not supported\. All that are read: docs/supported-models.md"),
    "text": ([("TextVectorization", {}, [])], r"it takes text: .*m\.layers\[1:\]"),
    "an activation with a slip of the pen": ([lstm(activation="tahn")], "Most like it: tanh"),
    "an unknown layer for each step": (
        [("TimeDistributed", {"layer": {"class_name": "LocallyConnected2D", "config": {"name": "c"}}}, [])],
        "the layer 'c' is of the class LocallyConnected2D",
    ),
    "a cell of one's own in both directions": (
        [
            (
                "Bidirectional",
                {"layer": {"class_name": "RNN", "config": {"cell": {"class_name": "MyCell", "config": {}}}}},
                [],
            )
        ],
        "MyCell, where a cell of",
    ),
    "a cell of one's own among others": (
        [
            (
                "RNN",
                {"cell": {"class_name": "StackedRNNCells", "config": {"cells": [{"class_name": "C", "config": {}}]}}},
                [],
            )
        ],
        "holds a C, where a cell of",
    ),
    "an option without a meaning here": ([lstm(projection=3)], "projection"),
    "time_major": ([lstm(time_major=True)], "time_major"),
    "an unknown activation": ([lstm(activation="my_tanh")], "my_tanh"),
    "an activation of another kind": ([lstm(activation=3)], "not the name of an activation"),
    "softmax over the batch": ([lstm(return_sequences=True), ("Softmax", {"axis": 0}, [])], "axis 0"),
    "quantized weights": (
        [dense(features=3, dtype={"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_float32"}})],
        "quantized",
    ),
    "a map of policies": ([dense(features=3, dtype={"class_name": "DTypePolicyMap", "config": {}})], "quantized"),
    "a quantization": (
        [("Dense", {"units": 2, "quantization_config": {"a": 1}}, [numbers(3, 2), numbers(2), numbers(2)])],
        r"quantization_config.*before quantize\(\)",
    ),
    "features first": ([("MaxPooling1D", {"data_format": "channels_first"}, [])], "data_format"),
    "uneven groups": ([("Conv1D", {"filters": 4, "kernel_size": 1, "groups": 3}, [])], "3 groups of 3 features and 4"),
    "an unknown padding": ([("MaxPooling1D", {"padding": "full"}, [])], "padding"),
    "two outputs of a Bidirectional": (
        [("Bidirectional", {"merge_mode": None, "layer": {"class_name": "LSTM", "config": {"units": 1}}}, [])],
        "several outputs inside a Sequential",
    ),
    "a Dense in both directions": (
        [("Bidirectional", {"layer": {"class_name": "Dense", "config": {"units": 1}}}, [])],
        "Dense",
    ),
    "a mask for each step by itself": (
        [("TimeDistributed", {"layer": {"class_name": "Masking", "config": {}}}, [])],
        "each time step",
    ),
    "what looks at masks for each step": (
        [
            ("Masking", {}, []),
            ("TimeDistributed", {"layer": {"class_name": "GlobalAveragePooling1D", "config": {"name": "g"}}}, []),
        ],
        "GlobalAveragePooling1D for each time step of a masked sequence",
        [3, 5, 3],
    ),
    "a cell of one's own": ([("RNN", {"cell": {"class_name": "MyCell", "config": {}}}, [])], "MyCell"),
    "statistics of a batch": ([("BatchNormalization", {"renorm": True}, [])], "renorm"),
    "statistics along a free axis": ([("BatchNormalization", {"axis": 1}, [numbers(5)] * 4)], "not known", [None, 3]),
    "normalization along axes turned round": (
        [("LayerNormalization", {"axis": [2, 1]}, [numbers(3, 5)] * 2)],
        "axes in their order",
    ),
    "steps off a sequence of any length": (
        [("Cropping1D", {"cropping": [1, 2], "batch_input_shape": [None, None, 3]}, [])],
        "length is not known",
    ),
    "padding of three ends": ([("ZeroPadding1D", {"padding": [1, 2, 3]}, [])], "one number or two"),
    "groups that do not come out even": ([("GroupNormalization", {"groups": 2}, [numbers(3)] * 2)], "2 groups of 3"),
    "root mean squares along time": ([("RMSNormalization", {"axis": 1}, [numbers(5)])], "only the last ones"),
    "an inverted normalization of time": (
        [("Normalization", {"invert": True, "axis": 1}, [numbers(5), np.ones(5, np.float32), np.array(1, np.float32)])],
        "undoes a normalization",
    ),
    "slopes along a free axis": ([("PReLU", {}, [numbers(5, 3)])], "slopes", [None, 3]),
    "a reshape of a free size": ([("Reshape", {"target_shape": [3, -1]}, [])], "not known", [None, 3]),
    "ids that are no input": (
        [("Dropout", {}, []), ("Embedding", {"input_dim": 3, "output_dim": 2}, [numbers(3, 2)])],
        "must be the input",
        [5],
    ),
    "an output of more axes than NumPy has": (
        [("Reshape", {"target_shape": [1] * 70 + [15]}, []), ("Flatten", {}, [])],
        "gives an output of 71 axes; at most 32 are supported",
    ),
    "an input of more axes than NumPy has": (
        [("Flatten", {}, [])],
        "the input has 70 axes; at most 32 are supported",
        [1] * 70,
    ),
    "an enormous output": ([("Flatten", {}, []), ("RepeatVector", {"n": 1 << 23}, [])], "numbers for one row"),
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_a_layer_that_is_not_supported_is_refused_by_name(tmp_path: Path, case: Any) -> None:
    layers, reason, *shape = case
    with pytest.raises(Unsupported, match=reason):
        one(tmp_path, layers, *shape)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (("LayerNormalization", {"epsilon": -1e-3, "scale": False, "center": False}, []), "an epsilon of -0.001"),
        (
            (
                "BatchNormalization",
                {"epsilon": 0.0, "scale": False, "center": False},
                [np.zeros(3, np.float32), np.array([1, 0, 1], np.float32)],
            ),
            "divides by the root of 0 or less: epsilon is 0",
        ),
    ],
)
def test_an_epsilon_that_can_only_give_infinity_or_nan_is_refused(tmp_path: Path, layer: Any, said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        one(tmp_path, [layer])


def tensor(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


GRAPHS = {
    "a class of one's own": ({"class_name": "MyModel", "config": {}}, "MyModel"),
    "a state": (graph(output_layers=[["a", 0, 1]]), "return_state"),
    "arguments of a call": (
        with_node(graph(), "b", inbound_nodes=[[["a", 0, 0, {"mask": ["in", 0, 0]}]]]),
        "called with a mask",
    ),
    "an operation": (
        with_node(graph(), "b", class_name="TFOpLambda", config={"name": "b", "function": "math.cumprod"}),
        "operation math.cumprod",
    ),
    "no outputs": (graph(output_layers=[]), "no outputs"),
    "no inputs": (graph(input_layers={}), "no inputs"),
    "a way to save a class of one's own": ({"class_name": "MyModel", "config": {}}, r"keras\.Model\(i, m\.call\(i\)\)"),
    "a class that is refused before what it is called with": (
        with_node(
            graph(), "b", class_name="LocallyConnected1D", inbound_nodes=[[["a", 0, 0, {"value": ["in", 0, 0]}]]]
        ),
        "class LocallyConnected1D, which is not supported",
    ),
    "an operation of Keras 3": (
        with_node(graph(), "b", class_name="Cumprod", module="keras.src.ops.numpy"),
        "operation Cumprod",
    ),
    "a mask from elsewhere": (
        with_node(
            graph(),
            "b",
            config={"name": "b", "trainable": True},
            inbound_nodes=[
                {
                    "args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["a", 0, 0]}}],
                    "kwargs": {"mask": {"class_name": "__keras_tensor__", "config": {"keras_history": ["in", 0, 0]}}},
                }
            ],
        ),
        "a mask that its input does not have",
    ),
    "a sparse input": (
        functional([("InputLayer", {"name": "in", "sparse": True}, []), call("Flatten", "b", ["in"])]),
        "sparse",
    ),
}


@pytest.mark.parametrize("case", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_is_not_supported_is_refused_by_name(tmp_path: Path, case: Any) -> None:
    model, reason = case
    with pytest.raises(Unsupported, match=reason):
        load_model(save(tmp_path / "m.h5", model, {}, keras="3.0.0" if "module" in str(model) else "2.15.0"))


def joined_with_itself(times: int) -> Any:
    """One Concatenate, called on the input and on what it gave, so many times in all, each time twice as wide."""
    layers = [in_(5, 3), call("Concatenate", "b", ["in", "in"]), call("Activation", "c", ["b"], activation="tanh")]
    model = functional(layers)
    calls = [[["in", 0, 0, {}]] * 2, *([["b", k, 0, {}]] * 2 for k in range(times - 1))]
    model["config"]["layers"][1]["inbound_nodes"] = calls
    model["config"]["layers"][2]["inbound_nodes"] = [[["b", times - 1, 0, {}]]]
    return model


def test_a_layer_is_called_on_inputs_of_several_shapes(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m.h5", joined_with_itself(3), {}))
    x = np.ones((2, 5, 3), np.float32)
    np.testing.assert_allclose(model.predict(x), np.tanh(np.tile(x, (1, 1, 8))), rtol=1e-6)
    with pytest.raises(Unsupported, match="more than 8 shapes"):
        load_model(save(tmp_path / "n.h5", joined_with_itself(9), {}))


WRONG = {
    "no config": ({"class_name": "Sequential"}, "lists no layers"),
    "no object": ([1], "an object was expected"),
    "a layer that is none": ({"class_name": "Sequential", "config": [3]}, "an object was expected"),
    "a layer without a config": ({"class_name": "Sequential", "config": [{"class_name": "LSTM"}]}, "no config"),
    "a name that is none": (
        {"class_name": "Sequential", "config": [{"class_name": "LSTM", "config": {"name": 3}}]},
        "which is not one",
    ),
    "a name twice": (
        {"class_name": "Sequential", "config": [{"class_name": "Flatten", "config": {"name": "a"}}] * 2},
        "two layers",
    ),
    "no layers but the input": (
        {"class_name": "Sequential", "config": [in_entry := {"class_name": "InputLayer", "config": {"name": "a"}}]},
        "lists no layers",
    ),
    "too many layers": (
        {
            "class_name": "Sequential",
            "config": [{"class_name": "Dropout", "config": {"name": f"d{k}"}} for k in range(1002)],
        },
        "more than 1000",
    ),
    "a shape that is none": (
        {"class_name": "Sequential", "config": [{"class_name": "Flatten", "config": {"batch_input_shape": 3}}]},
        "a list was expected",
    ),
    "a size that is none": (
        {
            "class_name": "Sequential",
            "config": [{"class_name": "Flatten", "config": {"batch_input_shape": [None, -1]}}],
        },
        "no size",
    ),
    "an output that is not there": (graph(output_layers=[["c", 0, 0]]), "none of its layers"),
    "an input that is no input": (graph(input_layers=[["a", 0, 0]]), "no InputLayer"),
    "an output that is the input": (graph(output_layers=[["in", 0, 0]]), "lists no layers"),
    "a call that is not there": (graph(output_layers=[["b", 7, 0]]), "not there"),
    "a layer that is not there": (with_node(graph(), "b", inbound_nodes=[[["c", 0, 0, {}]]]), "not there"),
    "a reference that is none": (with_node(graph(), "b", inbound_nodes=[[["a", -1, 0, {}]]]), "reference"),
    "a circle": (with_node(graph(), "a", inbound_nodes=[[["b", 0, 0, {}]]]), "circle"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wiring_that_makes_no_sense_is_refused(tmp_path: Path, case: Any) -> None:
    model, reason = case
    with pytest.raises(UnreadableFile, match=reason):
        load_model(save(tmp_path / "m.h5", model, {}))


OPTIONS: dict[str, Any] = {
    "units that are none": [lstm(units=4, activation="tanh") and ("LSTM", {"units": -4}, [])],
    "units that are many": [("LSTM", {"units": [3, 4]}, [])],
    "a number for a flag": [lstm(return_sequences=1)],
    "a text for a number": [("LeakyReLU", {"alpha": "0.3"}, [])],
    "infinity": [("LeakyReLU", {"alpha": 1 << 200}, [])],
    "integers that are none": [("Permute", {"dims": ["a", "b"]}, [])],
    "a layer that is none": [("Bidirectional", {"layer": 3}, [])],
    "no layer": [("Bidirectional", {}, [])],
    "no cell": [("RNN", {}, [])],
    "no layer for each step": [("TimeDistributed", {}, [])],
    "null among cells": [("RNN", {"cell": {"class_name": "StackedRNNCells", "config": {"cells": [None]}}}, [])],
    "arrays left over": [
        (
            "RNN",
            {
                "cell": {
                    "class_name": "StackedRNNCells",
                    "config": {"cells": [{"class_name": "SimpleRNNCell", "config": {"units": 3}}] * 2},
                }
            },
            [numbers(3, 3), numbers(3, 3), numbers(3)] * 3,
        )
    ],
    "arrays of other shapes": [lstm(features=4)],
    "arrays of a Keras 1 that do not fit": [
        (
            "LSTM",
            {"units": 4},
            [numbers(3, 4), numbers(4, 4), numbers(4)] * 3 + [numbers(2, 4), numbers(4), numbers(1, 4)],
        )
    ],
    "cuDNN arrays that do not fit": [("LSTM", {"units": 4}, [numbers(3, 15), numbers(4, 16), numbers(32)])],
    "directions of different units": [
        (
            "Bidirectional",
            {
                "merge_mode": "sum",
                "layer": {"class_name": "SimpleRNN", "config": {"units": 3}},
                "backward_layer": {"class_name": "SimpleRNN", "config": {"units": 2, "go_backwards": True}},
            },
            [numbers(3, 3), numbers(3, 3), numbers(3), numbers(3, 2), numbers(2, 2), numbers(2)],
        )
    ],
    "directions of one direction": [
        (
            "Bidirectional",
            {
                "layer": {"class_name": "SimpleRNN", "config": {"units": 3}},
                "backward_layer": {"class_name": "SimpleRNN", "config": {"units": 3}},
            },
            [numbers(3, 3), numbers(3, 3), numbers(3)] * 2,
        )
    ],
    "statistics along an axis that is not there": [("BatchNormalization", {"axis": 7}, [numbers(3)] * 4)],
    "a negative variance": [("BatchNormalization", {}, [-np.ones(3, np.float32)] * 4)],
    "a given negative variance": [("Normalization", {"mean": [0, 0, 0], "variance": [1, 1, -1]}, [])],
    "statistics of other sizes": [("Normalization", {"mean": [0, 0], "variance": [1, 1]}, [])],
    "statistics that are no numbers": [("Normalization", {"mean": ["a"], "variance": [1]}, [])],
    "a scale of another size": [("Rescaling", {"scale": [1, 2]}, [])],
    "rows of time": [("RepeatVector", {"n": 3}, [])],
    "a reshape to another size": [("Reshape", {"target_shape": [4, 4]}, [])],
    "a reshape to two free sizes": [("Reshape", {"target_shape": [-1, -1]}, [])],
    "an order that is none": [("Permute", {"dims": [1, 1]}, [])],
    "no time": [("Flatten", {}, []), lstm()],
    "no steps left": [("Conv1D", {"filters": 1, "kernel_size": 9}, [numbers(9, 3, 1), numbers(1)])],
}


@pytest.mark.parametrize("layers", OPTIONS.values(), ids=OPTIONS)
def test_options_and_arrays_that_make_no_sense_are_refused(tmp_path: Path, layers: Any) -> None:
    with pytest.raises(UnreadableFile):
        one(tmp_path, layers)


def test_of_a_backward_layer_of_its_own_the_class_says_what_it_gives_at_masked_steps(tmp_path: Path) -> None:
    """TensorFlow 2.1 holds the last output of an LSTM there, and gives 0 of a SimpleRNN."""
    sequences: dict[str, Any] = {"units": 2, "return_sequences": True, "time_major": False}
    both: dict[str, Any] = {
        "layer": {
            "class_name": "LSTM",
            "config": {**sequences, "activation": "tanh", "recurrent_activation": "sigmoid"},
        },
        "backward_layer": {"class_name": "SimpleRNN", "config": {**sequences, "go_backwards": True}},
    }
    arrays = [*lstm(2)[2], numbers(3, 2), numbers(2, 2), numbers(2)]
    layers: Any = [("Masking", {"mask_value": 0.0}, []), ("Bidirectional", both, arrays)]
    x = numbers(1, 5, 3)
    x[0, 2] = 0
    y = load_model(save_sequential(tmp_path / "m.h5", layers, keras="2.2.4-tf")).predict(x)[0]
    np.testing.assert_array_equal(y[2], [*y[1, :2], 0, 0])
    assert np.abs(y[[0, 1, 3, 4]]).min() > 0


JOINED = {
    "Add": call("Add", "c", ["in", "a"]),
    "Concatenate": call("Concatenate", "c", ["in", "a"], axis=-1),
    "Concatenate along no axis": call("Concatenate", "c", ["in", "in"], axis=9),
}


@pytest.mark.parametrize("join", JOINED.values(), ids=JOINED)
def test_branches_that_do_not_fit_together_are_refused(tmp_path: Path, join: Any) -> None:
    model = functional([in_(5, 3), call("AveragePooling1D", "a", ["in"], pool_size=2), join])
    with pytest.raises(UnreadableFile, match="do not fit together"):
        load_model(save(tmp_path / "m.h5", model, {}))


def test_layers_of_keras_1_are_read_in_its_names(tmp_path: Path) -> None:
    layers: Any = [
        ("GaussianNoise", {"sigma": 0.1}, []),
        (
            "TimeDistributedDense",
            {"output_dim": 4, "init": "uniform", "activation": "tanh"},
            [numbers(3, 4), numbers(4)],
        ),
        ("Dropout", {"p": 0.5}, []),
        (
            "SimpleRNN",
            {"output_dim": 2, "inner_init": "orthogonal", "dropout_W": 0.1},
            [numbers(4, 2), numbers(2, 2), numbers(2)],
        ),
    ]
    assert one(tmp_path, layers, keras=None).output_shape == (2,)
    merge = functional([in_(5, 3), call("Merge", "m", ["in", "in"], mode="concat", concat_axis=-1, output_shape=None)])
    merge["class_name"] = "Model"
    assert load_model(save(tmp_path / "m.h5", merge, {}, keras=None)).output_shape == (5, 6)
    merge["config"]["layers"][1]["config"] |= {"mode": "sum"}
    assert load_model(save(tmp_path / "m.h5", merge, {}, keras=None)).output_shape == (5, 3)
    merge["config"]["layers"][1]["config"] |= {"mode": "dot"}
    with pytest.raises(Unsupported, match="mode"):
        load_model(save(tmp_path / "m.h5", merge, {}, keras=None))


def test_an_activation_layer_may_be_an_activation(tmp_path: Path) -> None:
    inside = {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": {"type": "ndarray", "value": 0.25}}}
    layer: Any = one(tmp_path, [dense(features=3, activation=inside)]).nodes[0].operation
    np.testing.assert_allclose(layer.activation.apply(np.array([-4, 4], np.float32)), [-1, 4])


# What an activation's layer does where its config says nothing: the defaults that Keras documents, 2 and 3 the same.
DEFAULTS: dict[str, Callable[[Any], Any]] = {
    "LeakyReLU": lambda x: np.where(x >= 0, x, 0.3 * x),
    "ReLU": lambda x: np.maximum(x, 0),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(x)),
    "Softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
    "ThresholdedReLU": lambda x: np.where(x > 1, x, 0),
}

# What get_config gives of such a layer, in Keras 2.15 and in 3.15.
SAID_BY_KERAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LeakyReLU": ({"alpha": 0.30000001192092896}, {"negative_slope": 0.3}),
    "ReLU": ({"max_value": None, "negative_slope": 0.0, "threshold": 0.0},) * 2,
    "ELU": ({"alpha": 1.0},) * 2,
    "Softmax": ({"axis": -1},) * 2,
    "ThresholdedReLU": ({"theta": 1.0},) * 2,
}


@pytest.mark.parametrize(("keras", "which"), [("2.15.0", 0), ("3.15.1", 1)])
@pytest.mark.parametrize("name", ACTIVATION_LAYERS)
def test_an_option_that_an_activation_layer_does_not_say_is_that_of_keras(
    tmp_path: Path, name: str, keras: str, which: int
) -> None:
    x = np.array([[[-9, -2, -0.5], [0, 0.25, 0.5], [1, np.nextafter(np.float32(1), np.float32(2)), 9]]], np.float32)
    for number, config in enumerate([{}, SAID_BY_KERAS[name][which]]):
        path = save_sequential(tmp_path / f"{number}.h5", [(name, config, [])], [3, 3], keras=keras)
        np.testing.assert_allclose(load_model(path).predict(x), DEFAULTS[name](x.astype(np.float64)), 1e-6, 1e-7)


def test_thresholded_relu_gives_what_is_above_theta(tmp_path: Path) -> None:
    layers: Any = [("ThresholdedReLU", {"theta": {"type": "ndarray", "value": 0.5}}, []), lstm(return_sequences=True)]
    layer: Any = one(tmp_path, layers).nodes[0].operation
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    x = np.array([-7, 0, 0.25, 0.5, above, 2], np.float32)
    np.testing.assert_array_equal(layer.activation.apply(x.copy()), np.array([0, 0, 0, 0, above, 2], np.float32))


def test_a_card_with_ids_has_one_feature_and_no_scaling(tmp_path: Path) -> None:
    layers: Any = [("Embedding", {"input_dim": 9, "output_dim": 3}, [numbers(9, 3)]), lstm()]
    path = save_sequential(tmp_path / "m.h5", layers, [5])
    card = tmp_path / "m.card.json"
    card.write_text(json.dumps({"features": ["word"]}))
    model = load_model(path)
    assert model.about.features is not None
    card.write_text(json.dumps({"scaling": {"mean": [0], "scale": [1]}}))
    with pytest.raises(UnreadableFile, match="ids"):
        load_model(path)


@pytest.mark.parametrize("name", ["architecture", "recurrent_activation", "output_activation"])
def test_a_whole_model_is_told_nothing_that_it_says_itself(tmp_path: Path, name: str) -> None:
    path = save_sequential(tmp_path / "m.h5", [lstm()])
    (tmp_path / "m.card.json").write_text(json.dumps({name: "sigmoid"}))
    with pytest.raises(UnreadableFile, match="says its"):
        load_model(path)


def test_an_error_begins_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "absent.h5"
    with pytest.raises(ModelError, match=r"absent\.h5: there is no such file"):
        load_model(path)


def test_layers_in_models_are_named_after_both() -> None:
    model = load_model(GOLDEN / "keras3" / "nested.h5")
    names = [node.operation.name for node in model.nodes]
    assert any("/" in name for name in names)
    assert len({id(node.operation) for node in model.nodes}) < len(model.nodes)
    assert model.parameters == sum(
        array.size
        for layer in {id(n.operation): n.operation for n in model.nodes}.values()
        for array in layer.weights.values()
    )
    assert any(isinstance(node.operation, Recurrent) for node in model.nodes)


@pytest.mark.parametrize(
    ("source", "there", "given", "called"),
    [
        ("k215_model.h5", "models/3/m.h5", "models", ("m", "3")),
        ("k215_model.h5", "models/m.h5", "models/m.h5", ("m", "1")),
        ("tf215__hard", "served/12", "served", ("served", "12")),
        ("tf215__hard", "served/12", "served/12", ("served", "12")),
        ("tf215__hard", "served/0", "served", ("0", "1")),
    ],
)
def test_a_numbered_folder_is_a_version(
    tmp_path: Path, source: str, there: str, given: str, called: tuple[str, str]
) -> None:
    (place := tmp_path / there).parent.mkdir(parents=True)
    (found,) = GOLDEN.rglob(source)
    (shutil.copytree if found.is_dir() else shutil.copy)(found, place)
    about = load_model(tmp_path / given).about
    assert (about.name, about.version) == called


NAN, INF = float("nan"), float("inf")
WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "a constraint": {"kernel_constraint": {"class_name": "MaxNorm", "config": {"max_value": INF, "axis": 0}}},
    "a regularizer": {"bias_regularizer": {"class_name": "L2", "config": {"l2": NAN}}},
    "an initializer": {"kernel_initializer": {"class_name": "Constant", "config": {"value": -INF}}},
    "a rate of dropout": {"dropout": NAN},
}


@pytest.mark.parametrize("options", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT)
def test_what_is_no_finite_number_is_let_through_where_no_answer_depends_on_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    x = numbers(2, 5, 3)
    assert np.array_equal(one(tmp_path, [lstm(**options)]).predict(x), one(tmp_path, [lstm()]).predict(x))


DEPENDS: dict[str, tuple[Any, str]] = {
    "a value that is masked": ([("Masking", {"mask_value": NAN}, []), lstm()], "mask_value = nan"),
    "a bound": ([("ReLU", {"max_value": INF}, []), lstm()], "max_value = inf"),
    "an epsilon": ([("BatchNormalization", {"epsilon": NAN}, [numbers(3) ** 2] * 4)], "epsilon = nan"),
    "a scale": ([("Rescaling", {"scale": NAN, "offset": 0.0}, [])], "scale"),
    "a mean": ([("Normalization", {"mean": [0, 0, INF], "variance": [1, 1, 1]}, [])], "mean"),
    "units": ([("LSTM", {"units": NAN}, lstm()[2])], "units = 'nan'"),
    "a direction": ([("LSTM", {"units": 4, "go_backwards": NAN}, lstm()[2])], "go_backwards = 'nan'"),
    "an option that nobody knows": ([lstm(peephole=NAN)], "peephole"),
}


@pytest.mark.parametrize("case", DEPENDS.values(), ids=DEPENDS)
def test_what_is_no_finite_number_is_refused_by_name_where_an_answer_depends_on_it(tmp_path: Path, case: Any) -> None:
    layers, reason = case
    with pytest.raises(ModelError, match=reason):
        one(tmp_path, layers)


def test_a_layer_of_keras_3_in_hdf5_may_not_say_whether_it_is_trained(tmp_path: Path) -> None:
    model = functional(
        [
            in_(5, 3),
            call("SpatialDropout1D", "drop", ["in"], rate=0.2, seed=None, dtype="float32"),
            call("LSTM", "lstm", ["drop"], trainable=True, **lstm()[1]),
        ]
    )
    for layer in model["config"]["layers"][1:]:
        ((source, *_),) = layer["inbound_nodes"][0]
        layer["inbound_nodes"] = [{"args": [tensor(source)], "kwargs": {"training": False}}]
    loaded = load_model(save(tmp_path / "m.h5", model, {"lstm": lstm()[2]}, keras="3.15.0"))
    assert [node.operation.keras_class for node in loaded.nodes] == ["SpatialDropout1D", "LSTM"]


def test_weights_of_what_is_not_supported_are_refused_for_that_reason(tmp_path: Path) -> None:
    """Not because their number is another than that of the layers that are known."""
    held = sequential([dense(features=4), ("BatchNormalization", {}, []), dense(features=2)])
    model = sequential([lstm(return_sequences=True), ("TimeDistributed", {"layer": held}, [])])
    (tmp_path / "m.json").write_text(json.dumps({**model, "keras_version": "2.15.0"}))
    np.savez(tmp_path / "m.npz", *lstm()[2], *dense()[2], *[numbers(2)] * 4)
    with pytest.raises(Unsupported, match="arrays that are not trained"):
        load_model(tmp_path / "m.npz")
