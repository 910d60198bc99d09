"""Processes that this one starts: how they come to run the same code as it does, and how they have ended."""

import signal
import sys

# The same code as this process runs, wherever it was started from.
PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from {} import main; sys.exit(main(sys.argv[1]))"


def python(program: str, told: str) -> list[str]:
    """Return the command that runs a program, PROGRAM with a module in it, with this argument for its `main`."""
    return [sys.executable, "-P", "-c", program, told, *sys.path]


def how_ended(status: int) -> str:
    """Say by what signal, or with what status, a process has ended."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
