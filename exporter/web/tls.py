"""TLS contexts for the keys of exporter-toolkit's web configuration."""

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
"""Always enabled with TLS 1.3: neither Go nor Python's ssl can choose among them."""

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
"""OpenSSL's names of cipher suites, by Go's names, which the configuration uses."""

_DEFAULT_SUITES: Final = tuple(suite for name, suite in SUITES.items() if "_CBC_" not in name)
"""Those with authenticated encryption (AEAD). RFC 9325, section 4.2 recommends no others."""

CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
"""OpenSSL's names of curves, by Go's names."""

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
    """A setting cannot be used; ``setting`` is its attribute of TlsSettings."""

    def __init__(self, setting: str, text: str) -> None:
        self.setting = setting
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Settings of a TLS listener.

    Attributes:
        cert: the certificate and its chain, PEM.
        key: the private key, PEM.
        client_ca: the authorities for client certificates, PEM; may be empty.
        client_auth: whether clients need a certificate.
        client_allowed_sans: names of which a client's certificate must have one; empty for any.
        versions: the oldest and the newest version, as keys of VERSIONS.
        ciphers: OpenSSL's names for TLS up to 1.2; empty for those with AEAD.
        prefer_server_ciphers: whether the order of the server counts, or that of the client.
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
    """Raise ValueError if there is no certificate."""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("must hold a PEM certificate")


def check_key(pem: bytes) -> None:
    """Raise ValueError if there is no private key, or it is encrypted."""
    if b"PRIVATE KEY-----" not in pem:
        raise ValueError("must hold a PEM private key")
    if b"ENCRYPTED" in pem:
        raise ValueError("must not be encrypted; nobody is there to type its passphrase")


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context for connections. Raises TlsError if a setting cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, settings)
    if settings.client_ca:
        with _as_file(settings.client_ca) as path:
            try:
                context.load_verify_locations(path)
            except ssl.SSLError:
                raise TlsError("client_ca", "must contain PEM certificates") from None
        # As in Go, an intermediate authority can be trusted without its root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = _VERIFY[settings.client_auth]
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL 1.1.1 would let a client start handshakes without end and without a request.
    context.options |= ssl.OP_NO_RENEGOTIATION
    with warnings.catch_warnings():
        # Python deprecates versions before 1.2; the operator chose one explicitly.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = (VERSIONS[v] for v in settings.versions)
    _set_ciphers(context, settings)
    if settings.client_allowed_sans:
        context.sslobject_class = _san_checking_class(settings.client_allowed_sans)
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


def _set_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    ciphers = settings.ciphers or _DEFAULT_SUITES
    if settings.versions[0] in {"TLS10", "TLS11"}:
        # Before TLS 1.2 there is no AEAD, and handshakes are signed with SHA-1, which OpenSSL 3
        # allows at level 0 only.
        ciphers = (*(settings.ciphers or ("DEFAULT",)), "@SECLEVEL=0")
    try:
        context.set_ciphers(":".join(ciphers))
    except ssl.SSLError:
        raise TlsError("ciphers", "must name a suite that this OpenSSL has") from None
    if not settings.prefer_server_ciphers:  # Python's default
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.curve:
        try:
            context.set_ecdh_curve(settings.curve)
        except (ssl.SSLError, ValueError):
            # Python 3.11.2, for example, cannot set X25519, which its OpenSSL has.
            raise TlsError("curve", "must be another curve; this Python cannot set it") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path with this content: the ssl module loads certificates and keys from paths only.

    So it loads the bytes that were checked, and an inline key is never written to a disk.
    """
    if not hasattr(os, "memfd_create"):  # not Linux
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    with open(os.memfd_create("pem"), "wb") as memory:  # noqa: PTH123 - has no path
        memory.write(content)
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _san_checking_class(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    """Return a connection class whose handshake fails if the client has no allowed name."""

    class SanCheckingObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if not allowed.intersection(_subject_alt_names(self.getpeercert() or {})):
                raise ssl.SSLError("the client's certificate has none of the allowed names")

    return SanCheckingObject


def _subject_alt_names(certificate: Any) -> Iterator[str]:
    for name_type, name in certificate.get("subjectAltName", ()):
        if name_type == "IP Address":
            # Python writes IPv6 addresses in full; the configuration and Go shorten them.
            with contextlib.suppress(ValueError):
                yield str(ipaddress.ip_address(name.strip()))
        elif name_type in {"DNS", "email", "URI"}:
            yield name
