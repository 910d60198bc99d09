"""The command `follow`: rows answered as they come from standard input."""

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING

from lstm_serve.cli.arguments import AddParser, add_by, add_command, add_model, model_of, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lstm_serve import Model
    from lstm_serve.scoring.follow import Answered


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "follow", "answer rows from standard input as they come: CSV or JSON lines")
    add_model(command)
    add_by(command)
    command.add_argument("--csv", action="store_true", help="write CSV, not JSON lines")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer each row until there are no more. Gives the exit status: 1 where a line was left out."""
    from lstm_serve.errors import InvalidInput
    from lstm_serve.scoring import outputs
    from lstm_serve.scoring.follow import Follower
    from lstm_serve.scoring.inputs import naming_source
    from lstm_serve.scoring.row_lines import arriving

    def read(size: int) -> bytes:
        try:
            return b"" if sys.stdin is None else os.read(sys.stdin.fileno(), size)
        except OSError as error:
            raise InvalidInput.at(f"cannot be read: {error.strerror}") from None

    by = tuple(dict.fromkeys(arguments.by))
    outputs.expect_apart(by)
    model = model_of(arguments)
    follower = Follower(model, by, say)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # what JSON is in, whatever a terminal shows
    if arguments.csv:
        _write_header(model, by)
    with naming_source("-"):
        for lines in arriving(read):
            _write(model, by, follower.answers(lines), as_csv=arguments.csv)
        follower.end()
    return 1 if follower.faults else 0


def _write_header(model: "Model", by: tuple[str, ...]) -> None:
    from lstm_serve.scoring import outputs

    shape = [size for size in model.output_shape if size is not None]
    sys.stdout.write(outputs.csv_header(model, by, "row", shape))
    sys.stdout.flush()


def _write(model: "Model", by: tuple[str, ...], answered: "Iterable[Answered]", *, as_csv: bool) -> None:
    """Write what is answered, and let it go."""
    from lstm_serve.model.answers import answers
    from lstm_serve.scoring import outputs

    for key, number, y in answered:
        if as_csv:
            sys.stdout.write(outputs.csv_lines(model, [key], [number], y[None]))
        else:
            (answer,) = answers(model, y[None])
            sys.stdout.write(outputs.json_line(by, key, "row", number, answer))
    sys.stdout.flush()
