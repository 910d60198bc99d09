"""The command `serve`: a model over HTTP."""

import argparse
import os

from lstm_serve.cli.arguments import AddParser, add_command


def add(add_parser: AddParser, *, with_flags: bool) -> None:
    """Declare the command."""
    command = add_command(add_parser, "serve", "serve a model over HTTP")
    command.usage = "lstm-serve serve [MODEL] [flags]"
    command.add_argument(
        "model", metavar="MODEL", nargs="?", help="a file that Keras saved, or a folder with one, or several"
    )
    command.set_defaults(run=run, misused=command.error)
    if with_flags:  # they are the settings, and Pydantic, which holds those, takes its time to come in
        from lstm_serve import settings

        settings.add_flags(command)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes. Gives the exit status."""
    from lstm_serve import settings
    from lstm_serve.errors import SettingsError
    from lstm_serve.formats import system_limits

    _open_standard()
    flags = {name: value for name, value in vars(arguments).items() if name in settings.Settings.model_fields}
    try:
        given = settings.read(os.environ, flags)
        count = system_limits.cores() if given.workers == "auto" else given.workers
        if count > 1:
            from lstm_serve.process import workers

            workers.run(given, count)
        else:
            from lstm_serve.process import server

            server.run(given.model_copy(update={"workers": 1}))
    except SettingsError as error:
        arguments.misused(str(error))
    return 0


def _open_standard() -> None:
    """Have standard input, output and error be something, where they are closed: uvloop aborts on a socket there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
