"""Changes of the web configuration take effect without a restart."""

import errno
import os
import socket
import ssl
import threading
import time

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from exporter.config import web as web_section
from exporter.config import web_file
from exporter.config.document import parse_yaml as real_parse_yaml
from exporter.config.web_file import WebFile
from exporter.web import live_config
from exporter.web.auth import AuthMiddleware
from exporter.web.live_config import ReloadingWebConfig, WebSettings
from tests.process.agent_process import NO_AUTHORITIES
from tests.web.authenticated_server import (
    PASSWORD,
    USER,
    WebConfigFixture,
    ask,
    echo_app,
    hash_of,
    serving,
)

GOOD = (USER, PASSWORD)


@pytest.fixture
def logged():
    with capture_logs() as entries:
        yield entries


def served_certificate(url: str, context: ssl.SSLContext) -> bytes | None:
    """Return the certificate that the server presents to a new connection."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True)


def connect(
    url: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """Send a request; return the TLS session, and whether the given one was resumed."""
    host, port = url.removeprefix("https://").split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    with context.wrap_socket(plain, server_hostname=host, session=session) as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        if not secured.recv(65536):
            raise EOFError
        return secured.session, secured.session_reused


def test_a_password_is_rotated_without_a_restart(tmp_path):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served() as [url], httpx.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
        old, new = (httpx.BasicAuth(USER.encode(), p.encode()) for p in (PASSWORD, "new"))
        assert client.get(url, auth=old).status_code == 200
        file.write(basic_auth_users={USER: hash_of("new")})
        assert client.get(url, auth=old).status_code == 401
        assert client.get(url, auth=new).status_code == 200
        file.write(basic_auth_users={"other": hash_of("new")})
        assert client.get(url, auth=new).status_code == 401
        file.write(http_server_config={"headers": {"X-XSS-Protection": "0"}})
        assert client.get(url).headers["x-xss-protection"] == "0"


def test_a_change_that_keeps_size_and_mtime_takes_effect(tmp_path):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    with file.served() as [url]:
        assert ask(url, auth=GOOD).status_code == 200
        before = file.path.stat()
        file.write(basic_auth_users={USER: hash_of("another")})
        os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.path.stat().st_size == before.st_size
        assert ask(url, auth=GOOD).status_code == 401


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ('{"basic_auth_user": {}, "rate_limit": {"burst": "x"}}',
         'did you mean "basic_auth_users"?; line 1: rate_limit.burst: must be a whole number'),
        ("{", "line 1, column 2: "),
        ("", "web.yml: is empty; write {} to mean it"),
        (None, "web.yml: cannot be read: no such file"),
        ("basic_auth_users: !!timestamp x", "web.yml: "),
        ("tls_server_config: {cert_file: a, key_file: b}", "key_file: cannot read "),
    ],
)  # fmt: skip
def test_an_invalid_file_is_logged_once_and_requests_are_500_until_it_is_valid(
    tmp_path, logged, invalid, message
):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    valid = file.path.read_text(encoding="utf-8")
    with file.served() as [url]:
        assert ask(url, auth=GOOD).status_code == 200
        file.path.unlink()
        if invalid is not None:
            file.path.write_text(invalid, encoding="utf-8")
        for _ in range(3):
            answer = ask(url, auth=GOOD)
            assert answer.status_code == 500
            assert answer.text.startswith("Internal Server Error: the web configuration")
            assert ask(f"{url}/-/healthy").text == "/-/healthy trusted=False http"
            assert ask(f"{url}/-/ready", auth=GOOD).text == "/-/ready trusted=False http"
        errors = [each["errors"] for each in logged if each["log_level"] == "error"]
        assert len(errors) == 1
        assert message in errors[0]
        file.path.write_text(valid, encoding="utf-8")
        assert ask(url, auth=GOOD).status_code == 200
        assert ask(url).status_code == 401


def test_a_certificate_is_rotated_and_open_connections_stay(tmp_path):
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    trusted = file.client()
    with (
        file.served() as [url],
        httpx.Client(trust_env=False, verify=trusted) as client,
    ):
        assert client.get(url).text == "/ trusted=True https"
        before = served_certificate(url, trusted)
        file.issue()
        after = served_certificate(url, trusted)
        assert before != after
        assert after == served_certificate(url, trusted)
        assert client.get(url).status_code == 200


def test_a_certificate_is_rotated_for_clients_without_sni(tmp_path):
    """Clients that connect to an IP address send no server name: a callback would miss them."""
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    with file.served() as [url]:
        ca = file.client()
        assert served_certificate(url, ca) == served_certificate(url, ca)
        file.ca = trustme.CA()
        file.issue()
        with pytest.raises(ssl.SSLCertVerificationError):
            served_certificate(url, ca)
        assert served_certificate(url, file.client())


def test_a_certificate_is_rotated_by_replacing_a_symbolic_link(tmp_path):
    """Kubernetes mounts files through the link `..data`, which it replaces atomically."""
    file = WebConfigFixture(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        for file_name in file.issue().values():
            (tmp_path / file_name).rename(tmp_path / name / file_name)
    data = tmp_path / "..data"
    data.symlink_to("old")
    pair = {"cert_file": "..data/cert.pem", "key_file": "..data/key.pem"}
    file.write(tls_server_config=pair)
    trusted = file.client()
    with file.served() as [url]:
        before = served_certificate(url, trusted)
        (tmp_path / "next").symlink_to("new")
        (tmp_path / "next").rename(data)
        assert served_certificate(url, trusted) != before
        assert ask(url, tls=trusted).status_code == 200


def test_a_certificate_without_its_key_is_not_used(tmp_path, logged):
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    trusted = file.client()
    with file.served() as [url]:
        before = served_certificate(url, trusted)
        old_key = (tmp_path / "key.pem").read_bytes()
        file.issue()
        new_key = (tmp_path / "key.pem").read_bytes()
        (tmp_path / "key.pem").write_bytes(old_key)
        assert served_certificate(url, trusted) == before
        assert ask(url, tls=trusted).status_code == 500
        assert "key_file: must be the key of the certificate" in str(logged)
        (tmp_path / "key.pem").write_bytes(new_key)
        assert ask(url, tls=trusted).status_code == 200
        assert served_certificate(url, trusted) != before


def test_tls_versions_and_client_authorities_change_without_a_restart(tmp_path):
    """OpenSSL's callback for server names would change only the certificate."""
    file, clients = WebConfigFixture(tmp_path), trustme.CA()
    pair = file.issue()
    file.write(tls_server_config=pair)
    old = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with file.served() as [url]:
        assert served_certificate(url, old)
        file.write(tls_server_config={**pair, "min_version": "TLS13"})
        with pytest.raises(ssl.SSLError):
            served_certificate(url, old)
        demand = {"client_auth_type": "RequireAndVerifyClientCert"}
        file.write(tls_server_config={**pair, **file.trust_clients_of(clients), **demand})
        with pytest.raises((ssl.SSLError, httpx.TransportError)):
            ask(url, tls=file.client())
        client = clients.issue_cert("a.test")
        assert ask(url, tls=file.client(client)).status_code == 200
        file.trust_clients_of(trustme.CA())
        with pytest.raises((ssl.SSLError, httpx.TransportError)):
            ask(url, tls=file.client(client))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_a_removed_authority_cannot_resume_its_session(tmp_path, version):
    """A resumed session does not verify the client's certificate again."""
    file, clients = WebConfigFixture(tmp_path), trustme.CA()
    demand = {"client_auth_type": "RequireAndVerifyClientCert", **file.trust_clients_of(clients)}
    file.write(tls_server_config={**file.issue(), **demand})
    client = file.client(clients.issue_cert("a.test"), maximum_version=version)
    with file.served() as [url]:
        session, _ = connect(url, client)
        assert connect(url, client, session)[1]
        file.trust_clients_of(trustme.CA())
        with pytest.raises((OSError, EOFError)):
            connect(url, client, session)


@pytest.mark.parametrize("at_first", [True, False])
def test_tls_cannot_be_switched_on_or_off_while_running(tmp_path, logged, at_first):
    """Otherwise passwords would be sent in clear text although the file requires TLS."""
    file = WebConfigFixture(tmp_path)
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


def test_a_change_of_the_rate_limit_is_logged_and_needs_a_restart(tmp_path, logged):
    file = WebConfigFixture(tmp_path)
    with file.served() as [url]:
        file.write(rate_limit={"interval": "1h", "burst": 1})
        assert [ask(url).status_code for _ in range(3)] == [200] * 3
    assert "rate_limit changed" in str(logged)


def test_a_key_without_effect_is_logged_after_a_change(tmp_path, logged):
    file = WebConfigFixture(tmp_path)
    with file.served() as [url]:
        file.write(http_server_config={"http2": True})
        assert [ask(url).status_code for _ in range(2)] == [200] * 2
    notes = [each["note"] for each in logged if each["log_level"] == "warning"]
    assert notes == ["http_server_config.http2 has no effect: only HTTP/1.1 is served"]


def test_repr_contains_no_hash(tmp_path):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    web = WebFile(file.path)
    settings = web.read()
    text = repr((web, settings, ReloadingWebConfig(settings, web.read_if_changed)))
    assert hash_of(PASSWORD) not in text


def test_any_exception_of_reading_the_file_is_a_refusal(tmp_path, logged, monkeypatch):
    file = WebConfigFixture(tmp_path, basic_auth_users={USER: hash_of(PASSWORD)})
    valid = file.path.read_text(encoding="utf-8")

    def parse_yaml(path, content):
        if b"odd" in content:
            raise AttributeError(f"about {PASSWORD}")
        return real_parse_yaml(path, content)

    monkeypatch.setattr(web_file, "parse_yaml", parse_yaml)
    with file.served() as [url]:
        file.path.write_text("odd: 1", encoding="utf-8")
        for _ in range(3):
            assert ask(url, auth=GOOD).status_code == 500
            assert ask(f"{url}/-/healthy").status_code == 200
        [error] = [each["errors"] for each in logged if each["log_level"] == "error"]
        assert f"{file.path}: cannot be read: unexpected AttributeError in parse_yaml" in error
        assert PASSWORD not in error
        file.path.write_text(valid, encoding="utf-8")
        assert ask(url, auth=GOOD).status_code == 200


@pytest.mark.parametrize("function", ["read_bounded", "server_context"])
def test_the_last_settings_are_used_while_no_file_can_be_opened(
    tmp_path, logged, monkeypatch, function
):
    file = WebConfigFixture(tmp_path)
    config = {"tls_server_config": file.issue(), "basic_auth_users": {USER: hash_of(PASSWORD)}}
    file.write(**config)
    module = web_file if function == "read_bounded" else web_section
    real, failing = getattr(module, function), False

    def fails(*arguments):
        if failing:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments)

    monkeypatch.setattr(module, function, fails)
    with file.served() as [url]:
        failing = True
        file.write(**config, rate_limit={})
        for _ in range(3):
            assert ask(url, auth=GOOD, tls=file.client()).status_code == 200
            assert ask(f"{url}/-/healthy", tls=file.client()).status_code == 200
        [warning] = logged
        assert warning["event"] == "the web configuration cannot be checked"
        failing = False
        assert ask(url, auth=GOOD, tls=file.client()).status_code == 200
        assert logged[-1]["event"] == "web configuration reloaded"


class HangingSource:
    """A source that blocks while ``gate`` is not set, like a file system that hangs."""

    def __init__(self, settings: WebSettings) -> None:
        self.gate, self.calls, self._settings = threading.Event(), 0, settings
        self.gate.set()

    def __call__(self) -> WebSettings | None:
        self.calls += 1
        assert self.gate.wait(30)
        return self._settings


def test_hanging_files_delay_requests_and_connections_only_briefly(tmp_path, monkeypatch):
    monkeypatch.setattr(live_config, "_REQUEST_WAIT_SECONDS", 0.1)
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    settings = WebFile(file.path).read()
    source = HangingSource(settings)
    live = ReloadingWebConfig(settings, source)
    with serving(AuthMiddleware(echo_app, live), 1, live.listening_tls) as [url]:
        trusted = file.client()
        assert ask(url, tls=trusted).status_code == 200
        source.gate.clear()
        before, calls = time.monotonic(), source.calls
        assert [ask(url, tls=trusted).status_code for _ in range(2)] == [200, 200]
        assert time.monotonic() - before < 5
        assert source.calls == calls + 1
        source.gate.set()
        assert ask(url, tls=trusted).status_code == 200


def test_hanging_files_block_the_event_loop_once_and_not_per_connection(tmp_path):
    file = WebConfigFixture(tmp_path)
    file.write(tls_server_config=file.issue())
    settings = WebFile(file.path).read()
    source = HangingSource(settings)
    source.gate.clear()
    live = ReloadingWebConfig(settings, source)
    before = time.monotonic()
    assert {live.newest_tls() for _ in range(100)} == {settings.tls}
    assert time.monotonic() - before < 1
    source.gate.set()
