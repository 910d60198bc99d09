"""How a connection is read: a request at a time, a piece at a time, when its turn has come."""

import time

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from lstm_serve.process.ending import NOWHERE, Ending
from lstm_serve.process.incoming import PIECE
from lstm_serve.process.transport import Cycle, body_length

PIECES = 4  # of what has come, each time that it is read: a request's head and its body are two
LOOK_SECONDS = 0.05  # how often it is asked whether an answer is out, where TLS tells nobody


class Protocol(Ending):
    """uvicorn's protocol with limits. A request is looked at once the one before it is answered; what came waits."""

    _left = 0  # of the body, where it has told its length

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.serving.reads.leave(self)

    def data_received(self, data: bytes) -> None:
        """Take it, as far as that goes now."""
        if self._deaf or (self._stopping and self._busy):
            return
        self._most_read = max(self._most_read, len(data))
        self._incoming.add(data)
        self.serving.reads.ask(self)
        if self._incoming.waiting:
            if self._incoming.waiting > PIECE:
                self.flow.hold()  # who waits with less is not, so that it is known where it leaves
            self._keep()

    @property
    def asks(self) -> str | None:
        """The model that its last request was for; empty where it was for none, None where there was none yet."""
        model: str | None = None if self.cycle is None else self.cycle.scope["state"].get("model", "")
        return model

    @property
    def _takes(self) -> bool:
        """Whether something has come that is to be looked at now."""
        return bool(self._incoming.waiting and not self._deaf and not self.flow.read_paused and not self._busy)

    def take(self) -> bool:
        """Read on, at most to the end of a request; whether there is more to be read now."""
        if self.transport.is_closing():
            return False
        pieces = 0
        while (more := self._takes) and pieces < PIECES:
            # What comes of a body that is answered already is dropped at once.
            most = self._left if self._left > PIECE and self.cycle.response_complete else PIECE
            self._feed(self._incoming.take(self._left, most))
            pieces += 1
        if self._kept.size or self.flow.read_paused or (self._in_headers and self.headers):
            self._keep()
        if not self._incoming.waiting and not self._busy:
            self.flow.read()
            if self._stopping:
                self.shutdown()
        return more and self._takes

    def _feed(self, piece: bytes) -> None:
        """Feed the parser, and count what comes beside bodies."""
        self._unread += len(piece)
        try:
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade:
                self._stay()
        except HttpParserError as error:
            if isinstance(error, HttpParserCallbackError) and not isinstance(error.__context__, HttpParserError):
                self.logger.exception("a fault while a request was read")  # of ours, or of uvicorn's
            else:
                self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._over_limit:
            self._refuse(431, f"the headers are over {self.serving.settings.max_header_bytes} bytes")

    @property
    def _over_limit(self) -> bool:
        """Whether the headers are longer than they may be."""
        return self._unread > self.serving.settings.max_header_bytes

    def _stay(self) -> None:
        """After an Upgrade the parser takes what follows for another protocol: have one that is not asked to."""
        if not self._in_headers:
            self._end_after_this()  # CONNECT
            return
        if self._deaf or self._over_limit:
            return  # it is refused
        version = self.parser.get_http_version().encode()
        head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        head += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join([*head, b"", b""]))

    def _should_upgrade(self) -> bool:
        """Whether `_stay` reads the current request again, without its Upgrade."""
        return bool(self.scope["method"] != "CONNECT")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._since = time.monotonic()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Its headers are complete."""
        if self._deaf or self._over_limit:
            return
        try:
            self._left = body_length(self.parser.get_http_version(), self.headers)
        except ValueError as wrong:
            self.send_400_response(str(wrong))
            return
        if not self.url.startswith(b"/") and not (url := parse_url(self.url)).path:
            self.url = b"/?" + (url.query or b"")  # http://host (RFC 9112, 3.2.2)
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is before:
            return  # an Upgrade
        self._kept.renew()
        self.cycle.__class__ = Cycle  # uvicorn makes it, and asks for none of ours; its task has not begun
        self._in_headers = False
        self._unread = 0
        self._since = time.monotonic()
        self.headers = NOWHERE

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if not self._in_headers:
            self._unread = 0
            self._left = max(0, self._left - len(body))
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._in_headers:
            self._unread = 0
            super().on_message_complete()
            self.cycle.more_body = False  # also where it is answered already
            if self.serving.draining and not self._incoming.waiting:
                self.cycle.keep_alive = False
            if self.cycle.keep_alive and not self.parser.should_keep_alive():
                # A trailer said so: the parser takes nothing more.
                self._end_after_this()
                if self.cycle.response_complete:
                    self.transport.close()

    def on_response_complete(self) -> None:
        """It is answered: read on. As uvicorn's, but `sweep` is the timer."""
        self._answered = time.monotonic()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.raw is not None and not self.flow.write_paused and self.raw.get_write_buffer_size():
            self.pause_writing()
            self._look_again()
        elif self.raw is not None:
            self._keep()
        self._kept.renew()
        self.flow.go_on()

    def _go_on(self) -> None:
        """Take what has come, then read on."""
        if self._incoming.waiting:
            self.serving.reads.ask(self)
        else:
            self.flow.read()
            if self._kept.size:
                self._keep()

    def pause_writing(self) -> None:
        """The client does not take what is sent: nothing more of it is read."""
        super().pause_writing()
        self._write_progressed = time.monotonic()
        self.flow.pause_reading()
        self._keep()

    def resume_writing(self) -> None:
        """Everything is out."""
        super().resume_writing()
        self.flow.go_on()

    def _look_again(self) -> None:
        if self.transport.is_closing():
            return
        if self.raw is not None and self.raw.get_write_buffer_size():
            self.loop.call_later(LOOK_SECONDS, self._look_again)
        else:
            self.resume_writing()
