"""Exchanges over real sockets: requests, deadlines and errors."""

import asyncio
import re
import socket
import time
from base64 import b64encode

import pytest
import respx

from exporter import http_client
from exporter.core.secret import SecretError
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request
from tests.fakes.answers import (
    answer,
    chunked,
    drips,
    gzipped,
    head,
    redirect,
    sends,
    sends_then_hangs_up,
    sends_then_resets,
    silence,
)
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import BOUNDS, get, send, send_error
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server


@pytest.fixture
def server():
    with Server(answer(200, b"hello")) as running:
        yield running


@pytest.mark.parametrize("status", [200, 204, 302, 404, 429, 500, 599])
async def test_every_status_is_an_answer(server, status):
    server.otherwise = answer(status, b"" if status == 204 else b"text", x_one="1")
    response = await send(server.base_url)
    assert (response.status, response.host) == (status, "127.0.0.1")
    assert response.body == (b"" if status == 204 else b"text")
    assert response.headers["X-One"] == "1"
    assert not response.truncated


async def test_the_request_is_sent_as_given(server):
    await send(Request("POST", f"{server.base_url}/path?q=1", {"X-Two": "2"}, b"\x00body"))
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/path?q=1", b"\x00body")
    assert request.headers["x-two"] == "2"
    assert request.headers["user-agent"] == http_client.USER_AGENT
    assert request.headers["accept-encoding"] == "gzip"


async def test_given_headers_replace_the_defaults_whatever_their_case():
    with respx.mock() as router:
        router.get("http://api.test/").respond(200)
        await send(get("http://api.test/", {"ACCEPT": "text/plain", "user-agent": "mine"}))
        headers = router.calls.last.request.headers
    assert headers.get_list("accept") == ["text/plain"]
    assert headers.get_list("user-agent") == ["mine"]


async def test_a_user_in_the_url_is_sent_as_basic_auth(server):
    await send(get(server.base_url.replace("//", "//al%40ice:s%3Acret@")))
    (request,) = server.requests
    assert request.headers["authorization"] == "Basic " + b64encode(b"al@ice:s:cret").decode()
    assert request.headers["host"] == server.address


@pytest.mark.parametrize("location", ["/elsewhere", "https://a:x/", ""])
async def test_redirects_are_not_followed(server, location):
    server.otherwise = redirect(location)
    assert (await send(server.base_url)).status == 307
    assert len(server.requests) == 1


async def test_cookies_are_not_kept_and_connections_are_reused(server):
    server.otherwise = answer(200, set_cookie="session=1; Path=/")
    async with HttpClient() as client:
        for _ in range(3):
            await client.send(get(server.base_url), BOUNDS)
    assert [request.headers.get("cookie") for request in server.requests] == [None] * 3
    assert [request.connection for request in server.requests] == [1, 1, 1]


@pytest.mark.parametrize(
    ("sent", "reason", "text"),
    [
        pytest.param(sends_then_hangs_up(), "protocol", "closed the connection", id="no answer"),
        pytest.param(sends_then_resets(), "connect", "Connection reset", id="reset"),
        pytest.param(
            sends_then_hangs_up(head(200, content_length=9) + b"hello"),
            "protocol",
            "closed the connection",
            id="a body shorter than announced",
        ),
        pytest.param(
            sends_then_resets(head(200, content_length=9) + b"hello"),
            "connect",
            "broke: Connection reset by peer",
            id="reset in the body",
        ),
        pytest.param(
            chunked([b"he"], complete=False),
            "protocol",
            "closed the connection",
            id="no last chunk",
        ),
        pytest.param(
            sends(head(200, transfer_encoding="chunked") + b"zz\r\n"),
            "protocol",
            "closed the connection",
            id="no chunk",
        ),
        pytest.param(
            sends(b"not http\r\n\r\n"), "protocol", "answer with HTTP", id="another protocol"
        ),
        pytest.param(
            sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**20), "protocol", "HTTP", id="a long header"
        ),
        pytest.param(
            answer(200, gzipped(bytes(500))[:-1], content_encoding="gzip"),
            "protocol",
            "cannot be decoded: it ends in the middle",
            id="gzip truncated",
        ),
        pytest.param(
            answer(200, gzipped(b"a") + gzipped(b"b")[:7], content_encoding="gzip"),
            "protocol",
            "it ends in the middle",
            id="the second gzip member truncated",
        ),
        pytest.param(
            answer(200, b"hello", content_encoding="gzip"),
            "protocol",
            "cannot be decoded",
            id="no gzip",
        ),
        pytest.param(
            answer(200, gzipped(b"hello")[:-8] + bytes(8), content_encoding="gzip"),
            "protocol",
            "cannot be decoded",
            id="a wrong checksum",
        ),
        pytest.param(
            answer(200, b"hello", content_encoding="br"),
            "protocol",
            "its Content-Encoding br was not requested",
            id="an encoding not asked for",
        ),
        pytest.param(
            answer(200, b"hello", content_encoding="gzip, gzip"), "protocol", "requested", id="two"
        ),
    ],
)
async def test_an_incomplete_answer_is_an_error_after_the_request_was_sent(
    server, sent, reason, text
):
    server.otherwise = sent
    error = await send_error(server.base_url)
    assert error.reason == reason
    assert text in str(error)
    assert error.sent


@pytest.mark.parametrize("status", [200, 401, 429, 503])
@pytest.mark.parametrize(
    "invalid",
    [
        {"content_encoding": "gzip"},
        {"content_encoding": "br"},
        {"content_length": 9},
    ],
    ids=["no gzip", "not asked for", "truncated"],
)
async def test_status_and_headers_are_valid_when_the_body_is_not(server, status, invalid):
    headers = {"content_length": 5, "retry_after": 7, **invalid}
    server.otherwise = sends_then_hangs_up(head(status, **headers) + b"hello")
    response = await send(server.base_url)
    assert (response.status, response.headers["retry-after"]) == (status, "7")
    assert (response.body, response.truncated) == (b"", False)
    assert response.error is not None
    assert response.error.reason == "protocol"


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(silence, id="silence"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="headers"),
        pytest.param(drips(head(200, content_length=10**6), b"x"), id="a body"),
        pytest.param(drips(head(200, transfer_encoding="chunked"), b"1\r\nx\r\n"), id="chunks"),
    ],
)
async def test_the_deadline_covers_the_whole_exchange(server, slow):
    server.otherwise = slow
    started = time.monotonic()
    error = await send_error(server.base_url, Bounds(0.25, 10**7))
    assert 0.25 <= time.monotonic() - started < 5
    assert (error.reason, error.sent) == ("timeout", True)
    assert str(error) == f"no complete answer from {server.address} within 0.25 s"


async def test_a_client_works_again_after_a_timeout(server):
    server.then(silence)
    request = get(server.base_url)
    async with HttpClient() as client:
        with pytest.raises(HttpClientError):
            await client.send(request, Bounds(0.1, 1000))
        assert (await client.send(request, BOUNDS)).body == b"hello"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("lost", [sends_then_hangs_up(), sends_then_resets()], ids=["end", "reset"])
async def test_a_get_over_a_reused_connection_that_is_lost_is_sent_again_once(tmp_path, tls, lost):
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "127.0.0.1") if tls else None
    ok = answer(200, b"hello")
    with Server(ok, context).then(ok, lost, ok, lost, lost, lost) as server:
        async with HttpClient(ca_file=ca_file) as client:
            for _ in range(2):
                assert (await client.send(get(server.base_url), BOUNDS)).status == 200
            assert [each.connection for each in server.requests] == [1, 1, 2]
            with pytest.raises(HttpClientError):
                await client.send(get(server.base_url), BOUNDS)
            assert len(server.requests) == 5
            with pytest.raises(HttpClientError):
                await client.send(get(server.base_url), BOUNDS)
            assert len(server.requests) == 6, "a new connection"


async def test_the_repeated_get_ends_with_the_deadline():
    ok = answer(200, b"hello")
    with Server(ok).then(ok, sends_then_hangs_up(), silence) as server:
        async with HttpClient() as client:
            await client.send(get(server.base_url), BOUNDS)
            with pytest.raises(HttpClientError) as caught:
                await client.send(get(server.base_url), Bounds(0.3, 1000))
            assert (caught.value.reason, len(server.requests)) == ("timeout", 3)


async def test_a_post_is_never_sent_again():
    """The server may have processed it; the deliverer repeats it with the same id."""
    ok = answer(200, b"hello")
    with Server(ok).then(ok, sends_then_hangs_up()) as server:
        post = Request("POST", server.base_url, {}, b"body")
        async with HttpClient() as client:
            await client.send(post, BOUNDS)
            with pytest.raises(HttpClientError) as caught:
                await client.send(post, BOUNDS)
            assert (caught.value.sent, len(server.requests)) == (True, 2)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("status", [200, 307, 503])
async def test_a_surplus_answer_is_not_taken_for_the_next_one(tmp_path, tls, status):
    issuer, ca_file = authority(tmp_path)
    context = server_context(issuer, "127.0.0.1") if tls else None
    surplus = head(200, content_length=7) + b"surplus"

    def answer_twice(peer):
        peer.send(head(status, content_length=5) + b"hello" + surplus)

    with Server(answer(200, b"right"), context).then(answer_twice) as server:
        request = get(server.base_url)
        async with HttpClient(ca_file=ca_file) as client:
            first = await client.send(request, BOUNDS)
            with pytest.raises(HttpClientError, match="a response without a request") as caught:
                await client.send(request, BOUNDS)
            third = await client.send(request, BOUNDS)
    assert (first.status, first.body, third.body) == (status, b"hello", b"right")
    error = caught.value
    assert (error.reason, error.sent, error.permanent) == ("protocol", True, False)
    assert server.connections == 2


async def test_a_cancelled_exchange_raises_cancelled_error(server):
    received, loop = asyncio.Event(), asyncio.get_running_loop()

    def hang(peer):
        loop.call_soon_threadsafe(received.set)
        silence(peer)

    server.otherwise = hang
    async with HttpClient() as client:
        task = asyncio.create_task(client.send(get(server.base_url), BOUNDS))
        await received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_refused_connection_means_not_sent():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but it does not listen
        error = await send_error(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert (error.reason, error.sent) == ("connect", False)
    assert re.fullmatch(r"no connection to 127\.0\.0\.1:\d+: Connection refused", str(error))


async def test_an_unknown_host_is_a_dns_error(monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await send_error("http://host.invalid/")
    assert (error.reason, error.sent) == ("dns", False)
    assert str(error) == "the host name host.invalid cannot be resolved: Name or service not known"


async def test_a_connect_timeout_means_not_sent(monkeypatch):
    monkeypatch.setattr(http_client, "CONNECT_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # takes the only place in the backlog
            error = await send_error(f"http://127.0.0.1:{address[1]}/")
    assert (error.reason, error.sent) == ("timeout", False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://127.0.0.1/",
        "https://",
        "https:///path",
        "https://[::1/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:99999/",
        "http://ex\u2100mple/",
        "http://127.0.0.1/\ud800",
        "http://127.0.0.1/\x00",
        "http://" + "x" * 70_000,
    ],
)
async def test_an_invalid_url_is_a_protocol_error(url):
    error = await send_error(url)
    assert (error.reason, error.sent) == ("protocol", False)


@pytest.mark.parametrize("value", ["caf\xe9", "\ud800", "a\nb", "a\x00b"])
async def test_an_invalid_header_is_a_protocol_error(server, value):
    assert (await send_error(get(server.base_url, {"X-Secret": value}))).reason == "protocol"
    assert server.requests == []


async def test_a_bug_is_not_converted_to_an_http_client_error():
    with pytest.raises(TypeError):
        await send(get("http://127.0.0.1:1/", {"X-Number": 5}))  # type: ignore[dict-item]


async def test_an_unreadable_proxy_raises_secret_error():
    secret = FakeSecret("")
    secret.value = None
    with pytest.raises(SecretError):
        await send("http://127.0.0.1:1/", proxy=secret)
