"""TLS: certificates, authorities and errors."""

import os
import shutil
import socket
import ssl

import pytest
from structlog.testing import capture_logs

from exporter.http_client import HttpClient, HttpClientError
from tests.fakes.answers import answer, head, sends_then_resets
from tests.fakes.certificates import authority, server_context
from tests.fakes.http_requests import BOUNDS, get, send, send_error
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
async def test_a_certificate_of_the_ca_file_is_trusted(server, issued, host):
    response = await send(f"https://{host}:{server.port}/", ca_file=issued[1])
    assert (response.status, response.body) == (200, b"hello")


async def test_a_certificate_of_an_unknown_authority_is_refused(server):
    error = await send_error(server.base_url)
    assert (error.reason, error.sent, error.permanent) == ("tls", False, True)
    assert str(error).startswith(f"the certificate of {server.address} is refused: ")
    assert server.requests == []


async def test_a_certificate_for_another_host_is_refused(issued):
    issuer, ca_file = issued
    context = server_context(issuer, "other.test")
    with Server(answer(200), context) as server:
        error = await send_error(server.base_url, ca_file=ca_file)
        assert (error.reason, error.sent) == ("tls", False)
        certificate = f"the certificate of {server.address}"
        assert str(error) == f"{certificate} is refused: it was issued for another host"
        assert server.requests == []


async def test_only_the_authorities_of_the_ca_file_are_trusted(server, tmp_path):
    _, another = authority(tmp_path)
    assert (await send_error(server.base_url, ca_file=another)).reason == "tls"


async def test_a_replaced_ca_file_is_read_again(server, issued, tmp_path):
    path = tmp_path / "ca.pem"
    shutil.copy(authority(tmp_path / "other")[1], path)
    assert (await send_error(server.base_url, ca_file=path)).reason == "tls"
    shutil.copy(issued[1], path)
    assert (await send(server.base_url, ca_file=path)).status == 200


async def test_a_replaced_ca_file_is_read_again_by_an_open_client(server, issued, tmp_path):
    """An internal authority that was renewed needs no restart."""
    path, new = tmp_path / "ca.pem", tmp_path / "new.pem"
    shutil.copy(authority(tmp_path / "other")[1], path)
    async with HttpClient(ca_file=path) as client:
        clone = client.clone()
        for each in (client, clone):
            with pytest.raises(HttpClientError, match="certificate"):
                await each.send(get(server.base_url), BOUNDS)
        shutil.copy(issued[1], new)
        new.replace(path)
        for each in (client, clone):
            assert (await each.send(get(server.base_url), BOUNDS)).status == 200
            await each.aclose()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("x")])
async def test_an_unusable_new_ca_file_is_logged_once_and_the_old_one_stays_in_use(
    server, issued, tmp_path, change
):
    """A file that is being written must not end the polls."""
    path = tmp_path / "ca.pem"
    shutil.copy(issued[1], path)
    async with HttpClient(ca_file=path) as client:
        change(path)
        with capture_logs() as logs:
            for _ in range(3):
                await client.aclose()
                assert (await client.send(get(server.base_url), BOUNDS)).status == 200
        [line] = logs
        assert (line["log_level"], line["file"]) == ("warning", str(path))
        shutil.copy(authority(tmp_path / "other")[1], path)
        with pytest.raises(HttpClientError, match="certificate"):
            await client.send(get(server.base_url), BOUNDS)


async def test_a_replaced_file_of_ssl_cert_file_is_read_again(
    server, issued, tmp_path, monkeypatch
):
    path = tmp_path / "ca.pem"
    shutil.copy(authority(tmp_path / "other")[1], path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with HttpClient() as client:
        with pytest.raises(HttpClientError, match="certificate"):
            await client.send(get(server.base_url), BOUNDS)
        shutil.copy(issued[1], path)
        assert (await client.send(get(server.base_url), BOUNDS)).status == 200


async def test_a_server_without_tls_is_a_tls_error():
    with Server(answer(200)) as server:
        server.greeting = b"SSH-2.0-OpenSSH_9.2\r\n"
        error = await send_error(f"https://127.0.0.1:{server.port}/")
        assert (error.reason, error.sent) == ("tls", False)
        assert str(error).startswith(f"TLS with {server.address} failed: ")


async def test_plain_http_to_a_tls_server_is_an_error(server):
    error = await send_error(f"http://127.0.0.1:{server.port}/")
    assert error.reason in {"protocol", "connect"}
    assert server.requests == []


async def test_a_missing_ca_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        await send("https://127.0.0.1:1/", ca_file=tmp_path / "missing.pem")


async def test_a_ca_file_without_certificates_is_an_os_error(tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("nothing")
    with pytest.raises(OSError, match="certificate"):
        await send("https://127.0.0.1:1/", ca_file=path)


def send_corrupt_record(peer):
    """Send an answer's headers, then a TLS record that does not decrypt."""
    peer.send(head(200, content_length=9))
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


async def test_a_corrupt_tls_record_is_a_temporary_tls_error(server, issued):
    """httpx does not convert the ssl module's error: it ended the process as a bug."""
    server.otherwise = send_corrupt_record
    error = await send_error(server.base_url, ca_file=issued[1])
    assert (error.reason, error.sent, error.permanent) == ("tls", True, False)
    assert str(error).endswith(" failed: DECRYPTION_FAILED_OR_BAD_RECORD_MAC")


async def test_a_missing_client_certificate_is_a_permanent_tls_error(issued):
    issuer, ca_file = issued
    context = server_context(issuer, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(answer(200), context) as server:
        error = await send_error(server.base_url, ca_file=ca_file)
        assert (error.reason, error.permanent) == ("tls", True)
        assert str(error).endswith(" failed: TLSV13_ALERT_CERTIFICATE_REQUIRED")
        assert server.requests == []


@pytest.mark.parametrize(
    "sent", [sends_then_resets(), sends_then_resets(head(200, content_length=9) + b"hello")]
)
async def test_a_reset_of_a_tls_connection_is_a_connect_error(server, issued, sent):
    """asyncio's signal to wait for more data is an SSLError too, and a cause of every reset."""
    server.otherwise = sent
    error = await send_error(server.base_url, ca_file=issued[1])
    host = server.address
    assert (error.reason, error.permanent) == ("connect", False)
    assert str(error) == f"the connection to {host} broke: Connection reset by peer"


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
async def test_an_aborted_handshake_is_a_connect_error(reset):
    """As with a proxy that restarts."""
    with Server(answer(200)) as server:
        server.on_connection = Peer.reset if reset else Peer.hang_up
        error = await send_error(f"https://127.0.0.1:{server.port}/")
    assert (error.reason, error.sent, error.permanent) == ("connect", False, False)
    assert str(error).startswith("no connection")
