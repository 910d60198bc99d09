"""The files around an exported model in C: m.h, m.c, m_golden.c, a Makefile, and what a Cortex-M needs to start."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lstm_serve.engine.operations.temporal import Embedding
from lstm_serve.export.artifact import Golden, Numbers, header
from lstm_serve.export.library import filled, text
from lstm_serve.export.operation import Value
from lstm_serve.model.graph import INPUT
from lstm_serve.model.model import Model

if TYPE_CHECKING:
    from lstm_serve.export.c_source import Emit
    from lstm_serve.export.c_writer import Source


# What the calls themselves, with libm's, take of the stack of a Cortex-M: 20 to 191 bytes were measured.
CALLS = 256


def build(
    model: Model, golden: Golden, steps: Sequence[int] | None, source: "Source", emit: "Emit"
) -> dict[str, bytes]:
    """All the files. `steps` are the nodes that `m_step` computes, None for a model written as a whole."""
    ids = isinstance(model.nodes[0].operation, Embedding)
    kind = "int" if ids else "float"
    features = 1 if ids or not model.input_shape else model.input_shape[-1] or 1
    last = len(model.nodes) - 1
    if steps is None:
        values = {INPUT: Value("x", model.input_shape)}
        emit(source, model, range(len(model.nodes)), values)
        size = math.prod(n or 1 for n in model.output_shape)
        source.call("place", 1, size, size, values[last].name, "out")
        given = f"const {kind} *const x = {'window' if len(model.input_shape) < 2 or ids else 'window[0]'};"
        given = given if len(model.input_shape) <= 2 else f"const {kind} *const x = (const {kind} *)window;"
        body, fields, outputs = "", None, size
        predict = [given, *source.lines]
        ram, adds = source.ram, source.adds
    else:
        body, fields, outputs, ram, adds, predict = _streamed(model, steps, source, emit, kind)
    sequence = steps is not None and last in steps and len(model.output_shape) == 2
    free = model.input_shape[:1] == (None,)
    lead = "[M_TIMESTEPS]" if not free else "[]"
    dims = "".join(f"[{n}]" for n in model.input_shape[1:]) if steps is None or ids else "[M_FEATURES]"
    if len(model.input_shape) < 2 and not ids:
        lead, dims = "[M_FEATURES]", ""
    window = f"const {kind} window{lead}{dims}" + (", int timesteps" if free else "")
    out = "float out[][M_OUTPUTS]" if sequence else "float out[M_OUTPUTS]"
    signature = f"void m_predict({window}, {out})"
    body += "\n".join([f"\n{signature}", "{", *(f"    {line}" for line in predict), "}", ""])
    facts = (
        f"Flash: {source.flash:,} bytes of weights, and the code. RAM: at most {ram + CALLS:,} bytes on the stack of a "
        f"Cortex-M{'' if fields is None else f', and {4 * sum(fields.values()):,} for each series'}. "
        f"Multiplications with an addition: {adds:,} {'a sequence' if steps is None else 'a row'}."
    )
    head = "\n".join(f" * {line}" for line in header(model))
    state = "" if fields is None else filled("m_state.h", kind=kind, fields=_fields(fields))
    return {
        "m.h": filled(
            "m.h",
            head=head,
            bytes=facts,
            features=features,
            outputs=outputs,
            timesteps=""
            if free or (len(model.input_shape) < 2 and not ids)
            else f"#define M_TIMESTEPS {model.input_shape[0]}\n",
            state=state,
            what="The answer to a whole sequence"
            + (", for each of its rows" if sequence else "")
            + (f"; its ids are from 0 to {(model.id_limit or 1) - 1}, which is not checked." if ids else "."),
            window=window,
            out=out,
        ).encode("ascii"),
        "m.c": filled(
            "m.c",
            head=head,
            functions="\n\n".join(source.functions.values()),
            constants="\n".join(source.constants),
            body=body.lstrip("\n"),
        ).encode("ascii"),
        "m_golden.c": _golden(model, golden, kind, features, free=free, ids=ids, sequence=sequence).encode("ascii"),
        **{name: text(name).encode("ascii") for name in ("m_cortex.c", "m.ld", "Makefile")},
    }


def _fields(fields: dict[str, int]) -> str:
    return "\n".join(f"    float {name}[{size}];" for name, size in fields.items())


def _streamed(
    model: Model, steps: Sequence[int], source: "Source", emit: "Emit", kind: str
) -> tuple[str, dict[str, int], int, int, int, list[str]]:
    """m_reset, m_step, m_output; the state's fields, the outputs, bytes of stack, products, m_predict's lines."""
    last = len(model.nodes) - 1
    fields: dict[str, int] = {}
    source.state = fields
    values = {INPUT: Value("row", (1, *model.input_shape[1:]))}
    emit(source, model, steps, values)
    answer = values[last] if last in steps else None
    if answer is not None and not answer.name.startswith("s->"):  # a step's own output, kept for m_output
        width = math.prod(n or 1 for n in answer.shape)
        name = source.name("h")
        fields[name] = width
        source.call("place", 1, width, width, answer.name, f"s->{name}")
        values[last] = Value(f"s->{name}", answer.shape)
    step, source.lines, step_ram, source.ram = source.lines, [], source.ram, 0
    adds, source.state = source.adds, None
    emit(source, model, [k for k in range(len(model.nodes)) if k not in steps], values)
    width = math.prod(n or 1 for n in values[last].shape)
    source.call("place", 1, width, width, values[last].name, "out")
    if not fields:
        fields["none"] = 1
    zero = [f"for (int k = 0; k < {size}; ++k) s->{name}[k] = 0.0f;" for name, size in fields.items()]
    functions = [
        ("void m_reset(m_state *s)", zero),
        (f"void m_step(m_state *s, const {kind} row[M_FEATURES])", step),
        ("void m_output(const m_state *s, float out[M_OUTPUTS])", source.lines),
    ]
    body = "\n".join(
        "\n".join([f"\n{head}", "{", *(f"    {line}" for line in lines), "}"]) for head, lines in functions
    )
    timesteps = "timesteps" if model.input_shape[0] is None else "M_TIMESTEPS"
    row = "window + t" if len(model.input_shape) < 2 else "window[t]"
    predict = ["m_state s;", "m_reset(&s);"]
    if last in steps and len(model.output_shape) == 2:
        predict += [
            f"for (int t = 0; t < {timesteps}; ++t) {{",
            f"    m_step(&s, {row});",
            "    m_output(&s, out[t]);",
            "}",
        ]
    else:
        predict += [f"for (int t = 0; t < {timesteps}; ++t) m_step(&s, {row});", "m_output(&s, out);"]
    return body + "\n", fields, width, max(step_ram, source.ram), adds, predict


def _golden(  # noqa: PLR0913 - what the text is filled with
    model: Model, golden: Golden, kind: str, features: int, *, free: bool, ids: bool, sequence: bool
) -> str:
    rows = len(golden.x)
    timesteps = golden.x.shape[1] if golden.x.ndim > 1 else 1
    flat = len(model.input_shape) < 2
    x = "golden_x[k]" if flat else f"(const {kind}(*){_dims(golden.x.shape[2:])})golden_x[k]"
    out = "(float(*)[M_OUTPUTS])out" if sequence else "out"
    return filled(
        "m_golden.c",
        rows=rows,
        whose=golden.whose,
        tolerance=f"{model.origin.tolerance:g}",
        kind=kind,
        size=math.prod(golden.x.shape[1:]),
        width=math.prod(golden.y.shape[1:]),
        x=_numbers(golden.x if ids else golden.x.astype(np.float32), "" if ids else "f"),
        y=_numbers(golden.y.astype(np.float32), "f"),
        unit=", ".join(f"{number!s}f" for number in np.broadcast_to(golden.unit, golden.y.shape[1:]).ravel()),
        call=f"m_predict({x}{f', {timesteps}' if free else ''}, {out});",
    )


def _dims(shape: Sequence[int]) -> str:
    return "".join(f"[{n}]" for n in shape)


def _numbers(array: Numbers, suffix: str) -> str:
    rows = [", ".join(f"{number!s}{suffix}" for number in row.ravel()) for row in array]
    return ",\n".join(f"    {{{row}}}" for row in rows)
