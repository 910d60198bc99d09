"""What uvicorn's HTTP protocol leaves open, one connection at a time: limits on headers, on time, and on connections.

uvicorn waits for ever for a request, for its headers and for its body. Here each connection notes since when it waits,
and `sweep`, called about once a second, ends what has waited too long: cheaper than a timer for each request.
"""

import asyncio
import time
from collections import deque
from typing import Any

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lstm_serve.process.handshakes import tls_bytes
from lstm_serve.process.incoming import Incoming
from lstm_serve.process.transport import LINGER_SECONDS, Cycle, Flow, Lingering, body_length, refusal
from lstm_serve.serving.memory_budget import Kept
from lstm_serve.serving.places import State
from lstm_serve.serving.state import ServingState
from lstm_serve.telemetry import logs
from lstm_serve.web.errors import STATUSES, of_another_dialect

PIECES = 4  # of what has come, in one share of a turn of the event loop: a request's head and its body are two
HEADER_BYTES = 130  # about what a header that has come takes
TICKETS = 1 << 12  # what TLS has to send of its own, and sends with the first answer
LOOK_SECONDS = 0.05  # how often it is asked whether an answer is out, where TLS tells nobody
NOWHERE: Any = deque(maxlen=0)  # where trailers are put: it keeps nothing


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. Its states: waiting for a request's headers, for its body, or for its answer.

    A request is looked at once the one before it is answered: what has come of it waits.
    """

    flow: Flow

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        """As uvicorn makes it; the limits are the settings of the app's model."""
        super().__init__(*args, **kwargs)
        self.serving: ServingState = self.config.app.state.serving  # type: ignore[union-attr]
        self._since = self._answered = self._taken = time.monotonic()
        self._unsent = 0  # the size of the answers that the client had not taken at `_taken`
        self._in_headers = True
        self._deaf = False  # whether what comes is not looked at any more
        self._stopping = False
        self._incoming = Incoming()
        self._left = 0  # of the body, where it has told its length
        self._unread = 0  # what was read since a request or a part of a body: headers, trailers, sizes of chunks
        self._kept = Kept(self.serving.budget, lambda: self.serving.places.end(self))
        self.raw: asyncio.Transport | None = None  # below TLS
        self._most_read = self._most_written = 0  # at once, by TLS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection, or refuse it where there are too many."""
        self._out = Lingering(transport, self._lingers)
        super().connection_made(self._out)  # type: ignore[arg-type]
        self.flow = Flow(self.transport, self._go_on)
        transport.set_write_buffer_limits(1 if self.raw is None else TICKETS)
        if not self.serving.places.enter(self):
            self._refuse(503, "too many connections")
        if self.raw is not None:
            self._keep()

    @property
    def state(self) -> State | None:
        """What the connection waits for; None while requests on it are answered."""
        if self.transport in self.serving.lingering or self.transport.is_closing():
            return State.refused
        if self.flow.write_paused:
            return State.unread
        if self._in_headers:
            return State.headers
        if self.cycle.more_body:
            return State.body
        return State.idle if self.cycle.response_complete else None

    @property
    def since(self) -> float:
        """Since when it waits, in the time of `time.monotonic`."""
        state = self.state
        return self._answered if state is State.idle else self._taken if state is State.unread else self._since

    def end(self) -> None:
        """Close it at once, and say why where that can be read."""
        if self.state in {State.headers, State.body}:
            self._refuse(503, "others need the room of a connection that waits")
        self.transport.abort()
        self._forget()  # that it is lost comes to be known a turn of the loop later, when others have sent as much

    def _forget(self) -> None:
        """Let go of what has come."""
        self._deaf = True
        self.headers = NOWHERE
        if self._in_headers:
            self.scope = {}  # type: ignore[typeddict-item]
        self._incoming.clear()
        if self.cycle is not None:
            self.cycle.body = bytearray()

    def _unsent_size(self) -> int:
        return sum(t.get_write_buffer_size() for t in (self.transport, self.raw) if t is not None)

    def _keep(self) -> None:
        """Count what the connection keeps."""
        if size := self._unsent_size():
            size = max(size, self._out.written)
        if self.raw is not None:
            self._most_written = max(self._most_written, self._out.written)
            size += tls_bytes(self._most_read, self._most_written)
        if self._in_headers and self.headers:
            size += 2 * self._unread + HEADER_BYTES * len(self.headers)
        came = self._incoming.size
        if self.cycle is not None and self.flow.read_paused and not self._in_headers:
            came += len(self.cycle.body)
        size += min(came, self.serving.budget.limit // 4)  # a larger body is refused by its size
        self._kept.become(size)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.serving.places.leave(self)
        self.serving.shares.leave(self)
        self._forget()
        self.flow.lost()
        self._kept.close()
        self.serving.lingering.discard(self.transport)
        self._out.lost()

    def data_received(self, data: bytes) -> None:
        """Take it, as far as that goes now."""
        if self._deaf or (self._stopping and self._busy):
            return
        self._most_read = max(self._most_read, len(data))
        self._incoming.add(data)
        self.serving.shares.ask(self)
        if self._incoming.waiting:
            self.flow.hold()
            self._keep()

    @property
    def asks(self) -> str:
        """The model that its last request was for; empty where it was for none."""
        model: str = self.scope["state"].get("model", "") if self.scope is not None and "state" in self.scope else ""
        return model

    @property
    def _busy(self) -> bool:
        """Whether a request has come that is still to be answered."""
        return not (self._in_headers or self.cycle.more_body or self.cycle.response_complete)

    @property
    def _takes(self) -> bool:
        """Whether something has come that is to be looked at now."""
        return bool(self._incoming.waiting and not self._deaf and not self.flow.read_paused and not self._busy)

    def take(self) -> bool:
        """Read on, at most to the end of a request; whether there is more to be read now."""
        if self.transport.is_closing():
            return False
        for _ in range(PIECES):
            if not self._takes:
                break
            self._feed(self._incoming.take(self._left))
        if self._kept.size or self.flow.read_paused or (self._in_headers and self.headers):
            self._keep()
        if not self._incoming.waiting and not self._busy:
            self.flow.read()
            if self._stopping:
                self.shutdown()
        return self._takes

    def _feed(self, piece: bytes) -> None:
        """Feed the parser, and count what comes beside bodies."""
        self._unread += len(piece)
        try:
            self._parse(piece)
        except HttpParserError as error:
            if isinstance(error, HttpParserCallbackError) and not isinstance(error.__context__, HttpParserError):
                self.logger.exception("a fault while a request was read")  # of ours, or of uvicorn's
            else:
                self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
            return
        limit = self.serving.settings.max_header_bytes
        if self._unread > limit:
            self._refuse(431, f"the headers are over {limit} bytes")

    def _parse(self, piece: bytes) -> None:
        """Feed the parser. After an Upgrade it takes what follows for another protocol: it is not asked to."""
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade:
            if not self._in_headers:
                self._end_after_this()  # CONNECT
                return
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
            head += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(b"\r\n".join([*head, b"", b""]))

    def _should_upgrade(self) -> bool:
        """Whether `_parse` reads the current request again, without its Upgrade."""
        return bool(self.scope["method"] != "CONNECT")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._since = time.monotonic()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Its headers are complete."""
        if self._deaf or self._unread > self.serving.settings.max_header_bytes:
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
        self.flow.resume_reading()

    def _go_on(self) -> None:
        """Take what has come, then read on."""
        if self._incoming.waiting:
            self.serving.shares.ask(self)
        else:
            self.flow.read()
            if self._kept.size:
                self._keep()

    def pause_writing(self) -> None:
        """The client does not take what is sent: nothing more of it is read."""
        super().pause_writing()
        self._taken = time.monotonic()
        self.flow.pause_reading()
        self._keep()

    def resume_writing(self) -> None:
        """Everything is out."""
        super().resume_writing()
        self.flow.resume_reading()

    def _look_again(self) -> None:
        if self.transport.is_closing():
            return
        if self.raw is not None and self.raw.get_write_buffer_size():
            self.loop.call_later(LOOK_SECONDS, self._look_again)
        else:
            self.resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, once: the parser may refuse it too."""
        if not self._deaf and self._end_current(400) is not None:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        """Answer what has come, and close."""
        self._stopping = True
        if self._incoming.waiting:
            return  # `take` comes back once that is read
        if self._in_headers and self._begun:
            self._refuse(503, "the service is stopping")
        else:
            super().shutdown()

    def sweep(self, now: float) -> None:
        """End what has waited too long; `now` in the time of `time.monotonic`."""
        waited, settings = now - self._since, self.serving.settings
        unsent = self._unsent_size()
        if unsent != self._unsent:
            self._unsent, self._taken = unsent, now
        if unsent and now - self._taken > settings.body_seconds:
            self.serving.places.end(self)  # an answer of which nothing is taken, which closing would wait for
        elif self._deaf or self._incoming.waiting:
            return  # it ends with the answer that is still to come; or is not looked at yet
        elif self._in_headers:
            if waited > settings.header_seconds and self._begun:
                self._refuse(408, f"the headers did not come within {settings.header_seconds:g} seconds")
            elif waited > settings.header_seconds:
                self.transport.close()  # opened and never used
        elif self.cycle.more_body:
            if waited > settings.body_seconds:
                self._refuse(408, f"the body did not come within {settings.body_seconds:g} seconds")
        elif self.cycle.response_complete and now - self._answered > settings.keep_alive_seconds:
            self.transport.close()  # whatever came meanwhile, be it blank lines

    @property
    def _begun(self) -> bool:
        """Whether, while headers are waited for, some of them have come."""
        return self._unread > 0 or self.cycle is not None

    def _end_after_this(self) -> None:
        """Close once the request is answered; what else comes is not looked at."""
        self.cycle.keep_alive = False
        self._deaf = True

    def _end_current(self, status: int) -> dict[str, Any] | None:
        """Let the app leave the current request, to be answered below it and the last; its state, where it has it.

        None where it is not to be answered: its answer is out, and its body still comes.
        """
        self._deaf = True
        if self._in_headers or self.cycle is None:
            return {}
        if self.cycle.response_started:
            self.transport.close()
            return None
        state: dict[str, Any] = self.cycle.scope["state"]
        state["refused"] = status
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return state

    def _refuse(self, status: int, detail: str) -> None:
        """Answer below the app, in the form of the path's dialect, and close."""
        if self._deaf or self.transport.is_closing():
            return
        self.serving.metrics.rejected.add(STATUSES[status].slug)
        state = self._end_current(status)
        if state is None:
            return
        request_id = state.get("request_id") or logs.request_id()
        if not state and self.serving.settings.access_log:
            logs.log_request(request_id, "-", "-", status, time.monotonic() - self._since)
        path = self.scope["path"] if self.scope is not None and "path" in self.scope else "/"
        self.transport.write(refusal(status, detail, request_id, plain=of_another_dialect(path, self.serving.settings)))
        self.transport.close()

    def _lingers(self) -> bool:
        """Whether the connection that is to be closed is still read from: unread bytes would take the answer back.

        It is closed altogether when the client has closed it, or is to be closed for the second time.
        """
        in_body = self.cycle is not None and not self._in_headers and self.cycle.more_body
        coming = self._deaf or in_body or self._incoming.waiting
        if not coming or self.transport in self.serving.lingering or self.transport.is_closing():
            return False
        if not self.transport.can_write_eof():  # TLS
            return False
        self._forget()
        self.flow.resume_reading()
        self.connections.discard(self)  # it does not count any more
        self.serving.lingering.add(self.transport)
        self.loop.call_later(LINGER_SECONDS, self._end_lingering)
        return True

    def _end_lingering(self) -> None:
        if self.transport in self.serving.lingering:
            self.connections.add(self)  # for `sweep`, should its last answer not be read
            self.transport.close()
