"""The command `explain`: what in a sequence spoke for its answer."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

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
from lstm_serve.explain.methods import Grain, Method
from lstm_serve.formats.text import shown

if TYPE_CHECKING:
    from lstm_serve.scoring.inputs import Sequences

# With more cells, only steps and features are occluded: each cell is an answer of the model.
MOST_CELLS = 4096


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "explain", "say what in a sequence spoke for its answer")
    add_model(command)
    command.add_argument("input", metavar="INPUT", help="as predict takes it; - is standard input")
    command.add_argument(
        "--row", metavar="N", type=positive_integer, help="the row, or sequence, whose answer is explained (the last)"
    )
    command.add_argument(
        "--method",
        choices=get_args(Method),
        help="how (integrated gradients, where each layer has a gradient, or occlusion)",
    )
    add_by(command)
    command.add_argument("-o", metavar="OUT", dest="out", help="write to a .json or .csv file, not a table")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write what spoke most as a table, or all of it to a file. Gives the exit status."""
    from lstm_serve.errors import SettingsError
    from lstm_serve.explain import text
    from lstm_serve.explain.asked import Asked, has_cells
    from lstm_serve.explain.why import explained
    from lstm_serve.scoring import inputs, outputs

    suffix = "" if arguments.out is None else Path(arguments.out).suffix
    if suffix not in {"", ".json", ".csv"} or (arguments.out is not None and not suffix):
        arguments.misused(f"-o {arguments.out[:100]!r} should end in .json, .csv")
    expect_other_file(arguments)
    model = model_of(arguments)
    model.expect_one("lstm-serve explain")
    sequences = with_notes_said(inputs.read(arguments.input, model, by=arguments.by))
    least, most = (choose(part.numbers[at] for part in sequences.parts) for choose, at in ((min, 0), (max, -1)))
    number = most if arguments.row is None else arguments.row
    part = next((part for part in sequences.parts if number in part.numbers), None)
    if part is None:
        within = _within(sequences, model.input_shape[0], number) if sequences.by else ""
        raise SettingsError(f"--row {number}: there are answers for {sequences.noun}s {least} to {most}{within}")
    x = model.checked(part.x[part.numbers.index(number)][None])[0]
    grain: Grain = "cell" if has_cells(model) and x.size <= MOST_CELLS else "step"
    found = explained(model, x, Asked(grain=grain, method=arguments.method))
    # The rows of a unit may lie apart: its steps are counted within the window.
    first = number - len(x) + 1 if sequences.noun == "row" and not sequences.by else 1
    title = ", ".join([f"{sequences.noun} {number}", *map(shown, part.key)])
    if suffix == ".json":
        outputs.write_report(found, arguments.out)
    elif suffix == ".csv":
        outputs.write_bytes(text.table(model, x, found, first).encode(), arguments.out)
    else:
        sys.stdout.write(text.text(model, x, found, title, first))
    return 0


def _within(sequences: "Sequences", timesteps: int | None, number: int) -> str:
    """Which rows of a unit have an answer, and which is the next one that has, as the end of a sentence."""
    where = "each unit's last row alone" if timesteps is None else f"not for the first {timesteps - 1} rows of a unit"
    after = [(row, part.key) for part in sequences.parts for row in part.numbers if row > number]
    if not after:
        return f", {where}"
    row, key = min(after)
    return f", {where}; the next is row {row}, of {shown(', '.join(key))}"
