"""What the commands share: how one is declared, the arguments that say a model, and what is told on the way."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_serve.formats.text import printable
from lstm_serve.limits import MAX_MODEL_BYTES

if TYPE_CHECKING:
    from lstm_serve import Model
    from lstm_serve.scoring.inputs import Sequences

AddParser = Callable[..., argparse.ArgumentParser]

EXAMPLES = {
    "serve": "lstm-serve serve model.h5 --port 8081",
    "predict": "lstm-serve predict model.h5 series.csv",
    "follow": "tail -n +1 -f rows.csv | lstm-serve follow model.h5 --by unit",
    "evaluate": "lstm-serve evaluate model.h5 labelled.csv --label state --by unit",
    "profile": "lstm-serve profile model.h5 train.csv --by unit",
    "explain": "lstm-serve explain model.h5 series.csv --row 150",
    "inspect": "lstm-serve inspect model.h5 --trace series.csv --step 3",
    "export": "lstm-serve export model.h5 --to keras -o model.keras --check",
}

# What files of inputs are called; a model may be JSON too.
INPUTS = (".csv", ".npy", ".json", ".parquet")

# Whose activation each is.
TOLD = {"recurrent_activation": "the gates'", "output_activation": "the output's"}


def add_model(command: argparse.ArgumentParser) -> None:
    """Declare what says a model, and what no file of weights tells."""
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
        type=positive_integer,
        help=f"most memory for the model's arrays (default LSTMSERVE_MAX_MODEL_BYTES, or {MAX_MODEL_BYTES})",
    )


def add_by(command: argparse.ArgumentParser) -> None:
    """Declare what tells units apart."""
    command.add_argument(
        "--by",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a column that names the unit a row is of, each a series of its own; several, where it takes several",
    )


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user says of the model, as load_model takes it."""
    from lstm_serve import settings
    from lstm_serve.errors import SettingsError

    told = {name: value for name in (*TOLD, "max_bytes") if (value := getattr(arguments, name)) is not None}
    try:
        limit = settings.model_bytes(os.environ)
    except SettingsError as error:
        arguments.misused(str(error))
    return told if limit is None else {"max_bytes": limit, **told}


def model_of(arguments: argparse.Namespace, *, replay: bool = True, profile: bool = True) -> "Model":
    """Return the model that the arguments say, loaded. Raises ModelError."""
    from lstm_serve import load_model
    from lstm_serve.errors import ModelError
    from lstm_serve.model.files import MODELS

    try:
        return load_model(arguments.model, replay=replay, profile=profile, **load_options(arguments))
    except ModelError as error:
        others = [Path(other) for name in ("input", "labelled", "train") if (other := getattr(arguments, name, None))]
        swapped = any(other.suffix in MODELS or other.is_dir() for other in others)
        if not swapped or Path(arguments.model).suffix not in INPUTS:
            raise
        raise type(error)(f"the model comes first, as in: {arguments.example}. {error}") from None


def add_command(add_parser: AddParser, name: str, purpose: str) -> argparse.ArgumentParser:
    """Return the parser of a new command, which says by `misused` what is wrong, and by `shown` its help."""
    command = add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(misused=command.error, shown=command.format_help, example=EXAMPLES[name])
    return command


def expect_other_file(arguments: argparse.Namespace) -> None:
    """Refuse, as misused, to write over the input, or a file of its pattern."""
    from lstm_serve.formats.parquet import matching

    if arguments.out is not None and any(is_same_file(arguments.out, one) for one in matching(arguments.input)):
        arguments.misused(f"-o {arguments.out[:100]!r} is the file that is read; name another")


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether both are there, and are one file."""
    return Path(one).exists() and Path(other).exists() and Path(one).samefile(other)


def positive_integer(text: str) -> int:
    """Return the number that an argument says, from 1 on."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:15]) < 1 << 45):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 on")
    return int(text)


def with_notes_said(sequences: "Sequences") -> "Sequences":
    """The sequences, once what was done to read them has been said, and that they may be of several units."""
    for note in sequences.told:
        say(note)
    return sequences


def say(message: str) -> None:
    """Tell the user something beside the output."""
    sys.stderr.write(f"lstm-serve: {printable(message)}\n")
