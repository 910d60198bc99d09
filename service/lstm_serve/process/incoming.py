"""What has come on a connection and is not read yet, in pieces of which none goes beyond the end of a request.

The parser cannot be stopped: whatever it is given it reads to the end, and so many small requests in 256 KiB take
seconds on a thousand connections. A head ends with a blank line, and so do chunks (RFC 9112, 2.1 and 7.1).
"""

END = b"\r\n\r\n"
PIECE = 1 << 14  # bytes at most: of one chunk or header for each few of them, so long as the parser takes a millisecond


class Incoming:
    """The bytes, and how far they are read."""

    __slots__ = ("_at", "_data", "waiting")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._data, self._at = b"", 0
        self.waiting = 0  # bytes that are not taken yet

    @property
    def size(self) -> int:
        """How many bytes are kept: those before them as well."""
        return len(self._data)

    def add(self, data: bytes) -> None:
        """These have come."""
        self._data = self._data[self._at - min(self._at, len(END) - 1) :] + data if self._data else data
        self._at = min(self._at, len(END) - 1)
        self.waiting += len(data)

    def take(self, body: int, most: int = PIECE) -> bytes:
        """The next piece, of at most so many bytes, of a body of which `body` are to come; 0 is a head, or chunks."""
        data, at = self._data, self._at
        stop = at + min(body or most, most)
        # A blank line may have begun in the piece before.
        if not body and (found := data.find(END, max(at - len(END) + 1, 0), stop)) >= 0:
            stop = found + len(END)
        piece = data[at:stop]
        if stop < len(data):
            self._at = stop
            self.waiting = len(data) - stop
        else:
            self.waiting = 0
            self._data = b"" if body else data[-len(END) + 1 :]
            self._at = len(self._data)
        return piece

    def clear(self) -> None:
        """Let go of them."""
        self._data, self._at, self.waiting = b"", 0, 0
