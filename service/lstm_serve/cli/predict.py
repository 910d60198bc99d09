"""The command `predict`: a file of inputs, answered without a server."""

import argparse
import sys

from lstm_serve.cli.arguments import (
    AddParser,
    add_by,
    add_command,
    add_model,
    expect_other_file,
    model_of,
    positive_integer,
    with_notes_said,
)


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "predict", "answer a file: CSV, JSON, Parquet, .npy or .npz")
    add_model(command)
    command.add_argument(
        "input",
        metavar="INPUT",
        help="a series, one row a time step, or ready sequences; of Parquet a 'pattern*' too; - is standard input",
    )
    command.add_argument("-o", metavar="OUT", dest="out", help="write .npy, .csv, .json or .parquet, and no table")
    command.add_argument(
        "--stride",
        metavar="N",
        type=positive_integer,
        default=1,
        help="rows from one window of a series to the next (1)",
    )
    add_by(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer the file. Gives the exit status."""
    from lstm_serve.scoring import inputs, outputs

    if arguments.out is not None and not outputs.writes(arguments.out):
        arguments.misused(f"-o {arguments.out[:100]!r} should end in {', '.join(outputs.WRITERS)}")
    expect_other_file(arguments)
    model = model_of(arguments)
    sequences = with_notes_said(inputs.read(arguments.input, model, arguments.stride, arguments.by))
    if arguments.out is None:
        outputs.show(model, sequences, sys.stdout)
    else:
        outputs.write(model, sequences, arguments.out)
    return 0
