"""lstm-serve: a trained Keras recurrent model, served without Keras.

    from lstm_serve import load_model
    probabilities = load_model("model.h5").predict(x)

Names are resolved when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstm_serve.errors import (
        InvalidInput,
        LstmServeError,
        MissingFact,
        ModelError,
        UnreadableFile,
        Unsupported,
        WrongNumbers,
    )
    from lstm_serve.loading.load import load_model
    from lstm_serve.model.model import Model
    from lstm_serve.scoring.evaluate import evaluate

__all__ = [
    "InvalidInput",
    "LstmServeError",
    "MissingFact",
    "Model",
    "ModelError",
    "UnreadableFile",
    "Unsupported",
    "WrongNumbers",
    "__version__",
    "evaluate",
    "load_model",
]
__version__ = "0.2.0"

_HOMES = {"Model": "model.model", "evaluate": "scoring.evaluate", "load_model": "loading.load"}


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
