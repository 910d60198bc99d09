"""The command `evaluate`: how good a model's answers are, or those of two."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from lstm_serve.cli.arguments import AddParser, add_by, add_command, add_model, model_of, say


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "evaluate", "say how good a model's answers are, or where two models differ")
    add_model(command)
    command.usage = "lstm-serve evaluate MODEL [NEW] LABELLED --label COLUMN [flags]"
    command.add_argument("new", metavar="NEW", nargs="?", help="another model, to be held against the first")
    command.add_argument(
        "labelled",
        metavar="LABELLED",
        help="a CSV or Parquet file with a column that says what is right, or a .npz with x and y",
    )
    command.add_argument(
        "--label",
        metavar="COLUMN",
        action="append",
        default=[],
        help="the column that says what is right after a row; several, where the model answers several numbers",
    )
    add_by(command)
    command.add_argument("-o", metavar="OUT.json", dest="out", help="write all figures to a .json file besides")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the figures as tables, and to a file where one is named. Gives the exit status."""
    from lstm_serve.scoring import evaluate, evaluation_text, inputs, labelled, outputs

    if arguments.out is not None and not arguments.out.endswith(".json"):
        arguments.misused(f"-o {arguments.out[:100]!r} should end in .json")
    if arguments.new is not None and (arguments.labelled == "-" or Path(arguments.labelled).is_fifo()):
        arguments.misused("standard input and pipes can be read once, for one model: name a file")
    paths = [path for path in (arguments.model, arguments.new) if path is not None]
    model, *new = (model_of(argparse.Namespace(**{**vars(arguments), "model": path})) for path in paths)
    found = []
    for path, one in zip(paths, (model, *new), strict=True):
        with inputs.naming_source(path) if new else nullcontext():  # what does not fit the one may fit the other
            found.append(labelled.read(arguments.labelled, one, arguments.label, arguments.by))
    of_all = set.intersection(*({*sequences.told} for sequences in found))
    notes = [(path, note) for path, sequences in zip(paths, found, strict=True) for note in sequences.told]
    for told in dict.fromkeys(note if note in of_all else f"{path}: {note}" for path, note in notes):
        say(told)
    if new:
        report = evaluate.compare(model, new[0], *found)
        text = evaluation_text.of_two(report)
    else:
        report = evaluate.judge(model, *found)
        text = evaluation_text.of_one(report)
    if arguments.out is not None:
        outputs.write_report(report, arguments.out)
    sys.stdout.write(text)
    return 0
