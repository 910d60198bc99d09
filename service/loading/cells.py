"""A recurrent cell of a file, made into a recurrent layer of the engine: one function a class."""

from collections.abc import Callable, Sequence
from typing import TypedDict

from service.engine.activations import Array
from service.engine.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from service.errors import MissingFact
from service.loading import fitting, layouts
from service.loading.keras_json import Options


class Flow(TypedDict):
    """What a recurrent layer of any class has."""

    name: str
    return_sequences: bool
    go_backwards: bool
    zero_output_for_mask: bool


def flow(options: Options) -> Flow:
    """What the options of any recurrent layer say of its walk through time."""
    options.refuse_unless("stateful", expected=False, why="a service keeps no state between requests")
    options.refuse_unless("time_major", expected=False, why="time is expected on the second axis")
    # The states have no reader: a graph that uses one is refused where it is read.
    options.ignore("return_state", "num_constants", "input_dim", "input_length")
    return {
        "name": options.name,
        "return_sequences": options.take("return_sequences", bool, default=False),
        "go_backwards": options.take("go_backwards", bool, default=False),
        "zero_output_for_mask": options.take("zero_output_for_mask", bool, default=False),
    }


def _lstm(options: Options, arrays: Sequence[Array], features: int, flow: Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    (kernel, recurrent_kernel), bias = fitting.with_bias(
        options,
        layouts.lstm(arrays, units),
        kernel=(features, 4 * units),
        recurrent_kernel=(units, 4 * units),
        bias=(4 * units,),
    )
    return LSTM(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        **flow,
    )


def _gru(options: Options, arrays: Sequence[Array], features: int, flow: Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    arrays = layouts.gru(arrays, units)
    # Where there is a bias, its shape tells what the option says; the option came with Keras 2.1.5.
    told = len(arrays) == 3 and arrays[2].ndim == 2
    if options.config.get("reset_after") is None and len(arrays) != 3 and not options.keras.known:
        raise MissingFact(f"nothing tells whether the {options} has reset_after: give it in the architecture")
    reset_after = options.take("reset_after", bool, default=told) or (told and options.class_name == "CuDNNGRU")
    (kernel, recurrent_kernel), bias = fitting.with_bias(
        options,
        arrays,
        kernel=(features, 3 * units),
        recurrent_kernel=(units, 3 * units),
        bias=(2, 3 * units) if reset_after else (3 * units,),
    )
    return GRU(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        recurrent_activation=options.activation("recurrent_activation", _default_gate(options)),
        reset_after=reset_after,
        **flow,
    )


def _simple_rnn(options: Options, arrays: Sequence[Array], features: int, flow: Flow) -> Recurrent:
    units = options.size("units")
    options.ignore("consume_less")
    (kernel, recurrent_kernel), bias = fitting.with_bias(
        options, arrays, kernel=(features, units), recurrent_kernel=(units, units), bias=(units,)
    )
    return SimpleRNN(
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=options.activation("activation", "tanh"),
        **flow,
    )


CELLS: dict[str, Callable[[Options, Sequence[Array], int, Flow], Recurrent]] = {
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
