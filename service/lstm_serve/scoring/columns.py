"""Rows of words and numbers as aligned columns, for a person."""

from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> Iterator[str]:
    """A line for each row, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([f"{indent}{first:<{widths[0]}}", *cells]).rstrip()
