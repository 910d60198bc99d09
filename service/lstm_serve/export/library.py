"""The code that goes along with a model, from `code/`: functions in C, JavaScript and Python, and the files around."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template

NAMED = re.compile(r"^(?:static \w+ |function |def )(\w+)\(", re.MULTILINE)
CALL = re.compile(r"(?<![.\w])(\w+)\(")


@cache
def text(name: str) -> str:
    """A file as it is."""
    return files("lstm_serve.export").joinpath("code", name).read_text("utf-8")


def filled(name: str, **fields: object) -> str:
    """A file with its $fields filled in."""
    return Template(text(name)).substitute(fields)


@cache
def functions(name: str) -> Mapping[str, str]:
    """The functions in a file by their names; a blank line is between two."""
    parts = re.split(r"\n\n(?=\S)", text(name).strip())
    return {named[1]: part for part in parts if (named := NAMED.search(part))}


def add_called(code: str, library: Mapping[str, str], to: dict[str, str]) -> None:
    """Add the functions that some code calls, each after those that it calls itself."""
    for name in CALL.findall(code):
        if name in library and name not in to:
            add_called(library[name], {other: part for other, part in library.items() if other != name}, to)
            to[name] = library[name]
