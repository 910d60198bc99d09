"""What is no model in any form that is read: told by how it begins, and what to do about it."""

import re
from io import BufferedReader
from pathlib import Path

from lstm_serve.errors import ModelError, UnreadableFile, Unsupported
from lstm_serve.formats.folder import opened
from lstm_serve.formats.text import UTF_16, not_utf8, without_mark

# NumPy reads pickles as well as its own files. What is in them may be arrays or lists of numbers, nested anyhow.
PICKLE = (
    "is a pickle, or holds one, and loading a pickle can run any code. Where you trust it, turn its weights into plain "
    "arrays: import numpy as np; w = np.load(FILE, allow_pickle=True, encoding='latin1'); "
    "first = lambda w: first(w[0]) if isinstance(w, (list, tuple)) and w else w; "
    "flat = lambda w: [w] if hasattr(w, 'dtype') and w.dtype != object else [np.array(w)] "
    "if type(first(w)) is float and type(np.array(w, object).flat[0]) is float "
    "else [a for x in (w.values() if hasattr(w, 'values') else w) for a in flat(x)]; "
    "np.savez('weights.npz', *flat(w)). "
    "Or, of a whole model, where Keras is: import pickle; pickle.load(open(FILE, 'rb')).save('model.h5')"
)
JOBLIB = PICKLE.replace(
    "np.load(FILE, allow_pickle=True, encoding='latin1')", "__import__('joblib').load(FILE)"
).replace("import pickle; pickle.load(open(FILE, 'rb'))", "import joblib; joblib.load(FILE)")
YAML = (
    "is YAML, which later Kerases dropped as a risk. Turn it into JSON in the Keras that wrote it: "
    "from keras.models import model_from_yaml; "
    "open('model.json', 'w').write(model_from_yaml(open(FILE).read()).to_json())"
)
SAVEZ = "Save weights as np.savez('weights.npz', *model.get_weights())"
ORIGINAL = "Give the Keras model that it was converted from, as model.save('model.h5') writes it"
TFLITE = f"is a model of TensorFlow Lite, which keeps operations and no layers. {ORIGINAL}"
ONNX = f"is a model in ONNX, which keeps operations and no layers of Keras. {ORIGINAL}"
TORCH = "is a file of PyTorch, whose models are Python code. Only models of Keras are read"
TFJS = (
    "is a model of TensorFlow.js. Where it has layers, turn it back: tensorflowjs_converter "
    "--input_format=tfjs_layers_model --output_format=keras model.json model.h5. Or give the Keras model that it was "
    "converted from, as model.save('model.h5') writes it"
)
PACKED = "is compressed by {0}. Unpack it first: {1} FILE"

# By how the file begins; the first that matches.
RECOGNIZED: tuple[tuple[bytes, ModelError], ...] = (
    (rb"^version https://git-lfs", UnreadableFile("is a pointer of Git LFS, not the file. Run: git lfs pull")),
    (rb"(?s)^\x93NUMPY.{2,60}'descr': '\|O'", Unsupported(PICKLE)),
    (rb"^\x93NUMPY", Unsupported(f"is one array, where all of a model's weights were expected. {SAVEZ}")),
    (rb"(?s)^\x80[\x02-\x05].{0,200}joblib", Unsupported(JOBLIB)),
    # Protocols 1 to 5; and 0 and 1 of a list, a dict, an array or an object.
    (rb"^(\x80[\x01-\x05]|\((l|dp)|[\]}]q|c[A-Za-z_.]+\n)", Unsupported(PICKLE)),
    # A FlatBuffer with the identifier of tensorflow/lite/schema/schema.fbs.
    (rb"(?s)^.{4}TFL3", Unsupported(TFLITE)),
    # ModelProto of onnx.proto: ir_version, and then producer_name, a text, or what comes after that.
    (rb"(?s)^\x08[\x01-\x20](\x12[\x01-\x7f][ -~]|\x12\0|[\x1a\x22\x32\x3a\x42].|\x28)", Unsupported(ONNX)),
    (rb"(?m)^(class_name|backend|config|keras_version) *:", Unsupported(YAML)),
    (
        rb"(?i)^\s*<(!doctype|html|\?xml)",
        UnreadableFile("is a web page: the download went wrong. Fetch the file itself, not the page about it"),
    ),
    (rb"^\x1f\x8b", UnreadableFile(PACKED.format("gzip", "gunzip"))),
    (rb"^BZh[1-9]", UnreadableFile(PACKED.format("bzip2", "bunzip2"))),
    (rb"^\xfd7zXZ", UnreadableFile(PACKED.format("xz", "unxz"))),
)


def refusal(head: bytes, file: BufferedReader) -> ModelError:
    """What to say of a file that begins with `head`."""
    for pattern, error in RECOGNIZED:
        if re.search(pattern, without_mark(head)):
            return error
    if head.startswith(UTF_16):
        return UnreadableFile(not_utf8(head))
    if _of_tensorflow_js(Path(str(file.name))):
        return Unsupported(TFJS)
    return UnreadableFile(
        "is no model in any form that is read: HDF5 or .keras of Keras, weights as HDF5, .npz or JSON. "
        "The download may be incomplete. Save the model with model.save('model.h5')"
    )


def _of_tensorflow_js(path: Path) -> bool:
    """Whether the model.json beside a file names it as weights: what is in it are numbers alone."""
    try:
        with opened(path.with_name("model.json")) as beside:
            data = beside.read(4 << 20)
    except (OSError, ValueError):
        return False
    return b'"weightsManifest"' in data and b'"%s"' % path.name.encode() in data
