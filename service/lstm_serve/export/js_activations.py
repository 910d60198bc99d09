"""Activations in JavaScript: functions (d, start, n) that overwrite n numbers of d."""

# By kind: an expression in x, or a function of FUNCTIONS that works on a whole vector.
ACTIVATIONS = {
    "linear": "x",
    "tanh": "Math.tanh(x)",
    "sigmoid": "1 / (1 + Math.exp(-x))",
    "relu": "Math.max(x, 0)",
    "softmax": "vector:softmax",
    "silu": "x / (1 + Math.exp(-x))",
    "hard_silu": "x * (clip(x + 3, 0, 6) / 6)",
    "elu": "x > 0 ? x : {alpha} * Math.expm1(x)",
    "celu": "x > 0 ? x : {alpha} * Math.expm1(x / {alpha})",
    "leaky_relu": "x > 0 ? x : {negative_slope} * x",
    "general_relu": "x < {threshold} ? {negative_slope} * (x - {threshold}) : Math.min(x, {max_value})",
    "relu6": "clip(x, 0, 6)",
    "selu": "1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x))",
    "softplus": "softplus(x)",
    "softsign": "x / (1 + Math.abs(x))",
    "exponential": "Math.exp(x)",
    "gelu": "x * (1 + erf(x * Math.SQRT1_2)) / 2",
    "mish": "x * Math.tanh(softplus(x))",
    "hard_tanh": "clip(x, -1, 1)",
    "tanh_shrink": "x - Math.tanh(x)",
    "log_sigmoid": "-softplus(-x)",
    "log_softmax": "vector:logSoftmax",
    "hard_sigmoid_keras_2": "clip(0.2 * x + 0.5, 0, 1)",
    "hard_sigmoid_keras_3": "clip(x + 3, 0, 6) / 6",
}
