"""A proxy is used where one is configured, and never shown what is meant for this machine."""

import pytest

from tests.fakes.answers import answer
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import fails, get, send
from tests.fakes.proxy import tunnel
from tests.fakes.secret import FakeSecret
from tests.fakes.server import Server

KEY = "sk_car_test.secret"


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(issued):
    """An https server that is reached as api.test through the proxy, or by its address."""
    issuer, _ = issued
    with Server(answer(200, b"hello"), server_context(issuer, "api.test", "127.0.0.1")) as running:
        yield running


@pytest.fixture
def proxy():
    with Server(tunnel) as running:
        yield running


def authorised(url):
    return get(url, {"Authorization": f"Bearer {KEY}"})


def named(server):
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
def test_the_environments_proxy_is_used_for_https(monkeypatch, server, proxy, issued, setting):
    variable, _, url = setting.format(port=proxy.port).partition("=")
    monkeypatch.setenv(variable, url)
    assert send(authorised(named(server)), ca_file=issued[1]).body == b"hello"
    (asked,) = proxy.requests
    assert (asked.method, asked.target) == ("CONNECT", f"api.test:{server.port}")
    assert KEY not in str(asked.headers), "it is inside the tunnel"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "127.0.0.1,api.test", "*"])
def test_no_proxy_names_who_is_asked_directly(monkeypatch, server, proxy, issued, no_proxy):
    monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert send(server.base_url, ca_file=issued[1]).body == b"hello"
    assert proxy.requests == []


def test_no_proxy_holds_for_those_it_names_only(monkeypatch, server, proxy, issued):
    monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
    monkeypatch.setenv("NO_PROXY", "other.test")
    send(server.base_url, ca_file=issued[1])
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("no_proxy", ["", "other.test"])
def test_no_proxy_of_the_environment_sees_a_request_over_http(
    monkeypatch, proxy, variable, no_proxy
):
    monkeypatch.setenv(variable, proxy.base_url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with Server(answer(200, b"direct")) as plain:
        assert send(authorised(plain.base_url)).body == b"direct"
    assert (proxy.connections, proxy.requests) == (0, [])


def test_the_given_proxy_is_used_whatever_the_environment_says(monkeypatch, server, proxy, issued):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    given = FakeSecret(f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    assert send(authorised(named(server)), ca_file=issued[1], proxy=given).body == b"hello"
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_that_refuses_is_a_connect_error_and_nothing_was_sent(server, proxy, issued):
    proxy.otherwise = answer(407)
    given = FakeSecret(proxy.base_url)
    error = fails(named(server), ca_file=issued[1], proxy=given)
    assert (error.reason, error.sent) == ("connect", False)
    assert str(error) == "the proxy refused the connection"
    assert server.connections == 0


def test_a_dead_proxy_is_a_connect_error_and_nothing_was_sent(server):
    error = fails(named(server), proxy=FakeSecret("http://127.0.0.1:1"))
    assert (error.reason, error.sent) == ("connect", False)


def test_what_is_lost_behind_the_tunnel_may_have_acted(server, proxy, issued):
    server.otherwise = lambda peer: peer.hang_up()
    error = fails(named(server), ca_file=issued[1], proxy=FakeSecret(proxy.base_url))
    assert (error.reason, error.sent) == ("protocol", True)


def test_a_certificate_is_checked_through_a_proxy_too(server, proxy):
    error = fails(authorised(named(server)), proxy=FakeSecret(proxy.base_url))
    assert (error.reason, error.sent) == ("tls", False)
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    ["socks5://user:hunter2@127.0.0.1:1", "hunter2://x", "http://hunter2:99999", "http://[hunter2"],
)
def test_a_proxy_that_cannot_be_used_is_a_connect_error_that_hides_its_url(monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", url)
    error = fails("https://api.test/")
    assert (error.reason, error.sent) == ("connect", False)
    assert "hunter2" not in str(error)
    assert "the proxy cannot be used" in str(error)
