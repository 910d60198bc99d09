"""Small graphs at random: the engine's float32 against plain float64, masks too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plain_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import numbers

from lstm_serve.engine.activations import ACTIVATIONS, LINEAR, SIGMOID, TANH
from lstm_serve.engine.operations import wiring
from lstm_serve.engine.operations.arithmetic import Binary, MatMul, Reduce, Slice
from lstm_serve.engine.operations.merging import Concatenate, MaskedBy, MaskRule, Merge
from lstm_serve.engine.operations.pointwise import Activate, BatchNormalization, Dense, LayerNormalization
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.temporal import GlobalPooling1D, Masking, Permute, RepeatVector, Reshape
from lstm_serve.engine.operations.windows import Convolution, Pooling, Window
from lstm_serve.engine.operations.wiring import INPUT, Node, Source
from lstm_serve.engine.operations.wrappers import Bidirectional, TimeDistributed

TIMESTEPS, FEATURES, ROWS = 5, 3, 3
LARGEST = 64  # numbers of a row
FLAGS = st.booleans()


class Drawn:
    """A graph as it grows: values by number, the two inputs first."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.nodes: list[Node] = []
        self.sources = [Source(INPUT, 0), Source(INPUT, 1)]
        self.shapes: list[tuple[int, ...]] = [(TIMESTEPS, FEATURES)] * 2

    def one(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def array(self, *shape: int) -> Any:
        return numbers(*shape, seed=self.draw(st.integers(0, 50)))

    def add(self, operation: Any, *inputs: int) -> None:
        (shape,) = operation.output_shapes([self.shapes[k] for k in inputs])
        self.nodes.append(Node(operation, tuple(self.sources[k] for k in inputs)))
        self.sources.append(Source(len(self.nodes) - 1))
        self.shapes.append(shape)

    def recurrent(self, features: int, *, backwards: bool, sequences: bool) -> Any:
        units, kind = 2, self.one(LSTM, GRU, SimpleRNN)
        gates = {LSTM: 4, GRU: 3, SimpleRNN: 1}[kind] * units
        more: dict[str, Any] = {} if kind is SimpleRNN else {"recurrent_activation": SIGMOID}
        after = kind is GRU and self.draw(FLAGS)
        return kind(
            name="r",
            kernel=self.array(features, gates),
            recurrent_kernel=self.array(units, gates),
            bias=self.array(2, gates) if after else self.array(gates),
            activation=self.one(TANH, ACTIVATIONS["relu"]) if kind is SimpleRNN else TANH,
            go_backwards=backwards,
            return_sequences=sequences,
            zero_output_for_mask=self.draw(FLAGS),
            **more,
            **({"reset_after": after} if kind is GRU else {}),
        )

    def dense(self, features: int) -> Dense:
        function = self.one(LINEAR, TANH, ACTIVATIONS["relu"])
        return Dense(name="d", kernel=self.array(features, 3), bias=self.array(3), activation=function)

    def grow(self) -> None:
        """An operation more, on one of the last values and, where it takes two, another of its shape."""
        k = self.draw(st.integers(max(0, len(self.shapes) - 3), len(self.shapes) - 1))
        shape = self.shapes[k]
        same = [j for j, other in enumerate(self.shapes) if other == shape]
        other = self.draw(st.sampled_from(same))
        wide = np.prod(shape) * 2 <= LARGEST
        kinds: list[Any] = [self.pointwise, self.between, *[self.joined] * (2 * wide)]
        if len(shape) == 2:
            kinds += [self.through_time] * 3 + [self.in_time] * 2
        elif len(shape) == 1 and wide:
            kinds.append(self.unfolded)
        self.one(*kinds)(k, other, shape)

    def pointwise(self, k: int, _: int, shape: Sequence[int]) -> None:
        features = shape[-1]
        gamma, beta, mean = (self.array(features) for _ in range(3))
        variance = np.abs(self.array(features)) + np.float32(0.5)
        self.add(
            self.one(
                self.dense(features),
                Activate(name="a", activation=self.one(TANH, ACTIVATIONS["relu"])),
                LayerNormalization(name="l", gamma=gamma, beta=beta, epsilon=1e-1),
                BatchNormalization(name="b", gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=1e-3),
            ),
            k,
        )

    def joined(self, k: int, other: int, shape: Sequence[int]) -> None:
        rule, rank = self.one(*MaskRule), len(shape)
        join, mean = self.one((np.add, False), (np.subtract, False), (np.multiply, False), (np.add, True))
        self.add(
            self.one(
                Merge(name="m", join=join, mean=mean, mask_rule=rule),
                Concatenate(name="c", axis=self.draw(st.integers(1, rank)), mask_rule=rule),
                Binary(name="b", function=self.one(np.add, np.subtract, np.multiply, np.maximum)),
                *[MaskedBy(name="m", zeroed=self.draw(FLAGS))] * (rank == 2),
            ),
            k,
            other,
        )

    def between(self, k: int, _: int, shape: Sequence[int]) -> None:
        rank = len(shape)
        part = self.one(slice(None, None, -1), slice(-1, None), slice(0, 2), slice(None))
        axis = self.draw(st.integers(1, rank))
        parts = tuple(part if at == axis and shape[at - 1] > 1 else slice(None) for at in range(1, rank + 1))
        function = self.one(np.add, np.subtract, np.multiply, np.minimum)
        kept = self.draw(FLAGS) or rank == 1
        self.add(
            self.one(
                Slice(name="s", slices=parts),
                Binary(name="b", function=function, constant=self.array(shape[-1]), constant_first=self.draw(FLAGS)),
                Reduce(name="r", function=self.one("mean", "sum", "max", "min"), axes=(axis,), keepdims=kept),
                Reshape(name="f", target=(-1,)),
            ),
            k,
        )

    def through_time(self, k: int, _: int, shape: Sequence[int]) -> None:
        sequences, features = self.draw(FLAGS), shape[-1]
        directions = [self.recurrent(features, backwards=backwards, sequences=sequences) for backwards in (False, True)]
        merged = self.one("concat", "sum", "mul", "ave")
        both = Bidirectional(name="b", forward=directions[0], backward=directions[1], merge_mode=merged)
        self.add(self.one(*directions, both), k)

    def in_time(self, k: int, other: int, shape: Sequence[int]) -> None:
        timesteps, features = shape
        window = Window(size=2, stride=self.one(1, 2), padding=self.one("same", *["valid"] * (timesteps > 1)))
        far = Window(size=2, dilation=2, padding="causal")
        kernel, bias = self.array(2, features, 2), self.array(2)
        inner = (Node(self.dense(features), (Source(INPUT),)), Node(Activate(name="a", activation=TANH), (Source(0),)))
        operation = self.one(
            Masking(name="m", mask_value=0.0),
            GlobalPooling1D(name="g", average=self.draw(FLAGS), keepdims=self.draw(FLAGS)),
            Convolution(name="c", kernel=kernel, bias=bias, windows=(self.one(window, far),), activation=TANH),
            Pooling(name="p", windows=(window,), average=self.draw(FLAGS)),
            Permute(name="p", dims=(2, 1)),
            TimeDistributed(name="t", nodes=inner, end=Source(1)),
            *[MatMul(name="m")] * (timesteps == features),
        )
        self.add(operation, k, *[other] * isinstance(operation, MatMul))

    def unfolded(self, k: int, _: int, shape: Sequence[int]) -> None:
        self.add(self.one(RepeatVector(name="r", n=2), Reshape(name="r", target=(shape[0], 1))), k)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_graph_computes_what_plain_float64_does(data: st.DataObject) -> None:
    graph = Drawn(data.draw)
    graph.add(Masking(name="m", mask_value=0.0), 0)
    for _ in range(data.draw(st.integers(2, 7))):
        graph.grow()
    x = numbers(2, ROWS, TIMESTEPS, FEATURES, seed=data.draw(st.integers(0, 50)))
    x[:, 1, 3:] = x[:, 2, [0, 2]] = 0  # a masked end, and masked steps elsewhere; none is masked whole
    ends = graph.sources[2:]
    ys, masks = wiring.run(graph.nodes, [*x], ends, wiring.last_uses(graph.nodes, ends))
    plain = plain_graph.evaluated(graph.nodes, [*x.astype(np.float64)])
    for y, (mask,), (expected, expected_mask), shape in zip(ys, masks[1:], plain, graph.shapes[2:], strict=True):
        assert y.shape == (ROWS, *shape)
        assert y.dtype == np.float32
        largest = max(1.0, float(np.nanmax(np.abs(expected))))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * largest)
        if mask is None or expected_mask is None:
            assert mask is expected_mask
        else:
            np.testing.assert_array_equal(mask, expected_mask)
