"""How a recurrent layer walks through time: one scan for all cells.

Inside a scan arrays are units-major, (units, batch): a gate is one contiguous block, and one NumPy call serves several.
One row alone has no batch axis there, (units,): for one dimension NumPy has a shorter way, a tenth of the whole time.

Buffers belong to the thread that computes: a layer, once made, is only read, and keeps for each thread what one row
alone is computed in.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lstm_serve.engine.activations import Activation
from lstm_serve.engine.types import Array, Mask, Outputs, Shape, State

# Steps whose operands are laid out at once: memory grows with the batch, never with the length of a sequence.
BLOCK = 32
# Beyond so many rows what it takes to make a workspace is a small part of a step.
KEPT_ROWS = 64

Allocate = Callable[[Sequence[tuple[int, ...]], np.dtype[Any]], list[Array]]  # arrays, of whatever content

_local = threading.local()


def _scratch(shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]) -> list[Array]:
    """This thread's scratch memory, cut into arrays of these shapes; they hold until the thread's next call."""
    sizes = [math.prod(shape) for shape in shapes]
    memory: Array | None = getattr(_local, dtype.char, None)
    if memory is None or memory.size < sum(sizes):
        memory = np.empty(sum(sizes), dtype)
        setattr(_local, dtype.char, memory)
    arrays, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(memory[start : start + size].reshape(shape))
        start += size
    return arrays


@dataclass(frozen=True, slots=True)
class BoundCell:
    """One step of a cell, bound to the buffers of a scan.

    `sums(a)` computes the sums z from the operand a = [h; x; 1], (units + features + 1, b). `update(before, h)` makes
    the new hidden state of it and of the one before, and writes it into h, (units, b). `states` are the states besides
    h, which a scan sets to 0 first. `z()` gives the sums in Keras' column order, to be asked before `update`; `parts`
    are views, by name, of what the update computed.
    """

    sums: Callable[[Array], object]
    update: Callable[[Array, Array], None]
    states: tuple[Array, ...]
    z: Callable[[], Array]
    parts: Mapping[str, Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrent(ABC):
    """What every recurrent layer has: arrays in Keras' own layout, of one dtype, and how it walks through time.

    With `go_backwards` the steps are taken last to first, and a returned sequence stays in that order, as in Keras.
    With `zero_output_for_mask` the output of a masked step is 0; without it, the last output before it, held. With
    `return_state` the states after the last step are outputs too, (units,) each, and inputs after the first are those
    before the first step. With `ignores_mask` each step counts, and the mask is passed on all the same. With `stateful`
    Keras begins a call with the states of the one before; here no call does, but the next row of a series. `unrolled`
    is one that goes backwards and whose steps Keras wrote out, which with a mask is another: loading refuses that.
    """

    name: str
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    activation: Activation
    keras_class: str = ""
    return_sequences: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False
    return_state: bool = False
    ignores_mask: bool = False
    stateful: bool = False
    unrolled: bool = False

    # The states, h first.
    carried: ClassVar[tuple[str, ...]] = ("h",)

    @cached_property
    def kept(self) -> threading.local:
        """Each thread's workspaces: for `_alone` that of one `row`, for `_several` that of some `rows`."""
        return threading.local()

    @property
    def units(self) -> int:
        """The length of h."""
        return int(self.recurrent_kernel.shape[0])

    @property
    def weights(self) -> dict[str, Array]:
        """The arrays by their Keras names, in the order of `get_weights()`."""
        named = {"kernel": self.kernel, "recurrent_kernel": self.recurrent_kernel}
        return named if self.bias is None else named | {"bias": self.bias}

    @property
    def last_activation(self) -> Activation | None:
        """None: a gated state is no plain activation of anything."""
        return None

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """(T, features) -> (T, units), or (units,) for the last step alone; and then the states."""
        timesteps, _ = shapes[0]
        states = ((self.units,),) * len(self.carried) if self.return_state else ()
        return ((timesteps, self.units) if self.return_sequences else (self.units,), *states)

    def products(self, shapes: Sequence[Shape]) -> int:
        """Each step meets all weights."""
        return (shapes[0][0] or 1) * sum(array.size for array in self.weights.values())

    @abstractmethod
    def buffers(self, batch: int) -> list[tuple[int, ...]]:
        """The shapes of the arrays that the cell works in; its `parts` are in the first one."""

    @abstractmethod
    def bind(self, buffers: Sequence[Array]) -> BoundCell:
        """The cell, bound to these buffers."""

    @property
    def not_causal(self) -> str | None:
        """It has a step where it goes forward, and gives no states."""
        return (
            "gives its states as well"
            if self.return_state
            else "reads the sequence from its end"
            if self.go_backwards
            else None
        )

    def start(self, n: int) -> State:
        """The states that are `carried`, zeros (n, units) each."""
        return tuple(np.zeros((n, self.units), self.kernel.dtype) for _ in self.carried)

    def step(self, xs: Sequence[Array], state: State) -> tuple[tuple[Array, ...], State]:
        """x (n, features) -> h (n, units), as the last h of a sequence that ends here."""
        after = advance(self, xs[0], state)
        return after[:1], after

    def __call__(self, xs: Sequence[Array], masks: Sequence[Mask]) -> Outputs:
        """x (b, T, features) -> (b, T, units) with the mask, or the last h, (b, units); and the states (b, units)."""
        y, mask, states = scan(self, xs[0], None if self.ignores_mask else masks[0], before=xs[1:])
        passed = masks[0] if self.ignores_mask and self.return_sequences else mask
        return (y, *states), (passed, *(None for _ in states))

    def trace(self, xs: Sequence[Array], masks: Sequence[Mask]) -> dict[str, Array]:
        """Every step's sums, gates and states by name, each (b, T, width), in the order in which they were taken."""
        record: dict[str, list[Array]] = {}
        scan(self, xs[0], None if self.ignores_mask else masks[0], record, before=xs[1:])
        b = len(xs[0])
        return {name: np.stack(steps).reshape(len(steps), -1, b).transpose(2, 0, 1) for name, steps in record.items()}


class Scanned(NamedTuple):
    """What a scan gives: the output with its mask, and the states after the last step, (b, units) each."""

    y: Array
    mask: Mask
    states: tuple[Array, ...]


def scan(
    layer: Recurrent,
    x: Array,
    mask: Mask,
    record: dict[str, list[Array]] | None = None,
    before: Sequence[Array] = (),
) -> Scanned:
    """Walk a layer's cell over x (b, T, features) from the states `before`, (b, units) each, or else from zeros.

    Where mask (b, T) is False, every state stays what it was, and so does the output, or it is 0. Gives (b, T, units)
    with the mask, or the last h, (b, units), with none. `record` collects, by name, what each step computed, each
    (width, b).
    """
    b, timesteps, _ = x.shape
    u = layer.units
    # Keras passes the mask on in the order in which it came, also where it reverses the sequence.
    mask_out = mask
    if layer.go_backwards:
        x = x[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    y = np.empty((b, timesteps, u), layer.kernel.dtype) if layer.return_sequences else None
    block = min(BLOCK, timesteps)
    operands, steps, hs, cell = _alone(layer, block) if b == 1 else _workspace(layer, block, b, _scratch)
    walk = _plain(cell) if mask is None and record is None else _observed(cell, mask, record)
    own = (operands[0, :u], *(state.reshape(u, b) for state in cell.states))
    for k, state in enumerate(own):
        state[:] = before[k].T if before else 0
    n = 0
    for start in range(0, timesteps, block):
        operands[0, :u] = operands[n, :u]
        n = min(block, timesteps - start)
        operands[:n, u:-1] = x[:, start : start + n].transpose(1, 2, 0)
        walk(steps[:n], hs, start)
        if y is not None:
            y[:, start : start + n] = operands[1 : n + 1, :u].transpose(2, 0, 1)
    shown = shown_steps(layer, mask, given=bool(before))
    ends = (operands[n, :u], *own[1:]) if layer.return_state else ()
    states = tuple(state.T.copy() for state in ends)
    if y is not None:
        if shown is not None:
            y[~shown] = 0
        return Scanned(y, mask_out, states)
    last = operands[n, :u].T.copy()
    if shown is not None:
        last[~shown[:, -1]] = 0
    return Scanned(last, None, states)


def shown_steps(layer: Recurrent, mask: Mask, *, given: bool) -> Mask:
    """The steps, in the order in which they are taken, whose output is not 0 for a mask's sake; None where all are.

    Before the first step that counts there is no output to hold, whatever the states are that are `given`.
    Source: prev_output in rnn() of keras/backend.py, 2.15.
    """
    if mask is None or layer.zero_output_for_mask:
        return mask
    return np.logical_or.accumulate(mask, axis=1) if given else None


def advance(layer: Recurrent, x: Array, state: State) -> State:
    """Walk a layer's cell one step further: x (n, features) and its states, h first, each (n, units), to those after.

    They are new arrays each time, laid out as the scan's own are.
    """
    n, u = x.shape[0], layer.units
    operands, steps, hs, cell = _alone(layer, 1) if n == 1 else _several(layer, n)
    h, *others = state
    operands[0, :u] = h.T
    operands[0, u:-1] = x.T
    for own, given in zip(cell.states, others, strict=True):
        own.reshape(u, n)[:] = given.T
    cell.sums(steps[0])
    cell.update(hs[0], hs[1])
    return tuple(own.reshape(u, n).copy().T for own in (hs[1], *cell.states))


class Workspace(NamedTuple):
    """What a scan works in: `operands`, (steps + 1, units + features + 1, b), and a cell bound to its buffers.

    operands[t] is [h_(t-1); x_t; 1]: a step writes its h straight into the next step's operand. `steps` is the same
    without the batch axis of one row alone, and `hs` the h in each.
    """

    operands: Array
    steps: Array
    hs: Sequence[Array]
    cell: BoundCell


def _workspace(layer: Recurrent, block: int, b: int, allocate: Allocate) -> Workspace:
    """One for so many steps of b rows."""
    shapes = [(block + 1, layer.units + len(layer.kernel) + 1, b), *layer.buffers(b)]
    operands, *buffers = allocate(shapes, layer.kernel.dtype)
    operands[:, -1] = 1
    steps = _without_batch(operands)
    cell = layer.bind([_without_batch(buffer) for buffer in buffers])
    return Workspace(operands, steps, list(steps[:, : layer.units]), cell)


def _alone(layer: Recurrent, block: int) -> Workspace:
    """One for one row and at least so many steps, which this thread keeps: to make it takes the time of two steps."""
    kept: Workspace | None = getattr(layer.kept, "row", None)
    if kept is None or len(kept.operands) <= block:
        kept = layer.kept.row = _workspace(layer, block, 1, _empty)
    return kept


def _several(layer: Recurrent, b: int) -> Workspace:
    """One for one step of b rows, which this thread keeps for the next step of as many, unless they are many."""
    if b > KEPT_ROWS:
        return _workspace(layer, 1, b, _scratch)
    kept: Workspace | None = getattr(layer.kept, "rows", None)
    if kept is None or kept.operands.shape[-1] != b:
        kept = layer.kept.rows = _workspace(layer, 1, b, _empty)
    return kept


def _empty(shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]) -> list[Array]:
    return [np.empty(shape, dtype) for shape in shapes]


def _without_batch(array: Array) -> Array:
    """An array (..., b) as (...) where b is 1."""
    return array[..., 0] if array.shape[-1] == 1 else array


Walk = Callable[[Array, Sequence[Array], int], None]  # over some steps: operands, the h before each and after, start


def _plain(cell: BoundCell) -> Walk:
    """The usual case: nothing but the steps."""
    sums, update = cell.sums, cell.update

    def walk(operands: Array, hs: Sequence[Array], _: int) -> None:
        for t, operand in enumerate(operands):
            sums(operand)
            update(hs[t], hs[t + 1])

    return walk


def _observed(cell: BoundCell, mask: Mask, record: dict[str, list[Array]] | None) -> Walk:
    """The steps with a mask, which holds the states where it is False, or with a record of what each computed."""

    def walk(operands: Array, hs: Sequence[Array], start: int) -> None:
        for t, operand in enumerate(operands):
            cell.sums(operand)
            # z is the sums of an LSTM, and a gate of a GRU.
            z = {"sums" if "z" in cell.parts else "z": cell.z().copy()} if record is not None else {}
            before = [hs[t], *(state.copy() for state in cell.states)]
            cell.update(hs[t], hs[t + 1])
            if mask is not None:
                for old, new in zip(before, (hs[t + 1], *cell.states), strict=True):
                    np.copyto(new, old, where=~mask[:, start + t])
            if record is not None:
                for name, part in {**z, **cell.parts, "h": hs[t + 1]}.items():
                    record.setdefault(name, []).append(part.copy())

    return walk
