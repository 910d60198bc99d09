"""The command `export`: a model as a file or a folder for another world."""

import argparse
import sys
from pathlib import Path

from lstm_serve.cli.arguments import AddParser, add_command, add_model, is_same_file, model_of, say

# As lstm_serve.export.TARGETS has them, which brings in more than every start of the command needs.
TARGETS = ("keras", "numpy", "c", "onnx", "js")


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "export", "write the model for Keras 3, NumPy, C, ONNX or JavaScript")
    add_model(command)
    command.add_argument("--to", metavar="TARGET", required=True, choices=TARGETS, help=f"one of {', '.join(TARGETS)}")
    command.add_argument(
        "-o",
        metavar="OUT",
        dest="out",
        help="the file (keras, onnx) or the folder (c, numpy, js) to write; here by default, as model.onnx or model-c",
    )
    command.add_argument(
        "--check", action="store_true", help="run the result against the golden predictions before it is written"
    )
    command.add_argument("--force", action="store_true", help="replace what is there")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the model for the target; say what was written, and what --check found. Gives the exit status."""
    from lstm_serve import export
    from lstm_serve.errors import SettingsError
    from lstm_serve.export.artifact import check_name, expect_free_path, read_golden
    from lstm_serve.loading.load import resolve

    aim = export.target(arguments.to)
    if arguments.out is not None and not aim.is_folder:
        check_name(Path(arguments.out), aim.suffix)
    model = model_of(arguments)
    source = resolve(Path(arguments.model))
    name = source.name if source.is_dir() else source.stem
    path = Path(f"{name}{aim.suffix}" if arguments.out is None else arguments.out)
    if is_same_file(path, source):
        raise SettingsError(f"{str(path)[:200]} is the model itself; name another with -o")
    expect_free_path(path, folder=aim.is_folder, force=arguments.force)
    golden = read_golden(source, model)
    checked = export.export(model, arguments.to, path, golden=golden, force=arguments.force, check=arguments.check)
    sys.stdout.write(f"wrote {path} for {aim.title}\n")
    if model.is_stateful:
        say("it is stateful in Keras; what is written starts each sequence from states of 0, as after reset_states()")
    if checked is not None and checked.not_run is not None:
        sys.stdout.write(f"not checked: {checked.not_run}\n")
    elif checked is not None:
        sys.stdout.write(
            f"checked: {checked.rows} predictions, the largest difference is {checked.difference:.2g}, and "
            f"{model.origin.tolerance:g} is allowed\n"
        )
    return 0
