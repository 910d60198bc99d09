"""Every activation that the engine has: those of ACTIVATIONS, those of two names, and what each function makes."""

import inspect

from lstm_serve.engine import activations
from lstm_serve.engine.activations import Activation, celu, elu, leaky_relu, relu

# By the function that makes them: numbers that no name has.
MADE = {
    "elu": [elu(0.3)],
    "celu": [celu(0.3)],
    "leaky_relu": [leaky_relu(-0.1)],
    "relu": [relu(0.75, 0.1, -1.5), relu(max_value=1, negative_slope=0.1, threshold=0.3), relu(negative_slope=0.2)],
}


def _makers() -> list[str]:
    found = inspect.getmembers(activations, inspect.isfunction)
    return [name for name, function in found if inspect.get_annotations(function).get("return") is Activation]


_CONSTANTS = [one for one in vars(activations).values() if isinstance(one, Activation)]
_EACH = (*activations.ACTIVATIONS.values(), *_CONSTANTS, *(one for name in _makers() for one in MADE[name]))
EVERY_ACTIVATION = [*{id(one): one for one in _EACH}.values()]
