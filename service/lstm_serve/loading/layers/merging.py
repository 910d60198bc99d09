"""Keras' layers that join several inputs, lowered to operations."""

from collections.abc import Sequence

import numpy as np

from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.merging import Concatenate, Merge
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers import mask_rules
from lstm_serve.loading.layers.checks import expect

JOINS = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Average": np.add,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}


def merge(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    same_rank = len({len(shape) for shape in shapes}) == 1
    if not same_rank or any(len({*sizes} - {1, None}) > 1 for sizes in zip(*shapes, strict=False)):
        raise UnreadableFile(f"the {options} joins inputs of the shapes {str(shapes)[:100]}, which do not fit together")
    mean = options.class_name == "Average"
    return Merge(
        name=options.name,
        join=JOINS[options.class_name],
        mean=mean,
        mask_rule=mask_rules.rule_of_merging(options.keras),
    )


def concatenate(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    expect(options, arrays)
    rank = len(shapes[0]) + 1
    (axis,) = options.integers("axis", [-1])[:1] or [-1]
    axis = axis % rank if -rank <= axis < rank else 0
    others = [[size for k, size in enumerate(shape, 1) if k != axis] for shape in shapes]
    if (
        axis == 0
        or len({len(shape) for shape in shapes}) != 1
        or any(len({*sizes} - {None}) > 1 for sizes in zip(*others, strict=False))
    ):
        raise UnreadableFile(f"the {options} joins inputs of the shapes {str(shapes)[:100]}, which do not fit together")
    return Concatenate(name=options.name, axis=axis, mask_rule=mask_rules.rule_of_merging(options.keras))
