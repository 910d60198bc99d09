"""The Python functions that an exported program may call; only those that it does call are written."""

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
    "hard_sigmoid_keras_2": "np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1)",
    "hard_sigmoid_keras_3": "np.clip(x + 3, 0, 6) / 6",
}

# What the program may call; only what it does call is written.
FUNCTIONS = {
    "erf": '''
def erf(x):
    """The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    return np.copysign(1 - series * np.exp(-x * x), x)
''',
    "scan": '''
def scan(step, widths, x, mask, sequences, backwards, zeros):
    """Walk a step over x (n, T, features) from states of 0: the h of each step, or the last alone."""
    if backwards:
        x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
    states, hs = [np.zeros((len(x), width), np.float32) for width in widths], []
    for t in range(x.shape[1]):
        new = step(x[:, t], *states)
        if mask is not None:  # a masked step changes no state
            new = [np.where(mask[:, t, None], after, before) for after, before in zip(new, states)]
        states = new
        hs.append(np.where(mask[:, t, None], states[0], np.float32(0)) if zeros and mask is not None else states[0])
    return np.stack(hs, axis=1) if sequences else hs[-1]
''',
    "lstm": """
def lstm(activation, gate, kernel, recurrent_kernel, bias):
    def step(x, h, c):
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
        c = gate(f) * c + gate(i) * activation(g)
        return gate(o) * activation(c), c

    return step
""",
    "gru": """
def gru(activation, gate, reset_after, kernel, recurrent_kernel, bias, recurrent_bias):
    def step(x, h):
        u = h.shape[-1]
        a, b = x @ kernel + bias, h @ recurrent_kernel[:, : 2 * u] + recurrent_bias[: 2 * u]
        z, r = gate(a[:, :u] + b[:, :u]), gate(a[:, u : 2 * u] + b[:, u:])
        if reset_after:
            g = activation(a[:, 2 * u :] + r * (h @ recurrent_kernel[:, 2 * u :] + recurrent_bias[2 * u :]))
        else:
            g = activation(a[:, 2 * u :] + (r * h) @ recurrent_kernel[:, 2 * u :])
        return (z * h + (1 - z) * g,)

    return step
""",
    "simple_rnn": """
def simple_rnn(activation, kernel, recurrent_kernel, bias):
    return lambda x, h: (activation(x @ kernel + h @ recurrent_kernel + bias),)
""",
    "taps": '''
def taps(T, size, stride, dilation, padding):
    """The number of windows, and for each position in the window: these windows, these steps."""
    span = (size - 1) * dilation
    n = -(((span if padding == "valid" else 0) - T) // stride)
    before = {"valid": 0, "causal": span, "same": max((n - 1) * stride + span + 1 - T, 0) // 2}[padding]
    places = [[(w, t) for w in range(n) if 0 <= (t := w * stride + k * dilation - before) < T] for k in range(size)]
    return n, [(k, *map(list, zip(*pairs))) for k, pairs in enumerate(places) if pairs]
''',
    "conv1d": """
def conv1d(x, kernel, bias, *window):
    n, positions = taps(x.shape[1], len(kernel), *window)
    y = np.zeros((len(x), n, kernel.shape[2]), np.float32)
    for k, windows, steps in positions:
        y[:, windows] += x[:, steps] @ kernel[k]
    return y + bias
""",
    "pool": """
def pool(x, average, *window):
    n, positions = taps(x.shape[1], *window)
    y = np.full((len(x), n, x.shape[2]), 0 if average else -np.inf, np.float32)
    met = np.zeros((n, 1), np.float32)
    for _, windows, steps in positions:
        met[windows] += 1
        y[:, windows] = y[:, windows] + x[:, steps] if average else np.maximum(y[:, windows], x[:, steps])
    return y / met if average else y
""",
    "average": """
def average(x, mask):
    kept = mask[..., None].astype(np.float32)
    return (x * kept).sum(1, keepdims=True) / kept.sum(1, keepdims=True)
""",
    "standardize": """
def standardize(x, gamma, beta, epsilon):
    y = x - x.mean(-1, keepdims=True)
    return y / np.sqrt(np.square(y).mean(-1, keepdims=True) + np.float32(epsilon)) * gamma + beta
""",
    "each_step": """
def each_step(x, layer):
    y = layer(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])
""",
    "masked": """
def masked(x, mask, other):
    return x if mask is None else np.where(mask[..., None], x, other)
""",
}
NEEDS = {"conv1d": ["taps"], "pool": ["taps"]}
