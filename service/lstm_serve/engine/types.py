"""The types that every module of the engine shares."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Which steps of a sequence count, bool (b, T); None where all do.
Mask = npt.NDArray[np.bool_] | None
# Without the batch axis; None is a free axis.
Shape = tuple[int | None, ...]
# What is carried from one time step to the next, each array (n, ...): n series are taken apart and joined along it.
State = tuple[Array, ...]
# What an operation gives: its outputs, and the mask of each.
Outputs = tuple[tuple[Array, ...], tuple[Mask, ...]]
