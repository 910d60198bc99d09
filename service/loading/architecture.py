"""A Keras model's JSON, as far as its wiring goes: which layers there are and what feeds what."""

from typing import Any, NamedTuple

from service.engine.recurrent import Shape
from service.errors import UnreadableFile, Unsupported
from service.loading.keras_json import MAX_LAYERS


class LayerSpec(NamedTuple):
    """A layer as its file describes it. `inputs` count as in the engine's Node: 0 is the model's input."""

    class_name: str
    name: str
    config: dict[str, Any]
    inputs: tuple[int, ...]


class Architecture(NamedTuple):
    """The layers in the order of their computation. `input_shape` is None where the file does not tell."""

    input_shape: Shape | None
    layers: tuple[LayerSpec, ...]


def read(model: Any) -> Architecture:  # noqa: ANN401 - JSON is anything
    """The architecture in a parsed `model_config`.

    Keras before 2.2.3 lists a Sequential's layers as `config` itself, later ones as `config["layers"]`.
    """
    class_name = _dict(model, "the model").get("class_name")
    if class_name != "Sequential":
        raise Unsupported(f"the model is a {str(class_name)[:40]!r}; only Sequential models are supported")
    config = model.get("config")
    listed = config.get("layers") if isinstance(config, dict) else config
    if not isinstance(listed, list) or not listed:
        raise UnreadableFile("the model's config lists no layers")
    if len(listed) > MAX_LAYERS:
        raise UnreadableFile(f"the model has {len(listed)} layers; at most {MAX_LAYERS} are read")
    input_shape = _shape(config.get("build_input_shape")) if isinstance(config, dict) else None
    layers: list[LayerSpec] = []
    for entry in listed:
        layer = _dict(entry, "a layer")
        settings = _dict(layer.get("config"), "a layer's config")
        given = settings.get("batch_input_shape") or settings.get("batch_shape")
        if not layers and given is not None:
            input_shape = _shape(given)
        if layer.get("class_name") == "InputLayer":
            continue
        name = settings.get("name", f"layer_{len(layers)}")
        layers.append(LayerSpec(str(layer.get("class_name"))[:100], str(name), settings, (len(layers),)))
    return Architecture(input_shape, tuple(layers))


def _dict(value: Any, what: str) -> dict[str, Any]:  # noqa: ANN401 - JSON is anything
    if not isinstance(value, dict):
        raise UnreadableFile(f"{what} is {str(value)[:40]!r} in the file, where an object was expected")
    return value


def _shape(batch_shape: Any) -> Shape | None:  # noqa: ANN401 - JSON is anything
    """A shape without its batch axis; None where there is none."""
    if batch_shape is None:
        return None
    if not isinstance(batch_shape, list) or not batch_shape:
        raise UnreadableFile(f"the input shape is {str(batch_shape)[:40]!r}, where a list was expected")
    for size in batch_shape[1:]:
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 1 << 24):
            raise UnreadableFile(f"the input shape {str(batch_shape)[:40]!r} has an axis that is no size")
    return tuple(batch_shape[1:])
