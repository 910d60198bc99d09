"""Recurrent layers of a file, made into those of the engine: a function a cell, and the layers around cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypedDict

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.base import Operation
from lstm_serve.engine.operations.pointwise import Identity
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.wrappers import Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Array, Shape
from lstm_serve.errors import MissingFact, UnreadableFile
from lstm_serve.loading.config.options import Options
from lstm_serve.loading.layers import gate_layouts
from lstm_serve.loading.layers.checks import expect, last_axis, with_bias
from lstm_serve.loading.layers.subgraph import Lowering, Subgraph
from lstm_serve.loading.refusals import REBUILD, STATEFUL


class SequenceOptions(TypedDict):
    """What a recurrent layer of any class has."""

    name: str
    return_sequences: bool
    go_backwards: bool
    zero_output_for_mask: bool
    return_state: bool
    stateful: bool
    unrolled: bool


def _flow(options: Options) -> SequenceOptions:
    stateful = options.take("stateful", bool, default=False)
    if stateful:
        options.assume(STATEFUL)
    options.refuse_unless("time_major", expected=False, why="time is expected on the second axis")
    options.ignore("num_constants", "input_dim", "input_length")
    return {
        "name": options.name,
        "return_sequences": options.take("return_sequences", bool, default=False),
        "go_backwards": options.take("go_backwards", bool, default=False),
        "zero_output_for_mask": options.take("zero_output_for_mask", bool, default=False),
        "return_state": options.take("return_state", bool, default=False),
        "stateful": stateful,
        "unrolled": bool(options.config.get("unroll")) and bool(options.config.get("go_backwards")),
    }


class Cell(SequenceOptions):
    """What a layer of any class with one cell has."""

    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    activation: Activation


def _cell(options: Options, arrays: Sequence[Array], flow: SequenceOptions, **shapes: tuple[int, ...]) -> Cell:
    options.ignore("consume_less")
    (kernel, recurrent_kernel), bias = with_bias(options, arrays, **shapes)
    activation = options.activation("activation", "tanh")
    return {**flow, "kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias, "activation": activation}


def _lstm(options: Options, arrays: Sequence[Array], features: int, flow: SequenceOptions) -> Recurrent:
    units = options.size("units")
    columns = 4 * units
    arrays = gate_layouts.lstm(arrays, units)
    cell = _cell(options, arrays, flow, kernel=(features, columns), recurrent_kernel=(units, columns), bias=(columns,))
    return LSTM(**cell, recurrent_activation=options.activation("recurrent_activation", _default_gate(options)))


def _gru(options: Options, arrays: Sequence[Array], features: int, flow: SequenceOptions) -> Recurrent:
    units = options.size("units")
    columns = 3 * units
    arrays = gate_layouts.gru(arrays, units)
    # Where there is a bias, its shape tells what the option says; the option came with Keras 2.1.5.
    told = len(arrays) == 3 and arrays[2].ndim == 2
    if options.config.get("reset_after") is None and len(arrays) != 3 and not options.keras.known:
        raise MissingFact(f"nothing tells whether the {options} has reset_after: give it in the architecture")
    reset_after = options.take("reset_after", bool, default=told) or (told and options.class_name == "CuDNNGRU")
    bias = (2, columns) if reset_after else (columns,)
    cell = _cell(options, arrays, flow, kernel=(features, columns), recurrent_kernel=(units, columns), bias=bias)
    return GRU(
        **cell,
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        reset_after=reset_after,
    )


def _simple_rnn(options: Options, arrays: Sequence[Array], features: int, flow: SequenceOptions) -> Recurrent:
    units = options.size("units")
    cell = _cell(options, arrays, flow, kernel=(features, units), recurrent_kernel=(units, units), bias=(units,))
    return SimpleRNN(**cell)


CELLS: dict[str, Callable[[Options, Sequence[Array], int, SequenceOptions], Recurrent]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "SimpleRNN": _simple_rnn,
    "CuDNNLSTM": _lstm,
    "CuDNNGRU": _gru,
}


def _default_gate(options: Options) -> str:
    if options.config.get("recurrent_activation") is not None:
        return ""
    if options.class_name.startswith("CuDNN"):
        return "sigmoid"
    gate = options.keras.default_gate
    if gate is None:
        raise MissingFact(
            f"nothing tells the recurrent_activation of the {options}. It was hard_sigmoid by default before Keras 2.3 "
            "and TensorFlow 2, and is sigmoid since: give it in the architecture"
        )
    options.assume(f"recurrent_activation = {gate}, the default of Keras {options.keras.text or '1.0'}")
    return gate


def recurrent(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """A layer of one of these cells."""
    layer = CELLS[options.class_name](options, arrays, last_axis(options, shapes[:1], rank=2), _flow(options))
    return _with_states(options, layer, shapes[1:])


def _with_states(options: Options, layer: Recurrent, states: Sequence[Shape]) -> Recurrent:
    """The layer, which begins with states from elsewhere where there are any: those that it carries.

    Keras 3 gives no mask to a layer that is called on more than its sequence, and passes it on by itself, unless the
    call is given one: __call__ in keras/src/layers/layer.py.
    """
    if states and list(states) != [(layer.units,)] * len(layer.carried):
        raise UnreadableFile(
            f"the {options} begins with states of the shapes {str([*states])[:100]}, where {len(layer.carried)} of "
            f"({layer.units},) were expected"
        )
    ignored = bool(states) and options.keras.major >= 3 and not options.masked_with_states
    return replace(layer, ignores_mask=ignored)


def rnn(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> Operation:
    """A layer around a cell, or around several: these are layers one above the other."""
    layers = _around_cells(options, arrays, shapes)
    if len(layers) == 1:
        return _with_states(options, layers[0], shapes[1:])
    if layers[0].return_state or len(shapes) > 1:
        raise options.refusal(
            "has several cells, and takes or gives their states in both directions, which is not supported: build it "
            f"of layers one above the other, {REBUILD}"
        )
    return Stacked(name=options.name, layers=tuple(layers))


def _around_cells(options: Options, arrays: Sequence[Array], shapes: Sequence[Shape]) -> list[Recurrent]:
    """A layer for each cell, which takes what the one before gives. All give their states where the layer does."""
    flow, features, cell = _flow(options), last_axis(options, shapes[:1], rank=2), options.inner("cell")
    cells = [cell] if cell else []
    if cell is not None and cell.class_name == "StackedRNNCells":
        cells = [cell.at("cells", k) for k in range(len(cell.take("cells", list)))]
    if not cells:
        raise UnreadableFile(f"the {options} has no cell")
    layers: list[Recurrent] = []
    for k, inner in enumerate(cells):
        build_cell = CELLS[inner.class_name.removesuffix("Cell")]
        count = 2 + (inner.config.get("use_bias") is not False)
        last = k == len(cells) - 1
        flow_of_cell: SequenceOptions = {
            "name": options.name if len(cells) == 1 else inner.name,
            "return_sequences": flow["return_sequences"] or not last,
            "go_backwards": flow["go_backwards"] and k == 0,
            "zero_output_for_mask": flow["zero_output_for_mask"] and last,
            "return_state": flow["return_state"],
            "stateful": flow["stateful"],
            "unrolled": flow["unrolled"] and last,
        }
        layers.append(build_cell(inner, arrays if len(cells) == 1 else arrays[:count], features, flow_of_cell))
        inner.finish()
        arrays, features = arrays[count:], layers[-1].units
    if len(layers) > 1:
        expect(options, arrays)
    return layers


def several_cells(options: Options, inputs: int) -> Lowering | None:
    """What lowers a layer that has several cells, and takes or gives their states; None of any other."""
    cell = options.config.get("cell")
    config = cell.get("config") if isinstance(cell, dict) else None
    cells = config.get("cells") if isinstance(config, dict) else None
    several = isinstance(cells, list) and len(cells) > 1
    return _with_states_of_several if several and (inputs > 1 or options.config.get("return_state") is True) else None


def _with_states_of_several(graph: Subgraph, arrays: Sequence[Array]) -> None:
    """Layers one above the other, each with states of its own; the output, and then all states in the cells' order.

    Source: StackedRNNCells of TensorFlow 1.13 to 2.15 and of Keras 3.
    """
    options, given = graph.options, [*range(1, graph.given_count)]
    layers = _around_cells(options, arrays, graph.shapes[:1])
    if layers[0].go_backwards or (options.keras.major < 3 and "time_major" not in options.config):
        why = "goes backwards" if layers[0].go_backwards else "is of a Keras whose order of the states is not known"
        raise graph.refusal(
            f"has several cells, takes or gives their states, and {why}, which is not supported: build it of layers "
            f"one above the other, {REBUILD}"
        )
    if given and len(given) != sum(len(layer.carried) for layer in layers):
        raise UnreadableFile(f"the {options} begins with {len(given)} states, which are not those of its cells")
    y = 0
    ends: list[int] = []
    for layer in layers:
        taken, given = given[: len(layer.carried)], given[len(layer.carried) :]
        y = graph.add(_with_states(options, layer, [graph.shapes[k] for k in taken]), y, *taken)
        ends += range(y + 1, len(graph.shapes))
    for value in (y, *ends) if ends else ():
        graph.add(Identity(name=options.name), value)
