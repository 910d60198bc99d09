"""What a card says of each input and output: by name, or in its own fields where there is one."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.sidecars.card import Card, InputCard, OutputCard

CardPart = TypeVar("CardPart", InputCard, OutputCard)
Named = Sequence[tuple[str, Any]]

# The card's own fields for one input and one output, and what each is called where it is said by name.
OF_INPUT = {"features": "features", "scaling": "scaling"}
OF_OUTPUT = {"classes": "classes", "threshold": "threshold", "output_scaling": "scaling"}


def of_inputs(card: Card, inputs: Named) -> list[InputCard]:
    """What the card says of each input. Raises UnreadableFile where it says it of none, or of which is not told."""
    return _of_each(card, "input", card.inputs, OF_INPUT, [name for name, _ in inputs], InputCard)


def of_outputs(card: Card, outputs: Named) -> list[OutputCard]:
    """What the card says of each output, likewise."""
    return _of_each(card, "output", card.outputs, OF_OUTPUT, [name for name, _ in outputs], OutputCard)


def _of_each(  # noqa: PLR0913, PLR0917 - what inputs and outputs differ in
    card: Card,
    what: str,
    by_name: Mapping[str, CardPart] | None,
    fields: Mapping[str, str],
    names: Sequence[str],
    part: type[CardPart],
) -> list[CardPart]:
    flat = {field: getattr(card, field) for field in fields if getattr(card, field) is not None}
    if by_name is None and len(names) == 1:
        return [part.model_construct(**{fields[field]: value for field, value in flat.items()})]
    if flat:
        field = next(iter(flat))
        raise UnreadableFile(
            f'its card says {field} and not of which {what}; say it by name, as "{what}s": '
            f'{{"{names[0][:100]}": {{"{fields[field]}": ...}}}}'
        )
    given = by_name or {}
    if unknown := [name for name in given if name not in names]:
        raise UnreadableFile(
            f"its card names the {what} {unknown[0][:100]!r}, and the model has {', '.join(names)[:500]}"
        )
    found = [given.get(name, part.model_construct()) for name in names]
    called = [each.name or name for each, name in zip(found, names, strict=True)]
    if len(set(called)) < len(called):
        raise UnreadableFile(f"its card calls two {what}s by one name: {', '.join(called)[:500]}")
    return found
