"""TLS: a certificate is trusted for what it is, and nothing is sent before."""

import os
import shutil
import socket
import ssl

import pytest

from tests.fakes.answers import answer, head, sends_then_resets
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import fails, send
from tests.fakes.server import Peer, Server


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
    assert (error.reason, error.sent, error.lasting) == ("tls", False, True)
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


def test_an_authority_that_was_replaced_in_its_file_counts(server, issued, tmp_path):
    path = tmp_path / "ca.pem"
    shutil.copy(authority(tmp_path / "other")[1], path)
    assert fails(server.base_url, ca_file=path).reason == "tls"
    shutil.copy(issued[1], path)
    assert send(server.base_url, ca_file=path).status == 200


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


def garbles(peer):
    """A head, and then a TLS record that is none of ours."""
    peer.send(head(200, content_length=9))
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


def test_a_record_that_is_broken_is_a_tls_error_that_may_pass(server, issued):
    """httpx passes it on as the ssl module raised it, and so it ended the process as a bug."""
    server.otherwise = garbles
    error = fails(server.base_url, ca_file=issued[1])
    assert (error.reason, error.sent, error.lasting) == ("tls", True, False)
    assert str(error) == "TLS failed: DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


def test_a_server_that_asks_for_a_certificate_refuses_us_after_the_handshake(issued):
    issuer, ca_file = issued
    context = server_context(issuer, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(answer(200), context) as server:
        error = fails(server.base_url, ca_file=ca_file)
        assert (error.reason, error.lasting) == ("tls", True)
        assert str(error) == "TLS failed: TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert server.requests == []


@pytest.mark.parametrize(
    "sent", [sends_then_resets(), sends_then_resets(head(200, content_length=9) + b"hello")]
)
def test_a_reset_is_one_with_tls_as_well(server, issued, sent):
    """asyncio's signal to wait for more is an SSLError too, and stands behind every reset."""
    server.otherwise = sent
    error = fails(server.base_url, ca_file=issued[1])
    assert (error.reason, error.lasting) == ("connect", False)
    assert str(error) == "the connection broke: Connection reset by peer"


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_handshake_that_breaks_off_is_no_matter_of_tls(reset):
    """A proxy that restarts does so."""
    with Server(answer(200)) as server:
        server.on_connection = Peer.reset if reset else Peer.hang_up
        error = fails(f"https://127.0.0.1:{server.port}/")
    assert (error.reason, error.sent, error.lasting) == ("connect", False, False)
    assert str(error).startswith("no connection")
