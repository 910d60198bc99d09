"""What a request of v2 asks besides its tensor: held to the protocol, the model and what is supported."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from lstm_serve.errors import InvalidInput, Problem
from lstm_serve.model.inputs import Input, expect_rows
from lstm_serve.model.model import Model
from lstm_serve.web.body_faults import Where
from lstm_serve.web.body_types import NATIVE
from lstm_serve.web.dialects.series.request import expect_id
from lstm_serve.web.dialects.v2.schemas import InferRequest, InputTensor, Parameters
from lstm_serve.web.dialects.v2.tensors import KnownOutput, input_names, known_outputs
from lstm_serve.web.nested_lists import MAX_PROBLEMS, elsewhere, json_of

# To ignore these would be a wrong answer in silence.
REFUSED_OF_TENSOR = ("shared_memory_region", "classification")


class AskedOutput(NamedTuple):
    """An output as it was asked for: by which name, which tensor, and whether after the JSON."""

    name: str
    is_class: bool
    binary: bool
    number: int = 0


MAX_SIZE = 1 << 31


class Sequenced(NamedTuple):
    """The series that a request's rows are of, whether it begins with them, and whether it ends."""

    series: str
    start: bool
    end: bool


class Head(NamedTuple):
    """What a request asks besides its tensor; `timeout` in seconds."""

    id: str | None
    timeout: float | None
    outputs: Sequence[AskedOutput]
    sequence: Sequenced | None = None


class NumberedTensor(NamedTuple):
    """A tensor of the inputs, its place among them, and which input of the model it is for."""

    tensor: InputTensor
    place: Where
    number: int


def read_head(model: Model, json: bytes) -> tuple[Head, Sequence[NumberedTensor]]:
    """The JSON of a request, as what it asks and its tensors in their order. Raises Malformed or InvalidInput."""
    parsed = json_of(json)
    if isinstance(parsed, dict) and "inputs" not in parsed:
        others = {**NATIVE, "instances": f"/v1/models/{model.about.name}:predict"}
        raise InvalidInput.at(f'expected the key "inputs"{elsewhere(parsed, others)}', "inputs")
    inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
    if isinstance(inputs, list) and len(inputs) != len(model.inputs):
        names = "one input" if len(model.inputs) == 1 else f"the inputs {', '.join(input_names(model))}"
        raise InvalidInput.at(f"expected {names}, got {len(inputs)}", "inputs")
    try:
        request = InferRequest.model_validate(parsed)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInput([Problem(problem["loc"], problem["msg"]) for problem in found[:MAX_PROBLEMS]]) from None
    sequence = _sequence(request.parameters)
    sent = [
        NumberedTensor(tensor, ("inputs", k), 0 if len(model.inputs) == 1 else _number(model, tensor.name, k))
        for k, tensor in enumerate(request.inputs)
    ]
    for tensor, place, number in sent:
        _refuse(tensor.parameters, REFUSED_OF_TENSOR, (*place, "parameters"))
        if sequence is None:
            _expect_shape(model.takes[number], tensor.shape, place)
        else:
            _expect_rows(model, tensor.shape, place)
    if len({one.number for one in sent}) < len(sent):
        raise InvalidInput.at(f"expected the inputs {', '.join(input_names(model))}, each once", "inputs")
    expect_rows([model.takes[one.number] for one in sent], [one.tensor.shape[0] for one in sent], "inputs")
    return Head(request.id, _timeout(request.parameters), _outputs(model, request), sequence), sent


def _number(model: Model, name: str, place: int) -> int:
    """The number of an input, by its name or that in the file."""
    for k, spec in enumerate(model.inputs):
        if name in {spec.name, spec.in_file}:
            return k
    raise InvalidInput.at(f"expected the inputs {', '.join(input_names(model))}, each once", "inputs", place, "name")


def _expect_shape(given: Input, shape: Sequence[int], place: Where) -> None:
    wanted = (None, *given.shape)
    if len(shape) != len(wanted) or any(
        not 0 < size <= MAX_SIZE or (want is not None and size != want)
        for size, want in zip(shape, wanted, strict=True)
    ):
        got = ", ".join(str(size)[:20] for size in shape[:8])
        got += ", ..." if len(shape) > 8 else ""
        raise InvalidInput.at(
            f"expected {given.expects}, got the shape ({got}){given.hint((*shape,))}", *place, "shape"
        )


def _refuse(parameters: Parameters, names: Sequence[str], where: tuple[str | int, ...]) -> None:
    for name in names:
        if parameters.get(name):
            raise InvalidInput.at(
                f"{name} is not supported: each request stands alone, and brings and takes its tensors", *where, name
            )


def _sequence(parameters: Parameters) -> Sequenced | None:
    """The series, as `sequence_id` says it; 0 and "" are none."""
    given = parameters.get("sequence_id", 0)
    if type(given) not in {int, str} or (isinstance(given, int) and not 0 <= given < 1 << 64):
        raise InvalidInput.at("expected a whole number of 64 bits, or a text", "parameters", "sequence_id")
    flags = [parameters.get(name, False) for name in ("sequence_start", "sequence_end")]
    if not all(isinstance(flag, bool) for flag in flags):
        raise InvalidInput.at("expected as sequence_start and sequence_end true or false", "parameters")
    if given in {0, ""}:
        if any(flags):
            raise InvalidInput.at("expected a sequence_id with sequence_start or sequence_end", "parameters")
        return None
    return Sequenced(expect_id(str(given), "parameters", "sequence_id"), *flags)


def _expect_rows(model: Model, shape: Sequence[int], place: Where) -> None:
    """Raise InvalidInput where a tensor is not rows of one series."""
    if not model.has_time_axis:
        raise InvalidInput.at("expected no sequence_id: to this model nothing is a series", "parameters")
    features = model.input_shape[1:]
    if len(shape) != 2 + len(features) or shape[0] != 1 or not 0 < shape[1] <= MAX_SIZE or (*shape[2:],) != features:
        got = ", ".join(str(size)[:20] for size in shape[:8])
        sizes = ", ".join(["1", "k", *map(str, features)])
        raise InvalidInput.at(f"expected k rows of one series, the shape ({sizes}), got ({got})", *place, "shape")


def _timeout(parameters: Parameters) -> float | None:
    given = parameters.get("timeout")
    if given is None or given == 0:  # as Triton has it, 0 is no deadline of its own
        return None
    if type(given) is not int or not 0 < given < 1 << 63:
        raise InvalidInput.at("expected whole microseconds", "parameters", "timeout")
    return given / 1e6


def _outputs(model: Model, request: InferRequest) -> list[AskedOutput]:
    known, binary = known_outputs(model), request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return [AskedOutput(name, each.is_class, binary, each.number) for name, each in known.items()]
    if len(model.output_names) == 1 and (name := model.output_names[0]) is not None:
        known = {name: KnownOutput(), **known}
    wanted: dict[str, AskedOutput] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in known or output.name in wanted:
            raise InvalidInput.at(
                f"expected one of the outputs {', '.join(known)}, each once", "outputs", index, "name"
            )
        _refuse(output.parameters, REFUSED_OF_TENSOR, ("outputs", index, "parameters"))
        number, is_class = known[output.name]
        wanted[output.name] = AskedOutput(
            output.name, is_class, output.parameters.get("binary_data", binary) is True, number
        )
    return list(wanted.values())
