"""The command line. A command is two functions: one declares its arguments, one runs it and imports what it needs.

Exit status: 0 good, 1 an input or an output that does not do, 2 wrong usage, 3 a model that cannot be served.
"""

import argparse
import difflib
import gc
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lstm_serve import __version__
from lstm_serve.cli import evaluate, explain, export, follow, inspect, predict, profile, serve
from lstm_serve.cli.arguments import EXAMPLES, say
from lstm_serve.errors import LstmServeError, ModelError

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

# What a shell reports for a process that SIGINT or SIGPIPE has ended; for others it is 128 more than the signal.
INTERRUPTED = 130
PIPE_CLOSED = 141

# SIGTERM, and that of a terminal that is closed, which Windows does not have.
ENDING: list[signal.Signals] = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """One of these signals, its argument: what a command has begun to write goes, as on Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status. Wrong usage ends in argparse's own SystemExit."""
    given = sys.argv[1:] if argv is None else argv
    _prepare(given)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    if argv is None and not _serves(given):  # the process is this command's; a server has its own way to stop
        _take_signals()
    try:
        try:
            arguments = _arguments(given)
            status: int = arguments.run(arguments)
        finally:
            sys.stdout.flush()
    except LstmServeError as error:
        say(str(error))
        return 3 if isinstance(error, ModelError) else 1
    except OSError as error:
        # What is still buffered goes nowhere, or the interpreter would complain of it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        say(f"the output cannot be written: {error.strerror or error}")
        return 1
    except KeyboardInterrupt as error:
        # Or the interpreter would wait for threads that compute.
        os._exit(128 + error.args[0] if isinstance(error, Terminated) else INTERRUPTED)
    return status


def _take_signals() -> None:
    def end(sig: int, _frame: FrameType | None) -> None:
        signal.signal(sig, signal.SIG_IGN)  # a second one would end the tidying up
        raise Terminated(sig)

    for sig in ENDING:
        if signal.getsignal(sig) is not signal.SIG_IGN:  # who started this may have asked for that, as nohup does
            signal.signal(sig, end)


def _prepare(argv: Sequence[str]) -> None:
    # BLAS reads this once, when NumPy comes in. By default it starts a thread a core, which products as small as a
    # step's only wait for.
    if not any(name in os.environ for name in BLAS_THREADS):
        os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    # Pydantic would look through every installed package for plugins of its own, 7 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if _serves(argv):
        # Until the server runs: importing leaves nothing to collect, and looking for it takes a tenth of the start.
        gc.disable()


def _serves(argv: Sequence[str]) -> bool:
    return [*argv[:1]] == ["serve"]


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lstm-serve",
        description="A trained Keras recurrent model, without Keras.",
        epilog="\n  ".join(["examples:", *EXAMPLES.values()]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lstm-serve {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add(commands.add_parser, with_flags=_serves(argv))
    predict.add(commands.add_parser)
    follow.add(commands.add_parser)
    evaluate.add(commands.add_parser)
    profile.add(commands.add_parser)
    explain.add(commands.add_parser)
    inspect.add(commands.add_parser)
    export.add(commands.add_parser)
    return parser


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command. What is wrong with them is told with what may have been meant."""
    parser = _parser(given)
    first = given[0] if given else ""
    if first and first not in EXAMPLES and not first.startswith("-"):
        if Path(first).suffix or Path(first).exists():
            parser.error(f"{first[:100]!r} is no command; for a model: lstm-serve serve {first[:100]}")
        if near := difflib.get_close_matches(first, EXAMPLES, n=1):
            parser.error(f"{first[:100]!r} is no command. Did you mean {near[0]}?")
    arguments, unknown = parser.parse_known_args(given)
    flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    if "--model" in flags:
        arguments.misused(f"--model is no flag: the model is given without one, as in: {EXAMPLES[first]}")
    if flags and _serves(given):
        from lstm_serve import settings

        for flag in flags:
            if instead := settings.instead_of_flag(flag):
                arguments.misused(instead)
    if flags:
        known = re.findall(r"--[a-z][a-z-]+", arguments.shown())
        near = difflib.get_close_matches(flags[0], known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        arguments.misused(f"{flags[0][:100]} is no flag of this command.{meant} --help lists them")
    if unknown:
        quoted = " (a pattern of files goes in quotes)" if unknown[0].endswith(".parquet") else ""
        arguments.misused(
            f"unrecognized arguments: {' '.join(unknown)[:200]}{quoted}; it is called as in: {EXAMPLES[first]}"
        )
    return arguments
