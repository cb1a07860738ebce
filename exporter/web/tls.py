"""TLS as exporter-toolkit's web configuration describes it, with Python's ssl module."""

import contextlib
import ipaddress
import os
import ssl
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

TLS13_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""Always on with TLS 1.3; neither Go nor Python's ssl lets one choose among them."""

SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}

CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

ClientAuth = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]

VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_VERIFY: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TlsError(Exception):
    """Something given cannot be used; part is its field in TlsSettings, the text says why."""

    def __init__(self, part: str, text: str) -> None:
        self.part = part
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to serve TLS.

    Attributes:
        cert: the certificate and those that lead from it to the authority, PEM.
        key: its private key, PEM.
        client_ca: the authorities whose client certificates are taken, PEM; may be empty.
        client_auth: whether clients need a certificate.
        client_allowed_sans: if any, a client's certificate must have one of these names.
        versions: the oldest and the newest version, as in VERSIONS.
        ciphers: OpenSSL's names for TLS up to 1.2; empty for the defaults.
        prefer_server_ciphers: whether the order of the ciphers is ours or the client's.
        curve: OpenSSL's name of the only curve; empty for the defaults.
    """

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes = b""
    client_auth: ClientAuth = "NoClientCert"
    client_allowed_sans: frozenset[str] = frozenset()
    versions: tuple[str, str] = ("TLS12", "TLS13")
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str = ""


def check_certificate(pem: bytes) -> None:
    """Refuse what holds no certificate, with a ValueError."""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("must hold a PEM certificate")


def check_key(pem: bytes) -> None:
    """Refuse what holds no private key, and an encrypted one, with a ValueError."""
    if b"PRIVATE KEY-----" not in pem:
        raise ValueError("must hold a PEM private key")
    if b"ENCRYPTED" in pem:
        raise ValueError("must not be encrypted; nobody is there to type its passphrase")


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return what connections are to be served with; TlsError when it cannot be made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, settings)
    _load_client_ca(context, settings.client_ca)
    context.verify_mode = _VERIFY[settings.client_auth]
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL 1.1.1 would let a client begin one handshake after the other, with no request.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _set_versions(context, *settings.versions)
    _set_ciphers(context, settings)
    if settings.client_allowed_sans:
        context.sslobject_class = _checking(settings.client_allowed_sans)
    return context


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    with _as_file(settings.cert) as cert, _as_file(settings.key) as key:
        try:
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise TlsError("key", "must be the key of the certificate") from None
            reason = error.reason or "not what OpenSSL can read"
            raise TlsError("cert", f"cannot be used with its key: {reason}") from None


def _load_client_ca(context: ssl.SSLContext, client_ca: bytes) -> None:
    if not client_ca:
        return
    with _as_file(client_ca) as path:
        try:
            context.load_verify_locations(path)
        except ssl.SSLError:
            raise TlsError("client_ca", "must hold PEM certificates") from None
    # As in Go, what is given is trusted, be it an authority of its own or one below another.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _set_versions(context: ssl.SSLContext, oldest: str, newest: str) -> None:
    with warnings.catch_warnings():
        # Python deprecates the old ones; whoever names one here knows why.
        if {oldest, newest} & {"TLS10", "TLS11"}:
            warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = VERSIONS[oldest]
        context.maximum_version = VERSIONS[newest]


def _set_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    # OpenSSL 3 serves TLS before 1.2, which signs with SHA-1, on its lowest level only.
    level = ("@SECLEVEL=0",) if settings.versions[0] in {"TLS10", "TLS11"} else ()
    if settings.ciphers or level:
        try:
            context.set_ciphers(":".join((*(settings.ciphers or ("DEFAULT",)), *level)))
        except ssl.SSLError:
            raise TlsError("ciphers", "must name a suite that this OpenSSL has") from None
    if settings.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.curve:
        try:
            context.set_ecdh_curve(settings.curve)
        except (ssl.SSLError, ValueError):
            raise TlsError("curve", "must name a curve that this OpenSSL has") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give the content a path, which is all that the ssl module takes for certificates and keys.

    What is loaded is then what was read and checked, and an inline key never reaches a disk.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    with open(os.memfd_create("pem"), "wb") as memory:  # noqa: PTH123 - has no path
        memory.write(content)
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _checking(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    """Return a kind of connection whose handshake fails for a client with none of these names."""

    class Checking(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if not allowed.intersection(_names(self.getpeercert() or {})):
                raise ssl.SSLError("the client's certificate has none of the allowed names")

    return Checking


def _names(certificate: Any) -> Iterator[str]:
    for kind, name in certificate.get("subjectAltName", ()):
        if kind == "IP Address":
            # Python writes IPv6 addresses in full, people and Go write them short.
            with contextlib.suppress(ValueError):
                yield str(ipaddress.ip_address(name.strip()))
        elif kind in {"DNS", "email", "URI"}:
            yield name
