"""The files around an exported model in C: m.h, m.c, m_golden.c, a Makefile, and what a Cortex-M needs to start."""

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from lstm_serve.engine.types import AnyArray
from lstm_serve.export.artifact import Golden, header, plain
from lstm_serve.export.c_writer import CProgram, known
from lstm_serve.export.library import filled, text
from lstm_serve.export.operation import Value, walk, write_nodes
from lstm_serve.model.graph import INPUT, TensorSpec
from lstm_serve.model.model import Model

# What the calls themselves, with libm's, take of the stack of a Cortex-M: 20 to 191 bytes were measured.
CALLS = 256


class _Written(NamedTuple):
    """The functions, the state's fields, what `m_predict` is declared to take and give, its lines, and what it takes.

    `ram` is bytes of the stack, `adds` are products with a sum, of a sequence or of a row.
    """

    body: str
    fields: dict[str, int] | None
    declared: list[str]
    predict: list[str]
    ram: int
    adds: int


def build(model: Model, golden: Golden, steps: Sequence[int] | None, source: CProgram) -> dict[str, bytes]:
    """All the files. `steps` are the nodes that `m_step` computes, None for a model written as a whole."""
    each_row = steps is not None and len(model.nodes) - 1 in steps and len(model.output_shape) > 1
    written = _whole(model, source) if steps is None else _streamed(model, steps, source, each_row=each_row)
    signature = f"void m_predict({', '.join(written.declared)})"
    body = written.body + "\n".join([f"\n{signature}", "{", *(f"    {line}" for line in written.predict), "}", ""])
    kept = "" if written.fields is None else f", and {4 * sum(written.fields.values()):,} for each series"
    facts = (
        f"Flash: {source.flash:,} bytes of weights, and the code. RAM: at most {written.ram + CALLS:,} bytes on the "
        f"stack of a Cortex-M{kept}. "
        f"Multiplications with an addition: {written.adds:,} {'a sequence' if steps is None else 'a row'}."
    )
    head = "\n".join(f" * {line}" for line in header(model))
    fields = written.fields and "\n".join(f"    float {name}[{size}];" for name, size in written.fields.items())
    return {
        "m.h": filled(
            "m.h",
            head=head,
            bytes=facts,
            sizes=_sizes(model, each_row=each_row),
            state="" if fields is None else filled("m_state.h", c_type=_c_type(model.inputs[0]), fields=fields),
            what="\n * ".join(_words(model, each_row=each_row)),
            signature=signature,
        ).encode("ascii"),
        "m.c": filled(
            "m.c",
            head=head,
            functions="\n\n".join(source.functions.values()),
            constants="\n".join(source.constants),
            body=body.lstrip("\n"),
        ).encode("ascii"),
        "m_golden.c": _golden(model, golden, each_row=each_row).encode("ascii"),
        **{name: text(name).encode("ascii") for name in ("m_cortex.c", "m.ld", "Makefile")},
    }


def _c_type(spec: TensorSpec) -> str:
    return "int" if spec.dtype.kind == "i" else "float"


def _sizes(model: Model, *, each_row: bool) -> str:
    """The sizes of a model of one input and one output, by their names."""
    if not model.is_single:
        return ""
    shape = model.input_shape
    ids = model.id_limit is not None
    sizes = {"M_FEATURES": 1 if not shape or (ids and len(shape) < 2) else shape[-1] or 1}
    sizes["M_OUTPUTS"] = math.prod(known(model.output_shape[1:] if each_row else model.output_shape))
    if shape[:1] != (None,) and (len(shape) > 1 or ids):
        sizes["M_TIMESTEPS"] = shape[0] or 1
    return "".join(f"#define {name} {size}\n" for name, size in sizes.items())


def _words(model: Model, *, each_row: bool) -> list[str]:
    """What `m_predict` answers, and of several inputs and outputs which is which."""
    limits = [(plain(str(each.name)), each.id_limit) for each in model.takes]
    if model.is_single:
        ids = [f"; its ids are from 0 to {limit - 1}, which is not checked" for _, limit in limits if limit is not None]
        return ["".join(["The answer to a whole sequence", ", for each of its rows" * each_row, *ids, "."])]
    return [
        "The answers to one row of inputs.",
        *(
            f"in{k}: {name}{'' if limit is None else f', ids from 0 to {limit - 1}, which is not checked'}"
            for k, (name, limit) in enumerate(limits, 1)
        ),
        *(f"out{k}: {plain(str(each.name))}, {plain(str(each.shape))}" for k, each in enumerate(model.outputs, 1)),
    ]


def _whole(model: Model, source: CProgram) -> _Written:
    """A model that sees all at once: a pointer to each input, and the outputs as they come, flat."""
    given, declared, begins = [], [], {}
    for k, spec in enumerate(model.inputs, 1):
        name, x = ("window", "x") if model.is_single else (f"in{k}", f"x{k}")
        c_type, rank = _c_type(spec), len(spec.shape)
        dims = [str(size) for size in known(spec.shape)] or ["1"]
        if model.is_single:
            leading = ["M_FEATURES"] if rank < 2 and c_type == "float" else ["M_TIMESTEPS"]
            dims = [*leading, *dims[1:]]
        declared.append(f"const {c_type} {name}{_dims(dims)}")
        start = name if rank < 2 else f"{name}[0]" if rank == 2 else f"(const {c_type} *){name}"
        begins[name] = x, f"const {c_type} *const {x} = {start};"
        given.append(Value.given(x, spec))
    results = walk(model.nodes, given, model.results, source.write)
    for k, y in enumerate(results, 1):
        size = math.prod(known(y.shape))
        name = "out" if model.is_single else f"out{k}"
        declared.append(f"float {name}[{'M_OUTPUTS' if len(results) == 1 == len(given) else size}]")
        source.call("place", 1, size, size, y.name, name)
    used = {*re.findall(r"\w+", "\n".join(source.lines))}
    # An input may be one that no output comes from.
    lines = [line if x in used else f"(void){name};" for name, (x, line) in begins.items()]
    return _Written("", None, declared, [*lines, *source.lines], source.ram, source.adds)


def _streamed(model: Model, steps: Sequence[int], source: CProgram, *, each_row: bool) -> _Written:
    """m_reset, m_step and m_output, and m_predict, which calls them; it answers each row, or the last one."""
    c_type, last = _c_type(model.inputs[0]), len(model.nodes) - 1
    fields: dict[str, int] = {}
    source.state = fields
    values: dict[int, tuple[Value, ...]] = {
        INPUT: (Value.given("row", model.inputs[0])._replace(shape=(1, *model.input_shape[1:])),)
    }
    write_nodes(model.nodes, steps, values, source.write)
    answer = values[last][0] if last in steps else None
    if answer is not None and not answer.name.startswith("s->"):  # a step's own output, kept for m_output
        width = math.prod(known(answer.shape))
        name = source.name("h")
        fields[name] = width
        source.call("place", 1, width, width, answer.name, f"s->{name}")
        values[last] = (Value(f"s->{name}", answer.shape),)
    step, source.lines, step_ram, source.ram = source.lines, [], source.ram, 0
    adds, source.state = source.adds, None
    write_nodes(model.nodes, [k for k in range(len(model.nodes)) if k not in steps], values, source.write)
    (answer,) = values[last]
    width = math.prod(known(answer.shape))
    source.call("place", 1, width, width, answer.name, "out")
    if not fields:
        fields["none"] = 1
    zero = [f"for (int k = 0; k < {size}; ++k) s->{name}[k] = 0.0f;" for name, size in fields.items()]
    functions = [
        ("void m_reset(m_state *s)", zero),
        (f"void m_step(m_state *s, const {c_type} row[M_FEATURES])", step),
        ("void m_output(const m_state *s, float out[M_OUTPUTS])", source.lines),
    ]
    body = "\n".join(
        "\n".join([f"\n{head}", "{", *(f"    {line}" for line in lines), "}"]) for head, lines in functions
    )
    free = model.input_shape[0] is None
    row = "window + t" if len(model.input_shape) < 2 else "window[t]"
    loop, take = f"for (int t = 0; t < {'timesteps' if free else 'M_TIMESTEPS'}; ++t)", f"m_step(&s, {row});"
    if each_row:
        walked = [f"{loop} {{", f"    {take}", "    m_output(&s, out[t]);", "}"]
    else:
        walked = [f"{loop} {take}", "m_output(&s, out);"]
    declared = [
        f"const {c_type} window[{'' if free else 'M_TIMESTEPS'}]{'' if len(model.input_shape) < 2 else '[M_FEATURES]'}",
        *["int timesteps"] * free,
        f"float out{'[]' if each_row else ''}[M_OUTPUTS]",
    ]
    predict = ["m_state s;", "m_reset(&s);", *walked]
    return _Written(body + "\n", fields, declared, predict, max(step_ram, source.ram), adds)


def _golden(model: Model, golden: Golden, *, each_row: bool) -> str:
    """A program that compares the golden predictions, and prints all answers where it is asked to."""
    rows = len(golden.xs[0])
    arrays, arguments = [], []
    for k, (spec, x) in enumerate(zip(model.inputs, golden.xs, strict=True)):
        c_type, suffix = (_c_type(spec), "") if _c_type(spec) == "int" else ("float", "f")
        numbers = _numbers(x.astype(np.float32) if suffix else x, suffix)
        arrays.append(f"static const {c_type} golden_x{k}[{rows}][{math.prod(x.shape[1:])}] = {{\n{numbers}\n}};")
        cast = "" if len(spec.shape) < 2 else f"(const {c_type}(*){_dims(x.shape[2:])})"
        arguments.append(f"{cast}golden_x{k}[k]")
    if None in model.input_shape:
        arguments.append(str(golden.xs[0].shape[1]))
    widths = [math.prod(y.shape[1:]) for y in golden.ys]
    starts = [0, *accumulate(widths)]
    cast = "(float(*)[M_OUTPUTS])" if each_row else ""
    arguments += [f"{cast}(out + {start})" if start else f"{cast}out" for start in starts[:-1]]
    units = [np.broadcast_to(unit, y.shape[1:]).ravel() for unit, y in zip(golden.units, golden.ys, strict=True)]
    return filled(
        "m_golden.c",
        rows=rows,
        whose=golden.whose,
        tolerance=f"{model.origin.tolerance:g}",
        inputs="\n".join(arrays),
        width=starts[-1],
        y=_numbers(np.concatenate([y.reshape(rows, -1) for y in golden.ys], axis=1).astype(np.float32), "f"),
        unit=", ".join(f"{number!s}f" for number in np.concatenate(units)),
        count=len(widths),
        ends=", ".join(map(str, starts[1:])),
        call=f"m_predict({', '.join(arguments)});",
    )


def _dims(shape: Sequence[int | str]) -> str:
    return "".join(f"[{n}]" for n in shape)


def _numbers(array: AnyArray, suffix: str) -> str:
    rows = [", ".join(f"{number!s}{suffix}" for number in row.ravel()) for row in array]
    return ",\n".join(f"    {{{row}}}" for row in rows)
