"""Loads each file that standard input names, and says how it went: a process of its own, since a damaged HDF5 file can
kill the one that reads it.
"""

import json
import math
import re
import sys
import time
from pathlib import Path

import numpy as np

from lstm_serve import load_model
from lstm_serve.errors import LstmServeError

# Of this program alone: getrusage tells no less than what the process had that started it.
PEAK = re.compile(r"VmHWM:\s+([0-9]+) kB")


def outcome(path: str) -> str:
    try:
        model = load_model(path, replay=False)
    except LstmServeError as error:
        named = str(error).startswith(path) and len(str(error)) > len(path) + 10
        return "refused" if named else f"an error that does not name the file: {error}"
    for node in model.nodes:
        for name, array in node.operation.weights.items():
            if not np.isfinite(array).all():
                return f"{node.operation.name} has {name} that is not finite"
    shape = tuple(4 if size is None else size for size in model.input_shape)
    # A model may say that it computes millions of steps; that it does is no fault of the loader's.
    sizes = [[size or 4 for size in sizes] for sizes in (shape, *model.shapes)]
    if any(math.prod(size) > 100_000 for size in sizes) or shape[0] > 1000:
        return "loaded"
    try:
        y = model.predict(np.zeros((1, *shape)))
    except LstmServeError as error:
        return "loaded" if "too few time steps" in str(error) else f"{type(error).__name__}: {error}"
    expected = tuple(size for size in model.output_shape if size is not None)
    return "loaded" if y.dtype == np.float32 and set(expected) <= set(y.shape[1:]) else f"gives {y.shape}"


for line in sys.stdin:
    start = time.process_time()
    try:
        how = outcome(line.rstrip("\n"))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        how = f"{type(error).__name__}: {error}"
    peak = int(PEAK.findall(Path("/proc/self/status").read_text())[0]) >> 10
    print(json.dumps({"how": how, "seconds": time.process_time() - start, "mib": peak}), flush=True)  # noqa: T201
