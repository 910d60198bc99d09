"""Text from outside: UTF-8, with or without the byte-order mark that PowerShell and Notepad write before it."""

import codecs


def without_mark(data: bytes) -> bytes:
    """The bytes of a text without a byte-order mark."""
    return data.removeprefix(codecs.BOM_UTF8)


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes without a byte-order mark. Raises UnicodeDecodeError."""
    return without_mark(data).decode("utf-8")


def printable(text: str) -> str:
    """Text with what comes out of a file escaped where a terminal or a log would take it for more than text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(text: str, width: int = 60) -> str:
    """A name out of a file, fit for a terminal: cut to `width`, without control characters."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."
