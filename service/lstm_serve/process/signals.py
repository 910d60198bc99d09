"""The signals that end the service, and the one that asks for the model anew."""

import os
import signal
import sys
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


class Hangup:
    """Whether SIGHUP has come: from a person, who wants the model read again, or from a terminal that was closed."""

    def __init__(self) -> None:
        """Take note from now on: by default the signal would end the process."""
        self.came = False
        self._on_terminal = sys.stdout.isatty()
        if hasattr(signal, "SIGHUP"):  # Windows has none
            signal.signal(signal.SIGHUP, self._note)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.came = True

    @property
    def of_terminal(self) -> bool:
        """Whether there was a terminal and is none any more."""
        return self._on_terminal and not os.isatty(sys.stdout.fileno())
