"""How much memory a model's arrays may take: a setting, and no more than files of their size can hold."""

from lstm_serve.errors import UnreadableFile
from lstm_serve.limits import MAX_MODEL_BYTES

# Beside each array of a compiled model its optimizer keeps two more, which are not read.
FILE_FACTOR = 4
# What a file may unpack to: weights take nine tenths of their bytes, rows of zeros between them a tenth or less. What
# is made to fill the memory takes a thousandth.
MAX_RATIO = 100
ALWAYS = 64 << 20

RAISE = "Where you trust it, raise LSTMSERVE_MAX_MODEL_BYTES, --max-model-bytes or load_model(max_bytes=...)"


class Budget:
    """The bytes that may still be taken for arrays."""

    def __init__(self, max_bytes: int = MAX_MODEL_BYTES) -> None:
        """`max_bytes` is for all arrays of a model, as they are in memory."""
        self._max_bytes = max_bytes
        self._most = max_bytes
        self.left = max_bytes

    def expect(self, size: int) -> None:
        """Bound the arrays by the size of the file or files that they come from, and that by the setting."""
        if size > FILE_FACTOR * self._max_bytes:
            raise UnreadableFile(
                f"is of {_in_units(size)}, more than {FILE_FACTOR} times the {_in_units(self._max_bytes)} "
                f"that arrays may take. {RAISE}"
            )
        self._most = min(self._max_bytes, ALWAYS + MAX_RATIO * size)
        self.left = self._most

    def take(self, size: int, up_to: str) -> None:
        """Take the bytes of an array before it is read. Raises UnreadableFile where they are too many."""
        self.check(size, up_to)
        self.left -= size

    def check(self, size: int, up_to: str) -> None:
        """Raise UnreadableFile where so many bytes are more than are left."""
        if size <= self.left:
            return
        more = f"the arrays up to {up_to!r} need more than {_in_units(self._most)}"
        if self._most == self._max_bytes:
            raise UnreadableFile(f"{more}. {RAISE}")
        raise UnreadableFile(f"{more}, which a file of its size never holds: it is damaged, or made to fill the memory")


def _in_units(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"
