"""The Open Inference Protocol v2: from the bytes of a request to an array, and from answers to bytes.

Protocol: inference_rest.md of kserve/open-inference-protocol. Binary tensors: extension_binary_data.md of
triton-inference-server/server. Parameters: extension_parameters.md there.
"""

import math
import re
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from lstm_serve.engine.types import AnyArray, Array
from lstm_serve.errors import InvalidInput, Malformed, Problem
from lstm_serve.model.answers import predicted_classes
from lstm_serve.model.model import Model
from lstm_serve.model.records import packed, unpacked
from lstm_serve.web.dialects.v2.request import Head, NumberedTensor, read_head
from lstm_serve.web.dialects.v2.tensors import from_bytes, from_json, where_in
from lstm_serve.web.nested_lists import FEW, HEAVY, ROOM, expect_short
from lstm_serve.web.predict import Predicted

SHORT = 4096  # bytes of JSON

HEADER_LENGTH = b"inference-header-content-length"


class Infer:
    """A request. What was parsed or received of its tensor is held until there is an array."""

    def __init__(self, model: Model, head: Head, sent: Sequence[NumberedTensor], raw: bytes, start: int) -> None:
        """Binary data starts at `start` of the body."""
        self.head = head
        self.size = sent[0].tensor.shape[0 if head.sequence is None else 1]
        self._model, self._sent, self._raw, self._start = model, sent, raw, start

    def arrays(self, dtype: npt.DTypeLike) -> list[Array]:  # noqa: ARG002 - each input has its own
        """The inputs (n, *input_shape), packed. Raises InvalidInput or Malformed."""
        raw, start, model = self._raw, self._start, self._model
        found: dict[int, Array] = {}
        binary = [k for k, one in enumerate(self._sent) if one.tensor.data is None]
        if not binary and len(raw) > start:
            raise Malformed(f"expected nothing after the JSON, got {len(raw) - start} bytes")
        for k, (tensor, place, number) in enumerate(self._sent):
            if tensor.data is None:
                x = from_bytes(tensor, raw, start, place, last=k == binary[-1])
                start += tensor.parameters["binary_data_size"]
            else:
                x = from_json(tensor, tensor.data, place)
            if x.dtype == bool:
                x = (x.view(np.uint8) != 0).view(np.uint8)
            try:
                if self.head.sequence is not None:
                    return [model.checked_rows(x[0]).astype(model.input_dtype)[np.newaxis]]
                found[number] = model.takes[number].checked(x)
            except InvalidInput as error:
                rows = () if self.head.sequence is None else (0,)
                raise InvalidInput(
                    [Problem(where_in(tensor, place, (*rows, *one.where)), one.detail) for one in error.problems]
                ) from None
        xs = [found[k] for k in range(len(found))]
        model.check_free(*(x.shape[1:] for x in xs))
        return [model.packed(xs)]

    def let_go(self) -> None:
        """Forget the tensor and the body: the request may wait long for its answer."""
        del self._sent, self._raw


def decode(model: Model, raw: bytes, headers: Mapping[bytes, bytes], max_rows: int, longest: int) -> Infer:
    """A request from the bytes of its body. Raises Malformed, InvalidInput, or TooLarge for too many time steps."""
    given, start = headers.get(HEADER_LENGTH), len(raw)
    if given is not None:
        if not re.fullmatch(rb"[0-9]{1,10}[ \t]*", given) or int(given) > start:
            raise Malformed(
                "expected the length of the body's JSON part in the header Inference-Header-Content-Length, "
                f"at most the body's {start} bytes"
            )
        start = int(given)
    json = raw if given is None else raw[:start]
    if len(json) > HEAVY:
        _weigh(model, json, max_rows)
    same = given is not None and start <= SHORT
    try:
        head, sent = _same_head(weakref.ref(model), json) if same else read_head(model, json)
    except Malformed as error:
        if given is not None:
            raise
        raise Malformed(f"{error}; binary tensors need the header Inference-Header-Content-Length") from None
    if head.sequence is None:  # else they are rows of a series
        for tensor, _, number in sent:
            expect_short(model.takes[number].shape, tensor.shape[1:], longest)
    return Infer(model, head, sent, raw, start)


def _weigh(model: Model, json: bytes, max_rows: int) -> None:
    """Refuse, before it is parsed, what cannot be good and would take thirty times its size in memory."""
    shapes = [spec.shape for spec in model.inputs]
    numbers = max_rows * sum(math.prod(math.inf if size is None else size for size in shape) for shape in shapes)
    few = FEW * len(shapes)
    for mark, most in ((b",", numbers), (b"[", numbers), (b"{", few), (b'"', few)):
        if json.count(mark) > ROOM * most:
            raise InvalidInput.at(
                f"expected {model.expects} of at most {max_rows} sequences, got a body with much else", "inputs", 0
            )


@lru_cache(maxsize=64)
def _same_head(model: "weakref.ref[Model]", json: bytes) -> tuple[Head, Sequence[NumberedTensor]]:
    """As `read_head`: before binary data a client says the same each time, and the second time it takes 25 us less."""
    held = model()
    assert held is not None  # noqa: S101 - the caller has it
    return read_head(held, json)


def encode(model: Model, part: Predicted | None, head: Head) -> tuple[bytes, int | None]:
    """The answer's bytes, and the length of their JSON part where binary tensors follow it.

    Of a series that has no window yet there is nothing, and the outputs are of no sequences.
    """
    y, classes = part or _nothing(model)
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    ys = unpacked(y)
    for name, is_class, binary, number in head.outputs:
        tensor: AnyArray = np.array(classes, "<i8") if is_class else np.ascontiguousarray(ys[number], "<f4")
        output: dict[str, Any] = {"name": name, "shape": tensor.shape, "datatype": "INT64" if is_class else "FP32"}
        if binary:
            tail.append(tensor.tobytes())
            output["parameters"] = {"binary_data_size": tensor.nbytes}
        else:
            output["data"] = tensor.reshape(-1)
        outputs.append(output)
    about = model.about
    answer: dict[str, Any] = {"model_name": about.name, "model_version": about.version, "outputs": outputs}
    if head.id is not None:
        answer["id"] = head.id
    if part is None:
        answer["parameters"] = {"ready": False}
    json = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([json, *tail]), len(json)) if tail else (json, None)


def _nothing(model: Model) -> Predicted:
    shapes = [[0, *(size or 0 for size in output.shape)] for output in model.outputs]
    y = packed(model.output_names, [np.empty(shape, np.float32) for shape in shapes])
    return Predicted(y, predicted_classes(model, y))
