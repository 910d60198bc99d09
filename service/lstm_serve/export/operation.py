"""What a target says of each operation, and how a model is walked: the same for all targets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import Unsupported
from lstm_serve.export.artifact import Golden, Numbers, plain
from lstm_serve.model.model import Model

T = TypeVar("T")


class Value(NamedTuple):
    """An array in what is being written: what it is called there, its shape without the batch, its mask's name."""

    name: str
    shape: Shape
    mask: str | None = None


class Support(NamedTuple):
    """How a target writes an operation: a function, None where it cannot, and what is to be said of that."""

    write: Callable[..., Any] | None
    note: str = "yes"


class Target(NamedTuple):
    """A target: what it is called, what is written, and how.

    `build` gives the files by their names, in the folder or as `artifact.write` has them. `run` answers
    x with what `build` wrote at a path, or says why it cannot be run here.
    """

    title: str
    is_folder: bool
    suffix: str
    table: Mapping[type, Support]
    activations: Mapping[str, object]
    build: Callable[[Model, Golden], dict[str, bytes]]
    run: Callable[[Path, Numbers], Array | str]


def called(operation: Operation) -> str:
    """The class of an operation and its name, fit for a comment."""
    return f"{plain(operation.keras_class or type(operation).__name__)} {plain(operation.name)}"


def refuse(title: str, operation: Operation, why: str) -> NoReturn:
    """Raise Unsupported for an operation that the target cannot do, by its name and class."""
    kind = operation.keras_class or type(operation).__name__
    raise Unsupported(
        f"{title} cannot do the {plain(kind)} layer {plain(operation.name)!r} as it is in this model: {why}"
    )


def activation_of(title: str, table: Mapping[str, T], operation: Operation, activation: Activation) -> T:
    """What a target's table of activations has for this one; refused where it has nothing."""
    found = table.get(activation.kind)
    if found is None:
        refuse(title, operation, f"its activation {activation.kind} is not there")
    return found


def writer_of(title: str, table: Mapping[type, Support], operation: Operation) -> Callable[..., Any]:
    """The target's function for an operation; refused where it has none."""
    support = table[type(operation)]
    if support.write is None:
        refuse(title, operation, support.note)
    return support.write


def walk(model: Model, given: Value, write: Callable[[Operation, Sequence[Value]], Value]) -> Value:
    """Write each node after those that it takes from, and give the last one's output."""
    values = [given]
    for node in model.nodes:
        values.append(write(node.operation, [values[source.node + 1] for source in node.inputs]))
    return values[-1]


def table_of(targets: Mapping[str, Target], operations: Sequence[type]) -> str:
    """The table operation x target as Markdown, with the notes under it."""
    notes: dict[str, int] = {}
    rows = [["operation", *targets], ["---"] * (len(targets) + 1)]
    for operation in operations:
        cells = []
        for aim in targets.values():
            write, note = aim.table[operation]
            number = "" if note == "yes" else f" ({notes.setdefault(note, len(notes) + 1)})"
            cells.append(("no" if write is None else "yes") + number)
        rows.append([f"`{operation.__name__}`", *cells])
    return "\n".join(
        [*(f"| {' | '.join(row)} |" for row in rows), "", *(f"{n}. {note}" for note, n in notes.items()), ""]
    )
