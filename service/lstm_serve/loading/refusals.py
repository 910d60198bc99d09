"""Why a layer or an operation of a file is refused, and what to do instead where there is something.

Each way out is a line that a person can act on in the Keras that made the model; the answers stay the same.
"""

import difflib
from collections.abc import Iterable

from lstm_serve.errors import Unsupported

# How the class of what is no layer begins, where a graph has operations between its layers.
OPERATION = "operation "

REBUILD = "give it the weights, new.set_weights(old.get_weights()), and save that"
LAYERS_FOR_OPERATIONS = (
    "where layers do the same (Add, Multiply, Concatenate, Activation, Reshape, Rescaling for a * x + b), build the "
    f"model with them, {REBUILD}"
)
BEFORE_THE_MODEL = (
    "do its work before the request, and save the layers behind it alone. Where it is the first of a Sequential: "
    "x = i = keras.Input(shape), then x = k(x) for each k in m.layers[1:], then keras.Model(i, x).save('m.h5')"
)

# Classes that files do have: what keeps them out, and the way out if there is one.
REFUSED = {
    "Lambda": (
        "it carries code, and no code of a model is ever run. If it is t[:, -1], that is return_sequences=False in "
        "the layer before it; if (x - a) / b, Rescaling(1 / b, -a / b) or the card's scaling: build the model so, "
        f"{REBUILD}"
    ),
    **dict.fromkeys(("TextVectorization", "StringLookup"), f"it takes text: {BEFORE_THE_MODEL}"),
    "Hashing": BEFORE_THE_MODEL,
}

# Keras' own layers, of 2 and 3: one that is not read is a gap of ours, and of nobody's making.
OF_KERAS = frozenset(
    f"{name}{axes}D"
    for name in (
        *("Conv", "SeparableConv", "DepthwiseConv", "LocallyConnected", "ConvLSTM", "Cropping", "ZeroPadding"),
        *("UpSampling", "MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "SpatialDropout"),
    )
    for axes in "123"
) | {
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "UnitNormalization", "GroupNormalization"),
    *("RMSNormalization", "SpectralNormalization", "EinsumDense", "MaxoutDense", "Highway", "GroupQueryAttention"),
    *("Resizing", "CenterCrop", "RandomFlip", "RandomRotation", "RandomZoom", "RandomCrop", "RandomContrast"),
    *("RandomTranslation", "RandomBrightness", "RandomHeight", "RandomWidth", "HashedCrossing", "MelSpectrogram"),
    *("STFTSpectrogram", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "DenseFeatures"),
}

STATEFUL = "stateful, and every sequence starts from states of 0, as in Keras after reset_states()"
OTHER_MODEL = (
    "supported are Sequential and functional models, not classes of one's own. Where its call() is made of Keras' "
    "layers, i = keras.Input(shape); keras.Model(i, m.call(i)).save('m.h5') saves a functional one"
)
STATES = "Where it is h, the first of an LSTM's states, that is what the layer gives with return_sequences=False"
QUANTIZED = "quantized weights are not read: save the model as it was before quantize()"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a refusal of a name that is not known: which known ones are like it, and where all are listed."""
    near = ", ".join(difflib.get_close_matches(name, sorted(known), n=3))
    return f"{near and f'Most like it: {near}. '}All that are read: docs/supported-models.md"


def unsupported(class_name: str, name: str, known: Iterable[str]) -> Unsupported:
    """The refusal of a layer, or of an operation, that is of no class that is `known`."""
    if class_name.startswith(OPERATION) or class_name.endswith("OpLambda"):
        operation = class_name.removeprefix(OPERATION)
        return Unsupported(
            f"the model has the operation {operation} {name[:100]!r}, outside of any layer, which is not supported: "
            f"{LAYERS_FOR_OPERATIONS}"
        )
    what = f"the layer {name[:100]!r} is of the class {class_name}, which is not supported"
    if class_name in REFUSED:
        return Unsupported(f"{what}: {REFUSED[class_name]}")
    if class_name in OF_KERAS:
        return Unsupported(f"{what}. {nearest(class_name, known)}")
    return Unsupported(
        f"{what}. {nearest(class_name, known)}. If it is of your own making and Keras' layers "
        f"compute the same, build the model with those, {REBUILD}"
    )
