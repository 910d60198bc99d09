"""Text from outside: UTF-8, with or without the byte-order mark that PowerShell and Notepad write before it."""

import codecs


def without_mark(data: bytes) -> bytes:
    """The bytes of a text without a byte-order mark."""
    return data.removeprefix(codecs.BOM_UTF8)


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes without a byte-order mark. Raises UnicodeDecodeError."""
    return without_mark(data).decode("utf-8")
