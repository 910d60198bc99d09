"""What the service builds on of its libraries that they promise nobody: whoever raises a pin sees here what moved."""

import asyncio
import importlib
import inspect
import signal
from http import HTTPStatus
from typing import Any

import httptools
import pytest
import uvicorn
from fastapi import FastAPI
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from serving import PATIENCE, in_loop
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

REQUEST = b"POST /first?a=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"


def moved(library: str, what: str) -> str:
    """What is said where a fact holds no more."""
    return f"{library}: {what} has moved, and the service builds on it"


# uvicorn.


class Transport(asyncio.Transport):
    """One that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def write(self, data: object) -> None:
        raise AssertionError(data)


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("nobody looks at what an app would do")


def config(app: Any = nothing) -> uvicorn.Config:
    return uvicorn.Config(app, host="127.0.0.1", port=0, http=HttpToolsProtocol, ws="none", log_config=None)


class Still(HttpToolsProtocol):
    """A connection that begins no task, and notes for what it would have."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: list[tuple[RequestResponseCycle, Any]] = []

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.begun.append((cycle, app))


def connection_of(data: bytes, kind: type[Still] = Still) -> Still:
    """A connection to which this has come."""

    async def connect() -> Still:
        found = kind(config(), ServerState(), {})
        found.connection_made(Transport())
        found.data_received(data)
        return found

    return asyncio.run(connect())


@pytest.fixture(scope="module")
def connection() -> Still:
    """A connection on which a request's headers have come."""
    return connection_of(REQUEST)


@pytest.mark.parametrize("name", ["ASGISendEvent", "HTTPResponseBodyEvent", "HTTPResponseStartEvent"])
def test_types_of_messages(name: str) -> None:
    assert hasattr(importlib.import_module("uvicorn._types"), name), moved("uvicorn", f"_types.{name}")


@pytest.mark.parametrize("status", HTTPStatus)
def test_status_lines(status: HTTPStatus) -> None:
    line = b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
    assert STATUS_LINE[status] == line, moved("uvicorn", "STATUS_LINE")


@pytest.mark.parametrize(
    "name",
    [
        "scope",
        "transport",
        "flow",
        "disconnected",
        "keep_alive",
        "default_headers",
        "message_event",
        "response_started",
        "response_complete",
        "more_body",
        "body",
        "waiting_for_100_continue",
        "on_response",
        "chunked_encoding",
        "expected_content_length",
    ],
)
def test_what_a_cycle_has(connection: Still, name: str) -> None:
    assert name in vars(connection.cycle), moved("uvicorn", f"RequestResponseCycle.{name}")


@pytest.mark.parametrize("name", ["receive", "send"])
def test_what_a_cycle_does(name: str) -> None:
    method = getattr(RequestResponseCycle, name, None)
    assert inspect.iscoroutinefunction(method), moved("uvicorn", f"RequestResponseCycle.{name}")


def test_a_cycle_can_become_one_of_a_subclass() -> None:
    class Ours(RequestResponseCycle):
        more: str | None = None

    cycle = connection_of(REQUEST).cycle
    assert type(cycle) is RequestResponseCycle, moved("uvicorn", "the class of HttpToolsProtocol.cycle")
    assert hasattr(cycle, "__dict__"), moved("uvicorn", "RequestResponseCycle without __slots__")
    cycle.__class__ = Ours
    assert isinstance(cycle, Ours)
    cycle.more = "an attribute of its own"


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("disconnected", False),
        ("keep_alive", True),
        ("response_started", False),
        ("response_complete", False),
        ("more_body", True),
        ("body", b""),
        ("default_headers", []),
    ],
)
def test_how_a_cycle_begins(connection: Still, name: str, begins: object) -> None:
    assert getattr(connection.cycle, name) == begins, moved("uvicorn", f"RequestResponseCycle.{name} at the start")


@pytest.mark.parametrize(
    "name",
    [
        "data_received",
        "on_message_begin",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
        "on_response_complete",
        "send_400_response",
        "shutdown",
        "connection_made",
        "connection_lost",
        "_should_upgrade",
    ],
)
def test_what_a_connection_does(name: str) -> None:
    assert callable(vars(HttpToolsProtocol).get(name)), moved("uvicorn", f"HttpToolsProtocol.{name}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("parser", HttpRequestParser),
        ("url", bytes),
        ("headers", list),
        ("scope", dict),
        ("cycle", RequestResponseCycle),
        ("flow", FlowControl),
        ("connections", set),
        ("server_state", ServerState),
        ("transport", Transport),
        ("loop", asyncio.AbstractEventLoop),
        ("config", uvicorn.Config),
    ],
)
def test_what_a_connection_has(connection: Still, name: str, kind: type) -> None:
    assert isinstance(getattr(connection, name, None), kind), moved("uvicorn", f"HttpToolsProtocol.{name}")


def test_a_connection_begins_without_a_cycle_and_a_scope() -> None:
    fresh: Any = connection_of(b"")
    assert (fresh.cycle, fresh.scope) == (None, None), moved("uvicorn", "what HttpToolsProtocol begins with")


def test_a_connection_is_one_of_the_connections(connection: Still) -> None:
    assert connection in connection.connections, moved("uvicorn", "HttpToolsProtocol.connections")
    assert connection.connections is connection.server_state.connections, moved("uvicorn", "ServerState.connections")


def test_the_url_is_that_of_the_request_line_and_names_of_headers_are_in_lower_case() -> None:
    connection = connection_of(b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Y: Z\r\n\r\n")
    assert connection.url == b"/a?b", moved("uvicorn", "HttpToolsProtocol.url")
    assert connection.headers == [(b"host", b"x"), (b"x-y", b"Z")], moved("uvicorn", "HttpToolsProtocol.headers")
    assert connection.scope["headers"] is connection.headers, moved("uvicorn", "a scope's headers")


def test_it_asks_whether_to_upgrade_and_then_makes_no_cycle() -> None:
    class Always(Still):
        def _should_upgrade(self) -> bool:
            return True

        def handle_websocket_upgrade(self) -> None:
            pass

    upgrade = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    assert connection_of(upgrade).cycle is not None
    assert connection_of(upgrade, Always).cycle is None, moved("uvicorn", "HttpToolsProtocol._should_upgrade")


@pytest.mark.parametrize("name", ["write_paused", "read_paused"])
def test_what_flow_control_has(connection: Still, name: str) -> None:
    assert getattr(connection.flow, name, None) is False, moved("uvicorn", f"FlowControl.{name}")


@pytest.mark.parametrize("name", ["drain", "resume_reading", "pause_reading"])
def test_what_flow_control_does(name: str) -> None:
    assert callable(getattr(FlowControl, name, None)), moved("uvicorn", f"FlowControl.{name}")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("on_tick", ["counter"]),
        ("startup", ["sockets"]),
        ("shutdown", ["sockets"]),
        ("handle_exit", ["sig", "frame"]),
    ],
)
def test_what_a_server_does(name: str, parameters: list[str]) -> None:
    method: Any = getattr(uvicorn.Server(config()), name, None)
    assert method is not None, moved("uvicorn", f"Server.{name}")
    assert list(inspect.signature(method).parameters) == parameters, moved("uvicorn", f"the signature of Server.{name}")
    assert inspect.iscoroutinefunction(method) == (name != "handle_exit"), moved("uvicorn", f"Server.{name} as async")


@pytest.mark.parametrize("name", ["connections", "total_requests", "default_headers"])
def test_what_a_servers_state_has(name: str) -> None:
    assert hasattr(uvicorn.Server(config()).server_state, name), moved("uvicorn", f"Server.server_state.{name}")


@in_loop
async def test_a_server_ticks_listens_and_has_its_own_handler_of_signals() -> None:
    ticks = []

    class Looking(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            ticks.append(counter)
            assert [len(server.sockets) for server in self.servers] == [1], moved("uvicorn", "Server.servers")
            for number in (signal.SIGTERM, signal.SIGINT):
                assert signal.getsignal(number) == self.handle_exit, moved("uvicorn", "Server.handle_exit")
            return counter == 1

    async with asyncio.timeout(PATIENCE):
        await Looking(config(FastAPI())).serve()
    assert ticks == [0, 1], moved("uvicorn", "Server.on_tick")


# httptools.


class Refusing:
    """What a parser calls back, where it does not like a URL."""

    def on_url(self, _url: bytes) -> None:
        raise ValueError


def test_a_fault_of_a_callback_is_an_error_of_the_parser() -> None:
    assert issubclass(HttpParserCallbackError, HttpParserError), moved("httptools", "HttpParserCallbackError")
    with pytest.raises(HttpParserError):
        HttpRequestParser(Refusing()).feed_data(REQUEST)


def test_an_upgrade_is_an_error_of_its_own() -> None:
    head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    with pytest.raises(HttpParserUpgrade):
        HttpRequestParser(object()).feed_data(head)


@pytest.mark.parametrize(
    "name", ["feed_data", "get_http_version", "get_method", "should_keep_alive", "set_dangerous_leniencies"]
)
def test_what_a_parser_does(name: str) -> None:
    assert callable(getattr(HttpRequestParser, name, None)), moved("httptools", f"HttpRequestParser.{name}")


def test_a_parser_can_be_told_to_read_on_after_a_close() -> None:
    requests = 2 * b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    parser = HttpRequestParser(object())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(requests)
    parser = HttpRequestParser(object())
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    parser.feed_data(requests)


# prometheus_client.


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("gc_collector", "GCCollector"),
        ("metrics_core", "CounterMetricFamily"),
        ("metrics_core", "GaugeMetricFamily"),
        ("metrics_core", "HistogramMetricFamily"),
        ("metrics_core", "Metric"),
        ("platform_collector", "PlatformCollector"),
        ("process_collector", "ProcessCollector"),
        ("registry", "Collector"),
    ],
)
def test_where_collectors_are(module: str, name: str) -> None:
    found = importlib.import_module(f"prometheus_client.{module}")
    assert hasattr(found, name), moved("prometheus_client", f"{module}.{name}")
