"""Keras' JSON: parsed with bounds, its version, and a layer's options, none of which is ever ignored unseen."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from service.engine.activations import ACTIVATIONS, HARD_SIGMOID_KERAS_2, HARD_SIGMOID_KERAS_3, Activation
from service.errors import UnreadableFile, Unsupported

T = TypeVar("T")

MAX_DEPTH = 100
MAX_LAYERS = 1000


def parse(text: str, what: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Parse JSON strictly: no NaN, no endless nesting. `what` names the text in an error."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise UnreadableFile(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise UnreadableFile(f"{what} is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(frozen=True, slots=True)
class KerasVersion:
    """The Keras that saved a file; `text` is as in the file, such as "2.2.4-tf"."""

    text: str | None
    major: int
    minor: int
    tf: bool

    @classmethod
    def parse(cls, text: str | None) -> "KerasVersion":
        """Of `keras_version`; None, as Keras 1.0 wrote it, is 1.0."""
        if text is None:
            return cls(None, 1, 0, tf=False)
        match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
        if match is None:
            raise UnreadableFile(f"keras_version {text[:40]!r} is not a version number")
        major, minor = int(match[1]), int(match[2])
        # From 2.4 on the number is TensorFlow's own, without a suffix.
        return cls(text, major, minor, tf=text.endswith("-tf") or (2, 4) <= (major, minor) < (3, 0))


# Options of any layer that change nothing at inference.
WITHOUT_EFFECT = frozenset(
    {
        "name",
        "trainable",
        "dtype",
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

    def __init__(self, class_name: str, config: Mapping[str, Any], keras: KerasVersion, assumed: list[str]) -> None:
        """`assumed` collects, in words, each default that the file's own Keras version fixed."""
        self.class_name = class_name
        self.keras = keras
        self.assumed = assumed
        self._left = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
        name = config.get("name", class_name.lower())
        if not isinstance(name, str) or len(name) > 1000:
            raise UnreadableFile(f"a {class_name} layer has the name {str(name)[:40]!r}, which is not one")
        self.name = name

    def __str__(self) -> str:
        """For messages: LSTM layer 'lstm_1'."""
        return f"{self.class_name} layer {self.name!r}"

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The option `key`, of type `kind`; absent or null it is `default`, and an error where that is None."""
        value = self._left.pop(key, None)
        if value is None:
            value = default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UnreadableFile(f"the {self} has {key} = {str(value)[:40]!r}, where {kind.__name__} was expected")
        return value

    def integers(self, key: str, default: list[int]) -> list[int]:
        """The option `key`, an integer or a list of them; absent or null it is `default`."""
        value = self._left.pop(key, None)
        listed = default if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in listed):
            raise UnreadableFile(f"the {self} has {key} = {str(value)[:40]!r}, where integers were expected")
        return listed

    def refuse_unless(self, key: str, expected: object, why: str) -> None:
        """Refuse the model unless the option is absent, null or `expected`."""
        value = self._left.pop(key, None)
        if value is not None and value != expected:
            raise Unsupported(f"the {self} has {key} = {str(value)[:40]!r}, which is not supported: {why}")

    def ignore(self, *keys: str) -> None:
        """Take options that change nothing at inference in this class of layers."""
        for key in keys:
            self._left.pop(key, None)

    def activation(self, key: str, default: str) -> Activation:
        """The activation that `key` names: a string, or an object with a class_name or a config."""
        value = self._left.pop(key, None)
        if value is None:
            value = default
        if isinstance(value, dict):
            config = value.get("config")
            value = config if isinstance(config, str) else value.get("class_name")
        if not isinstance(value, str):
            raise Unsupported(f"the {self} has {key} = {str(value)[:40]!r}, which is not the name of an activation")
        return named_activation(value, self.keras, f"the {self} has {key} =")

    def finish(self) -> None:
        """Refuse what was never asked for; null says nothing and is let go."""
        unknown = sorted(key for key, value in self._left.items() if value is not None)
        if unknown:
            raise Unsupported(f"the {self} has options that are not supported: {', '.join(unknown)[:200]}")


def named_activation(name: str, keras: KerasVersion, where: str) -> Activation:
    """The activation that `name` means in that Keras. `where` begins the refusal of an unknown one."""
    if name == "hard_sigmoid":
        return HARD_SIGMOID_KERAS_3 if keras.major >= 3 else HARD_SIGMOID_KERAS_2
    if name not in ACTIVATIONS:
        raise Unsupported(
            f"{where} {name[:40]!r}, which is not a supported activation. Supported: "
            f"hard_sigmoid, {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
