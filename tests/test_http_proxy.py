"""Proxies: configured, from the environment, and excluded by NO_PROXY."""

import pytest

from tests.fakes.answers import answer
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import get, send, send_error
from tests.fakes.proxy import tunnel
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server

KEY = "sk_car_test.secret"


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(issued):
    """An https server, reached as api.test through the proxy, or by its address."""
    issuer, _ = issued
    with Server(answer(200, b"hello"), server_context(issuer, "api.test", "127.0.0.1")) as running:
        yield running


@pytest.fixture
def proxy():
    with Server(tunnel) as running:
        yield running


def request_with_key(url):
    return get(url, {"Authorization": f"Bearer {KEY}"})


def url_by_name(server):
    return f"https://api.test:{server.port}/"


@pytest.mark.parametrize(
    "setting",
    [
        "HTTPS_PROXY=http://127.0.0.1:{port}",
        "https_proxy=http://127.0.0.1:{port}/",
        "ALL_PROXY=http://127.0.0.1:{port}",
        "HTTPS_PROXY=127.0.0.1:{port}",
    ],
)
async def test_the_environment_proxy_is_used_for_https(monkeypatch, server, proxy, issued, setting):
    variable, _, url = setting.format(port=proxy.port).partition("=")
    monkeypatch.setenv(variable, url)
    assert (await send(request_with_key(url_by_name(server)), ca_file=issued[1])).body == b"hello"
    (connect,) = proxy.requests
    assert (connect.method, connect.target) == ("CONNECT", f"api.test:{server.port}")
    assert KEY not in str(connect.headers), "it is sent inside the tunnel"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "no_proxy",
    ["127.0.0.1", "127.0.0.1,api.test", "*", "api.test 127.0.0.0/8", "127.0.0.1:{port}"],
)
async def test_hosts_in_no_proxy_are_contacted_directly(
    monkeypatch, server, proxy, issued, no_proxy
):
    monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
    monkeypatch.setenv("NO_PROXY", no_proxy.format(port=server.port))
    assert (await send(server.base_url, ca_file=issued[1])).body == b"hello"
    assert proxy.requests == []


async def test_hosts_not_in_no_proxy_use_the_proxy(monkeypatch, server, proxy, issued):
    monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
    monkeypatch.setenv("NO_PROXY", "other.test")
    await send(server.base_url, ca_file=issued[1])
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("no_proxy", ["", "other.test"])
async def test_the_environment_proxy_is_not_used_for_http(monkeypatch, proxy, variable, no_proxy):
    monkeypatch.setenv(variable, proxy.base_url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with Server(answer(200, b"direct")) as plain:
        assert (await send(request_with_key(plain.base_url))).body == b"direct"
    assert (proxy.connections, proxy.requests) == (0, [])


async def test_a_configured_proxy_overrides_the_environment(monkeypatch, server, proxy, issued):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    configured = FakeSecret(f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    assert (
        await send(request_with_key(url_by_name(server)), ca_file=issued[1], proxy=configured)
    ).body == b"hello"
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert "proxy-authorization" not in server.requests[0].headers


async def test_a_refusal_by_the_proxy_is_a_connect_error(server, proxy, issued):
    proxy.otherwise = answer(407)
    configured = FakeSecret(proxy.base_url)
    error = await send_error(url_by_name(server), ca_file=issued[1], proxy=configured)
    assert (error.reason, error.sent) == ("connect", False)
    assert str(error) == (
        f"the proxy {proxy.address} refused the connection to api.test:{server.port} with"
        " status 407; put the user and password that it requires into the URL of the proxy"
    )
    assert server.connections == 0


async def test_a_dead_proxy_is_a_connect_error():
    error = await send_error("https://api.test/", proxy=FakeSecret("http://127.0.0.1:1"))
    assert (error.reason, error.sent) == ("connect", False)
    reason = "no connection to api.test through the proxy 127.0.0.1:1: Connection refused"
    assert str(error) == reason


async def test_a_connection_lost_inside_the_tunnel_may_have_been_sent(server, proxy, issued):
    server.otherwise = lambda peer: peer.hang_up()
    error = await send_error(
        url_by_name(server), ca_file=issued[1], proxy=FakeSecret(proxy.base_url)
    )
    assert (error.reason, error.sent) == ("protocol", True)


async def test_certificates_are_verified_through_a_proxy(server, proxy):
    error = await send_error(
        request_with_key(url_by_name(server)), proxy=FakeSecret(proxy.base_url)
    )
    assert (error.reason, error.sent) == ("tls", False)
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    ["socks5://user:hunter2@127.0.0.1:1", "hunter2://x", "http://hunter2:99999", "http://[hunter2"],
)
async def test_an_invalid_proxy_url_is_a_connect_error_without_the_url(monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", url)
    error = await send_error("https://api.test/")
    assert (error.reason, error.sent) == ("connect", False)
    assert "hunter2" not in str(error)
    assert "the proxy cannot be used" in str(error)
