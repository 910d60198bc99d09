"""How a connection ends: what it waits for, what it keeps, and how it is refused, given up for others, or just closed.

uvicorn waits for ever for a request, for its headers and for its body. Here each connection notes since when it waits,
and `sweep`, called about once a second, ends what has waited too long: cheaper than a timer for each request.
"""

import asyncio
import time
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lstm_serve.process.handshakes import tls_bytes
from lstm_serve.process.incoming import Incoming
from lstm_serve.process.transport import LINGER_SECONDS, Lingering, PipelinedFlowControl, refusal
from lstm_serve.serving.memory_budget import TOLD_SECONDS, TOO_MANY, Kept
from lstm_serve.serving.slots import ConnectionState
from lstm_serve.serving.state import ServingState
from lstm_serve.telemetry import logs
from lstm_serve.web.errors import STATUSES, of_another_dialect

HEADER_BYTES = 130  # about what a header that has come takes
TICKETS = 1 << 12  # what TLS has to send of its own, and sends with the first answer
NOWHERE: Any = deque(maxlen=0)  # where trailers are put: it keeps nothing


class Ending(HttpToolsProtocol):
    """uvicorn's protocol with ends. It waits for a request's headers, for its body, or for its answer."""

    flow: PipelinedFlowControl

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        """As uvicorn makes it; the limits are the settings of the app's model."""
        super().__init__(*args, **kwargs)
        self.serving: ServingState = self.config.app.state.serving  # type: ignore[union-attr]
        self._since = self._answered = self._write_progressed = time.monotonic()
        self._unsent = 0  # the size of the answers that the client had not taken at `_write_progressed`
        self._in_headers = True
        self._deaf = False  # whether what comes is not looked at any more
        self._stopping = False
        self._given_up = False
        self._incoming = Incoming()
        self._unread = 0  # what was read since a request or a part of a body: headers, trailers, sizes of chunks
        self._kept = Kept(self.serving.budget, self._give_up)
        self.raw: asyncio.Transport | None = None  # below TLS
        self._most_read = self._most_written = 0  # at once, by TLS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection, or refuse it where there are too many."""
        self._out = Lingering(transport, self._lingers)
        super().connection_made(self._out)  # type: ignore[arg-type]
        self.flow = PipelinedFlowControl(self.transport, self._go_on)
        transport.set_write_buffer_limits(1 if self.raw is None else TICKETS)
        if not self.serving.slots.enter(self):
            self._refuse(503, "too many connections")
        if self.raw is not None:
            self._keep()

    @property
    def state(self) -> ConnectionState | None:
        """What the connection waits for; None while requests on it are answered, or wait to be looked at."""
        if self._given_up or self.transport in self.serving.lingering or self.transport.is_closing():
            return ConnectionState.refused
        if self.flow.write_paused:
            return ConnectionState.unread
        if self._in_headers:
            return ConnectionState.headers
        if self.cycle.more_body:
            return ConnectionState.body
        return None if self._incoming.waiting or not self.cycle.response_complete else ConnectionState.idle

    @property
    def since(self) -> float:
        """Since when it waits, in the time of `time.monotonic`."""
        state = self.state
        if state is ConnectionState.idle:
            return self._answered
        return self._write_progressed if state is ConnectionState.unread else self._since

    def end(self) -> None:
        """Close it at once, and say why where that can be read."""
        if self.state in {ConnectionState.headers, ConnectionState.body}:
            self._refuse(503, "others need the room of a connection that waits")
        self.transport.abort()
        self._forget()  # that it is lost is known an iteration of the loop later, when others have sent as much

    def _give_up(self) -> None:
        """Let go of what is kept, for others need the room, and close: after the answer that is due, or why not."""
        if self.state not in {ConnectionState.headers, ConnectionState.body, None}:
            self.serving.slots.end(self)
            return
        self.serving.slots.count(self)
        if self._busy:
            self._end_after_this()
            self._incoming.clear()
        elif (answer := self._refusal(429, TOO_MANY)) is not None:
            self._forget()
            self._given_up = True
            self.flow.pause_reading()
            self.loop.call_later(TOLD_SECONDS, self._tell, answer)

    def _tell(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

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
        return self._out.get_write_buffer_size() + (0 if self.raw is None else self.raw.get_write_buffer_size())

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
        self._kept.become(size, queued=came > 0 and not self.flow.write_paused)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.serving.slots.leave(self)
        self._forget()
        self.flow.lost()
        self._kept.close()
        self.serving.lingering.discard(self.transport)
        self._out.lost()

    @property
    def _busy(self) -> bool:
        """Whether a request has come that is still to be answered."""
        return not (self._in_headers or self.cycle.more_body or self.cycle.response_complete)

    @property
    def _begun(self) -> bool:
        """Whether, while headers are waited for, some of them have come."""
        return self._unread > 0 or self.cycle is not None

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
            self._unsent, self._write_progressed = unsent, now
        if unsent and now - self._write_progressed > settings.body_seconds:
            self.serving.slots.end(self)  # an answer of which nothing is taken, which closing would wait for
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

    def _end_after_this(self) -> None:
        """Close once the request is answered; what else comes is not looked at."""
        self.cycle.keep_alive = False
        self._deaf = True

    def _end_current(self, status: int) -> dict[str, Any] | None:
        """Let the app leave the current request, to be answered below it and the last; its state, where it has it.

        None where it is not to be answered: its answer is out, and its body still comes.
        """
        self._deaf = True
        if self._in_headers or self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            return {}
        if self.cycle.response_started:
            self.transport.close()
            return None
        state: dict[str, Any] = self.cycle.scope["state"]
        state["refused"] = status
        self.cycle.disconnected = True
        self.cycle.waiting_for_100_continue = False
        self.cycle.message_event.set()
        return state

    def _refuse(self, status: int, detail: str) -> None:
        """Answer below the app, in the form of the path's dialect, and close."""
        if (answer := self._refusal(status, detail)) is not None:
            self.transport.write(answer)
            self.transport.close()

    def _refusal(self, status: int, detail: str) -> bytes | None:
        """What answers the current request below the app, which leaves it; None where there is nothing to answer."""
        if self._deaf or self.transport.is_closing():
            return None
        self.serving.metrics.rejected.add(STATUSES[status].slug)
        state = self._end_current(status)
        if state is None:
            return None
        request_id = state.get("request_id") or logs.request_id()
        if not state and self.serving.settings.access_log:
            logs.log_request(request_id, "-", "-", status, time.monotonic() - self._since)
        path = self.scope["path"] if self.scope is not None and "path" in self.scope else "/"
        return refusal(status, detail, request_id, plain=of_another_dialect(path, self.serving.settings))

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
        self.flow.go_on()
        self.connections.discard(self)  # it does not count any more
        self.serving.lingering.add(self.transport)
        self.loop.call_later(LINGER_SECONDS, self._end_lingering)
        return True

    def _end_lingering(self) -> None:
        if self.transport in self.serving.lingering:
            self.connections.add(self)  # for `sweep`, should its last answer not be read
            self.transport.close()

    def _go_on(self) -> None:
        """Take what has come, then read on."""
        raise NotImplementedError
