"""A model file, read aside, by a child process that can be lost.

A damaged file can crash or stall the HDF5 library, which no exception handler sees. So a file that is to replace the
one being served is first read here, under limits, where nothing of the web comes in.
"""

import json
import sys
from pathlib import Path

from lstm_serve.errors import ModelError
from lstm_serve.formats import system_limits

# What the libraries reserve; and how many times the arrays' bytes reading takes at most: unpacked from a zip, read, and
# once more while layers are made of them and golden predictions replayed.
ADDRESS_SPACE = 2 << 30
COPIES = 3
MAX_CPU_SECONDS = 120  # for one model
NO_MEMORY = "reading it needs more memory than there is for it"


def main(arguments: str) -> int:
    """Load the model and replay its golden predictions: 0 if it can be served, 3 and the reason on stdout if not.

    `arguments` are load_model's, a JSON object, with the max_bytes that its limits follow. With `paths` in place of a
    path each is read, without its golden predictions, and a line is written once it was, well or not: empty, but where
    reading it took more memory than there is, which the service must not try.
    """
    told = json.loads(arguments)
    paths = told.pop("paths", None)
    system_limits.lower_limit("RLIMIT_AS", ADDRESS_SPACE + COPIES * told["max_bytes"])
    if paths is None:
        system_limits.lower_limit("RLIMIT_CPU", MAX_CPU_SECONDS)
    system_limits.lower_limit("RLIMIT_CORE", 0)
    _go_first()
    from lstm_serve.loading.load import load_model  # noqa: PLC0415 - under the limits already

    if paths is not None:
        for path in paths:
            system_limits.allow_more_seconds(MAX_CPU_SECONDS)
            reason = ""
            try:
                load_model(path, replay=False, **told)
            except MemoryError:
                reason = NO_MEMORY
            except ModelError:
                pass  # loading it says why
            sys.stdout.write(f"{reason}\n")
            sys.stdout.flush()
        return 0
    try:
        load_model(**told)
    except ModelError as error:
        sys.stdout.buffer.write(str(error).encode(errors="backslashreplace"))
        return 3
    except MemoryError:
        sys.stdout.write(f"{told['path']}: {NO_MEMORY}")
        return 3
    return 0


def _go_first() -> None:
    """Where memory runs out, let it be this process that is ended and not the service, on Linux."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    except OSError:
        return
