"""Each operation and each activation, made by hand, in each target that can be run here: against the engine."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_activation import EVERY_ACTIVATION
from exporting import EACH_TARGET, EVERY, difference
from golden_models import golden_of
from small_models import dense, lstm, model, numbers

from lstm_serve.engine.activations import (
    ACTIVATIONS,
    HARD_SIGMOID_KERAS_2,
    SIGMOID,
    SOFTMAX,
    TANH,
    relu,
)
from lstm_serve.engine.functions import FUNCTIONS
from lstm_serve.engine.operations import arithmetic, merging, pointwise, recurrent, temporal, windows, wrappers
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.types import Array
from lstm_serve.errors import Unsupported
from lstm_serve.export import target
from lstm_serve.export.artifact import write
from lstm_serve.model.graph import INPUT, Node, Source
from lstm_serve.model.model import Model

MASKING = temporal.Masking(name="masking", mask_value=-1)


def gru(features: int, units: int, *, reset_after: bool = True, **options: Any) -> recurrent.GRU:
    bias = numbers(2, 3 * units) if reset_after else numbers(3 * units)
    arrays: dict[str, Any] = {
        "kernel": numbers(features, 3 * units, seed=1),
        "recurrent_kernel": numbers(units, 3 * units, seed=2),
    }
    gates = {"activation": TANH, "recurrent_activation": SIGMOID}
    return recurrent.GRU(name="gru", bias=bias, reset_after=reset_after, **arrays, **{**gates, **options})


def simple_rnn(features: int, units: int, **options: Any) -> recurrent.SimpleRNN:
    arrays: dict[str, Any] = {
        "kernel": numbers(features, units, seed=1),
        "recurrent_kernel": numbers(units, units, seed=2),
    }
    return recurrent.SimpleRNN(name="rnn", bias=numbers(units), **arrays, **{"activation": TANH, **options})


def positive(*shape: int) -> Array:
    return np.abs(numbers(*shape)) + np.float32(0.1)


def window(size: int, stride: int = 1, dilation: int = 1, padding: Any = "valid") -> windows.Window:
    return windows.Window(size=size, stride=stride, dilation=dilation, padding=padding)


def branches(join: Operation, *, masked: bool = False) -> Model:
    """Two branches of a sequence, joined."""
    nodes = [Node(lstm(3, 4, name="a", return_sequences=True), (Source(0),))]
    nodes += [Node(gru(3, 4, return_sequences=True), (Source(0),)), Node(join, (Source(1), Source(2)))]
    first = MASKING if masked else pointwise.Identity(name="nothing", keras_class="Dropout")
    after = Node(simple_rnn(join.output_shapes([(6, 4)] * 2)[0][-1] or 0, 2), (Source(3),))
    return replace(model([first], (6, 3)), nodes=(Node(first, (Source(INPUT),)), *nodes, after))


def models() -> Iterator[tuple[str, Model]]:
    arrays: dict[str, Any] = {"mean": numbers(1, 3), "variance": positive(1, 3)}
    normal = pointwise.BatchNormalization(name="n", gamma=numbers(6, 1), beta=None, epsilon=1e-3,
                                          mean=numbers(6, 1), variance=positive(6, 1))  # fmt: skip
    single: list[Operation] = [
        pointwise.Normalization(name="n", **arrays),
        # A feature that was constant: Keras divides by 1e-7.
        pointwise.Normalization(name="n", mean=numbers(1, 3), variance=np.array([[0, 1, 0]], np.float32)),
        pointwise.BatchNormalization(name="n", gamma=None, beta=numbers(1, 3), epsilon=1e-3, **arrays),
        normal,
        pointwise.LayerNormalization(name="n", gamma=numbers(3), beta=None, epsilon=1e-3),
        pointwise.Rescaling(name="r", scale=np.array(2, np.float32), offset=numbers(3)),
        pointwise.PReLU(name="p", alpha=numbers(6, 3)),
        pointwise.PReLU(name="p", alpha=numbers(1, 3)),
        temporal.Permute(name="p", dims=(2, 1)),
        temporal.Reshape(name="r", target=(9, 2)),
        temporal.GlobalPooling1D(name="g", average=True, keepdims=True),
        wrappers.TimeDistributed.of(name="t", layer=pointwise.PReLU(name="inner", alpha=numbers(3))),
        wrappers.Stacked(name="s", layers=(lstm(3, 4, return_sequences=True, go_backwards=True), gru(4, 2))),
    ]
    yield from ((f"{k} {type(operation).__name__}", model([operation], (6, 3))) for k, operation in enumerate(single))
    for padding, size in product(("valid", "same", "causal"), (2, 3)):
        cut = window(size, 1 if size == 2 else 2, 2 if size == 2 else 1, padding)
        conv = windows.Convolution(
            name="c", kernel=numbers(size, 3, 4), bias=numbers(4), windows=(cut,), activation=relu()
        )
        yield f"Conv1D {padding} {size}", model([conv], (7, 3))
    for average, padding in product((True, False), ("valid", "same")):
        pooling = windows.Pooling(name="p", windows=(window(3, 2, padding=padding),), average=average)
        yield f"Pooling1D {average} {padding}", model([pooling], (7, 3))
    apart = windows.Convolution(
        name="c", kernel=numbers(3, 2, 6), bias=None, windows=(window(3),), groups=2, activation=TANH
    )
    yield "Convolution in groups", model([apart], (7, 4))
    for padding in ("valid", "same"):
        cuts = (window(3, 2, padding=padding), window(2, padding=padding))
        over = windows.Convolution(name="c", kernel=numbers(3, 2, 2, 4), bias=numbers(4), windows=cuts, groups=2,
                                   activation=relu())  # fmt: skip
        pools: list[Operation] = [windows.Pooling(name="p", windows=cuts, average=padding == "same")]
        yield f"Convolution and Pooling of pictures {padding}", model([over, *pools], (8, 6, 4))
    rows: list[Operation] = [dense(3, 4), temporal.RepeatVector(name="r", n=3), simple_rnn(4, 2, return_sequences=True)]
    yield "RepeatVector", model(rows, (3,))
    pooled = temporal.GlobalPooling1D(name="g", average=True, keepdims=True)
    squeezed = merging.Merge(name="m", join=np.multiply, mean=False, mask_rule=merging.MaskRule.ANY)
    taken = (Node(lstm(3, 4, return_sequences=True), (Source(INPUT),)), Node(pooled, (Source(0),)))
    made = model([pooled], (6, 3))
    yield "Merge of two shapes", replace(made, nodes=(*taken, Node(squeezed, (Source(0), Source(1)))))
    for join, mean in ((np.add, True), (np.subtract, False), (np.multiply, False), (np.maximum, False)):
        for rule, masked in product(merging.MaskRule, (False, True)):
            merge = merging.Merge(name="m", join=join, mean=mean, mask_rule=rule)
            yield f"Merge {join.__name__} {rule} {masked}", branches(merge, masked=masked)
    yield "Concatenate", branches(merging.Concatenate(name="c", axis=2, mask_rule=merging.MaskRule.ALL), masked=True)
    for cell, sequences, backwards, zeros in product((lstm, gru, simple_rnn), *[(False, True)] * 3):
        flow = {"return_sequences": sequences, "go_backwards": backwards, "zero_output_for_mask": zeros}
        yield f"masked {cell.__name__} {flow}", model([MASKING, cell(3, 4, **flow)], (6, 3))
    yield "GRU before", model([MASKING, gru(3, 4, reset_after=False)], (6, 3))
    for mode, sequences in product(("concat", "ave", "mul"), (False, True)):
        forward, backward = (lstm(3, 4, return_sequences=sequences, go_backwards=back) for back in (False, True))
        both = wrappers.Bidirectional(name="b", forward=forward, backward=backward, merge_mode=mode)  # type: ignore[arg-type]
        yield f"Bidirectional {mode} {sequences}", model([both], (6, 3))
        yield f"masked Bidirectional {mode} {sequences}", model([MASKING, both], (6, 3))
    kinds: tuple[arithmetic.ReduceKind, ...] = ("mean", "sum", "max", "min")
    between: list[Operation] = [
        arithmetic.Slice(name="s", slices=(slice(None, None, -2), slice(1, None))),
        arithmetic.Slice(name="s", slices=(slice(-1, None), slice(None))),
        arithmetic.Binary(name="b", function=np.subtract, constant=numbers(3), constant_first=True),
        arithmetic.Binary(name="b", function=np.power, constant=np.array(2, np.float32)),
        arithmetic.Slice(name="s", slices=(slice(5, 0, -3), slice(None, -1))),
        arithmetic.Binary(name="b", function=np.maximum, constant=numbers(6, 1)),
        arithmetic.Binary(name="b", function=np.true_divide, constant=numbers(6, 3), constant_first=True),
        arithmetic.Reduce(name="r", function="sum", axes=(2,), keepdims=False),
        arithmetic.Reduce(name="r", function="mean", axes=(1, 2), keepdims=True),
        *(arithmetic.Reduce(name="r", function=kind, axes=(1,), keepdims=keep)
          for kind, keep in product(kinds, (True, False))),
    ]  # fmt: skip
    for k, operation in enumerate(between):
        yield f"{k} between {type(operation).__name__}", model([operation], (6, 3))
    causal: list[Operation] = [arithmetic.Slice(name="s", slices=(slice(None), slice(1, None))), lstm(2, 4)]
    yield "Slice of each step", model(causal, (6, 3))
    turned = temporal.Permute(name="p", dims=(2, 1))
    pair = (Source(INPUT), Source(0))
    yield "MatMul", replace(made, nodes=(Node(turned, (Source(INPUT),)), Node(arithmetic.MatMul(name="m"), pair)))
    yield "Binary", replace(made, nodes=(Node(pooled, (Source(INPUT),)),
                                         Node(arithmetic.Binary(name="b", function=np.multiply), pair)))  # fmt: skip
    kept = merging.MaskedBy(name="m", zeroed=True)
    yield "MaskedBy", replace(made, nodes=(Node(MASKING, (Source(INPUT),)), Node(kept, (Source(INPUT), Source(0))),
                                           Node(simple_rnn(3, 2), (Source(1),))))  # fmt: skip
    offset, scale = np.array([1500.0, 2.5, 0.1]), np.array([32.0, 0.7, 1e-3])
    scaled = model([pointwise.Scaling(name="s", offset=offset, scale=scale), lstm(3, 4)], (6, 3))
    yield "Scaling", replace(scaled, inputs=(scaled.inputs[0]._replace(dtype=np.dtype(np.float64)),))
    yield "Unscaling", model([lstm(3, 4), pointwise.Unscaling(name="u", offset=offset[:1], scale=scale[:1])], (6, 3))


def of_two_masks() -> Iterator[tuple[str, Model]]:
    """A sequence and itself turned round, one of them masked or both, in one Concatenate or Merge."""
    turned = arithmetic.Slice(name="s", slices=(slice(None, None, -1), slice(None)))
    first = (Node(MASKING, (Source(INPUT),)), Node(turned, (Source(INPUT),)), Node(MASKING, (Source(1),)))
    joins: list[tuple[str, Operation]] = []
    for rule in merging.MaskRule:
        joins.append((f"added {rule}", merging.Merge(name="m", join=np.add, mean=False, mask_rule=rule)))
        joins += [(f"{axis} {rule}", merging.Concatenate(name="c", axis=axis, mask_rule=rule)) for axis in (1, 2)]
    for (name, join), second in product(joins, (1, 2)):
        width = join.output_shapes([(6, 3)] * 2)[0][1] or 0
        nodes = (*first, Node(join, (Source(0), Source(second))), Node(simple_rnn(width, 2), (Source(3),)))
        yield f"two masks {name} {second}", replace(model([MASKING], (6, 3)), nodes=nodes)


def of_ids() -> Iterator[tuple[str, Model]]:
    ids = temporal.Embedding(name="e", embeddings=numbers(9, 4), mask_zero=True)
    yield "Embedding", model([ids, lstm(4, 3)], (6,))
    counted: list[Operation] = [
        *(arithmetic.Binary(name="b", function=function, constant=np.array(constant, np.float32))
          for function, constant in ((np.multiply, 1e30), (np.maximum, 0), (np.minimum, 1))),
        arithmetic.Reduce(name="r", function="sum", axes=(2,), keepdims=False),
    ]  # fmt: skip
    yield "Embedding of computed ids", model([*counted, ids, lstm(4, 3)], (6, 3))
    unmasked = replace(ids, mask_zero=False)
    flat = temporal.Reshape(name="r", target=(8,))
    of_steps: list[Operation] = [wrappers.TimeDistributed.of(name="t", layer=each) for each in (unmasked, flat)]
    made = model([*of_steps, lstm(8, 3)], (6, 2))
    yield "ids at each step", replace(made, inputs=(made.inputs[0]._replace(dtype=np.dtype(np.int32)),))
    looked_up = model([unmasked], (6,))
    joined = merging.Concatenate(name="c", axis=2, mask_rule=merging.MaskRule.ALL)
    yield "ids as numbers too", replace(looked_up, nodes=(
        *looked_up.nodes, Node(temporal.Reshape(name="r", target=(6, 1)), (Source(INPUT),)),
        Node(joined, (Source(0), Source(1))), Node(lstm(5, 3), (Source(2),))))  # fmt: skip


def activations() -> Iterator[tuple[str, Model]]:
    for used in FUNCTIONS.values():  # of numbers over 0; ONNX Runtime's Sigmoid is 0 from -18 on, a logarithm's worst
        layers: list[Operation] = [pointwise.Activate(name="a", activation=ACTIVATIONS["softplus"]),
                                   pointwise.Activate(name="b", activation=used)]  # fmt: skip
        yield used.name, model(layers, (6, 3))
    for used in EVERY_ACTIVATION:
        yield f"Dense {used.name} {used.formula}", model([dense(3, 5, used)], (6, 3))
        if used is not HARD_SIGMOID_KERAS_2:
            yield f"LSTM {used.name} {used.formula}", model([lstm(3, 4, activation=used)], (6, 3))
        if used.name in {"hard_sigmoid", "softmax", "sigmoid"}:
            yield f"GRU {used.function}", model([gru(3, 4, recurrent_activation=used)], (6, 3))
            yield f"LSTM gate {used.function}", model([lstm(3, 4, recurrent_activation=used)], (6, 3))
    yield "softmax of a sequence", model([pointwise.Activate(name="a", activation=SOFTMAX)], (6, 3))


def inputs(made: Model) -> Any:
    """Rows with masked steps of any pattern, in one all of them; a few values far out."""
    random = np.random.default_rng(1)
    shape: Any = made.input_shape
    if made.id_limit is not None:
        return random.integers(0, made.id_limit, (6, *shape)).astype(np.int32)
    x = random.normal(0, 1.5, (6, *shape))
    if isinstance(made.nodes[0].operation, pointwise.Scaling):
        x = x * made.nodes[0].operation.scale + made.nodes[0].operation.offset
    elif made.nodes[0].operation is MASKING:
        x[random.random(x.shape[:2]) < 0.4] = -1
        x[0], x[1, 0], x[2, -1] = -1, -1, -1
    else:
        x[-1] *= 20
    return x.astype(made.input_dtype)


@pytest.mark.parametrize("to", EACH_TARGET[1:])
@pytest.mark.parametrize("made", [models, of_two_masks, of_ids, activations])
def test_as_the_engine(to: str, made: Any, tmp_path: Path) -> None:
    aim = target(to)
    missed, refused, built = {}, list[str](), 0
    for k, (name, each) in enumerate(made()):
        x = inputs(each)
        golden = golden_of([x], [each.predict(x)], "the engine's")
        if not np.isfinite(golden.ys[0]).all():  # what no target has to overflow in the same way
            continue
        try:
            files = aim.build(each, golden)
        except Unsupported as error:
            refused.append(str(error))
            continue
        built += 1
        if k % EVERY[to]:
            continue
        path = tmp_path / f"{k}{aim.suffix}"
        write(path, files, folder=aim.is_folder, force=False)
        y = aim.run(path, golden.xs)
        if isinstance(y, str):
            pytest.skip(y)
        if not difference(y, golden) <= 1e-5:
            missed[name] = difference(y, golden)
    assert missed == {}
    assert len(refused) < built / 2, refused
