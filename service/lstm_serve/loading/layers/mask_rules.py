"""What the masks did in the Keras that saved a file, where versions differ."""

from lstm_serve.engine.operations.merging import MaskRule
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.config.options import Options


def rule_of_merging(keras: KerasVersion) -> MaskRule:
    """How Concatenate and its kin join their inputs' masks: compute_mask of keras/src/layers/merging; or since 3.4."""
    return MaskRule.ANY if (keras.major, keras.minor) >= (3, 4) else MaskRule.ALL


def zeroed(inner: Options) -> bool:
    """Whether a direction of a Bidirectional gives 0 at masked steps, or holds its last output.

    Keras 1, 2 and TensorFlow 1.12 hold; TensorFlow 1.13 to 1.15, 2.2 and later and Keras 3 give 0 in a returned
    sequence; TensorFlow 2.0 and 2.1 hold in LSTM and GRU, and give 0 in others. Run with each of them.
    """
    config, keras = inner.config, inner.keras
    sequences = bool(config.get("return_sequences"))
    if config.get("zero_output_for_mask"):
        # TensorFlow 1.13 says so without return_sequences too, and gives 0 where the last step is masked.
        return True
    if not sequences or (keras.major < 3 and "time_major" not in config):
        return False
    if keras.text == "2.2.4-tf":
        # The same text from 1.13 to 2.1.0; the initializers of 1.x say their dtype.
        initializer = config.get("kernel_initializer")
        settings = initializer.get("config") if isinstance(initializer, dict) else None
        if isinstance(settings, dict) and "dtype" in settings:
            return True
        inner.assume("saved by TensorFlow 2.0 or 2.1.0, whose Bidirectional holds its output where it is masked")
        return not _one_kernel(inner)
    if keras.text == "2.3.0-tf" and keras.build_input_shape is False:
        return not _one_kernel(inner)  # TensorFlow 2.1
    if keras.text == "2.3.0-tf" and keras.build_input_shape is None:
        inner.assume("saved by TensorFlow 2.2, whose Bidirectional gives 0 where it is masked; 2.1 held")
    return True


def _one_kernel(inner: Options) -> bool:
    """Whether TensorFlow 2.0 ran the layer as the one kernel that forgot the zeros: what cuDNN could also compute.

    Source: could_use_cudnn in tensorflow/python/keras/layers/recurrent_v2.py, r2.0 and r2.1.
    """
    config = inner.config
    return (
        inner.class_name in {"LSTM", "GRU"}
        and config.get("activation") == "tanh"
        and config.get("recurrent_activation") == "sigmoid"
        and not config.get("recurrent_dropout")
        and not config.get("unroll")
        and bool(config.get("use_bias", True))
        and bool(config.get("reset_after", True))
    )
