"""Functions of one array that graphs have between layers, and that no layer takes as its activation.

Each works in place, as activations do.
"""

import numpy as np

from lstm_serve.engine.activations import Activation

# By the names that Keras 3 gives them.
FUNCTIONS = {
    function.name: function
    for function in (
        Activation("absolute", "|x|", lambda x: np.absolute(x, out=x)),
        Activation("square", "x x", lambda x: np.square(x, out=x)),
        Activation("sqrt", "sqrt(x)", lambda x: np.sqrt(x, out=x)),
        Activation("rsqrt", "1 / sqrt(x)", lambda x: np.reciprocal(np.sqrt(x, out=x), out=x)),
        Activation("log", "log(x)", lambda x: np.log(x, out=x)),
        Activation("log1p", "log(1 + x)", lambda x: np.log1p(x, out=x)),
        Activation("negative", "-x", lambda x: np.negative(x, out=x)),
        Activation("reciprocal", "1 / x", lambda x: np.reciprocal(x, out=x)),
        Activation("sin", "sin(x)", lambda x: np.sin(x, out=x)),
        Activation("cos", "cos(x)", lambda x: np.cos(x, out=x)),
    )
}
