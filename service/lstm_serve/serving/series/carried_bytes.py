"""What a stateful model has made of a series, as bytes and back, each number as it was: a line of JSON, then arrays."""

import json
import math

import numpy as np

from lstm_serve.engine.types import Array
from lstm_serve.serving.series.store import Carried


def carried_to_bytes(carried: Carried) -> bytes:
    """The bytes of it."""
    arrays = carried.ys, *carried.state
    forms = [(array.dtype.str, array.shape) for array in arrays]
    head = json.dumps((carried.digest, carried.rows_in_state, forms)).encode()
    return b"\n".join((head, b"".join(array.tobytes() for array in arrays)))


def carried_of_bytes(given: bytes) -> Carried:
    """What `carried_to_bytes` gave; its arrays are not to be written into."""
    head, _, rest = given.partition(b"\n")
    digest, rows_in_state, forms = json.loads(head)
    arrays, at = list[Array](), 0
    for dtype, shape in forms:
        array: Array = np.frombuffer(rest, dtype, math.prod(shape), at).reshape(shape)
        arrays.append(array)
        at += array.nbytes
    ys, *state = arrays
    return Carried(digest, tuple(state), ys, rows_in_state)
