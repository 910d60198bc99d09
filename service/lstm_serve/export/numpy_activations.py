"""Activations in NumPy."""

# By kind: an expression in x, of float32, with the parameters by their names.
ACTIVATIONS = {
    "linear": "x",
    "tanh": "np.tanh(x)",
    "sigmoid": "1 / (1 + np.exp(-x))",
    "relu": "np.maximum(x, 0)",
    "softmax": "np.exp(s := x - x.max(-1, keepdims=True)) / np.exp(s).sum(-1, keepdims=True)",
    "silu": "x / (1 + np.exp(-x))",
    "hard_silu": "x * (np.clip(x + 3, 0, 6) / 6)",
    "elu": "np.maximum(x, 0) + np.float32({alpha!r}) * np.expm1(np.minimum(x, 0))",
    "celu": "np.maximum(x, 0) + np.float32({alpha!r}) * np.expm1(np.minimum(x, 0) / np.float32({alpha!r}))",
    "leaky_relu": "np.maximum(x, 0) + np.float32({negative_slope!r}) * np.minimum(x, 0)",
    "general_relu": (
        "np.where(x < np.float32({threshold!r}), np.float32({negative_slope!r}) * (x - np.float32({threshold!r})), "
        "np.minimum(x, np.float32({max_value!r})))"
    ),
    "relu6": "np.clip(x, 0, 6)",
    "selu": "np.float32(1.05070098) * (np.maximum(x, 0) + np.float32(1.67326324) * np.expm1(np.minimum(x, 0)))",
    "softplus": "np.logaddexp(x, np.float32(0))",
    "softsign": "x / (1 + np.abs(x))",
    "exponential": "np.exp(x)",
    "gelu": "x * (1 + erf(x * np.float32(0.70710678))) / 2",
    "mish": "x * np.tanh(np.logaddexp(x, np.float32(0)))",
    "hard_tanh": "np.clip(x, -1, 1)",
    "tanh_shrink": "x - np.tanh(x)",
    "log_sigmoid": "-np.logaddexp(-x, np.float32(0))",
    "log_softmax": "(s := x - x.max(-1, keepdims=True)) - np.log(np.exp(s).sum(-1, keepdims=True))",
    "soft_shrink": "x - np.clip(x, -0.5, 0.5)",
    "hard_shrink": "np.where(np.abs(x) <= 0.5, np.float32(0), x)",
    "sparse_plus": "np.square(np.clip(x + 1, 0, 2)) / 4 + np.maximum(x - 1, 0)",
    "sparse_sigmoid": "np.clip(x + 1, 0, 2) / 2",
    "squareplus": "(x + np.sqrt(np.square(x) + 4)) / 2",
    "sparsemax": (
        "np.maximum(x - (np.where(k := (s := np.sort(x)[..., ::-1])"
        " - ((c := np.cumsum(s, -1)) - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0, c, 0)"
        ".sum(-1, keepdims=True) - 1) / k.sum(-1, keepdims=True, dtype=x.dtype), 0)"
    ),
    "hard_sigmoid_keras_2": "np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1)",
    "hard_sigmoid_keras_3": "np.clip(x + 3, 0, 6) / 6",
}
