"""lstm-serve: a trained Keras recurrent model, served without Keras.

    from lstm_serve import load_model
    probabilities = load_model("model.h5").predict(x)

Names are resolved when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstm_serve.loading.load import load_model
    from lstm_serve.model.model import Model

__all__ = ["Model", "__version__", "load_model"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name == "load_model":
        from lstm_serve.loading.load import load_model

        return load_model
    if name == "Model":
        from lstm_serve.model.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
