"""The default model as an ONNX graph with the fused LSTM operator, for the comparisons; needs the package onnx."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from lstm_serve.engine.operations.pointwise import Dense, Normalization
from lstm_serve.engine.operations.recurrent import LSTM
from lstm_serve.model.model import Model


def write(model: Model, path: Path) -> None:
    """Write Normalization, LSTM, Dense and softmax. ONNX orders the gates i, o, f, c and keeps two biases."""
    normalization, lstm, dense = (node.operation for node in model.nodes)
    if not (isinstance(normalization, Normalization) and isinstance(lstm, LSTM) and isinstance(dense, Dense)):
        raise TypeError("expected the default model: Normalization, LSTM, Dense")
    if lstm.bias is None or dense.bias is None:
        raise TypeError("expected biases")

    def gates(array: np.ndarray) -> np.ndarray:  # (..., 4 units) i, f, c, o -> (1, 4 units, ...) i, o, f, c
        i, f, c, o = np.split(array, 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1).T[np.newaxis]

    arrays = {
        "mean": normalization.mean,
        "deviation": np.maximum(np.sqrt(normalization.variance), np.float32(1e-7)),
        "w": gates(lstm.kernel),
        "r": gates(lstm.recurrent_kernel),
        "b": np.concatenate([gates(lstm.bias), np.zeros((1, 4 * lstm.units), np.float32)], axis=1),
        "kernel": dense.kernel,
        "bias": dense.bias,
        "zero": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["", "h"], hidden_size=lstm.units),
        helper.make_node("Squeeze", ["h", "zero"], ["last"]),
        helper.make_node("Gemm", ["last", "kernel", "bias"], ["sums"]),
        helper.make_node("Softmax", ["sums"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "turbofan",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *model.input_shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *model.output_shape])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
