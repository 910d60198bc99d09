"""A model as its card completes it: scaling before the first layer, what comes after the last one, and its words."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from lstm_serve.engine.activations import ACTIVATIONS, LINEAR, SOFTMAX, Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Activate, Scaling, Unscaling
from lstm_serve.engine.operations.temporal import Permute, Reshape
from lstm_serve.engine.operations.wrappers import tables
from lstm_serve.engine.types import Floats, Shape
from lstm_serve.errors import UnreadableFile, Unsupported
from lstm_serve.formats.text import printable
from lstm_serve.loading.assembly import Assembled
from lstm_serve.loading.sidecars import card as cards
from lstm_serve.loading.sidecars import card_by_name as said
from lstm_serve.loading.sidecars.card import Card, InputCard, OutputCard
from lstm_serve.loading.sidecars.scaling import ScalingCard
from lstm_serve.model.graph import INPUT, Node, Source, TensorSpec
from lstm_serve.model.kinds import has_threshold, last_activation
from lstm_serve.model.metadata import THRESHOLD, About, Origin, OutputWords, SeriesRules
from lstm_serve.model.model import Model

# What may be done to the numbers of a linear layer, from which a loss made probabilities: from_logits=True.
FROM_LOGITS = ("softmax", "sigmoid")


def model(assembled: Assembled, origin: Origin, card: Card, path: Path, from_logits: str | None) -> Model:
    """The model with what its card adds, and `from_logits`, an activation after its last layer.

    Raises UnreadableFile where the card does not fit it.
    """
    of_inputs, of_outputs = said.of_inputs(card, assembled.inputs), said.of_outputs(card, assembled.outputs)
    ids = [_takes_ids(assembled, k) for k in range(len(of_inputs))]
    for (name, shape), words, takes_ids in zip(assembled.inputs, of_inputs, ids, strict=True):
        _check_input("" if len(ids) == 1 else f" {name}", shape, words, takes_ids=takes_ids)
    nodes, ends = _scaled(assembled, of_inputs)
    name, version = cards.name_and_version(path)
    alone = len(of_outputs) == 1
    about = About(
        name=card.name or printable(name),
        version=card.version or version,
        description=card.description,
        classes=of_outputs[0].labels if alone else None,
        features=of_inputs[0].columns if len(ids) == 1 else None,
        inputs=() if len(ids) == 1 else tuple(words.columns for words in of_inputs),
        outputs=() if alone else tuple(OutputWords(words.labels, words.from_on) for words in of_outputs),
        series=SeriesRules(card.series.seq, card.series.gap),
        metadata=card.metadata,
        threshold=of_outputs[0].from_on if alone else THRESHOLD,
    )
    made = Model(
        nodes=nodes,
        inputs=tuple(
            TensorSpec(words.name or name, shape, _dtype(words, takes_ids=takes_ids), words.name and name)
            for (name, shape), words, takes_ids in zip(assembled.inputs, of_inputs, ids, strict=True)
        ),
        output_names=tuple(words.name or name for (name, _), words in zip(assembled.outputs, of_outputs, strict=True)),
        names_in_file=tuple(name for name, _ in assembled.outputs),
        ends=() if ends == [Source(len(nodes) - 1)] else tuple(ends),
        origin=origin,
        about=about,
    )
    if from_logits is not None and not alone:
        raise UnreadableFile("its card says output_activation, and the model has several outputs: the file says theirs")
    if from_logits is not None:
        made = _followed(made, 0, _activation(made, from_logits))
    for k, of in enumerate(of_outputs):
        head = [*made.heads.values()][k]
        _refuse_certainty(head, card.output_activation)
        if of.scaling is not None:
            made = _followed(made, k, _unscaling(head, of.scaling))
    for head, of in zip(made.heads.values(), of_outputs, strict=True):
        _check_classes(head, of)
    return made


def _takes_ids(assembled: Assembled, number: int) -> bool:
    given = Source(INPUT, number)
    return any(given in node.inputs and tables(node.operation) for node in assembled.nodes)


def _dtype(words: InputCard, *, takes_ids: bool) -> np.dtype[Any]:
    return np.dtype(np.int32 if takes_ids else np.float32 if words.scaling is None else np.float64)


def _check_input(which: str, shape: Shape, words: InputCard, *, takes_ids: bool) -> None:
    features = 1 if takes_ids else shape[-1] if shape else None
    if words.scaling is not None and takes_ids:
        raise UnreadableFile(f"its card scales the input{which}, which is ids")
    what = f"the input{which}" if which else "the model"
    if words.scaling is not None and len(words.scaling.offset) != features:
        raise UnreadableFile(
            f"its card scales {len(words.scaling.offset)} features, {what} has {features}: give a number for each"
        )
    if words.columns is not None and len(words.columns) != features:
        raise UnreadableFile(f"its card names {len(words.columns)} features, {what} has {features}")


def _scaled(assembled: Assembled, of_inputs: Sequence[InputCard]) -> tuple[tuple[Node, ...], list[Source]]:
    """The nodes behind those that scale the inputs, and where the outputs come from then."""
    first: list[Node] = []
    scaled: dict[Source, Source] = {}
    for k, ((name, _), words) in enumerate(zip(assembled.inputs, of_inputs, strict=True)):
        if words.scaling is not None:
            scaled[Source(INPUT, k)] = Source(len(first))
            called = "scaling" if len(of_inputs) == 1 else f"scaling of {name}"
            operation = Scaling(name=called, keras_class="Scaling", **_arrays(words.scaling))
            first.append(Node(operation, (Source(INPUT, k),)))

    def moved(source: Source) -> Source:
        return scaled.get(source, source) if source.node == INPUT else Source(source.node + len(first), source.output)

    nodes = (Node(operation, tuple(map(moved, inputs))) for operation, inputs in assembled.nodes)
    return (*first, *nodes), [moved(source) for _, source in assembled.outputs]


def _arrays(scaling: ScalingCard) -> dict[str, Floats]:
    return {"offset": np.array(scaling.offset, np.float64), "scale": np.array(scaling.divisor, np.float64)}


def _followed(model: Model, number: int, layer: Operation) -> Model:
    """The model with a layer after the output of that number."""
    ends = [*model.results]
    node, ends[number] = Node(layer, (ends[number],)), Source(len(model.nodes))
    return replace(
        model,
        nodes=(*model.nodes, node),
        ends=() if len(ends) == 1 else tuple(ends),
        added=model.added + 1,
    )


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
    index = model.results[0].node
    while index != INPUT and isinstance(model.nodes[index].operation, Reshape | Permute):
        index = model.nodes[index].inputs[0].node
    return last_activation(model.nodes, Source(index))


def _unscaling(model: Model, scaling: ScalingCard) -> Unscaling:
    if model.last_activation is SOFTMAX:
        raise UnreadableFile("its card has an output_scaling, and the model answers probabilities")
    width = model.output_shape[-1] if model.output_shape else None
    if len(scaling.offset) not in {1, width}:
        raise UnreadableFile(f"its card's output_scaling is of {len(scaling.offset)} numbers, the output has {width}")
    return Unscaling(name="output_scaling", keras_class="Unscaling", **_arrays(scaling))


def _check_classes(model: Model, words: OutputCard) -> None:
    """Raise UnreadableFile where there are not as many classes as the card names, or a threshold means nothing."""
    classes = model.about.classes
    labels = _label_count(model)
    if classes is not None and len(classes) != labels:
        wanted = (
            f"the model's output has {labels}"
            if labels is not None
            else "the model answers plain values: its last activation is no softmax, or at each step, and no sigmoid. "
            'If a loss made probabilities of them (from_logits=True), the card says "output_activation"'
        )
        raise UnreadableFile(f"its card names {len(classes)} classes; {wanted}")
    if words.threshold is not None and not has_threshold(model.kind):
        raise UnreadableFile(
            "its card says a threshold, and the model has no probabilities that are each by itself: one sigmoid unit, "
            "or several that the card names as classes"
        )


def _label_count(model: Model) -> int | None:
    """How many classes a card may name; None of plain values."""
    match model.kind:
        case "binary":
            return 2
        case "classes" | "labels" | "steps":
            return model.output_shape[-1]
        case "values":
            return None
        case _:
            assert_never(model.kind)


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
