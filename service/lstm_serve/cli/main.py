"""The command line. A command is two functions: one declares its arguments, one runs it and imports what it needs.

Exit status: 0 good, 1 an input or an output that does not do, 2 wrong usage, 3 a model that cannot be served.
"""

import argparse
import difflib
import gc
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_serve import __version__
from lstm_serve.errors import LstmServeError, ModelError
from lstm_serve.formats.text import printable
from lstm_serve.limits import MAX_MODEL_BYTES

if TYPE_CHECKING:
    from lstm_serve import Model
    from lstm_serve.scoring.inputs import Sequences

AddParser = Callable[..., argparse.ArgumentParser]

EXAMPLES = {
    "serve": "lstm-serve serve model.h5 --port 8081",
    "predict": "lstm-serve predict model.h5 series.csv",
    "evaluate": "lstm-serve evaluate model.h5 labelled.csv --label state --by unit",
    "inspect": "lstm-serve inspect model.h5 --trace series.csv --step 3",
    "export": "lstm-serve export model.h5 --to keras -o model.keras --check",
}

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

NO_FLAG = "--api-keys"

# What a shell reports for a process that SIGINT, or SIGPIPE, has ended.
INTERRUPTED = 130
PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status. Wrong usage ends in argparse's own SystemExit."""
    given = sys.argv[1:] if argv is None else argv
    _prepare(given)
    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = _arguments(given)
            status: int = arguments.run(arguments)
        finally:
            sys.stdout.flush()
    except LstmServeError as error:
        _say(str(error))
        return 3 if isinstance(error, ModelError) else 1
    except OSError as error:
        # What is still buffered goes nowhere, or the interpreter would complain of it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        _say(f"the output cannot be written: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


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
    _add_serve(commands.add_parser, with_flags=_serves(argv))
    _add_predict(commands.add_parser)
    _add_evaluate(commands.add_parser)
    _add_inspect(commands.add_parser)
    _add_export(commands.add_parser)
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
    if NO_FLAG in flags:
        arguments.misused(
            f"{NO_FLAG} is no flag, as everyone can list a command line: set LSTMSERVE_API_KEYS, or give {NO_FLAG}-file"
        )
    if flags:
        known = re.findall(r"--[a-z][a-z-]+", arguments.shown())
        near = difflib.get_close_matches(flags[0], known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        arguments.misused(f"{flags[0][:100]} is no flag of this command.{meant} --help lists them")
    if unknown:
        arguments.misused(f"unrecognized arguments: {' '.join(unknown)[:200]}")
    return arguments


def _add_serve(add_parser: AddParser, *, with_flags: bool) -> None:
    command = _command(add_parser, "serve", "serve a model over HTTP")
    command.usage = "lstm-serve serve [MODEL] [flags]"
    command.add_argument("model", metavar="MODEL", nargs="?", help="a file that Keras saved, or a folder with one")
    command.set_defaults(run=_serve, misused=command.error)
    if with_flags:  # they are the settings, and Pydantic, which holds those, takes its time to come in
        from lstm_serve import settings

        settings.add_flags(command)


def _serve(arguments: argparse.Namespace) -> int:
    from lstm_serve import settings
    from lstm_serve.errors import SettingsError
    from lstm_serve.process import server

    flags = {name: value for name, value in vars(arguments).items() if name in settings.Settings.model_fields}
    try:
        server.run(settings.read(os.environ, flags))
    except SettingsError as error:
        arguments.misused(str(error))
    return 0


def _add_predict(add_parser: AddParser) -> None:
    command = _command(add_parser, "predict", "answer a file: CSV, JSON, .npy or .npz")
    _add_model(command)
    command.add_argument(
        "input", metavar="INPUT", help="a series, one row a time step, or ready sequences; - is standard input"
    )
    command.add_argument("-o", metavar="OUT", dest="out", help="write to a .npy, .csv or .json file, not a table")
    command.add_argument(
        "--stride", metavar="N", type=_positive, default=1, help="rows from one window of a series to the next (1)"
    )
    command.add_argument(
        "--by",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a column that names the unit a row is of, each a series of its own; several, where it takes several",
    )
    command.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from lstm_serve.scoring import inputs, outputs

    if arguments.out is not None and not outputs.writes(arguments.out):
        arguments.misused(f"-o {arguments.out[:100]!r} should end in {', '.join(outputs.WRITERS)}")
    model = _model(arguments)
    sequences = _noted(inputs.read(arguments.input, model, arguments.stride, arguments.by))
    if sequences.mixed is not None:
        _say(sequences.mixed)
    if arguments.out is None:
        outputs.show(model, sequences, sys.stdout)
    else:
        outputs.write(model, sequences, arguments.out)
    return 0


def _add_evaluate(add_parser: AddParser) -> None:
    from lstm_serve.cli import evaluate

    command = _command(add_parser, "evaluate", "say how good a model's answers are, or where two models differ")
    _add_model(command)
    evaluate.add_arguments(command)
    command.set_defaults(
        run=lambda arguments: evaluate.run(
            arguments, lambda path: _model(argparse.Namespace(**{**vars(arguments), "model": path})), _say
        )
    )


def _add_inspect(add_parser: AddParser) -> None:
    command = _command(add_parser, "inspect", "say what a model is, and how its arrays lead to its answers")
    _add_model(command)
    command.add_argument("--trace", metavar="INPUT", help="show the values along the way for INPUT's first sequence")
    command.add_argument("--step", metavar="T", type=_positive, help="the time step that --trace shows (the last)")
    command.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from lstm_serve.explain import report as explain
    from lstm_serve.explain import trace
    from lstm_serve.loading.load import resolve
    from lstm_serve.loading.sidecars import golden
    from lstm_serve.model.files import ModelFiles
    from lstm_serve.scoring import inputs

    if arguments.step is not None and arguments.trace is None:
        arguments.misused("--step needs --trace")
    told = _told(arguments)
    model = _model(arguments, replay=False)
    path = resolve(Path(arguments.model))
    missed = None
    try:
        model = golden.replay(model, ModelFiles.of(path))
    except ModelError as error:
        missed = type(error)(f"{path}: {error}")
    if arguments.trace is None:
        report = explain.report(model, path, missed, told)
    else:
        sequences = _noted(inputs.read(arguments.trace, model))
        report = explain.head(model, path, missed) + "\n"
        report += trace.report(model, sequences, arguments.step, loading=explain.loading(path, told))
    sys.stdout.write(report)
    if missed is not None:
        raise missed
    return 0


def _add_export(add_parser: AddParser) -> None:
    from lstm_serve.cli import export

    command = _command(add_parser, "export", "write the model for Keras 3, NumPy, C, ONNX or JavaScript")
    _add_model(command)
    export.add_arguments(command)
    command.set_defaults(run=lambda arguments: export.run(arguments, _model(arguments)), misused=command.error)


# Whose activation each is.
TOLD = {"recurrent_activation": "the gates'", "output_activation": "the output's"}


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a file that Keras saved, or the folder with it")
    for name, whose in TOLD.items():
        command.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="NAME",
            help=f"{whose} activation, where a file of weights does not tell it",
        )

    command.add_argument(
        "--max-model-bytes",
        metavar="N",
        dest="max_bytes",
        type=_positive,
        help=f"most memory for the model's arrays (default LSTMSERVE_MAX_MODEL_BYTES, or {MAX_MODEL_BYTES})",
    )


def _told(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user says of the model, as load_model takes it."""
    from lstm_serve import settings
    from lstm_serve.errors import SettingsError

    told = {name: value for name in (*TOLD, "max_bytes") if (value := getattr(arguments, name)) is not None}
    try:
        limit = settings.model_bytes(os.environ)
    except SettingsError as error:
        arguments.misused(str(error))
    return told if limit is None else {"max_bytes": limit, **told}


def _model(arguments: argparse.Namespace, *, replay: bool = True) -> "Model":
    from lstm_serve import load_model

    return load_model(arguments.model, replay=replay, **_told(arguments))


def _command(add_parser: AddParser, name: str, purpose: str) -> argparse.ArgumentParser:
    command = add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(misused=command.error, shown=command.format_help)
    return command


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:15]) < 1 << 45):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 on")
    return int(text)


def _noted(sequences: "Sequences") -> "Sequences":
    """The sequences, once what was done to read them has been said."""
    for note in sequences.notes:
        _say(note)
    return sequences


def _say(message: str) -> None:
    sys.stderr.write(f"lstm-serve: {printable(message)}\n")
