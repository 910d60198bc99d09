"""The activations that a file or a person names."""

from lstm_serve.engine.activations import (
    ACTIVATIONS,
    HARD_SIGMOID_KERAS_2,
    HARD_SIGMOID_KERAS_3,
    Activation,
)
from lstm_serve.errors import MissingFact, Unsupported
from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.refusals import nearest


def named_activation(name: str, keras: KerasVersion, where: str) -> Activation:
    """The activation that `name` means in that Keras. `where` begins the refusal of an unknown one."""
    if name == "hard_sigmoid":
        if not keras.known:
            raise MissingFact(
                f"{where} 'hard_sigmoid', which is one function in Keras 1 and 2 and another in Keras 3, and no file "
                "tells the version. Say hard_sigmoid_keras_2 or hard_sigmoid_keras_3"
            )
        return HARD_SIGMOID_KERAS_3 if keras.major >= 3 else HARD_SIGMOID_KERAS_2
    if name in UNAMBIGUOUS:
        return UNAMBIGUOUS[name]
    if name not in ACTIVATIONS:
        known = ("hard_sigmoid", *UNAMBIGUOUS, *ACTIVATIONS)
        raise Unsupported(f"{where} {name[:40]!r}, which is not a supported activation. {nearest(name, known)}")
    return ACTIVATIONS[name]


# What a person may say; no Keras writes these.
UNAMBIGUOUS = {"hard_sigmoid_keras_2": HARD_SIGMOID_KERAS_2, "hard_sigmoid_keras_3": HARD_SIGMOID_KERAS_3}
