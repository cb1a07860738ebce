"""Connections of the HTTP server: timeouts of slow clients, and more of them than allowed."""

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
import time

import pytest
import trustme
from starlette.responses import PlainTextResponse, Response
from structlog.testing import capture_logs

from exporter import http_server
from exporter.core.connections import ConnectionTable
from exporter.http_server import listen
from tests.process.agent_process import until
from tests.web.authenticated_server import ask, serving

LARGE = Response(b"x" * 32_000_000)
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Gate:
    """Holds requests to /held until it is opened."""

    def __init__(self) -> None:
        self.waiting, self.is_open = 0, False

    def open(self) -> None:
        self.is_open = True

    async def wait(self) -> None:
        self.waiting += 1
        while not self.is_open:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)


the_gate = Gate()


@pytest.fixture
def gate():
    the_gate.waiting, the_gate.is_open = 0, False
    return the_gate


async def app(scope, receive, send):
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    if scope["path"] == "/held":
        await the_gate.wait()
    response = LARGE if scope["path"] == "/large" else PlainTextResponse("small")
    await response(scope, receive, send)


@pytest.fixture(scope="module")
def connections():
    return ConnectionTable(256)


@pytest.fixture(scope="module", params=["http", "https"])
def tls(request):
    if request.param == "http":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def url(tls, connections):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "ConnectionTable", lambda limit: connections)
        with serving(app, 1, tls) as [server_url]:
            yield server_url


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(http_server, "_RESPONSE_SECONDS", 0.4)


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    scheme, host, port = url.replace("//", "").split(":")
    plain = socket.create_connection((host, int(port)), 10, (source, 0))
    if scheme == "http":
        return plain
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting.wrap_socket(plain)


def is_answered(client: socket.socket) -> bool:
    """Read a response; return False if the server closes the connection instead."""
    answer = b""
    while not answer.endswith(b"small"):
        if not (more := client.recv(65536)):
            return False
        answer += more
    return True


def is_open(client: socket.socket) -> bool:
    """Return whether the server answers one more request of a connection."""
    with contextlib.suppress(ConnectionError):
        client.sendall(GET % b"")
        return is_answered(client)
    return False


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
        assert len(connections)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        until(lambda: not len(connections))
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


@pytest.fixture
def four_connections(monkeypatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http_server, "_MIN_CONNECTIONS", 1)


@pytest.mark.usefixtures("four_connections")
def test_busy_connections_are_kept_and_a_new_one_is_closed(gate):
    with capture_logs() as logged, serving(app, 2, None) as urls, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(urls[n % 2])) for n in range(4)]
        for client in clients:
            client.sendall(GET % b"held")
        until(lambda: gate.waiting == 4)
        for _ in range(3):
            with connect(urls[0]) as refused, contextlib.suppress(ConnectionError):
                assert refused.recv(1) == b""
        gate.open()
        for client in clients:
            assert is_answered(client)
        assert ask(urls[1]).text == "small"
        assert sorted(map(is_open, clients)) == [False, True, True, True]
    [warning] = [each for each in logged if each["log_level"] == "warning"]
    assert (warning["limit"], warning["client"]) == (4, "127.0.0.1")


def test_300_idle_connections_of_a_client_keep_nobody_out(tls):
    """Whatever they wait for: the TLS handshake, the first request, or the next one."""
    with (
        capture_logs() as logged,
        serving(app, 1, tls) as [url],
        contextlib.ExitStack() as stack,
    ):
        plain = "http" + url.removeprefix("https").removeprefix("http")
        for _ in range(100):
            stack.enter_context(connect(plain, "127.0.0.2"))
            begun = stack.enter_context(connect(plain, "127.0.0.2"))
            begun.sendall(b"GET / HTTP/1.1\r\n" if tls is None else b"\x16\x03\x01")
            kept = stack.enter_context(connect(url, "127.0.0.2"))
            kept.sendall(GET % b"")
        for _ in range(20):
            assert ask(url).text == "small"
        with connect(url, "127.0.0.2") as another:
            another.sendall(GET % b"")
            assert is_answered(another)
    warnings = [each for each in logged if each["log_level"] == "warning"]
    assert [each["client"] for each in warnings] == ["127.0.0.2"]


def test_clients_that_do_not_read_their_responses_keep_nobody_out(url):
    with contextlib.ExitStack() as stack:
        for _ in range(260):
            with contextlib.suppress(OSError):  # the last ones are refused
                greedy = stack.enter_context(connect(url, "127.0.0.2"))
                greedy.sendall(GET % b"never")
        assert ask(url).text == "small"


def test_the_number_of_connections_follows_the_limit_of_open_files(monkeypatch):
    limits = {20: 8, 64: 16, 400: 100, 1024: 256, 65536: 256, resource.RLIM_INFINITY: 256}
    for soft, expected in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert http_server.max_connections() == expected


def test_no_free_descriptor_pauses_the_server_and_is_logged_once(monkeypatch):
    """asyncio's server would call accept() thousands of times and log each call."""
    calls, failing = 0, True

    class Listener(socket.socket):
        def accept(self):
            nonlocal calls
            calls += 1
            if failing:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(http_server, "_ACCEPT_PAUSE_SECONDS", 0.05)
    real = http_server.listen

    async def listen(host, port):
        return Listener(fileno=(await real(host, port)).detach())

    monkeypatch.setattr(http_server, "listen", listen)
    with capture_logs() as logged, serving(app, 1, None) as [url]:
        waiting = [connect(url) for _ in range(3)]
        until(lambda: calls >= 5)
        begun, before = time.monotonic(), calls
        time.sleep(0.3)
        assert calls - before <= 2 + (time.monotonic() - begun) / 0.05
        failing = False
        for client in waiting:
            client.sendall(GET % b"")
            assert is_answered(client)
            client.close()
    [warning] = logged
    assert warning["event"] == "connections cannot be accepted"
    assert warning["error"] == "Too many open files"


def test_no_free_descriptor_closes_an_idle_connection(monkeypatch):
    """It may be connections that use all descriptors."""
    monkeypatch.setattr(http_server, "_ACCEPT_PAUSE_SECONDS", 0.05)
    most = 3

    class Listener(socket.socket):
        def accept(self):
            if len(table) >= most:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    real = http_server.listen

    async def listen(host, port):
        return Listener(fileno=(await real(host, port)).detach())

    table = ConnectionTable(256)
    monkeypatch.setattr(http_server, "ConnectionTable", lambda limit: table)
    monkeypatch.setattr(http_server, "listen", listen)
    with serving(app, 1, None) as [url]:
        idle = [connect(url) for _ in range(most)]
        until(lambda: len(table) == most)
        assert ask(url).text == "small"
        for client in idle:
            client.close()


async def test_a_server_that_cannot_accept_because_of_a_bug_fails():
    class Listener(socket.socket):
        def accept(self):
            raise ValueError("the bug")

    listener = Listener(fileno=(await listen("127.0.0.1", 0)).detach())
    with (
        socket.create_connection(listener.getsockname()),
        pytest.raises(ValueError, match="the bug"),
    ):
        await asyncio.wait_for(http_server.serve(app, [listener], asyncio.Event()), 10)


def test_nagles_algorithm_is_disabled(monkeypatch):
    """It costs 40 ms; asyncio disables it only for sockets whose protocol is TCP."""
    opened = []
    real = http_server._Opened

    def record(accepted):
        opened.append(accepted)
        return real(accepted)

    monkeypatch.setattr(http_server, "_Opened", record)
    with serving(app, 1, None) as [url], connect(url) as client:
        client.sendall(GET % b"")
        assert client.recv(65536)
        assert opened[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", (GET % b"")[:-2] + UPGRADE])
def test_invalid_requests_are_not_logged(sent, caplog):
    with caplog.at_level(logging.DEBUG), serving(app, 1, None) as [url], connect(url) as client:
        client.sendall(sent)
        assert client.recv(65536).startswith(b"HTTP/1.1 ")
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []
