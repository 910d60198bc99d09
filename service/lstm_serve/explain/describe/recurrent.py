"""What is to be said of recurrent layers: the three cells, several of them in one layer, and both directions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.operations.recurrent import GRU, LSTM, SimpleRNN
from lstm_serve.engine.operations.wrappers import Bidirectional, Stacked
from lstm_serve.engine.recurrence import Recurrent
from lstm_serve.engine.types import Shape
from lstm_serve.explain.describe.activations import formulas
from lstm_serve.explain.describe.activations import pitfalls as pitfalls_of_activations
from lstm_serve.explain.describe.description import DROPOUT, LayerDescription, axes, weights_line
from lstm_serve.formats.text import shown


class _Cell(NamedTuple):
    """A cell's share of it: `step` is a step's formulas, `code` the same in NumPy, `start` what h is before."""

    roles: Mapping[str, str]
    step: Sequence[str]
    pitfalls: Sequence[str]
    activations: Sequence[Activation]
    start: str
    code: Sequence[str]


def recurrent(layer: Recurrent, shape: Shape) -> LayerDescription:
    """A single cell's."""
    cell = _cell(layer, shown(layer.name))
    return LayerDescription(
        roles=cell.roles,
        equations=[*_steps(layer, cell), f"y is {_result(layer, shape)}.", *formulas(cell.activations)],
        pitfalls=[*cell.pitfalls, DROPOUT, *pitfalls_of_activations(cell.activations)],
        activations=cell.activations,
        numpy=_loop(layer, cell),
        masked=_loop(layer, cell, masked=True),
    )


def stacked(layer: Stacked, shape: Shape, at: int = 0) -> LayerDescription:
    """One cell's after another; `at` is where in `arrays` the first cell's weights begin."""
    cells = [_cell(part, f"{shown(layer.name)}'s cell {k}") for k, part in enumerate(layer.layers)]
    numbered = list(enumerate(zip(layer.layers, cells, strict=True)))
    activations = [activation for cell in cells for activation in cell.activations]
    equations: list[str] = []
    numpy: list[str] = []
    masked: list[str] = []
    for k, (part, cell) in numbered:
        x_t = "the h of the cell below" if k else "x"
        equations += [f"cell {k}, whose x_t come from {x_t}:", *_indented(_steps(part, cell))]
        arrays = f"[{at}:{at + len(part.weights)}]"
        numpy += _loop(part, cell, arrays)
        masked += _loop(part, cell, arrays, masked=True)
        if part.go_backwards:
            masked.append(TURN_MASK)  # as the cell's output is
        at += len(part.weights)
    return LayerDescription(
        roles={f"{k}/{name}": role for k, (_, cell) in numbered for name, role in cell.roles.items()},
        equations=[*equations, f"y is {_result(layer, shape)}, of the last cell.", *formulas(activations)],
        pitfalls=[
            *(pitfall for cell in cells for pitfall in cell.pitfalls),
            DROPOUT,
            *pitfalls_of_activations(activations),
        ],
        activations=activations,
        numpy=numpy,
        masked=[*masked, *[TURN_MASK] * layer.go_backwards],
    )


TURN_MASK = "mask = mask[::-1]"

MERGED = {
    "concat": ("forward's numbers, then backward's", "np.concatenate([forward, backward], axis=-1)"),
    "sum": ("forward + backward", "forward + backward"),
    "mul": ("forward * backward", "forward * backward"),
    "ave": ("(forward + backward) / 2", "(forward + backward) / 2"),
}


def bidirectional(layer: Bidirectional, shape: Shape) -> LayerDescription:
    """Each direction's, and how the two are merged."""
    name = shown(layer.name)
    forward = _direction(layer.forward, name, shape, 0)
    backward = _direction(layer.backward, name, shape, len(layer.forward.weights))
    sequences = layer.forward.return_sequences
    merge, code = MERGED[layer.merge_mode]
    orders = [_order(part) for part in (layer.forward, layer.backward)]
    if list(forward.equations) == list(backward.equations):
        equations = [
            f"forward goes {orders[0]}, and backward {orders[1]}, each with its own arrays:",
            *forward.equations,
        ]
    else:
        equations = [
            f"forward goes {orders[0]}:",
            *forward.equations,
            f"backward goes {orders[1]}:",
            *backward.equations,
        ]
    equations.append(
        "Backward's h of every step are turned round, so that the two are of equal times."
        if sequences
        else "Of each the h after its last step is taken: backward's is the one at the first row."
    )
    turned = "[::-1]" if sequences else ""
    activations = [*forward.activations, *backward.activations]
    return LayerDescription(
        roles={
            f"{direction}/{name}": role
            for direction, described in (("forward", forward), ("backward", backward))
            for name, role in described.roles.items()
        },
        equations=[*equations, f"y is {merge}{', at every step' if sequences else ''}.", *formulas(activations)],
        pitfalls=[
            *(pitfall for described in (forward, backward) for pitfall in described.pitfalls),
            f"The backward half of {name} "
            + (
                "is in the order of its own steps, last row first, before it is turned round and merged."
                if sequences
                else "ends at the first row; it is not what backward computes at the last."
            ),
            DROPOUT,
            *pitfalls_of_activations(activations),
        ],
        activations=activations,
        numpy=_merged(forward.numpy, backward.numpy, turned, code),
        masked=_merged(forward.masked, backward.masked, turned, code),
    )


def _merged(forward: Sequence[str] | None, backward: Sequence[str] | None, turned: str, code: str) -> list[str]:
    """The lines of NumPy of both directions."""
    return ["x = y", *(forward or ()), "forward, y = y, x", *(backward or ()), f"backward = y{turned}", f"y = {code}"]


def _direction(layer: Recurrent | Stacked, name: str, shape: Shape, at: int) -> LayerDescription:
    """A direction's description without its order and its result."""
    if isinstance(layer, Stacked):
        described = stacked(layer, shape, at)
        return described._replace(equations=_indented(described.equations[: -1 - len(formulas(described.activations))]))
    cell = _cell(layer, name)
    arrays = f"[{at}:{at + len(layer.weights)}]"
    numpy, masked = _loop(layer, cell, arrays), _loop(layer, cell, arrays, masked=True)
    equations = _indented([f"{_states(layer)} as 0. Then for each step's x_t:", *_indented(cell.step)])
    return LayerDescription(cell.roles, equations, cell.pitfalls, cell.activations, numpy, masked)


def _cell(layer: Recurrent, name: str) -> _Cell:
    if isinstance(layer, LSTM):
        return _lstm(layer, name)
    if isinstance(layer, GRU):
        return _gru(layer, name)
    if isinstance(layer, SimpleRNN):
        return _simple_rnn(layer)
    raise TypeError(type(layer).__name__)


def _lstm(layer: LSTM, name: str) -> _Cell:
    u, features = layer.units, len(layer.kernel)
    blocks = _blocks(layer, "i", "f", "c~", "o")
    gate, squash = layer.recurrent_activation.name, layer.activation.name
    bias = "" if layer.bias is None else " + bias"
    return _Cell(
        roles={
            "kernel": f"from a step's {features} features to the gates, 4 x {u} columns",
            "recurrent_kernel": f"from the {u} numbers of h to the gates, the same columns",
            "bias": f"added to the gates, one vector of 4 x {u}",
        },
        step=[
            f"z  = x_t @ kernel + h @ recurrent_kernel{bias}",
            f"     ({features},) @ {layer.kernel.shape} + ({u},) @ {layer.recurrent_kernel.shape}"
            + (f" + ({4 * u},)" if bias else "")
            + f" -> ({4 * u},)",
            _aside(f"i  = {gate}(z[{blocks['i']}])", "input gate: how much of the candidate comes in"),
            _aside(f"f  = {gate}(z[{blocks['f']}])", "forget gate: how much of c stays"),
            _aside(f"c~ = {squash}(z[{blocks['c~']}])", "candidate for c"),
            _aside(f"o  = {gate}(z[{blocks['o']}])", "output gate: how much of c shows in h"),
            _aside("c  = f * c + i * c~", "element by element"),
            f"h  = o * {squash}(c)",
        ],
        pitfalls=[
            (
                f"{name}: the four blocks of columns are the gates {_listed(blocks)}, in this order (a:b as in Python, "
                "without b). They are not input, previous memory, current memory and previous output: the kernel "
                "takes the input to each gate, the recurrent_kernel the previous output."
            ),
            *(
                []
                if layer.bias is None
                else [f"{name}: the bias is one vector of 4 x {u} = {4 * u}, in the same blocks; each gate has one."]
            ),
            f"{name}: {u} units make 4 x {u} = {4 * u} columns{_other(4, u)}",
        ],
        activations=[layer.recurrent_activation, layer.activation],
        start=f"h = c = np.zeros({u}, np.float32)",
        code=[
            f"i, f, g, o = np.split(x_t @ kernel + h @ recurrent_kernel{bias}, 4)  # g is c~",
            f"c = {gate}(f) * c + {gate}(i) * {squash}(g)",
            f"h = {gate}(o) * {squash}(c)",
        ],
    )


def _gru(layer: GRU, name: str) -> _Cell:
    u, features = layer.units, len(layer.kernel)
    blocks = _blocks(layer, "z", "r", "h~")
    gate, squash = layer.recurrent_activation.name, layer.activation.name
    after, biased = layer.reset_after, layer.bias is not None
    from_x = f"x_t @ kernel{' + bias[0]' if after and biased else ' + bias' if biased else ''}"
    from_h = f"h @ recurrent_kernel{' + bias[1]' if after and biased else ''}"
    last = blocks["h~"]
    recur = f"r * b[{last}]" if after else f"(r * h) @ recurrent_kernel[:, {last}]"
    return _Cell(
        roles={
            "kernel": f"from a step's {features} features to z, r, h~, 3 x {u} columns",
            "recurrent_kernel": f"from the {u} numbers of h to the same columns",
            "bias": (
                f"two rows of 3 x {u}, one for each kernel"
                if after
                else f"added to x_t @ kernel, one vector of 3 x {u}"
            ),
        },
        step=[
            _aside(f"a  = {from_x}", f"({features},) @ {layer.kernel.shape} -> ({3 * u},)", 40),
            _aside(f"b  = {from_h}", f"({u},) @ {layer.recurrent_kernel.shape} -> ({3 * u},)", 40),
            _aside(f"z  = {gate}(a[{blocks['z']}] + b[{blocks['z']}])", "update gate: how much of h stays", 40),
            _aside(f"r  = {gate}(a[{blocks['r']}] + b[{blocks['r']}])", "reset gate: how much of h h~ sees", 40),
            _aside(f"h~ = {squash}(a[{last}] + {recur})", "candidate for h", 40),
            _aside("h  = z * h + (1 - z) * h~", "element by element", 40),
        ],
        pitfalls=[
            (
                f"{name}: the three blocks of columns are {_listed(blocks)}, in this order (a:b as in Python, without "
                "b). z is what stays of h; some papers write z for what is replaced, 1 - z."
            ),
            (
                f"{name}: reset_after is {after}, so r is multiplied "
                + (
                    "with the product h @ recurrent_kernel and its bias, not with h before it."
                    if after
                    else "with h before the product with recurrent_kernel, not with the product."
                )
                + " The other kind gives other answers."
            ),
            *(
                [f"{name}: the bias is two rows, and they cannot be added up: r stands between them in h~."]
                if after and biased
                else []
            ),
            f"{name}: {u} units make 3 x {u} = {3 * u} columns{_other(3, u)}",
        ],
        activations=[layer.recurrent_activation, layer.activation],
        start=f"h = np.zeros({u}, np.float32)",
        code=[
            f"z, r, g = np.split({from_x}, 3)  # g is h~",
            f"z_h, r_h, g_h = np.split({from_h}, 3)",
            f"z, r = {gate}(z + z_h), {gate}(r + r_h)",
            f"g = {squash}(g + {'r * g_h' if after else recur})",
            "h = z * h + (1 - z) * g",
        ],
    )


def _simple_rnn(layer: SimpleRNN) -> _Cell:
    u, features = layer.units, len(layer.kernel)
    sums = f"x_t @ kernel + h @ recurrent_kernel{'' if layer.bias is None else ' + bias'}"
    return _Cell(
        roles={
            "kernel": f"from a step's {features} features to the {u} units",
            "recurrent_kernel": f"from the {u} numbers of h to the {u} units",
            "bias": "added to the sums, one number a unit",
        },
        step=[f"h = {layer.activation.name}({sums})"],
        pitfalls=[],
        activations=[layer.activation],
        start=f"h = np.zeros({u}, np.float32)",
        code=[f"h = {layer.activation.name}({sums})"],
    )


def _steps(layer: Recurrent, cell: _Cell) -> list[str]:
    return [
        f"{_states(layer)} as 0. Then for each step's {len(layer.kernel)} features x_t, {_order(layer)}:",
        *_indented(cell.step),
    ]


def _states(layer: Recurrent) -> str:
    return f"h and c, ({layer.units},) each, start" if isinstance(layer, LSTM) else f"h, ({layer.units},), starts"


def _order(layer: Recurrent | Stacked) -> str:
    return "last to first" if layer.go_backwards else "first to last"


def _result(layer: Recurrent | Stacked, shape: Shape) -> str:
    output = axes(layer.output_shapes([shape])[0])
    if not layer.return_sequences:
        return f"the last h, {output}"
    order = ", in the order of the steps taken" if layer.go_backwards else ""
    return f"the h of every step, {output}{order}"


def _loop(layer: Recurrent, cell: _Cell, part: str = "", *, masked: bool = False) -> list[str]:
    """Lines of NumPy that make y, the output, of y, the input; at a step that `mask` leaves out, states stay."""
    order = "[::-1]" if layer.go_backwards else ""
    code = _indented(["if keep:", *_indented(cell.code, 4)] if masked else cell.code, 4)
    zeroed = " if keep else 0 * h" if masked and layer.zero_output_for_mask else ""
    return [
        weights_line(layer, part),
        cell.start,
        *(["hs = []"] if layer.return_sequences else []),
        f"for x_t, keep in zip(y{order}, mask{order}, strict=True):" if masked else f"for x_t in y{order}:",
        *code,
        *([f"    hs.append(h{zeroed})", "y = np.array(hs)"] if layer.return_sequences else [f"y = h{zeroed}"]),
    ]


def _blocks(layer: Recurrent, *names: str) -> dict[str, str]:
    u = layer.units
    return {name: f"{k * u}:{(k + 1) * u}" for k, name in enumerate(names)}


def _listed(blocks: Mapping[str, str]) -> str:
    return ", ".join(f"{name} [{block}]" for name, block in blocks.items())


def _other(blocks: int, units: int) -> str:
    # The number that people misread: one unit less.
    if units == 1:
        return "; any other number is another model's."
    return f"; {blocks * (units - 1)} columns are another model's, one of {units - 1} units."


def _aside(formula: str, meaning: str, width: int = 32) -> str:
    return f"{formula:<{width}}{meaning}" if len(formula) < width else f"{formula}  {meaning}"


def _indented(lines: Sequence[str], spaces: int = 2) -> list[str]:
    return [f"{' ' * spaces}{line}" for line in lines]
