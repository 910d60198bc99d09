"""Pydantic: what is answered, for the model that is served, and the native dialect's errors."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model

from lstm_serve.model.kinds import Kind, has_threshold
from lstm_serve.model.metadata import Feature
from lstm_serve.model.model import Model


class Schema(BaseModel):
    """What a body is, mostly for the document alone: Pydantic builds what it validates with once that is needed."""

    model_config = ConfigDict(defer_build=True)


class AnyBody(BaseModel):
    """What the model takes that the path means: GET /models/{model_name} has its JSON Schema."""

    model_config = ConfigDict(extra="allow")


class AnyAnswer(Schema):
    """What the model answers that the path means: GET /models/{model_name} has its JSON Schema."""

    model_config = ConfigDict(extra="allow")


class ClassesAnswer(Schema):
    """The answer of a classifier."""

    probabilities: list[float] = Field(description="one for each class; they sum to 1")
    predicted_class: int = Field(description="the index of the largest")
    label: str | None = Field(description="its label, where the model's card has labels")


class BinaryAnswer(Schema):
    """The answer of a model with one sigmoid unit."""

    probability: float = Field(description="of class 1")
    predicted_class: int = Field(ge=0, le=1, description="1 from the model's threshold on")
    label: str | None = Field(description="its label, where the model's card has labels")


class LabelsAnswer(Schema):
    """The answer of a model with several sigmoid units, whose card names them: any number of them may be true."""

    probabilities: list[float] = Field(description="one for each class, each by itself")
    labels: list[str] = Field(description="those whose probability is the model's threshold or over it")


class StepsAnswer(Schema):
    """The answer of a classifier of each time step."""

    steps: list[ClassesAnswer] = Field(description="one for each step")


class ValuesAnswer(Schema):
    """The answer of any other model: its output as it is."""

    values: list[Any] = Field(description="nested as the model's output")


ANSWERS: dict[Kind, type[BaseModel]] = {
    "classes": ClassesAnswer,
    "binary": BinaryAnswer,
    "labels": LabelsAnswer,
    "steps": StepsAnswer,
    "values": ValuesAnswer,
}


def one_and_many_answers(model: Model) -> tuple[type[BaseModel], type[BaseModel]]:
    """The answers of POST /predict and POST /predict/batch, by the kind of the model."""
    one: Any = ANSWERS[model.kind]
    if len(model.outputs) > 1:
        fields: Any = {
            f"output_{k}": (ANSWERS[output.kind], Field(alias=str(output.name)))
            for k, output in enumerate(model.outputs)
        }
        one = create_model("OutputsAnswer", outputs=(create_model("OutputAnswers", **fields), ...))
    many = create_model(
        "PredictBatchAnswer",
        __doc__="An answer for each sequence, in their order.",
        predictions=(list[one], Field(description="in the order of the sequences")),
    )
    return one, many


class ProblemDetails(Schema):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list["ProblemAt"] | None = Field(default=None, description="what is wrong with the input; ten at most")
    expected: int | None = Field(default=None, description="of a series, the number that comes next")
    got: int | None = Field(default=None, description="and the one that came")
    request_id: str | None = Field(default=None, description="the id under which the log has a fault of ours")


class ProblemAt(Schema):
    """One thing that is wrong with an input."""

    detail: str
    pointer: str = Field(description="a JSON Pointer into the body")


class PlainError(Schema):
    """An error, as v1 and v2 have it."""

    error: str


class ModelNames(Schema):
    """The models that are served, by their names."""

    models: list[str]


class WeightInfo(Schema):
    """An array of a layer."""

    name: str
    shape: list[int]


class LayerInfo(Schema):
    """A layer of the model."""

    name: str
    class_name: str = Field(description="its class in Keras; Scaling is the card's")
    output_shape: list[int | None]
    parameters: int
    weights: list[WeightInfo]


class FeatureInfo(Schema):
    """An input column."""

    name: str
    unit: str | None
    description: str | None


class InputInfo(Schema):
    """An input."""

    name: str | None
    in_file: str | None = Field(description="its name in the file, where the card calls it by another")
    shape: list[int | None] = Field(description="without the batch axis; null is any size")
    dtype: str
    ids: int | None = Field(description="where it is ids, their number")
    features: list[FeatureInfo] | None


class OutputInfo(Schema):
    """An output."""

    name: str | None
    shape: list[int | None]
    kind: str
    classes: list[str] | None
    threshold: float | None


class ModelInfo(Schema):
    """The model that is served."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: str
    description: str | None
    kind: str = Field(description=f"one of {', '.join(ANSWERS)}; of several outputs that of the first")
    threshold: float | None = Field(
        description="from this probability on a class is predicted, where each is by itself"
    )
    file: str
    format: str
    keras_version: str | None = Field(description="the Keras that saved the file")
    sha256: str = Field(description="of the model's own file, or files")
    digest: str = Field(description="of all that the numbers depend on, the card's part too: what X-Model-Sha256 says")
    verified: bool = Field(description="whether it has reproduced what Keras answered")
    golden_rows: int
    golden_difference: float | None
    tolerance: float
    rounding: float | None = Field(
        description="where float32 does not suffice for 1e-5: how far Keras' own answers are from those of float64"
    )
    assumed: list[str] = Field(description="what the file does not tell and its Keras version fixes")
    input_shape: list[int | None] = Field(description="of the first input, without the batch axis; null is any size")
    output_shape: list[int | None]
    series: Literal["window", "carry"] | None = Field(
        description="how a row of a series is answered: by the window it ends, or by the states that all rows before "
        "left; null where there are no series"
    )
    inputs: list["InputInfo"] = Field(description="in the order of the file; of one, what stands beside this")
    outputs: list["OutputInfo"] = Field(description="likewise")
    classes: list[str] | None
    features: list[FeatureInfo] | None
    parameters: int
    layers: list[LayerInfo]
    metadata: dict[str, Any] = Field(description="whatever else the card says")


class PathSchemas(Schema):
    """What a path of a model takes and answers, each as a JSON Schema."""

    request: dict[str, Any]
    answer: dict[str, Any]


class ModelDetails(ModelInfo):
    """A model that is served, its versions, and what each of its paths takes and answers."""

    versions: list[str] = Field(description="those that can be asked for; `version` answers where none is")
    paths: dict[str, PathSchemas] = Field(description="by what comes after the model's name")


class ModelSummary(Schema):
    """A model, or why it is not served."""

    name: str
    version: str | None = Field(
        default=None, description="that answers where none is asked for; null where it is not served"
    )
    versions: list[str] = Field(default=[], description="those that can be asked for")
    default: bool = Field(default=False, description="whether it is that of the paths that name none")
    kind: str | None = Field(default=None, description="of several outputs each kind that there is")
    verified: bool | None = None
    digest: str | None = None
    refused: str | None = Field(default=None, description="why its files, as they are now, are not what is served")


class ModelList(Schema):
    """Each model, served or not."""

    models: list[ModelSummary]


def _features(features: Sequence[Feature] | None) -> list[FeatureInfo] | None:
    if features is None:
        return None
    return [FeatureInfo(name=f.name, unit=f.unit, description=f.description) for f in features]


def _threshold(model: Model) -> float | None:
    return model.about.threshold if has_threshold(model.kind) else None


def model_info(model: Model) -> ModelInfo:
    """What GET /model answers."""
    about, origin = model.about, model.origin
    return ModelInfo(
        name=about.name,
        version=about.version,
        description=about.description,
        kind=model.kind,
        threshold=_threshold(model),
        file=origin.file,
        format=origin.format,
        keras_version=origin.keras,
        sha256=origin.sha256,
        digest=origin.digest,
        verified=origin.verified,
        golden_rows=origin.golden_rows,
        golden_difference=origin.golden_difference,
        tolerance=origin.tolerance,
        rounding=origin.rounding,
        assumed=list(origin.assumed),
        input_shape=list(model.input_shape),
        output_shape=list(model.output_shape),
        series=model.series_mode,
        inputs=[
            InputInfo(
                name=given.name,
                in_file=spec.in_file,
                shape=list(given.shape),
                dtype=np.dtype(given.dtype).name,
                ids=given.id_limit,
                features=_features(given.features),
            )
            for given, spec in zip(model.takes, model.inputs, strict=True)
        ],
        outputs=[
            OutputInfo(
                name=name,
                shape=list(head.output_shape),
                kind=head.kind,
                classes=None if head.about.classes is None else list(head.about.classes),
                threshold=_threshold(head),
            )
            for name, head in model.heads.items()
        ],
        classes=None if about.classes is None else list(about.classes),
        features=_features(about.features),
        parameters=model.parameters,
        layers=[
            LayerInfo(
                name=node.operation.name,
                class_name=node.operation.keras_class,
                output_shape=list(shape),
                parameters=sum(array.size for array in node.operation.weights.values()),
                weights=[
                    WeightInfo(name=name, shape=list(array.shape)) for name, array in node.operation.weights.items()
                ],
            )
            for node, shape in zip(model.nodes, model.shapes, strict=True)
        ],
        metadata=about.metadata,
    )
