"""The file counts as it is now: for each request and each connection, without a restart."""

import os
import socket
import ssl

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from exporter.config.web_file import WebFile
from exporter.web.live_config import ReloadingWebConfig
from tests.web.authenticated_server import PASSWORD, USER, File, ask, hash_of

GOOD = (USER, PASSWORD)


@pytest.fixture
def logged():
    with capture_logs() as entries:
        yield entries


def serial(url: str, context: ssl.SSLContext) -> bytes | None:
    """The certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True)


def answered(
    url: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """The session of a connection that was answered, and whether it went on with the one given."""
    host, port = url.removeprefix("https://").split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    with context.wrap_socket(plain, server_hostname=host, session=session) as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        if not secured.recv(65536):
            raise EOFError
        return secured.session, secured.session_reused


def test_a_password_is_rotated_without_a_restart(tmp_path):
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served() as [url], httpx.Client(trust_env=False) as client:
        old, new = (httpx.BasicAuth(USER.encode(), p.encode()) for p in (PASSWORD, "new"))
        assert client.get(url, auth=old).status_code == 200
        file.write(basic_auth_users={USER: hash_of("new")})
        assert client.get(url, auth=old).status_code == 401
        assert client.get(url, auth=new).status_code == 200
        file.write(basic_auth_users={"other": hash_of("new")})
        assert client.get(url, auth=new).status_code == 401
        file.write(http_server_config={"headers": {"X-XSS-Protection": "0"}})
        assert client.get(url).headers["x-xss-protection"] == "0"


def test_a_change_that_leaves_size_and_time_as_they_were_counts(tmp_path):
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served() as [url]:
        assert ask(url, auth=GOOD).status_code == 200
        before = file.path.stat()
        file.write(basic_auth_users={USER: hash_of("another")})
        os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.path.stat().st_size == before.st_size
        assert ask(url, auth=GOOD).status_code == 401


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"basic_auth_user": {}, "rate_limit": {"burst": "x"}}',
         'did you mean "basic_auth_users"?; rate_limit.burst: must be a whole number'),
        ("{", "line 1, column 2: "),
        ("", "web.yml: is empty; write {} to mean it"),
        (None, "web.yml: cannot be read: no such file"),
        ("tls_server_config: {cert_file: a, key_file: b}", "key_file: cannot read "),
    ],
)  # fmt: skip
def test_an_invalid_file_is_answered_500_until_it_is_mended_and_told_once(
    tmp_path, logged, broken, said
):
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    good = file.path.read_text(encoding="utf-8")
    with file.served() as [url]:
        assert ask(url, auth=GOOD).status_code == 200
        file.path.unlink()
        if broken is not None:
            file.path.write_text(broken, encoding="utf-8")
        for _ in range(3):
            answer = ask(url, auth=GOOD)
            assert answer.status_code == 500
            assert answer.text.startswith("Internal Server Error: the web configuration")
            assert ask(f"{url}/-/healthy").text == "/-/healthy trusted=False http"
            assert ask(f"{url}/-/ready", auth=GOOD).text == "/-/ready trusted=False http"
        told = [each["errors"] for each in logged if each["log_level"] == "error"]
        assert len(told) == 1
        assert said in told[0]
        file.path.write_text(good, encoding="utf-8")
        assert ask(url, auth=GOOD).status_code == 200
        assert ask(url).status_code == 401


def test_a_certificate_is_rotated_without_a_restart_and_open_connections_stay(tmp_path):
    file = File(tmp_path)
    file.write(tls_server_config=file.issue())
    trusted = file.client()
    with (
        file.served() as [url],
        httpx.Client(trust_env=False, verify=trusted) as client,
    ):
        assert client.get(url).text == "/ trusted=True https"
        before = serial(url, trusted)
        file.issue()
        after = serial(url, trusted)
        assert before != after
        assert after == serial(url, trusted)
        assert client.get(url).status_code == 200


def test_a_change_of_the_certificate_counts_for_clients_that_name_no_server(tmp_path):
    """Those that connect to an address send no name; a callback for names alone would miss them."""
    file = File(tmp_path)
    file.write(tls_server_config=file.issue())
    with file.served() as [url]:
        ca = file.client()
        assert serial(url, ca) == serial(url, ca)
        file.ca = trustme.CA()
        file.issue()
        with pytest.raises(ssl.SSLCertVerificationError):
            serial(url, ca)
        assert serial(url, file.client())


def test_certificates_that_a_link_points_to_are_exchanged_by_moving_the_link(tmp_path):
    """As Kubernetes does: files are links through `..data`, which is another folder all at once."""
    file = File(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        for part in file.issue().values():
            (tmp_path / part).rename(tmp_path / name / part)
    data = tmp_path / "..data"
    data.symlink_to("old")
    pair = {"cert_file": "..data/cert.pem", "key_file": "..data/key.pem"}
    file.write(tls_server_config=pair)
    trusted = file.client()
    with file.served() as [url]:
        before = serial(url, trusted)
        (tmp_path / "next").symlink_to("new")
        (tmp_path / "next").rename(data)
        assert serial(url, trusted) != before
        assert ask(url, tls=trusted).status_code == 200


def test_half_a_rotation_keeps_the_last_good_certificate_until_its_key_is_there(tmp_path, logged):
    file = File(tmp_path)
    file.write(tls_server_config=file.issue())
    trusted = file.client()
    with file.served() as [url]:
        before = serial(url, trusted)
        old_key = (tmp_path / "key.pem").read_bytes()
        file.issue()
        new_key = (tmp_path / "key.pem").read_bytes()
        (tmp_path / "key.pem").write_bytes(old_key)
        assert serial(url, trusted) == before
        assert ask(url, tls=trusted).status_code == 500
        assert "key_file: must be the key of the certificate" in str(logged)
        (tmp_path / "key.pem").write_bytes(new_key)
        assert ask(url, tls=trusted).status_code == 200
        assert serial(url, trusted) != before


def test_tls_versions_and_client_authorities_change_without_a_restart(tmp_path):
    """With OpenSSL's callback for server names the certificate alone would change."""
    file, clients = File(tmp_path), trustme.CA()
    pair = file.issue()
    file.write(tls_server_config=pair)
    old = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with file.served() as [url]:
        assert serial(url, old)
        file.write(tls_server_config={**pair, "min_version": "TLS13"})
        with pytest.raises(ssl.SSLError):
            serial(url, old)
        demand = {"client_auth_type": "RequireAndVerifyClientCert"}
        file.write(tls_server_config={**pair, **file.trust_clients_of(clients), **demand})
        with pytest.raises((ssl.SSLError, httpx.TransportError)):
            ask(url, tls=file.client())
        known = clients.issue_cert("a.test")
        assert ask(url, tls=file.client(known)).status_code == 200
        file.trust_clients_of(trustme.CA())
        with pytest.raises((ssl.SSLError, httpx.TransportError)):
            ask(url, tls=file.client(known))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_whose_authority_was_taken_away_cannot_resume_its_session(tmp_path, version):
    """What a session was let in with is not looked at again when it is resumed."""
    file, clients = File(tmp_path), trustme.CA()
    demand = {"client_auth_type": "RequireAndVerifyClientCert", **file.trust_clients_of(clients)}
    file.write(tls_server_config={**file.issue(), **demand})
    known = file.client(clients.issue_cert("a.test"), maximum_version=version)
    with file.served() as [url]:
        session, _ = answered(url, known)
        assert answered(url, known, session)[1]
        file.trust_clients_of(trustme.CA())
        with pytest.raises((OSError, EOFError)):
            answered(url, known, session)


@pytest.mark.parametrize("at_first", [True, False])
def test_tls_cannot_be_switched_while_it_runs_and_that_is_told(tmp_path, logged, at_first):
    """Else a file that asks for TLS would have passwords sent in the clear."""
    file = File(tmp_path)
    plain: dict[str, object] = {}
    secured = {"tls_server_config": file.issue()}
    first, second = (secured, plain) if at_first else (plain, secured)
    file.write(**first)
    trusted = file.client()
    with file.served() as [url]:
        assert ask(url, tls=trusted).status_code == 200
        file.write(**second)
        assert ask(url, tls=trusted).status_code == 500
        word = "removed" if at_first else "added"
        assert f"tls_server_config: must not be {word} while the agent runs" in str(logged)
        file.write(**first)
        assert ask(url, tls=trusted).status_code == 200


def test_a_change_of_the_rate_limit_waits_for_a_restart_and_is_told(tmp_path, logged):
    file = File(tmp_path)
    with file.served() as [url]:
        file.write(rate_limit={"interval": "1h", "burst": 1})
        assert [ask(url).status_code for _ in range(3)] == [200] * 3
    assert "rate_limit changed" in str(logged)


def test_what_has_no_effect_in_a_file_that_changed_is_told(tmp_path, logged):
    file = File(tmp_path)
    with file.served() as [url]:
        file.write(http_server_config={"http2": True})
        assert [ask(url).status_code for _ in range(2)] == [200] * 2
    notes = [each["note"] for each in logged if each["log_level"] == "warning"]
    assert notes == ["http_server_config.http2 has no effect: only HTTP/1.1 is served"]


def test_no_secret_is_shown_by_what_holds_one(tmp_path):
    file = File(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    web = WebFile(file.path)
    settings = web.read()
    shown = repr((web, settings, ReloadingWebConfig(settings, web.read_if_changed)))
    assert hash_of(PASSWORD) not in shown
