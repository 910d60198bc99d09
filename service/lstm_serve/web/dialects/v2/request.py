"""What a request of v2 asks besides its tensor: held to the protocol, the model and what is supported."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from lstm_serve.errors import InvalidInput, Problem
from lstm_serve.model.model import Model
from lstm_serve.web.body_types import NATIVE
from lstm_serve.web.dialects.v2.schemas import InferRequest, InputTensor, Parameters
from lstm_serve.web.dialects.v2.tensors import TENSOR, output_names
from lstm_serve.web.nested_lists import MAX_PROBLEMS, elsewhere, json_of

# To ignore these would be a wrong answer in silence.
REFUSED_OF_REQUEST = ("sequence_id", "sequence_start", "sequence_end")
REFUSED_OF_TENSOR = ("shared_memory_region", "classification")


class Output(NamedTuple):
    """An output as it was asked for: by which name, which tensor, and whether after the JSON."""

    name: str
    is_class: bool
    binary: bool


MAX_SIZE = 1 << 31


class Head(NamedTuple):
    """What a request asks besides its tensor; `timeout` in seconds."""

    id: str | None
    timeout: float | None
    outputs: Sequence[Output]


def read_head(model: Model, json: bytes) -> tuple[Head, InputTensor]:
    """The JSON of a request, as what it asks and its tensor. Raises Malformed or InvalidInput."""
    parsed = json_of(json)
    if isinstance(parsed, dict) and "inputs" not in parsed:
        others = {**NATIVE, "instances": f"/v1/models/{model.about.name}:predict"}
        raise InvalidInput.at(f'expected the key "inputs"{elsewhere(parsed, others)}', "inputs")
    inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
    if isinstance(inputs, list) and len(inputs) != 1:
        raise InvalidInput.at(f"expected one input, got {len(inputs)}", "inputs")
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


def _expect_shape(model: Model, shape: Sequence[int]) -> None:
    wanted = (None, *model.input_shape)
    if len(shape) != len(wanted) or any(
        not 0 < size <= MAX_SIZE or (want is not None and size != want)
        for size, want in zip(shape, wanted, strict=True)
    ):
        got = ", ".join(str(size)[:20] for size in shape[:8])
        got += ", ..." if len(shape) > 8 else ""
        raise InvalidInput.at(
            f"expected {model.expects}, got the shape ({got}){model.hint((*shape,))}", *TENSOR, "shape"
        )


def _refuse(parameters: Parameters, names: Sequence[str], where: tuple[str | int, ...]) -> None:
    for name in names:
        if parameters.get(name):
            raise InvalidInput.at(
                f"{name} is not supported: each request stands alone, and brings and takes its tensors", *where, name
            )


def _timeout(parameters: Parameters) -> float | None:
    given = parameters.get("timeout")
    if given is None or given == 0:  # as Triton has it, 0 is no deadline of its own
        return None
    if type(given) is not int or not 0 < given < 1 << 63:
        raise InvalidInput.at("expected whole microseconds", "parameters", "timeout")
    return given / 1e6


def _outputs(model: Model, request: InferRequest) -> list[Output]:
    known, binary = output_names(model), request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return [Output(name, is_class, binary) for name, is_class in known.items()]
    if (name := model.outputs[0].name) is not None:
        known = {name: False, **known}
    wanted: dict[str, Output] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in known or output.name in wanted:
            raise InvalidInput.at(
                f"expected one of the outputs {', '.join(known)}, each once", "outputs", index, "name"
            )
        _refuse(output.parameters, REFUSED_OF_TENSOR, ("outputs", index, "parameters"))
        wanted[output.name] = Output(
            output.name, known[output.name], output.parameters.get("binary_data", binary) is True
        )
    return list(wanted.values())
