"""The command `inspect`: a model, told to a person."""

import argparse
import sys
from functools import partial
from pathlib import Path

from lstm_serve.cli.arguments import (
    AddParser,
    add_by,
    add_command,
    add_model,
    load_options,
    model_of,
    positive_integer,
    with_notes_said,
)
from lstm_serve.errors import ModelError

NOT_SERVED = 3  # the exit status of a model that cannot be served


def add(add_parser: AddParser) -> None:
    """Declare the command."""
    command = add_command(add_parser, "inspect", "say what a model is, and how its arrays lead to its answers")
    add_model(command)
    command.add_argument("--trace", metavar="INPUT", help="show the values along the way for INPUT's first sequence")
    command.add_argument(
        "--step", metavar="T", type=positive_integer, help="the time step that --trace shows (the last)"
    )
    add_by(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell what the model is, and where it misses its golden predictions raise that. Gives the exit status.

    Of a folder of models, tell which would be served.
    """
    from lstm_serve import load_model
    from lstm_serve.explain import report as explain
    from lstm_serve.explain import trace
    from lstm_serve.explain.listing import listing
    from lstm_serve.loading import repository
    from lstm_serve.loading.load import resolve
    from lstm_serve.loading.sidecars import golden
    from lstm_serve.model.files import ModelFiles
    from lstm_serve.scoring import inputs

    for name in ("step", "by"):
        if getattr(arguments, name) and arguments.trace is None:
            arguments.misused(f"--{name} needs --trace")
    told = load_options(arguments)
    if repository.is_several(Path(arguments.model)):
        if arguments.trace is not None:
            arguments.misused("--trace is of one model, and this folder has several: name one of them")
        if arguments.recurrent_activation or arguments.output_activation:
            arguments.misused("an activation is of one model, and this folder has several: a card says it of each")
        listed, good = listing(Path(arguments.model), partial(load_model, **told))
        sys.stdout.write(listed)
        return 0 if good else NOT_SERVED
    model = model_of(arguments, replay=False)
    if arguments.trace is not None:
        model.expect_one("lstm-serve inspect --trace")
    path = resolve(Path(arguments.model))
    missed = None
    try:
        model = golden.replay(model, ModelFiles.of(path))
    except ModelError as error:
        missed = type(error)(f"{path}: {error}")
    if arguments.trace is None:
        report = explain.report(model, path, missed, told)
    else:
        sequences = with_notes_said(inputs.read(arguments.trace, model, by=arguments.by))
        report = explain.head(model, path, missed) + "\n"
        report += trace.report(model, sequences, arguments.step, loading=explain.loading(path, told))
    sys.stdout.write(report)
    if missed is not None:
        raise missed
    return 0
