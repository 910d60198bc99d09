"""The command `profile`: what the training data were like, written beside the model."""

import argparse
import sys

from lstm_serve.cli.arguments import AddParser, add_by, add_command, add_model, model_of, say


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "profile", "note what the training data were like, so that drift from it is seen")
    add_model(command)
    command.add_argument(
        "train", metavar="TRAIN", help="the training data, in the order of time, in any form that predict takes"
    )
    add_by(command)
    command.add_argument("--force", action="store_true", help="replace the profile that is there")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write <stem>.profile.json, and say what is in it. Gives the exit status."""
    from pathlib import Path

    from lstm_serve.errors import SettingsError
    from lstm_serve.loading.load import resolve
    from lstm_serve.model.files import ModelFiles
    from lstm_serve.scoring import outputs, profile

    path = ModelFiles.of(resolve(Path(arguments.model))).profile
    if path.exists() and not arguments.force:
        raise SettingsError(f"{path} exists already; --force replaces it")
    model = model_of(arguments, profile=False)
    found, notes = profile.read(arguments.train, model, arguments.by)
    for note in notes:
        say(note)
    outputs.write_bytes(profile.written(found), str(path))
    sys.stdout.write(profile.summary(found, path.name))
    return 0
