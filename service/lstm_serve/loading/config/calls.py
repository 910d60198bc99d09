"""The calls of a model's layers, their values by number, and the names of its outputs."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Call(NamedTuple):
    """A layer, by its index, what it is called on by number, and how many outputs it has.

    The model's inputs are numbered first, and then what each call gives, states among it. Of a model for each time step
    `each_step` is its calls, and `layer` means nothing.
    """

    layer: int
    inputs: tuple[int, ...]
    outputs: int = 1
    each_step: "EachStep | None" = None


class EachStep(NamedTuple):
    """The calls of a TimeDistributed's model: value 0 is a time step, and `output` what comes of it."""

    name: str
    calls: tuple[Call, ...]
    output: int


def needed(calls: Sequence[Call], outputs: Sequence[int], inputs: int) -> tuple[tuple[Call, ...], tuple[int, ...]]:
    """The calls that lead to the outputs, and the outputs, numbered anew: of a model inside not each may be used."""
    firsts = [*itertools.accumulate((call.outputs for call in calls), initial=inputs)]
    used, kept = set(outputs), list[int]()
    for k, call in reversed([*enumerate(calls)]):
        if not used.isdisjoint(range(firsts[k], firsts[k + 1])):
            used.update(call.inputs)
            kept.insert(0, k)
    values = [*range(inputs), *(value for k in kept for value in range(firsts[k], firsts[k + 1]))]
    number = {old: new for new, old in enumerate(values)}
    made = tuple(calls[k]._replace(inputs=tuple(number[value] for value in calls[k].inputs)) for k in kept)
    return made, tuple(number[value] for value in outputs)


def distinct(names: Sequence[str]) -> list[str]:
    """The names as tf.keras makes them distinct, where a layer gives several outputs: dense, dense_1.

    Source: _set_output_names of keras/engine/functional.py, 2.15.
    """
    made: dict[str, None] = {}
    counts: dict[str, int] = {}
    for name in names:
        proposal = name
        while proposal in made:
            counts[name] = counts.get(name, 0) + 1  # all below are taken, and stay so
            proposal = f"{name}_{counts[name]}"
        made[proposal] = None
    return [*made]
