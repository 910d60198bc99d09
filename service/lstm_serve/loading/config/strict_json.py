"""Keras' JSON, parsed with a bound on its nesting."""

import json
from typing import Any

from lstm_serve.errors import UnreadableFile

# Of objects and lists in each other: a layer in a wrapper in a model takes six, and each model around it three.
MAX_NESTING = 100


def parse(text: str, what: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Parse JSON, with a bound on its nesting. `what` names the text in an error.

    NaN and Infinity are let through, as Keras writes them for MaxNorm(inf): `Options.take` refuses them by name where a
    number depends on them.
    """
    try:
        parsed = json.loads(text)
    except RecursionError:
        raise UnreadableFile(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise UnreadableFile(f"{what} is not valid JSON: {error}") from None
    check_nesting(parsed, what)
    return parsed


def check_nesting(value: Any, what: str) -> None:  # noqa: ANN401 - JSON is anything
    """Refuse JSON that is nested deeper than any model, whatever this Python's own limit is."""
    level = [value]
    for _ in range(MAX_NESTING):
        inner = (list(item.values()) if isinstance(item, dict) else item for item in level)
        level = [item for items in inner if isinstance(items, list) for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise UnreadableFile(f"{what} is nested too deeply: more than {MAX_NESTING} lists and objects in each other")
