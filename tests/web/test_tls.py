"""TLS as the web configuration says: versions, ciphers, curves, and certificates of clients."""

import socket
import ssl
import subprocess

import httpx
import pytest
import trustme

from exporter.web.tls import CURVES, SUITES, TlsError, TlsSettings, server_context
from tests.programs import required
from tests.web.authenticated_server import File, ask

NEWEST = [{"maximum_version": each} for each in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)]


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


def with_tls(file: File, **tls) -> File:
    file.write(tls_server_config={**file.issue(), **tls})
    return file


def refused(url: str, context: ssl.SSLContext) -> bool:
    try:
        ask(url, tls=context)
    except (httpx.TransportError, ssl.SSLError):
        return True
    return False


def session(url: str, context: ssl.SSLContext) -> tuple[str, str]:
    """The version and the cipher that a connection came to."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        cipher = secured.cipher()
        return secured.version() or "", cipher[0] if cipher else ""


def openssl(url: str, *flags: str) -> str:
    program = required("openssl", package="openssl")
    command = [program, "s_client", "-connect", url.removeprefix("https://"), *flags]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    return (done.stdout + done.stderr).decode()


def test_httpx_and_curl_read_a_page_over_tls(file):
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


def test_plain_http_gets_no_answer_from_a_tls_listener(file):
    with with_tls(file).served(listeners=2) as urls:
        for url in urls:
            with pytest.raises(httpx.TransportError):
                ask(url.replace("https", "http"))
            assert ask(url, tls=file.client()).status_code == 200


def test_inline_certificates_work_and_reach_no_disk(file, monkeypatch, tmp_path):
    file.issue()
    names = {"cert": "cert.pem", "key": "key.pem"}
    inline = {key: (file.folder / name).read_text() for key, name in names.items()}
    for name in names.values():
        (file.folder / name).unlink()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    file.write(tls_server_config=inline)
    with file.served() as [url]:
        assert ask(url, tls=file.client()).status_code == 200


def test_a_key_beside_other_pem_blocks_is_found(file):
    """Some tools put certificate and key into one file; what is named as the key is the key."""
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
def test_the_versions_are_those_of_the_file(file, oldest, newest, served, not_served):
    given = {"min_version": oldest, "max_version": newest}
    with with_tls(file, **given).served() as [url]:
        for flag in (*served, *not_served):
            # The client's own floor is lowered too, or it would refuse the old ones itself.
            said = openssl(url, flag, "-cipher", "DEFAULT@SECLEVEL=0")
            assert ("BEGIN CERTIFICATE" in said) is (flag in served), said


def test_the_cipher_suites_are_those_of_the_file(file):
    names = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"]
    both = [SUITES[name] for name in names]
    with with_tls(file, cipher_suites=names).served() as [url]:
        for cipher in both:
            client = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            client.set_ciphers(cipher)
            assert session(url, client) == ("TLSv1.2", cipher)
        other = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        assert refused(url, other)
        assert session(url, file.client())[0] == "TLSv1.3"


@pytest.mark.parametrize("ours", [True, False])
def test_whose_order_of_ciphers_counts(file, ours):
    order = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    given = {"cipher_suites": order, "prefer_server_cipher_suites": ours}
    client = file.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(":".join(SUITES[name] for name in reversed(order)))
    with with_tls(file, **given).served() as [url]:
        assert session(url, client)[1] == SUITES[order[0 if ours else 1]]


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_is_one_that_openssl_has(file, name):
    file.issue()
    cert, key = ((file.folder / f"{part}.pem").read_bytes() for part in ("cert", "key"))
    context = server_context(TlsSettings(cert, key, ciphers=(SUITES[name],)))
    assert SUITES[name] in {each["name"] for each in context.get_ciphers()}


def test_a_client_cannot_ask_for_another_handshake(file):
    """OpenSSL 3 refuses it by itself, 1.1.1 does not."""
    file.issue()
    cert, key = ((file.folder / f"{part}.pem").read_bytes() for part in ("cert", "key"))
    assert server_context(TlsSettings(cert, key)).options & ssl.OP_NO_RENEGOTIATION


def test_a_suite_that_openssl_lacks_is_named_by_its_key(file):
    file.issue()
    cert, key = ((file.folder / f"{part}.pem").read_bytes() for part in ("cert", "key"))
    for given, part in (({"ciphers": ("NONE-SUCH",)}, "ciphers"), ({"curve": "none"}, "curve")):
        with pytest.raises(TlsError, match=r"must name a .* that this OpenSSL has") as caught:
            server_context(TlsSettings(cert, key, **given))
        assert caught.value.part == part


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_the_only_one(file, name):
    with with_tls(file, curve_preferences=[name]).served() as [url]:
        for other in CURVES:
            said = openssl(url, "-curves", CURVES[other])
            assert ("BEGIN CERTIFICATE" in said) is (other == name), said


@pytest.mark.parametrize(
    ("kind", "without", "stranger"),
    [
        ("NoClientCert", True, True),
        ("VerifyClientCertIfGiven", True, False),
        ("RequireAndVerifyClientCert", False, False),
    ],
)
def test_who_needs_a_certificate(file, kind, without, stranger):
    clients = trustme.CA()
    ca = {} if kind == "NoClientCert" else file.trust_clients_of(clients)
    known, unknown = clients.issue_cert("a.test"), trustme.CA().issue_cert("a.test")
    with with_tls(file, client_auth_type=kind, **ca).served() as [url]:
        for newest in NEWEST:
            assert not refused(url, file.client(known, **newest))
            assert refused(url, file.client(**newest)) is not without
            assert refused(url, file.client(unknown, **newest)) is not stranger


def test_an_authority_below_another_may_be_the_one_that_is_trusted(file):
    """As in Go; OpenSSL alone would ask for the one at the root."""
    root = trustme.CA()
    middle = root.create_child_ca()
    middle.cert_pem.write_to_path(file.folder / "clients.pem")
    given = {"client_ca_file": "clients.pem", "client_auth_type": "RequireAndVerifyClientCert"}
    with with_tls(file, **given).served() as [url]:
        assert not refused(url, file.client(middle.issue_cert("a.test")))
        assert refused(url, file.client(root.issue_cert("a.test")))


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
        for newest in NEWEST:
            for names in (*good, *bad):
                client = file.client(clients.issue_cert(*names), **newest)
                assert refused(url, client) is (names in bad), names
            assert refused(url, file.client(**newest))


def test_a_uri_is_an_allowed_name_as_well(file, tmp_path):
    """As workloads are named by SPIFFE; made with openssl, since trustme makes none."""
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
            assert refused(url, client) is not served


def test_where_there_is_no_memory_file_a_private_temporary_one_is_used(file, monkeypatch):
    monkeypatch.delattr("os.memfd_create")
    file.issue()
    cert, key = ((file.folder / f"{part}.pem").read_bytes() for part in ("cert", "key"))
    assert isinstance(server_context(TlsSettings(cert, key)), ssl.SSLContext)
