"""The sections of the web configuration, with exporter-toolkit's keys and defaults.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import ssl
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretBytes,
    ValidationInfo,
    field_validator,
)
from pydantic import model_validator as validator_of_the_whole

from exporter.config.problems import Problem, validation_error
from exporter.config.section import Section
from exporter.config.values import between, not_empty, without_repeats
from exporter.config.web_values import (
    BcryptHash,
    ClientAuth,
    Curve,
    GoDuration,
    Pem,
    PemFile,
    Suite,
    User,
    Version,
    check_header,
    check_one_curve,
)
from exporter.web.ciphers import CURVES, SUITES
from exporter.web.settings import RateLimit, WebSettings
from exporter.web.tls import TlsError, TlsSettings, check_certificate, check_key, server_context

_LARGEST_BURST = 1_000_000
_FORMS = ("cert", "key", "client_ca")
_KEYS_OF_PARTS = {"ciphers": "cipher_suites", "curve": "curve_preferences"}


class TlsServer(Section):
    """How connections are served; without any key in it, without TLS."""

    cert: Pem | None = None
    cert_file: PemFile | None = None
    key: Pem | None = None
    key_file: PemFile | None = None
    client_ca: Pem | None = None
    client_ca_file: PemFile | None = None
    client_auth_type: ClientAuth = "NoClientCert"
    client_allowed_sans: Annotated[
        tuple[str, ...], Field(strict=False), AfterValidator(not_empty)
    ] = ()
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: Annotated[tuple[Suite, ...], Field(strict=False)] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[
        tuple[Curve, ...],
        Field(strict=False),
        AfterValidator(without_repeats),
        AfterValidator(check_one_curve),
    ] = ()
    _context: ssl.SSLContext | None = PrivateAttr(None)

    @classmethod
    def raw_problems(cls, given: Mapping[Any, Any]) -> Iterator[Problem]:
        """Yield which keys are missing beside others, and which exclude each other."""
        yield from super().raw_problems(given)
        for name in _FORMS:
            if name in given and f"{name}_file" in given:
                yield (f"{name}_file",), f"is given together with {name}; keep one of them"
        for name in ("cert", "key") if given else ():
            if not _has(given, name):
                yield (name,), f"missing; TLS needs {name} or {name}_file"
        yield from _client_problems(given)

    @field_validator("cert", "cert_file", "client_ca", "client_ca_file")
    @classmethod
    def _check_certificate(cls, pem: SecretBytes) -> SecretBytes:
        check_certificate(pem.get_secret_value())
        return pem

    @field_validator("key", "key_file")
    @classmethod
    def _check_key(cls, pem: SecretBytes) -> SecretBytes:
        check_key(pem.get_secret_value())
        return pem

    @field_validator("max_version")
    @classmethod
    def _check_max_version(cls, newest: str, info: ValidationInfo) -> str:
        if newest < info.data.get("min_version", newest):
            raise ValueError("must not be older than min_version")
        return newest

    @field_validator("cipher_suites")
    @classmethod
    def _check_suites(cls, suites: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        old = info.data.get("min_version", "TLS13") < "TLS13"
        if suites and old and not SUITES.keys() & set(suites):
            raise ValueError("must list a suite of TLS 1.2 too, or min_version must be TLS13")
        return suites

    @validator_of_the_whole(mode="after")
    def _make_context(self) -> Self:
        if self.model_fields_set:
            try:
                self._context = server_context(self._settings())
            except TlsError as error:
                raise validation_error(
                    "TlsServer", [((self._key_of(error.part),), str(error))]
                ) from None
        return self

    def _settings(self) -> TlsSettings:
        return TlsSettings(
            self._pem("cert"),
            self._pem("key"),
            self._pem("client_ca"),
            self.client_auth_type,
            frozenset(self.client_allowed_sans),
            (self.min_version, self.max_version),
            tuple(SUITES[name] for name in self.cipher_suites if name in SUITES),
            self.prefer_server_cipher_suites,
            "".join(CURVES[name] for name in self.curve_preferences),
        )

    def _pem(self, name: str) -> bytes:
        given = getattr(self, name) or getattr(self, f"{name}_file")
        return b"" if given is None else bytes(given.get_secret_value())

    def _key_of(self, part: str) -> str:
        key = _KEYS_OF_PARTS.get(part, part)
        return f"{key}_file" if f"{key}_file" in self.model_fields_set else key

    @property
    def context(self) -> ssl.SSLContext | None:
        """What connections are to be served with, None for plain HTTP."""
        return self._context


def _has(given: Mapping[Any, Any], name: str) -> bool:
    return name in given or f"{name}_file" in given


def _client_problems(given: Mapping[Any, Any]) -> Iterator[Problem]:
    kind, has_ca = given.get("client_auth_type", "NoClientCert"), _has(given, "client_ca")
    if kind == "NoClientCert" and has_ca:
        key = "client_ca" if "client_ca" in given else "client_ca_file"
        yield (key,), "has no effect with client_auth_type: NoClientCert; change one of them"
    if kind in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert") and not has_ca:
        yield ("client_ca",), f"missing; {kind} needs client_ca or client_ca_file"
    if kind != "RequireAndVerifyClientCert" and "client_allowed_sans" in given:
        text = "needs client_auth_type: RequireAndVerifyClientCert; others let clients without pass"
        yield ("client_allowed_sans",), text


class HttpServer(Section):
    """What is said beside the pages."""

    http2: bool = True
    headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("headers", mode="before")
    @classmethod
    def _check_headers(cls, headers: object) -> object:
        problems: list[Problem] = []
        for name, value in headers.items() if isinstance(headers, dict) else ():
            try:
                check_header(name, value)
            except ValueError as error:
                problems.append(((str(name),), str(error)))
        if problems:
            raise validation_error("HttpServer", problems)
        return headers


class RateLimiter(Section):
    """How many requests are answered; the interval in seconds, 0 for no limit."""

    interval: GoDuration = 0.0
    burst: Annotated[int, between(0, _LARGEST_BURST), Field(validate_default=True)] = 0

    @field_validator("burst")
    @classmethod
    def _check_burst(cls, burst: int, info: ValidationInfo) -> int:
        if info.data.get("interval") and not burst:
            raise ValueError("must be at least 1 beside an interval, or no request is answered")
        return burst

    @property
    def limit(self) -> RateLimit | None:
        """The limit, None for none."""
        return RateLimit(self.interval, self.burst) if self.interval else None


class Web(Section):
    """The whole web configuration."""

    tls_server_config: TlsServer = Field(default_factory=TlsServer)
    http_server_config: HttpServer = Field(default_factory=HttpServer)
    basic_auth_users: dict[User, BcryptHash] = Field(default_factory=dict)
    rate_limit: RateLimiter = Field(default_factory=RateLimiter)

    @property
    def settings(self) -> WebSettings:
        """What the web server is to be told."""
        return WebSettings(
            self.tls_server_config.context,
            self.http_server_config.headers,
            {
                name.encode(): hashed.get_secret_value().encode()
                for name, hashed in self.basic_auth_users.items()
            },
            self.rate_limit.limit,
            tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if "http2" in self.http_server_config.model_fields_set:
            yield "http_server_config.http2 has no effect: only HTTP/1.1 is served"
        if any(name not in SUITES for name in self.tls_server_config.cipher_suites):
            yield "tls_server_config.cipher_suites has no effect on TLS 1.3: its suites are all on"
