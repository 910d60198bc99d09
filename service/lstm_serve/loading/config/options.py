"""A layer's options, none of which is ever ignored unseen."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lstm_serve.engine.activations import (
    SOFTMAX,
    Activation,
    elu,
    leaky_relu,
    relu,
)
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.loading.config.activations import named_activation
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.refusals import QUANTIZED

T = TypeVar("T")

MAX_LAYERS = 1000
# Of any axis, and of any option that is an integer.
MAX_SIZE = 1 << 24


def precision(dtype: Any, where: str) -> str | None:  # noqa: ANN401 - JSON is anything
    """The name of a layer's dtype or policy, such as "float32" or "mixed_float16". Refuses what is quantized.

    Keras writes it as a string, or as an object with a class_name and a config.
    """
    if not isinstance(dtype, dict):
        return dtype if isinstance(dtype, str) else None
    config = dtype.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    if str(dtype.get("class_name")) not in {"Policy", "DTypePolicy"} or (isinstance(name, str) and "_from_" in name):
        raise Unsupported(f"{where} has the dtype {str(name or dtype.get('class_name'))[:40]!r}: {QUANTIZED}")
    return name if isinstance(name, str) else None


# Classes of models that are made of layers. "Model" is what "Functional" was before TensorFlow 2.3. A tuple, since what
# JSON has in such a place may be unhashable.
MODELS = ("Sequential", "Functional", "Model")

# Options of any layer that change nothing at inference.
WITHOUT_EFFECT = frozenset(
    {
        "name",
        "trainable",
        "dtype",  # read apart, in `precision`
        "seed",
        "build_config",
        "module",
        "registered_name",
        "batch_input_shape",
        "batch_shape",
        "input_shape",
        "input_dtype",
        "kernel_initializer",
        "recurrent_initializer",
        "bias_initializer",
        "unit_forget_bias",
        "kernel_regularizer",
        "recurrent_regularizer",
        "bias_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "recurrent_constraint",
        "bias_constraint",
        "dropout",
        "recurrent_dropout",
        "implementation",
        "unroll",
    }
)


class Options:
    """A layer's config, read key by key. `finish` refuses what nobody asked for, so that no option is ever ignored."""

    def __init__(
        self,
        class_name: str,
        config: Mapping[str, Any],
        keras: KerasVersion,
        assumed: list[str],
        *,
        masked_with_states: bool = False,
    ) -> None:
        """`assumed` collects, in words, each default that the file's own Keras version fixed.

        `masked_with_states` says of a recurrent layer that its calls are given both a mask and states.
        """
        self.class_name = class_name
        self.keras = keras
        self.config = config
        self.masked_with_states = masked_with_states
        self._assumed = assumed
        self._left = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
        name = config.get("name", class_name.lower())
        if not isinstance(name, str) or len(name) > 1000:
            raise UnreadableFile(f"a {class_name} layer has the name {str(name)[:40]!r}, which is not one")
        self.name = name
        precision(config.get("dtype"), f"the {self}")

    def __str__(self) -> str:
        """For messages: LSTM layer 'lstm_1'."""
        return f"{self.class_name} layer {self.name!r}"

    def assume(self, what: str) -> None:
        """Put on record what the file does not say and its Keras version fixes."""
        self._assumed.append(f"the {self}: {what}")

    def take(self, key: str, expected: type[T], default: T | None = None) -> T:
        """The option `key`, of type `expected`; absent or null it is `default`, and an error where that is None."""
        value = self._left.pop(key, None)
        if value is None:
            value = default
        if expected is float:
            if isinstance(value, dict):  # as Keras 2.0 wrote a NumPy number
                value = value.get("value")
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 100:
                value = float(value)
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise UnreadableFile(f"the {self} has {key} = {str(value)[:40]!r}, where {expected.__name__} was expected")
        if isinstance(value, float) and not math.isfinite(value):
            raise UnreadableFile(f"the {self} has {key} = {value}, where a finite number was expected")
        return value

    def integers(self, key: str, default: list[int] | None = None) -> list[int]:
        """The option `key`, an integer or a list of them; absent or null it is `default`, or else an error."""
        value = self._left.pop(key, None)
        listed = default if value is None else value if isinstance(value, list) else [value]
        if listed is None or not all(
            isinstance(item, int) and not isinstance(item, bool) and abs(item) < MAX_SIZE for item in listed
        ):
            raise UnreadableFile(f"the {self} has {key} = {str(value)[:40]!r}, where integers were expected")
        return listed

    def size(self, key: str, default: int | None = None) -> int:
        """The option `key`, one positive integer, alone or in a list; absent or null it is `default`, or an error."""
        sizes = self.integers(key, None if default is None else [default])
        if len(sizes) != 1 or sizes[0] < 1:
            raise UnreadableFile(f"the {self} has {key} = {str(sizes)[:40]}, where one positive integer was expected")
        return sizes[0]

    def sizes(self, key: str, count: int, default: list[int] | None = None) -> list[int]:
        """The option `key`, a positive integer for each of so many axes or one for all; else as `size`."""
        sizes = self.integers(key, default)
        if len(sizes) not in {1, count} or min(sizes) < 1:
            wanted = f"{count} positive integers were" if count > 1 else "one positive integer was"
            raise UnreadableFile(f"the {self} has {key} = {str(sizes)[:40]}, where {wanted} expected")
        return sizes * (count // len(sizes))

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """The option `key`, one of `choices`; absent it is `default`."""
        value = self._left.pop(key, default)
        if value not in choices:
            raise Unsupported(f"the {self} has {key} = {str(value)[:40]!r}; supported are {', '.join(choices)}")
        return str(value)

    def inner(self, key: str) -> "Options | None":
        """The layer that the option `key` holds, with the version and the record of this one; None where absent."""
        value = self._left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
            raise UnreadableFile(f"the {self} has {key} = {str(value)[:40]!r}, where a layer was expected")
        return self._of(str(value.get("class_name"))[:100], value["config"])

    def at(self, key: str, index: int) -> "Options":
        """The layer at `index` of the list that the option `key` holds."""
        inner = self.with_config({key: self.config[key][index]}).inner(key)
        if inner is None:
            raise UnreadableFile(f"the {self} has a null in {key}, where a layer was expected")
        return inner

    def with_config(self, config: Mapping[str, Any]) -> "Options":
        """A layer of the same class with another config."""
        return self._of(self.class_name, config)

    def _of(self, class_name: str, config: Mapping[str, Any]) -> "Options":
        return Options(class_name, config, self.keras, self._assumed, masked_with_states=self.masked_with_states)

    def renamed(self, name: str) -> "Options":
        """The same layer under another name."""
        return self.with_config({**self.config, "name": name})

    def refusal(self, why: str) -> Unsupported:
        """The refusal of the layer, or of a call."""
        return Unsupported(f"the {self} {why}")

    def refuse_unless(self, key: str, expected: object, why: str) -> None:
        """Refuse the model unless the option is absent, null or `expected`."""
        value = self._left.pop(key, None)
        if value is not None and value != expected:
            raise Unsupported(f"the {self} has {key} = {str(value)[:40]!r}, which is not supported: {why}")

    def ignore(self, *keys: str) -> None:
        """Take options that change nothing at inference in this class of layers."""
        for key in keys:
            self._left.pop(key, None)

    def ignore_training_of(self, *arrays: str) -> None:
        """Take how arrays were begun and held while they were trained."""
        self.ignore(*(f"{name}_{what}" for name in arrays for what in ("initializer", "regularizer", "constraint")))

    def activation(self, key: str, default: str) -> Activation:
        """The activation that `key` names: a string, or an object with a class_name and a config."""
        value = self._left.pop(key, None)
        if value is None:
            value = default
        config: Any = {}
        if isinstance(value, dict):
            config = value.get("config")
            value = config if isinstance(config, str) else value.get("class_name")
        if not isinstance(value, str):
            raise Unsupported(f"the {self} has {key} = {str(value)[:40]!r}, which is not the name of an activation")
        if value in ACTIVATION_LAYERS and isinstance(config, dict):
            options = self._of(value, config)
            activation = ACTIVATION_LAYERS[value](options)
            options.finish()
            return activation
        return named_activation(value, self.keras, f"the {self} has {key} =")

    def finish(self) -> None:
        """Refuse what was never asked for; null says nothing and is let go."""
        unknown = sorted(key for key, value in self._left.items() if value is not None)
        if unknown:
            raise Unsupported(f"the {self} has options that are not supported: {', '.join(unknown)[:200]}")


def _leaky_relu(options: Options) -> Activation:
    # Keras 2 calls it alpha, Keras 3 negative_slope.
    return leaky_relu(options.take("negative_slope", float, options.take("alpha", float, 0.3)))


def _relu(options: Options) -> Activation:
    infinite = options.config.get("max_value") is None
    return relu(
        None if infinite else options.take("max_value", float),
        options.take("negative_slope", float, 0.0),
        options.take("threshold", float, 0.0),
    )


def _thresholded_relu(options: Options) -> Activation:
    # x above theta, where a ReLU gives x from its threshold on: the next number above theta.
    theta = np.float32(options.take("theta", float, 1.0))
    return relu(threshold=float(np.nextafter(theta, np.float32(np.inf))))


def _softmax(options: Options) -> Activation:
    options.refuse_unless("axis", expected=-1, why="softmax is taken over the last axis")
    return SOFTMAX


# Layers that do what an activation does, and that Keras also takes as one.
ACTIVATION_LAYERS: dict[str, Callable[[Options], Activation]] = {
    "LeakyReLU": _leaky_relu,
    "ReLU": _relu,
    "ELU": lambda options: elu(options.take("alpha", float, 1.0)),
    "Softmax": _softmax,
    "ThresholdedReLU": _thresholded_relu,
}
