"""The Open Inference Protocol v2: its tensors, to and from arrays, in JSON and in the binary extension.

Protocol: inference_rest.md of kserve/open-inference-protocol. Binary tensors: extension_binary_data.md of
triton-inference-server/server. Parameters: extension_parameters.md there.
"""

import math
import re
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError

from lstm_serve.engine.types import Array
from lstm_serve.errors import InvalidInput, Malformed, Problem
from lstm_serve.formats.npy import AnyArray
from lstm_serve.model.answers import Classes
from lstm_serve.model.model import Model
from lstm_serve.web.body_types import NATIVE
from lstm_serve.web.nested_lists import FEW, HEAVY, MAX_PROBLEMS, ROOM, elsewhere, json_of
from lstm_serve.web.schemas import Schema

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
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"
]

# The native name of the input; any other single name is taken as well.
INPUT = "sequences"
CLASS = "predicted_class"
VALUES = {
    "classes": "probabilities",
    "binary": "probability",
    "labels": "probabilities",
    "steps": "probabilities",
    "values": "values",
}

# To ignore these would be a wrong answer in silence.
REFUSED_OF_REQUEST = ("sequence_id", "sequence_start", "sequence_end")
REFUSED_OF_TENSOR = ("shared_memory_region", "classification")

SHORT = 4096  # bytes of JSON
HEADER_LENGTH = b"inference-header-content-length"


def _not_null(parameters: object) -> object:
    """Clients that serialise structs send null for what they do not set: as if it were not there."""
    if isinstance(parameters, dict):
        return {name: value for name, value in parameters.items() if value is not None}
    return {} if parameters is None else parameters


Parameters = Annotated[dict[str, Any], BeforeValidator(_not_null, json_schema_input_type=dict[str, Any] | None)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


class InputTensor(_Part):
    """The input."""

    name: str = Field(description="any name")
    shape: Annotated[list[int], FailFast()] = Field(description="the number of sequences first")
    datatype: Datatype
    parameters: Parameters = Field(
        default_factory=dict, description="binary_data_size where the data comes after the JSON"
    )
    data: list[Any] | None = Field(default=None, description="row-major, flat or nested as the shape")


class RequestedOutput(_Part):
    """An output that is asked for."""

    name: str
    parameters: Parameters = Field(default_factory=dict, description="binary_data: true answers it after the JSON")


MAX_OUTPUTS = 16
Outputs = Annotated[
    list[RequestedOutput],
    FailFast(),
    Field(max_length=MAX_OUTPUTS),
    BeforeValidator(
        lambda outputs: [] if outputs is None else outputs,
        json_schema_input_type=Annotated[list[RequestedOutput], Field(max_length=MAX_OUTPUTS)] | None,
    ),
]


class InferRequest(_Part):
    """What POST .../infer takes. Outputs that are not asked for are left out; without `outputs` all are answered."""

    id: str | None = Field(default=None, description="comes back in the answer")
    parameters: Parameters = Field(
        default_factory=dict,
        description="timeout in microseconds; binary_data_output: true answers all outputs after the JSON",
    )
    inputs: Annotated[list[InputTensor], FailFast()] = Field(min_length=1, max_length=1)
    outputs: Outputs = Field(default_factory=list)


class OutputTensor(Schema):
    """An output."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = Field(
        default=None, description="binary_data_size where it comes after the JSON"
    )
    data: list[Any] | None = Field(default=None, description="row-major and flat")


class InferAnswer(Schema):
    """What POST .../infer answers."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class Output(NamedTuple):
    """An output as it was asked for: by which name, which tensor, and whether after the JSON."""

    name: str
    is_class: bool
    binary: bool


MAX_SIZE = 1 << 31
# Where the input is, in a request.
TENSOR = ("inputs", 0)


class Head(NamedTuple):
    """What a request asks besides its tensor; `timeout` in seconds."""

    id: str | None
    timeout: float | None
    outputs: Sequence[Output]


class Infer:
    """A request. What was parsed or received of its tensor is held until there is an array."""

    def __init__(self, model: Model, head: Head, tensor: InputTensor, raw: bytes, start: int) -> None:
        """Binary data starts at `start` of the body."""
        self.head = head
        self.rows = tensor.shape[0]
        self._model, self._tensor, self._raw, self._start = model, tensor, raw, start

    def arrays(self, dtype: npt.DTypeLike) -> list[Array]:
        """The input (n, *input_shape). Raises InvalidInput or Malformed."""
        tensor, raw, start = self._tensor, self._raw, self._start
        x = _from_bytes(tensor, raw, start) if tensor.data is None else _from_json(tensor, tensor.data)
        if tensor.data is not None and len(raw) > start:
            raise Malformed(f"expected nothing after the JSON, got {len(raw) - start} bytes")
        if x.dtype == bool:
            x = (x.view(np.uint8) != 0).view(np.uint8)
        try:
            checked = self._model.checked(x)
        except InvalidInput as error:
            found = [Problem((*TENSOR, "data", *problem.where), problem.detail) for problem in error.problems]
            raise InvalidInput(found) from None
        return [checked.astype(dtype, copy=False)]

    def let_go(self) -> None:
        """Forget the tensor and the body: the request may wait long for its answer."""
        del self._tensor, self._raw


def decode(model: Model, raw: bytes, headers: Mapping[bytes, bytes], max_rows: int) -> Infer:
    """A request from the bytes of its body. Raises Malformed or InvalidInput."""
    given, start = headers.get(HEADER_LENGTH), len(raw)
    if given is not None:
        if not re.fullmatch(rb"[0-9]{1,10}", given) or int(given) > start:
            raise Malformed(
                "expected the length of the body's JSON part in the header Inference-Header-Content-Length, "
                f"at most the body's {start} bytes"
            )
        start = int(given)
    json = raw if given is None else raw[:start]
    if len(json) > HEAVY:
        _weigh(model, json, max_rows)
    same = given is not None and start <= SHORT
    try:
        head, tensor = _same_head(weakref.ref(model), json) if same else _head(model, json)
    except Malformed as error:
        if given is not None:
            raise
        raise Malformed(f"{error}; binary tensors need the header Inference-Header-Content-Length") from None
    return Infer(model, head, tensor, raw, start)


def _weigh(model: Model, json: bytes, max_rows: int) -> None:
    """Refuse, before it is parsed, what cannot be good and would take thirty times its size in memory."""
    numbers = max_rows * math.prod(math.inf if size is None else size for size in model.input_shape)
    for mark, most in ((b",", numbers), (b"[", numbers), (b"{", FEW), (b'"', FEW)):
        if json.count(mark) > ROOM * most:
            _wrong(f"expected {model.expects} of at most {max_rows} sequences, got a body with much else", *TENSOR)


def _head(model: Model, json: bytes) -> tuple[Head, InputTensor]:
    parsed = json_of(json)
    if isinstance(parsed, dict) and "inputs" not in parsed:
        others = {**NATIVE, "instances": f"/v1/models/{model.about.name}:predict"}
        _wrong(f'expected the key "inputs"{elsewhere(parsed, others)}', "inputs")
    inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
    if isinstance(inputs, list) and len(inputs) != 1:
        _wrong(f"expected one input, got {len(inputs)}", "inputs")
    try:
        request = InferRequest.model_validate(parsed)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInput([Problem(problem["loc"], problem["msg"]) for problem in found[:MAX_PROBLEMS]]) from None
    (tensor,) = request.inputs
    _refuse(request.parameters, REFUSED_OF_REQUEST, ("parameters",))
    _refuse(tensor.parameters, REFUSED_OF_TENSOR, (*TENSOR, "parameters"))
    _expect_shape(model, tensor.shape)
    return Head(request.id, _timeout(request.parameters), _outputs(model, request)), tensor


@lru_cache(maxsize=64)
def _same_head(model: "weakref.ref[Model]", json: bytes) -> tuple[Head, InputTensor]:
    """As `_head`: before binary data a client says the same each time, and the second time it takes 25 us less."""
    held = model()
    assert held is not None  # noqa: S101 - the caller has it
    return _head(held, json)


def encode(model: Model, y: Array, classes: Classes, head: Head) -> tuple[bytes, int | None]:
    """The answer's bytes, and the length of their JSON part where binary tensors follow it."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, is_class, binary in head.outputs:
        tensor: AnyArray = np.array(classes, "<i8") if is_class else np.ascontiguousarray(y, "<f4")
        output: dict[str, Any] = {"name": name, "shape": tensor.shape, "datatype": "INT64" if is_class else "FP32"}
        if binary:
            tail.append(tensor.tobytes())
            output["parameters"] = {"binary_data_size": tensor.nbytes}
        else:
            output["data"] = tensor.reshape(-1)
        outputs.append(output)
    about = model.about
    answer: dict[str, Any] = {"model_name": about.name, "model_version": about.version, "outputs": outputs}
    if head.id is not None:
        answer["id"] = head.id
    json = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([json, *tail]), len(json)) if tail else (json, None)


def output_names(model: Model) -> dict[str, bool]:
    """The native names of the outputs, and whether each is the predicted class; of several labels there is none."""
    values = {VALUES[model.kind]: False}
    return values if model.kind in {"labels", "values"} else {**values, CLASS: True}


def input_datatype(model: Model) -> str:
    """The datatype that the model's input is best sent as."""
    return next(name for name, code in DTYPES.items() if np.dtype(code) == model.input_dtype)


def _expect_shape(model: Model, shape: Sequence[int]) -> None:
    wanted = (None, *model.input_shape)
    if len(shape) != len(wanted) or any(
        not 0 < size <= MAX_SIZE or (want is not None and size != want)
        for size, want in zip(shape, wanted, strict=True)
    ):
        got = ", ".join(str(size)[:20] for size in shape[:8])
        got += ", ..." if len(shape) > 8 else ""
        _wrong(f"expected {model.expects}, got the shape ({got}){model.hint((*shape,))}", *TENSOR, "shape")


def _refuse(parameters: Parameters, names: Sequence[str], where: tuple[str | int, ...]) -> None:
    for name in names:
        if parameters.get(name):
            _wrong(
                f"{name} is not supported: each request stands alone, and brings and takes its tensors", *where, name
            )


def _timeout(parameters: Parameters) -> float | None:
    given = parameters.get("timeout")
    if given is None or given == 0:  # as Triton has it, 0 is no deadline of its own
        return None
    if type(given) is not int or not 0 < given < 1 << 63:
        _wrong("expected whole microseconds", "parameters", "timeout")
    return given / 1e6


def _outputs(model: Model, request: InferRequest) -> list[Output]:
    known, binary = output_names(model), request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return [Output(name, is_class, binary) for name, is_class in known.items()]
    if model.origin.output_name is not None:
        known = {model.origin.output_name: False, **known}
    wanted: dict[str, Output] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in known or output.name in wanted:
            _wrong(f"expected one of the outputs {', '.join(known)}, each once", "outputs", index, "name")
        _refuse(output.parameters, REFUSED_OF_TENSOR, ("outputs", index, "parameters"))
        wanted[output.name] = Output(
            output.name, known[output.name], output.parameters.get("binary_data", binary) is True
        )
    return list(wanted.values())


def _from_bytes(tensor: InputTensor, raw: bytes, start: int) -> AnyArray:
    dtype, count = np.dtype(DTYPES.get(tensor.datatype, UPPER_HALF)), math.prod(tensor.shape)
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        _wrong("expected data, or binary_data_size among the parameters", *TENSOR)
    if type(size) is not int or size != count * dtype.itemsize:
        _wrong(
            f"expected {count * dtype.itemsize} bytes for this shape of {tensor.datatype}",
            *TENSOR,
            "parameters",
            "binary_data_size",
        )
    if len(raw) - start != size:
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


def _from_json(tensor: InputTensor, data: list[Any]) -> AnyArray:
    if "binary_data_size" in tensor.parameters:
        _wrong("expected either data or binary_data_size, got both", *TENSOR)
    if tensor.datatype == BF16:
        _wrong("BF16 has no form in JSON: send it as binary data, or the numbers as FP32", *TENSOR, "datatype")
    shape, dtype = tensor.shape, np.dtype(DTYPES[tensor.datatype])
    flat = data
    if flat and type(flat[0]) is list:
        for depth, size in enumerate(shape):
            rows = flat if depth else [flat]
            if not all(type(row) is list and len(row) == size for row in rows):
                _wrong(f"expected the data flat, or nested as the shape {tuple(shape)}", *TENSOR, "data")
            flat = list(chain.from_iterable(rows))
    if len(flat) != math.prod(shape):
        _wrong(f"expected {math.prod(shape)} values for this shape, got {len(flat)}", *TENSOR, "data")
    good, wanted = TYPES[dtype.kind]
    if not good.issuperset(map(type, flat)):
        index = next(k for k, value in enumerate(flat) if type(value) not in good)
        _wrong(f"expected {wanted}, as {tensor.datatype} says", *TENSOR, "data", index)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype).reshape(shape)
    except OverflowError:
        _wrong(f"expected numbers within the range of {tensor.datatype}", *TENSOR, "data")


def _wrong(detail: str, *where: str | int) -> NoReturn:
    raise InvalidInput([Problem(where, detail)])
