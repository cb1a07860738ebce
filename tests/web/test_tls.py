"""TLS settings of the web configuration: versions, ciphers, curves, client certificates."""

import socket
import ssl
import subprocess
from typing import Any

import httpx
import pytest
import trustme

from exporter.config.errors import ConfigError
from exporter.config.web_file import WebFile
from exporter.web.tls import CURVES, SUITES, TlsError, TlsSettings, server_context
from tests.programs import required
from tests.web.authenticated_server import WebConfigFixture, ask

CANNOT_SET = "must be another curve; this Python cannot set it"
MAX_VERSIONS = [
    {"maximum_version": each} for each in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
]


@pytest.fixture
def file(tmp_path):
    return WebConfigFixture(tmp_path)


def with_tls(file: WebConfigFixture, **tls) -> WebConfigFixture:
    file.write(tls_server_config={**file.issue(), **tls})
    return file


def settings_of(file: WebConfigFixture, **settings: Any) -> TlsSettings:
    """Issue a certificate; return settings with it."""
    file.issue()
    cert, key = ((file.folder / f"{name}.pem").read_bytes() for name in ("cert", "key"))
    return TlsSettings(cert, key, **settings)


def is_refused(url: str, context: ssl.SSLContext) -> bool:
    try:
        ask(url, tls=context)
    except (httpx.TransportError, ssl.SSLError):
        return True
    return False


def negotiated(url: str, context: ssl.SSLContext) -> tuple[str, str]:
    """Return version and cipher of a new connection."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        cipher = secured.cipher()
        return secured.version() or "", cipher[0] if cipher else ""


def openssl_client(url: str, *flags: str) -> str:
    """Connect with ``openssl s_client``; return its output."""
    program = required("openssl", package="openssl")
    command = [program, "s_client", "-connect", url.removeprefix("https://"), *flags]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    return (done.stdout + done.stderr).decode()


def test_httpx_and_curl_connect(file):
    curl = required("curl", package="curl")
    ca = file.folder / "ca.pem"
    file.ca.cert_pem.write_to_path(ca)
    with with_tls(file).served() as [url]:
        assert url.startswith("https://127.0.0.1:")
        assert ask(f"{url}/metrics", tls=file.client()).text == "/metrics trusted=True https"
        for target in (url, url.replace("127.0.0.1", "localhost")):
            command = [curl, "-sS", "--noproxy", "*", "--cacert", ca, f"{target}/x"]
            done = subprocess.run(command, capture_output=True, timeout=30, check=True)
            assert done.stdout == b"/x trusted=True https"


def test_a_tls_listener_does_not_answer_plain_http(file):
    with with_tls(file).served(listeners=2) as urls:
        for url in urls:
            with pytest.raises(httpx.TransportError):
                ask(url.replace("https", "http"))
            assert ask(url, tls=file.client()).status_code == 200


def test_inline_certificates_are_not_written_to_disk(file, monkeypatch, tmp_path):
    file.issue()
    names = {"cert": "cert.pem", "key": "key.pem"}
    inline = {key: (file.folder / name).read_text() for key, name in names.items()}
    for name in names.values():
        (file.folder / name).unlink()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    file.write(tls_server_config=inline)
    with file.served() as [url]:
        assert ask(url, tls=file.client()).status_code == 200


def test_files_may_contain_other_pem_blocks(file):
    """Some tools write certificate and key into one file."""
    pair = file.issue()
    cert, key = (file.folder / name for name in pair.values())
    stranger = trustme.CA().issue_cert("other.test")
    key.write_bytes(stranger.cert_chain_pems[0].bytes() + key.read_bytes())
    cert.write_bytes(stranger.private_key_pem.bytes() + cert.read_bytes())
    file.write(tls_server_config=pair)
    with file.served() as [url]:
        assert ask(url, tls=file.client()).status_code == 200


@pytest.mark.parametrize(
    ("oldest", "newest", "served", "not_served"),
    [
        (None, None, ["-tls1_2", "-tls1_3"], ["-tls1_1"]),
        ("TLS10", "TLS11", ["-tls1", "-tls1_1"], ["-tls1_2"]),
        ("TLS11", None, [], ["-tls1"]),
        ("TLS13", None, [], ["-tls1_2"]),
        (None, "TLS12", [], ["-tls1_3"]),
    ],
)
def test_only_the_configured_versions_are_served(file, oldest, newest, served, not_served):
    given = {"min_version": oldest, "max_version": newest}
    with with_tls(file, **given).served() as [url]:
        for flag in (*served, *not_served):
            # Lower the client's own minimum too: it would refuse old versions itself.
            output = openssl_client(url, flag, "-cipher", "DEFAULT@SECLEVEL=0")
            assert ("BEGIN CERTIFICATE" in output) is (flag in served), output


def test_only_the_configured_cipher_suites_are_served(file):
    names = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"]
    both = [SUITES[name] for name in names]
    with with_tls(file, cipher_suites=names).served() as [url]:
        for cipher in both:
            client = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            client.set_ciphers(cipher)
            assert negotiated(url, client) == ("TLSv1.2", cipher)
        other = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        assert is_refused(url, other)
        assert negotiated(url, file.client())[0] == "TLSv1.3"


def test_tls_1_2_has_only_suites_with_authenticated_encryption(file):
    context = server_context(settings_of(file))
    offered = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert sorted(offered) == sorted(each for each in SUITES.values() if not each.endswith("-SHA"))
    with with_tls(file).served() as [url]:
        for cipher, refused in {"ECDHE+AES:!AESGCM:!AESCCM": True, "ECDHE+AESGCM": False}.items():
            client = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            client.set_ciphers(cipher)
            assert is_refused(url, client) is refused


@pytest.mark.parametrize("ours", [True, False])
def test_cipher_order_is_that_of_server_or_client(file, ours):
    order = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    given = {"cipher_suites": order, "prefer_server_cipher_suites": ours}
    client = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(":".join(SUITES[name] for name in reversed(order)))
    with with_tls(file, **given).served() as [url]:
        assert negotiated(url, client)[1] == SUITES[order[0 if ours else 1]]


def test_openssl_has_every_suite(file):
    for name in SUITES.values():
        context = server_context(settings_of(file, ciphers=(name,)))
        assert name in {each["name"] for each in context.get_ciphers()}


def test_renegotiation_is_disabled(file):
    """OpenSSL 3 disables it by default, 1.1.1 does not."""
    assert server_context(settings_of(file)).options & ssl.OP_NO_RENEGOTIATION


def test_an_error_names_the_setting_that_openssl_lacks(file):
    for setting, value, text in (
        ("ciphers", ("NONE-SUCH",), "must name a suite that this OpenSSL has"),
        ("curve", "none", CANNOT_SET),
    ):
        with pytest.raises(TlsError, match=text) as caught:
            server_context(settings_of(file, **{setting: value}))
        assert caught.value.setting == setting


@pytest.mark.parametrize("name", CURVES)
def test_only_the_configured_curve_is_served(file, name):
    configured = with_tls(file, curve_preferences=[name])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(CURVES[name])
    except ssl.SSLError:
        with pytest.raises(ConfigError, match=f"curve_preferences: {CANNOT_SET}"):
            WebFile(configured.path).read()
        return
    with configured.served() as [url]:
        for other in CURVES:
            output = openssl_client(url, "-curves", CURVES[other])
            assert ("BEGIN CERTIFICATE" in output) is (other == name), output


@pytest.mark.parametrize(
    ("client_auth", "without", "unknown_ca"),
    [
        ("NoClientCert", True, True),
        ("VerifyClientCertIfGiven", True, False),
        ("RequireAndVerifyClientCert", False, False),
    ],
)
def test_client_certificates_are_verified_as_configured(file, client_auth, without, unknown_ca):
    clients = trustme.CA()
    ca = {} if client_auth == "NoClientCert" else file.trust_clients_of(clients)
    trusted, untrusted = clients.issue_cert("a.test"), trustme.CA().issue_cert("a.test")
    with with_tls(file, client_auth_type=client_auth, **ca).served() as [url]:
        for versions in MAX_VERSIONS:
            assert not is_refused(url, file.client(trusted, **versions))
            assert is_refused(url, file.client(**versions)) is not without
            assert is_refused(url, file.client(untrusted, **versions)) is not unknown_ca


def test_an_intermediate_authority_can_be_trusted(file):
    """As in Go; by default OpenSSL requires the root."""
    root = trustme.CA()
    middle = root.create_child_ca()
    middle.cert_pem.write_to_path(file.folder / "clients.pem")
    given = {"client_ca_file": "clients.pem", "client_auth_type": "RequireAndVerifyClientCert"}
    with with_tls(file, **given).served() as [url]:
        assert not is_refused(url, file.client(middle.issue_cert("a.test")))
        assert is_refused(url, file.client(root.issue_cert("a.test")))


def test_a_client_needs_one_of_the_allowed_names(file):
    clients = trustme.CA()
    given = {
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_allowed_sans": ["scraper.test", "ann@scraper.test", "10.1.2.3", "2001:db8::1"],
        **file.trust_clients_of(clients),
    }
    good = [["scraper.test"], ["other.test", "scraper.test"], ["ann@scraper.test"], ["10.1.2.3"]]
    good += [["2001:db8:0::1"]]
    bad = [["SCRAPER.test.x"], ["x.scraper.test", "bob@scraper.test", "10.1.2.4"], ["*.test"]]
    with with_tls(file, **given).served() as [url]:
        for versions in MAX_VERSIONS:
            for names in (*good, *bad):
                client = file.client(clients.issue_cert(*names), **versions)
                assert is_refused(url, client) is (names in bad), names
            assert is_refused(url, file.client(**versions))


def test_a_uri_can_be_an_allowed_name(file, tmp_path):
    """SPIFFE names workloads so. Made with openssl: trustme cannot make such certificates."""
    clients = tmp_path / "clients.pem"
    uri = "spiffe://cluster/ns/monitoring/sa/prometheus"
    command = [
        *(required("openssl", package="openssl"), "req", "-x509", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=scraper", "-days", "2"),
        *("-addext", f"subjectAltName=URI:{uri}", "-keyout", tmp_path / "client.key"),
        *("-out", clients),
    ]
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    given = {"client_ca_file": str(clients), "client_auth_type": "RequireAndVerifyClientCert"}
    client = file.client()
    client.load_cert_chain(clients, tmp_path / "client.key")
    for allowed, served in ((uri, True), (f"{uri}x", False)):
        with with_tls(file, **given, client_allowed_sans=[allowed]).served() as [url]:
            assert is_refused(url, client) is not served


def test_a_private_temporary_file_replaces_a_missing_memfd(file, monkeypatch):
    monkeypatch.delattr("os.memfd_create")
    assert isinstance(server_context(settings_of(file)), ssl.SSLContext)
