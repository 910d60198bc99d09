"""A model as its card completes it: scaling before the first layer, what comes after the last one, and its words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_serve.engine.activations import ACTIVATIONS, LINEAR, SOFTMAX, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Activate, Scaling, Unscaling
from lstm_serve.engine.operations.temporal import Embedding, Permute, Reshape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats.text import printable
from lstm_serve.loading.assembly import Assembled
from lstm_serve.loading.sidecars import card as cards
from lstm_serve.loading.sidecars.card import Card
from lstm_serve.loading.sidecars.scaling import ScalingCard
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.metadata import About, Origin, SeriesRules
from lstm_serve.model.model import Model

# What may be done to the numbers of a linear layer, from which a loss made probabilities: from_logits=True.
FROM_LOGITS = ("softmax", "sigmoid")


def model(assembled: Assembled, origin: Origin, card: Card, path: Path, from_logits: str | None) -> Model:
    """The model with what its card adds, and `from_logits`, an activation after its last layer.

    Raises UnreadableFile where the card does not fit it.
    """
    nodes, input_shape = assembled.nodes, assembled.input_shape
    takes_ids = any(isinstance(node.operation, Embedding) for node in nodes)
    features = 1 if takes_ids else input_shape[-1] if input_shape else None
    if card.scaling is not None:
        if takes_ids:
            raise UnreadableFile("its card scales the input, which is ids")
        if len(card.scaling.offset) != features:
            raise UnreadableFile(
                f"its card scales {len(card.scaling.offset)} features, the model has {features}: give a number for each"
            )
        first = Node(Scaling(name="scaling", keras_class="Scaling", **_arrays(card.scaling)), (Source(INPUT),))
        moved = (Node(op, tuple(Source(node + 1, output) for node, output in inputs)) for op, inputs in nodes)
        nodes = (first, *moved)
    name, version = cards.called(path)
    about = About(
        name=card.name or printable(name),
        version=card.version or version,
        description=card.description,
        classes=None if card.classes is None else tuple(card.classes),
        features=card.columns,
        series=SeriesRules(card.series.seq, card.series.gap),
        metadata=card.metadata,
        **({} if card.threshold is None else {"threshold": card.threshold}),
    )
    if about.features is not None and len(about.features) != features:
        raise UnreadableFile(f"its card names {len(about.features)} features, the model has {features}")
    dtype: np.dtype[Any] = np.dtype(np.int32 if takes_ids else np.float32 if card.scaling is None else np.float64)
    made = Model(
        nodes=nodes,
        inputs=(TensorSpec(assembled.input_name, input_shape, dtype),),
        output_names=(assembled.output_name,),
        origin=origin,
        about=about,
    )
    if from_logits is not None:
        made = _followed(made, _activation(made, from_logits))
    _refuse_certainty(made, card.output_activation)
    if card.output_scaling is not None:
        made = _followed(made, _unscaling(made, card.output_scaling))
    _check_classes(made, card)
    return made


def _arrays(scaling: ScalingCard) -> dict[str, npt.NDArray[np.float64]]:
    return {"offset": np.array(scaling.offset, np.float64), "scale": np.array(scaling.divisor, np.float64)}


def _followed(model: Model, layer: Operation) -> Model:
    return replace(model, nodes=(*model.nodes, Node(layer, (Source(len(model.nodes) - 1),))), added=model.added + 1)


def _activation(model: Model, name: str) -> Activate:
    """What makes probabilities of the model's output, which must be that of a linear layer."""
    made_by = _made_by(model)
    if made_by is not LINEAR or name not in FROM_LOGITS:
        came = "ends in no layer with an activation" if made_by is None else f"ends in {made_by.name}"
        raise UnreadableFile(
            f"the architecture says its output_activation itself, it {came}; leave it out, and out of its card. "
            "softmax or sigmoid may be given where it ends in linear, for a loss that was told from_logits"
        )
    return Activate(name="output_activation", keras_class="Activation", activation=ACTIVATIONS[name])


def _made_by(model: Model) -> Activation | None:
    """The function that made the numbers of the output, whatever their shape was then."""
    index = len(model.nodes) - 1
    while index != INPUT and isinstance(model.nodes[index].operation, Reshape | Permute):
        index = model.nodes[index].inputs[0].node
    return replace(model, nodes=model.nodes[: index + 1]).last_activation


def _unscaling(model: Model, scaling: ScalingCard) -> Unscaling:
    if model.last_activation is SOFTMAX:
        raise UnreadableFile("its card has an output_scaling, and the model answers probabilities")
    width = model.output_shape[-1] if model.output_shape else None
    if len(scaling.offset) not in {1, width}:
        raise UnreadableFile(f"its card's output_scaling is of {len(scaling.offset)} numbers, the output has {width}")
    return Unscaling(name="output_scaling", keras_class="Unscaling", **_arrays(scaling))


def _check_classes(model: Model, card: Card) -> None:
    """Raise UnreadableFile where there are not as many classes as the card names, or a threshold means nothing."""
    classes = model.about.classes
    labels = {"binary": 2, "values": None}.get(model.kind, model.output_shape[-1] if model.output_shape else None)
    if classes is not None and len(classes) != labels:
        wanted = (
            f"the model's output has {labels}"
            if labels is not None
            else "the model answers plain values: its last activation is no softmax, or at each step, and no sigmoid. "
            'If a loss made probabilities of them (from_logits=True), the card says "output_activation"'
        )
        raise UnreadableFile(f"its card names {len(classes)} classes; {wanted}")
    if card.threshold is not None and model.kind not in {"binary", "labels"}:
        raise UnreadableFile(
            "its card says a threshold, and the model has no probabilities that are each by itself: one sigmoid unit, "
            "or several that the card names as classes"
        )


def _refuse_certainty(model: Model, told: str | None) -> None:
    """Raise where the output is a softmax over one unit: it is 1, whatever the input."""
    if model.last_activation is not SOFTMAX or model.output_shape[-1:] != (1,):
        return
    always = "a softmax over one unit is 1, whatever the input"
    if told is not None:
        raise UnreadableFile(
            f"output_activation is {told}, and the output is one unit: {always}. A probability of one unit is a "
            "sigmoid: --output-activation sigmoid, or output_activation in the card"
        )
    raise Unsupported(
        f"its output is one unit with softmax: {always}, in Keras as well. A probability of one unit is a sigmoid: "
        "give the last layer activation='sigmoid', and train it again"
    )
