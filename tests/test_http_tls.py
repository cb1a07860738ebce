"""TLS: a certificate is trusted for what it is, and nothing is sent before."""

import pytest

from tests.fakes.answers import answer
from tests.fakes.asking import fails, send
from tests.fakes.certificates import authority, server_context
from tests.fakes.server import Server


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(issued):
    issuer, _ = issued
    with Server(answer(200, b"hello"), server_context(issuer, "127.0.0.1", "localhost")) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_the_given_authority_is_trusted(server, issued, host):
    response = send(f"https://{host}:{server.port}/", ca_file=issued[1])
    assert (response.status, response.body) == (200, b"hello")


def test_a_certificate_of_an_unknown_authority_is_refused(server):
    error = fails(server.base_url)
    assert (error.reason, error.sent) == ("tls", False)
    assert str(error).startswith("the server's certificate is refused: ")
    assert server.requests == []


def test_a_certificate_for_another_host_is_refused(issued):
    issuer, ca_file = issued
    context = server_context(issuer, "other.test")
    with Server(answer(200), context) as server:
        error = fails(server.base_url, ca_file=ca_file)
        assert (error.reason, error.sent) == ("tls", False)
        assert "another host's" in str(error)
        assert "127.0.0.1" not in str(error)  # a receiver's host may be its secret
        assert server.requests == []


def test_the_given_authority_is_the_only_one(server, tmp_path):
    _, another = authority(tmp_path)
    assert fails(server.base_url, ca_file=another).reason == "tls"


def test_a_server_without_tls_is_a_tls_error():
    with Server(answer(200)) as server:
        server.greeting = b"SSH-2.0-OpenSSH_9.2\r\n"
        error = fails(f"https://127.0.0.1:{server.port}/")
        assert (error.reason, error.sent) == ("tls", False)
        assert str(error).startswith("TLS failed: ")


def test_a_server_with_tls_asked_without_it_gives_no_answer(server):
    error = fails(f"http://127.0.0.1:{server.port}/")
    assert error.reason in {"protocol", "connect"}
    assert server.requests == []


def test_a_ca_file_that_is_missing_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        send("https://127.0.0.1:1/", ca_file=tmp_path / "missing.pem")


def test_a_ca_file_without_certificates_is_an_os_error(tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("nothing")
    with pytest.raises(OSError, match="certificate"):
        send("https://127.0.0.1:1/", ca_file=path)
