"""Layers of Keras 1 in today's names. What an option means did not change with its name.

Source: the layers' get_config in keras/layers/*.py of Keras 1.2.2, and keras/legacy/interfaces.py of 2.2.4.
"""

from typing import Any

from lstm_serve.errors import Unsupported

CLASSES = {
    "TimeDistributedDense": "Dense",
    "Convolution1D": "Conv1D",
}

OPTIONS = {
    "output_dim": "units",
    "inner_activation": "recurrent_activation",
    "bias": "use_bias",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample_length": "strides",
    "pool_length": "pool_size",
    "stride": "strides",
    "p": "rate",
    "sigma": "stddev",
    "concat_axis": "axis",
}

# What only training needed, or what the input shape says better.
WITHOUT_EFFECT = frozenset(
    {
        *("init", "inner_init", "forget_bias_init", "beta_init", "gamma_init", "weights"),
        *(f"{array}_{what}" for array in "WUb" for what in ("regularizer", "constraint")),
        *("dropout_W", "dropout_U"),
    }
)

MERGES = {"concat": "Concatenate", "sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum"}


def modern(class_name: str, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class and the config of a Keras 1 layer as Keras 2 would write them."""
    class_name = CLASSES.get(class_name, class_name)
    kept = {OPTIONS.get(key, key): value for key, value in config.items() if key not in WITHOUT_EFFECT}
    layer = kept.get("layer")
    if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
        inner, settings = modern(str(layer.get("class_name")), layer["config"])
        kept["layer"] = {"class_name": inner, "config": settings}
    # Keras 1 writes the input's shape to every layer; the layer before says it.
    kept.pop("input_length", None)
    if class_name == "Embedding":
        kept["output_dim"] = kept.pop("units", None)
    else:
        kept.pop("input_dim", None)
    if class_name == "Merge":
        class_name = MERGES.get(str(kept.pop("mode", None)), "Merge")
        if class_name == "Merge":
            raise Unsupported(f"the Merge layer {str(kept.get('name'))[:100]!r} has a mode that is not supported")
        kept = {key: value for key, value in kept.items() if key in {"name", "axis"}}
        if class_name != "Concatenate":
            kept.pop("axis", None)
    return class_name, kept
