"""A tensor of v2, from JSON or from the bytes after it to an array, and what tensors are called."""

import math
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from lstm_serve.engine.types import AnyArray
from lstm_serve.errors import InvalidInput, Malformed
from lstm_serve.model.inputs import Input
from lstm_serve.model.kinds import Kind, has_one_class
from lstm_serve.model.model import Model
from lstm_serve.web.body_faults import Where
from lstm_serve.web.dialects.v2.schemas import InputTensor

DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
# The upper half of a float32, which NumPy has no name for.
BF16, UPPER_HALF = "BF16", "<u2"

# The native name of the input; any other single name is taken as well.
INPUT = "sequences"
CLASS = "predicted_class"
VALUES: dict[Kind, str] = {
    "classes": "probabilities",
    "binary": "probability",
    "labels": "probabilities",
    "steps": "probabilities",
    "values": "values",
}


class KnownOutput(NamedTuple):
    """An output that may be asked for: of the model's the number, and whether it is the predicted class."""

    number: int = 0
    is_class: bool = False


def known_outputs(model: Model) -> dict[str, KnownOutput]:
    """The outputs by their native names: of one its values, and the class if there is one; several by their own."""
    if len(model.output_names) > 1:
        return {str(name): KnownOutput(k) for k, name in enumerate(model.output_names)}
    values = {VALUES[model.kind]: KnownOutput()}
    return {**values, CLASS: KnownOutput(is_class=True)} if has_one_class(model.kind) else values


def input_names(model: Model) -> dict[str, Input]:
    """The inputs by their native names."""
    return {INPUT: model.takes[0]} if len(model.takes) == 1 else {str(each.name): each for each in model.takes}


def input_datatype(given: Input) -> str:
    """The datatype that an input is best sent as."""
    return next(name for name, code in DTYPES.items() if np.dtype(code) == given.dtype)


def from_bytes(tensor: InputTensor, raw: bytes, start: int, place: Where, *, last: bool) -> AnyArray:
    """The tensor of the bytes from `start` on, to the end where it is the last. Raises InvalidInput or Malformed."""
    dtype, count = np.dtype(DTYPES.get(tensor.datatype, UPPER_HALF)), math.prod(tensor.shape)
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        raise InvalidInput.at("expected data, or binary_data_size among the parameters", *place)
    if type(size) is not int or size != count * dtype.itemsize:
        raise InvalidInput.at(
            f"expected {count * dtype.itemsize} bytes for this shape of {tensor.datatype}",
            *place,
            "parameters",
            "binary_data_size",
        )
    if len(raw) - start < size or (last and len(raw) - start > size):
        raise Malformed(
            f"binary_data_size is {size}, and {len(raw) - start} bytes follow the JSON; the header "
            "Inference-Header-Content-Length says where it ends"
        )
    x = np.frombuffer(raw, dtype, count, start)
    if tensor.datatype == BF16:
        x = (x.astype("<u4") << 16).view("<f4")
    return x.reshape(tensor.shape)


# What JSON's values may be, by the kind of the datatype.
TYPES: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "true or false"),
    "u": ({int}, "a whole number"),
    "i": ({int}, "a whole number"),
    "f": ({int, float}, "a number"),
}


def from_json(tensor: InputTensor, data: list[Any], place: Where) -> AnyArray:
    """The tensor whose data are a list, flat or nested as its shape. Raises InvalidInput."""
    if "binary_data_size" in tensor.parameters:
        raise InvalidInput.at("expected either data or binary_data_size, got both", *place)
    if tensor.datatype == BF16:
        raise InvalidInput.at(
            "BF16 has no form in JSON: send it as binary data, or the numbers as FP32", *place, "datatype"
        )
    shape, dtype = tensor.shape, np.dtype(DTYPES[tensor.datatype])
    flat = data
    if _is_nested(data):
        for depth, size in enumerate(shape):
            rows = flat if depth else [flat]
            if not all(type(row) is list and len(row) == size for row in rows):
                raise InvalidInput.at(f"expected the data flat, or nested as the shape {tuple(shape)}", *place, "data")
            flat = list(chain.from_iterable(rows))
    if len(flat) != math.prod(shape):
        raise InvalidInput.at(f"expected {math.prod(shape)} values for this shape, got {len(flat)}", *place, "data")
    good, wanted = TYPES[dtype.kind]
    if not good.issuperset(map(type, flat)):
        index = next(k for k, value in enumerate(flat) if type(value) not in good)
        at = tuple(map(int, np.unravel_index(index, shape)))
        raise InvalidInput.at(
            f"expected {wanted}, as {tensor.datatype} says, got other at {at}", *where_in(tensor, place, at)
        )
    try:
        # Of a number beyond float32 it is told later where it stands.
        with np.errstate(over="raise" if tensor.datatype == "FP16" else "ignore"):
            return np.array(flat, dtype).reshape(shape)
    except (OverflowError, FloatingPointError):
        raise InvalidInput.at(f"expected numbers within the range of {tensor.datatype}", *place, "data") from None


def where_in(tensor: InputTensor, place: Where, at: Where) -> Where:
    """Where in the request a number of the tensor stands: in flat data, in nested ones, or after the JSON."""
    if tensor.data is None:
        return place
    if at and not _is_nested(tensor.data):
        at = (int(np.ravel_multi_index(tuple(map(int, at)), tensor.shape)),)
    return (*place, "data", *at)


def _is_nested(data: list[Any]) -> bool:
    return bool(data) and type(data[0]) is list
