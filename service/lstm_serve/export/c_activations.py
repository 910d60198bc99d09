"""Activations in C."""

# By kind: an expression in x; {alpha} and its kin are filled in, {{ is a brace. The last ones work on a whole vector.
ACTIVATIONS = {
    "linear": "x",
    "tanh": "tanhf(x)",
    "sigmoid": "1.0f / (1.0f + expf(-x))",
    "relu": "x > 0.0f ? x : 0.0f",
    "silu": "x / (1.0f + expf(-x))",
    "hard_silu": "x * (clip(x + 3.0f, 0.0f, 6.0f) / 6.0f)",
    "elu": "x > 0.0f ? x : {alpha} * expm1f(x)",
    "celu": "x > 0.0f ? x : {alpha} * expm1f(x / {alpha})",
    "leaky_relu": "x > 0.0f ? x : {negative_slope} * x",
    "general_relu": "x < {threshold} ? {negative_slope} * (x - {threshold}) : (x < {max_value} ? x : {max_value})",
    "relu6": "clip(x, 0.0f, 6.0f)",
    "selu": "1.05070098f * (x > 0.0f ? x : 1.67326324f * expm1f(x))",
    "softplus": "softplus(x)",
    "softsign": "x / (1.0f + fabsf(x))",
    "exponential": "expf(x)",
    "gelu": "0.5f * x * (1.0f + erff(0.70710678f * x))",
    "mish": "x * tanhf(softplus(x))",
    "hard_tanh": "clip(x, -1.0f, 1.0f)",
    "tanh_shrink": "x - tanhf(x)",
    "log_sigmoid": "-softplus(-x)",
    "hard_sigmoid_keras_2": "clip(0.2f * x + 0.5f, 0.0f, 1.0f)",
    "hard_sigmoid_keras_3": "clip(x + 3.0f, 0.0f, 6.0f) / 6.0f",
    "soft_shrink": "x - clip(x, -0.5f, 0.5f)",
    "hard_shrink": "fabsf(x) <= 0.5f ? 0.0f : x",
    "sparse_plus": "clip(x + 1.0f, 0.0f, 2.0f) * clip(x + 1.0f, 0.0f, 2.0f) / 4.0f + (x > 1.0f ? x - 1.0f : 0.0f)",
    "sparse_sigmoid": "clip(x + 1.0f, 0.0f, 2.0f) / 2.0f",
    "squareplus": "(x + sqrtf(x * x + 4.0f)) / 2.0f",
    "sparsemax": """
    float taken = -1;
    int large = 0;
    for (int k = 0; k < n; ++k) {{
        float sum = 0;
        int count = 0;
        for (int j = 0; j < n; ++j)
            if (x[j] > x[k] || (x[j] == x[k] && j <= k)) sum += x[j], ++count;
        if (x[k] - (sum - 1) / count > 0) taken += sum, ++large;
    }}
    taken /= large;
    for (int k = 0; k < n; ++k) x[k] = x[k] > taken ? x[k] - taken : 0;
""",
    "softmax": """
    float largest = x[0], sum = 0.0f;
    for (int k = 1; k < n; ++k) largest = x[k] > largest ? x[k] : largest;
    for (int k = 0; k < n; ++k) sum += x[k] = expf(x[k] - largest);
    for (int k = 0; k < n; ++k) x[k] /= sum;
""",
    "log_softmax": """
    float largest = x[0], sum = 0.0f;
    for (int k = 1; k < n; ++k) largest = x[k] > largest ? x[k] : largest;
    for (int k = 0; k < n; ++k) sum += expf(x[k] - largest);
    for (int k = 0; k < n; ++k) x[k] -= largest + logf(sum);
""",
}
