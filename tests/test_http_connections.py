"""Clients that hold connections open: each ends in time, and there are never too many."""

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

from exporter import http_server as asgi
from exporter import http_server as connections
from exporter.http_server import LimitedListener, OpenConnections
from tests.process.agent_process import until
from tests.web.authenticated_server import ask, serving

LARGE = Response(b"x" * 32_000_000)
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


async def pages(scope, receive, send):
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    answer = LARGE if scope["path"] == "/large" else PlainTextResponse("small")
    await answer(scope, receive, send)


@pytest.fixture(scope="module")
def counted():
    return OpenConnections()


@pytest.fixture(scope="module", params=["http", "https"])
def url(request, counted):
    tls = None
    if request.param == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asgi, "OpenConnections", lambda: counted)
        with serving(pages, 1, tls) as [found]:
            yield found


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(connections, "_ANSWER_SECONDS", 0.4)


def open_ones(counted: OpenConnections) -> list[socket.socket]:
    return [each for each in list(counted._sockets) if each.fileno() >= 0]


def connect(url: str) -> socket.socket:
    scheme, host, port = url.replace("//", "").split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    if scheme == "http":
        return plain
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting.wrap_socket(plain)


def seconds_until_cut_off(client: socket.socket, dribble: bytes = b"") -> float:
    """How long the server lets a client go on that sends one byte after the other."""
    begun = time.monotonic()
    client.settimeout(0.05)
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while time.monotonic() - begun < 10:
            if dribble:
                client.sendall(dribble)
            with contextlib.suppress(TimeoutError):
                if not client.recv(65536):
                    break
    return time.monotonic() - begun


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX: "])
def test_a_first_request_that_does_not_come_is_not_waited_for(url, first, monkeypatch):
    monkeypatch.setattr(connections, "_REQUEST_SECONDS", 0.2)
    with connect(url) as client:
        client.sendall(first)
        assert seconds_until_cut_off(client, b"x" if first else b"") < 8
    monkeypatch.undo()
    assert ask(url).text == "small"


@pytest.mark.parametrize(
    "next_one",
    [b"GET / HTTP/1.1\r\nX: ",
     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"],
)  # fmt: skip
def test_a_second_request_that_does_not_end_is_not_waited_for(url, hurried, next_one):
    """Each byte that comes puts off the server's own keep-alive."""
    with connect(url) as client:
        client.sendall(GET % b"" + next_one)
        assert 0.3 < seconds_until_cut_off(client, b"x") < 8


def test_an_answer_that_does_not_come_is_given_up(url, hurried):
    with connect(url) as client:
        client.sendall(GET % b"never")
        assert 0.3 < seconds_until_cut_off(client) < 8


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read_is_cut_off(url, counted, hurried, header):
    with connect(url) as client:
        client.sendall(GET % b"")
        assert client.recv(65536)
        assert open_ones(counted)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        until(lambda: not open_ones(counted))
        client.settimeout(10)
        read = 0
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while more := client.recv(1_000_000):
                read += len(more)
        assert read < len(LARGE.body)


def test_a_client_that_asks_again_in_time_is_served_on(url, monkeypatch):
    monkeypatch.setattr(connections, "_ANSWER_SECONDS", 1.0)
    with connect(url) as client:
        for _ in range(4):
            client.sendall(GET % b"")
            answer = b""
            while not answer.endswith(b"small"):
                answer += client.recv(65536)
            time.sleep(0.4)  # all of them together take longer than one may


def test_one_connection_too_many_is_closed_and_another_takes_the_place_of_one_that_ended(
    monkeypatch,
):
    monkeypatch.setattr(connections, "_MAX_OPEN", 4)
    with capture_logs() as logged, serving(pages, 2, None) as urls, contextlib.ExitStack() as held:
        clients = [held.enter_context(connect(urls[n % 2])) for n in range(4)]
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
    assert [each["most"] for each in logged if each["log_level"] == "warning"] == [4]


def test_a_connection_that_nobody_closed_but_everybody_forgot_is_not_counted(monkeypatch):
    monkeypatch.setattr(connections, "_MAX_OPEN", 1)
    counted = OpenConnections()
    one, other = socket.socketpair()
    assert counted.admit(one)
    assert not counted.admit(other)
    one.detach()
    assert counted.admit(other)
    other.close()


def test_answers_are_not_held_back_for_more_to_come():
    """Nagle's delay costs 40 ms; asyncio switches it off for listeners that it knows as TCP."""

    async def run() -> int:
        with (
            await asgi.listen("127.0.0.1", 0) as listener,
            LimitedListener(listener, OpenConnections()) as limited,
        ):
            return limited.proto

    assert asyncio.run(run()) == socket.IPPROTO_TCP


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", (GET % b"")[:-2] + UPGRADE])
def test_who_sends_what_is_no_request_does_not_fill_the_log(sent, caplog):
    with caplog.at_level(logging.DEBUG), serving(pages, 1, None) as [url], connect(url) as client:
        client.sendall(sent)
        assert client.recv(65536).startswith(b"HTTP/1.1 ")
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []
