"""Text from outside: UTF-8, with or without the byte-order mark that PowerShell and Notepad write before it."""

import codecs
import re

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What no text holds.
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def without_mark(data: bytes) -> bytes:
    """The bytes of a text without a byte-order mark."""
    return data.removeprefix(codecs.BOM_UTF8)


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes without a byte-order mark. Raises UnicodeDecodeError."""
    return without_mark(data).decode("utf-8")


def not_utf8(data: bytes) -> str:
    """What to say of bytes that `decode` does not take, as the end of a sentence."""
    if data.startswith(UTF_16):
        return "is text in UTF-16; save it as UTF-8"
    if not is_text(data):
        return "is no text"
    return "is not text in UTF-8 (in Latin-1 or Windows-1252?); save it as UTF-8"


def is_text(data: bytes) -> bool:
    """Whether bytes may be text, in UTF-16 or in an encoding of one byte a character."""
    return data.startswith(UTF_16) or not CONTROL.search(data)


def printable(text: str) -> str:
    """Text with what comes out of a file escaped where a terminal or a log would take it for more than text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(text: str, width: int = 60) -> str:
    """A name out of a file, fit for a terminal: cut to `width`, without control characters."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."
