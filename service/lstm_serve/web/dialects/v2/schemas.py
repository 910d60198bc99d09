"""The bodies of v2, as OpenAPI tells them and as Pydantic holds requests to them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from lstm_serve.web.schemas import Schema

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"
]


def _not_null(parameters: object) -> object:
    """Clients that serialise structs send null for what they do not set: as if it were not there."""
    if isinstance(parameters, dict):
        return {name: value for name, value in parameters.items() if value is not None}
    return {} if parameters is None else parameters


Parameters = Annotated[dict[str, Any], BeforeValidator(_not_null, json_schema_input_type=dict[str, Any] | None)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


class InputTensor(_Part):
    """An input."""

    name: str = Field(description="any name, where there is one input")
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


MAX_OUTPUTS = 64

RequestedOutputs = Annotated[
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
        description="timeout in microseconds; binary_data_output: true answers all outputs after the JSON; "
        "sequence_id, sequence_start and sequence_end of rows (1, k, ...) of a series",
    )
    inputs: Annotated[list[InputTensor], FailFast()] = Field(min_length=1, description="a tensor for each input")
    outputs: RequestedOutputs = Field(default_factory=list)


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
    parameters: dict[str, Any] | None = Field(
        default=None,
        description='{"ready": false} of a series that has no window yet, whose outputs are of no sequences',
    )
    outputs: list[OutputTensor]


class ServerLive(Schema):
    """Whether the process works."""

    live: bool


class ServerReady(Schema):
    """Whether to send requests here."""

    ready: bool


class ServerMetadata(Schema):
    """What this is."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(Schema):
    """Whether the model answers."""

    name: str
    ready: bool


class TensorMetadata(Schema):
    """An input or an output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="the number of sequences first; -1 is any size")


class ModelMetadata(Schema):
    """What the model takes and answers."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(Schema):
    """A model of the repository, as Triton has it."""

    name: str
    version: str
    state: str
    reason: str
