"""Whether one model may take the place of another: its clients must not notice."""

from lstm_serve.engine.activations import SIGMOID, SOFTMAX
from lstm_serve.engine.operations.pointwise import Unscaling
from lstm_serve.errors import Incompatible
from lstm_serve.model.metadata import About
from lstm_serve.model.model import Model


def expect_same(new: Model, old: Model) -> None:
    """Raise Incompatible where clients of the old model could not be clients of the new one.

    A first card may name classes and features.
    """
    about, before = new.about, old.about
    if old.origin.verified and not new.origin.verified:
        raise Incompatible(
            "the model being served is verified, and the new one is not: it has no golden predictions beside it. "
            "Put them there"
        )
    for what, came, expected in (
        ("name", about.name, before.name),
        ("inputs", _inputs(new), _inputs(old)),
        ("outputs", _outputs(new), _outputs(old)),
        ("kind", new.kind, old.kind),
        ("input shape", new.input_shape, old.input_shape),
        ("input type (float64 where its card has scaling)", new.input_dtype, old.input_dtype),
        ("number of ids", new.id_limit, old.id_limit),
        ("output shape", new.output_shape, old.output_shape),
        ("output scaling", _unscaled(new), _unscaled(old)),
        ("output as probabilities", _probable(new), _probable(old)),
        ("classes", about.classes, about.classes if before.classes is None else before.classes),
        ("meaning of seq", about.series.seq, before.series.seq),
        ("features", _names(about), _names(about) if before.features is None else _names(before)),
    ):
        if came != expected:
            raise Incompatible(
                f"what clients rely on has changed, its {what}: {_in_short(expected)} before, {_in_short(came)} now. "
                "Start the service anew for another model"
            )


def _inputs(model: Model) -> list[object]:
    """What a client knows of each of several inputs; what it knows of one is compared by itself."""
    return [] if len(model.takes) == 1 else [*model.takes]


def _outputs(model: Model) -> list[object]:
    """Likewise, of several outputs."""
    if len(model.heads) == 1:
        return []
    return [(name, head.kind, head.output_shape, head.about.classes) for name, head in model.heads.items()]


def _unscaled(model: Model) -> bool:
    return any(isinstance(node.operation, Unscaling) for node in model.nodes)


def _probable(model: Model) -> bool:
    return model.last_activation in {SOFTMAX, SIGMOID}


def _names(about: About) -> tuple[str, ...] | None:
    return None if about.features is None else tuple(feature.name for feature in about.features)


def _in_short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
