"""Connections of the HTTP server: timeouts of slow clients, and the maximum number."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time

import pytest
import trustme
from starlette.responses import PlainTextResponse, Response
from structlog.testing import capture_logs

from exporter import http_server
from exporter.http_server import LimitedListener, OpenConnections, listen
from tests.process.agent_process import until
from tests.web.authenticated_server import ask, serving

LARGE = Response(b"x" * 32_000_000)
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


async def app(scope, receive, send):
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    response = LARGE if scope["path"] == "/large" else PlainTextResponse("small")
    await response(scope, receive, send)


@pytest.fixture(scope="module")
def connections():
    return OpenConnections()


@pytest.fixture(scope="module", params=["http", "https"])
def url(request, connections):
    tls = None
    if request.param == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "OpenConnections", lambda: connections)
        with serving(app, 1, tls) as [server_url]:
            yield server_url


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(http_server, "_RESPONSE_SECONDS", 0.4)


def open_sockets(connections: OpenConnections) -> list[socket.socket]:
    return [each for each in list(connections._sockets) if each.fileno() >= 0]


def connect(url: str) -> socket.socket:
    scheme, host, port = url.replace("//", "").split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    if scheme == "http":
        return plain
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting.wrap_socket(plain)


def seconds_until_closed(client: socket.socket, sent: bytes = b"") -> float:
    """Send ``sent`` repeatedly until the server closes the connection; return the time it took."""
    begun = time.monotonic()
    client.settimeout(0.05)
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while time.monotonic() - begun < 10:
            if sent:
                client.sendall(sent)
            with contextlib.suppress(TimeoutError):
                if not client.recv(65536):
                    break
    return time.monotonic() - begun


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX: "])
def test_a_first_request_has_a_timeout(url, first, monkeypatch):
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 0.2)
    with connect(url) as client:
        client.sendall(first)
        assert seconds_until_closed(client, b"x" if first else b"") < 8
    monkeypatch.undo()
    assert ask(url).text == "small"


@pytest.mark.parametrize(
    "second",
    [b"GET / HTTP/1.1\r\nX: ",
     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"],
)  # fmt: skip
def test_a_second_request_has_a_timeout(url, short_timeout, second):
    """Each byte restarts the server's keep-alive timeout."""
    with connect(url) as client:
        client.sendall(GET % b"" + second)
        assert 0.3 < seconds_until_closed(client, b"x") < 8


def test_a_response_has_a_timeout(url, short_timeout):
    with connect(url) as client:
        client.sendall(GET % b"never")
        assert 0.3 < seconds_until_closed(client) < 8


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read_is_disconnected(url, connections, short_timeout, header):
    with connect(url) as client:
        client.sendall(GET % b"")
        assert client.recv(65536)
        assert open_sockets(connections)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        until(lambda: not open_sockets(connections))
        client.settimeout(10)
        read = 0
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while more := client.recv(1_000_000):
                read += len(more)
        assert read < len(LARGE.body)


def test_each_request_of_a_connection_has_its_own_timeout(url, monkeypatch):
    monkeypatch.setattr(http_server, "_RESPONSE_SECONDS", 1.0)
    with connect(url) as client:
        for _ in range(4):
            client.sendall(GET % b"")
            answer = b""
            while not answer.endswith(b"small"):
                answer += client.recv(65536)
            time.sleep(0.4)  # together, the requests take longer than the timeout


def test_a_new_connection_is_closed_while_too_many_are_open(monkeypatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 4)
    with capture_logs() as logged, serving(app, 2, None) as urls, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(urls[n % 2])) for n in range(4)]
        for client in clients:
            client.sendall(GET % b"")
            assert client.recv(65536)
        for _ in range(3):
            with connect(urls[0]) as refused, contextlib.suppress(ConnectionError):
                assert refused.recv(1) == b""
        clients.pop().close()
        deadline = time.monotonic() + 10
        while True:
            with connect(urls[1]) as again, contextlib.suppress(ConnectionError):
                again.sendall(GET % b"")
                if again.recv(65536):
                    break
            assert time.monotonic() < deadline
        clients[0].sendall(GET % b"")
        assert clients[0].recv(65536)
    assert [each["limit"] for each in logged if each["log_level"] == "warning"] == [4]


def test_a_detached_socket_is_not_counted(monkeypatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 1)
    connections = OpenConnections()
    one, other = socket.socketpair()
    assert connections.admit(one)
    assert not connections.admit(other)
    one.detach()
    assert connections.admit(other)
    other.close()


async def test_nagles_algorithm_is_disabled():
    """It costs 40 ms; asyncio disables it only for sockets whose protocol is TCP."""
    with (
        await listen("127.0.0.1", 0) as listener,
        LimitedListener(listener, OpenConnections()) as limited,
    ):
        assert limited.proto == socket.IPPROTO_TCP


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", (GET % b"")[:-2] + UPGRADE])
def test_invalid_requests_are_not_logged(sent, caplog):
    with caplog.at_level(logging.DEBUG), serving(app, 1, None) as [url], connect(url) as client:
        client.sendall(sent)
        assert client.recv(65536).startswith(b"HTTP/1.1 ")
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []
