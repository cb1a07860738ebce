"""The sections of the web configuration file, with exporter-toolkit's keys and defaults.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from exporter.config.errors import Problem, suggest, validation_error
from exporter.config.secrets import (
    MAX_CA_BYTES,
    ConfigContext,
    check_path,
    context_of,
    file_error_text,
)
from exporter.config.section import Section
from exporter.config.types import check_header_text, not_empty, number_between, without_repeats
from exporter.web.live_config import RateLimit, WebSettings
from exporter.web.tls import (
    CURVES,
    SUITES,
    TLS13_SUITES,
    TlsError,
    TlsSettings,
    check_certificate,
    check_key,
    server_context,
)
from exporter.web.tls import ClientAuth as ClientAuthType

_BCRYPT_COSTS = range(4, 19)  # 18 takes half a minute, longer than any scrape timeout
_BCRYPT = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")

_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that can be set, and the values that each may have; any value when empty."""

_SECONDS_PER_UNIT = {
    "ns": "1e-9",
    "us": "1e-6",
    "µs": "1e-6",
    "ms": "1e-3",
    "s": "1",
    "m": "60",
    "h": "3600",
}
_DURATION_TERM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_MAX_INTERVAL_SECONDS = 86400
_MAX_BURST = 1_000_000
_PEM_KEYS = ("cert", "key", "client_ca")
_KEY_OF_TLS_PART = {"ciphers": "cipher_suites", "curve": "curve_preferences"}


class FileReader(Protocol):
    """Reads a file that the web configuration names."""

    def __call__(self, path: Path, limit: int) -> bytes:
        """Return the content of a regular file; OSError, also when it exceeds ``limit`` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class WebConfigContext(ConfigContext):
    """Pydantic's validation context of a web configuration, with the reader of its files."""

    read: FileReader = field(repr=False)


def _pem_file(value: object, info: ValidationInfo) -> SecretBytes:
    context = context_of(info)
    if not isinstance(value, str) or not isinstance(context, WebConfigContext):
        raise ValueError("must be the path of a file")  # noqa: TRY004  # pydantic reports ValueError only
    check_path(value)
    path = context.folder / value
    try:
        return SecretBytes(context.read(path, MAX_CA_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {file_error_text(error)}") from None


PemFile = Annotated[SecretBytes, BeforeValidator(_pem_file)]


def _pem_bytes(text: SecretStr) -> SecretBytes:
    return SecretBytes(text.get_secret_value().encode())


Pem = Annotated[SecretStr, AfterValidator(_pem_bytes)]


def _client_auth(word: object) -> object:
    if word in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            "must be VerifyClientCertIfGiven or RequireAndVerifyClientCert:"
            " Python cannot ask for a certificate without verifying it"
        )
    return word


ClientAuth = Annotated[ClientAuthType, BeforeValidator(_client_auth)]


def _suite(name: str) -> str:
    if name not in SUITES and name not in TLS13_SUITES:
        raise ValueError(
            "must be Go's name of a secure cipher suite,"
            f" such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256{suggest(name, SUITES)}"
        )
    return name


Suite = Annotated[str, AfterValidator(_suite)]
Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]


def check_one_curve(curves: tuple[str, ...]) -> tuple[str, ...]:
    """Return the curves unchanged; raise ValueError when there are several."""
    if len(curves) > 1:
        raise ValueError("must list one curve: Python cannot offer a choice of several")
    return curves


def _bcrypt_hash(text: SecretStr) -> SecretStr:
    match = _BCRYPT.fullmatch(text.get_secret_value())
    if match is None:
        raise ValueError("must be a bcrypt hash, as `htpasswd -nBC 10 USER` prints it")
    if int(match.group(1)) not in _BCRYPT_COSTS:
        raise ValueError(f"must have a cost between {_BCRYPT_COSTS[0]} and {_BCRYPT_COSTS[-1]}")
    return text


BcryptHash = Annotated[SecretStr, AfterValidator(_bcrypt_hash)]


def _user(name: str) -> str:
    # RFC 7617, section 2: the name ends at the first colon.
    if ":" in name:
        raise ValueError("must not contain a colon; no client could send such a name")
    return name


User = Annotated[str, AfterValidator(_user)]


def check_header(name: object, value: object) -> None:
    """Refuse a header that cannot be set, and a value that it must not have."""
    if not isinstance(name, str) or name not in _HEADERS:
        hint = suggest(name, _HEADERS) or f"; those are {', '.join(_HEADERS)}"
        raise ValueError(f"must be one of the headers that can be set here{hint}")
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")  # noqa: TRY004  # pydantic reports ValueError only
    check_header_text(value)
    allowed = _HEADERS[name]
    if allowed and value not in allowed:
        raise ValueError(f"must be {' or '.join(allowed)}")


def _go_duration(value: object) -> float:
    # Not parse_duration: Go's form has fractions and smaller units, and no days.
    terms = _DURATION_TERM.findall(value) if isinstance(value, str) else []
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not terms or "".join(map("".join, terms)) != value:
        raise ValueError("must be a duration such as 100ms, 1.5s or 1m30s")
    seconds = float(sum(Decimal(count) * Decimal(_SECONDS_PER_UNIT[unit]) for count, unit in terms))
    if seconds > _MAX_INTERVAL_SECONDS:
        raise ValueError("must not be longer than 24h")
    return seconds


GoDuration = Annotated[float, BeforeValidator(_go_duration)]
"""Seconds, in the form of Go's time.ParseDuration, up to a day."""


class TlsServer(Section):
    """TLS of the web server; without any key in it, plain HTTP is served."""

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
        """Yield the keys that other keys need, and those that exclude each other."""
        yield from super().raw_problems(given)
        for name in _PEM_KEYS:
            if name in given and f"{name}_file" in given:
                yield (f"{name}_file",), f"is given together with {name}; keep one of them"
        for name in ("cert", "key"):
            if given and not _has(given, name):
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

    @model_validator(mode="after")
    def _make_context(self) -> Self:
        if self.model_fields_set:
            try:
                self._context = server_context(self._settings())
            except TlsError as error:
                problem = (self._key_of(error.setting),), str(error)
                raise validation_error("TlsServer", [problem]) from None
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
        key = _KEY_OF_TLS_PART.get(part, part)
        return f"{key}_file" if f"{key}_file" in self.model_fields_set else key

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of the server, None for plain HTTP."""
        return self._context


def _has(given: Mapping[Any, Any], name: str) -> bool:
    return name in given or f"{name}_file" in given


def _client_problems(given: Mapping[Any, Any]) -> Iterator[Problem]:
    auth, has_ca = given.get("client_auth_type", "NoClientCert"), _has(given, "client_ca")
    if auth == "NoClientCert" and has_ca:
        key = "client_ca" if "client_ca" in given else "client_ca_file"
        yield (key,), "has no effect with client_auth_type: NoClientCert; change one of them"
    if auth in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert") and not has_ca:
        yield ("client_ca",), f"missing; {auth} needs client_ca or client_ca_file"
    if auth != "RequireAndVerifyClientCert" and "client_allowed_sans" in given:
        text = "needs client_auth_type: RequireAndVerifyClientCert; others let clients without pass"
        yield ("client_allowed_sans",), text


class HttpServer(Section):
    """HTTP options and additional response headers."""

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
    """Limit of requests: one for each interval (seconds, 0 for no limit), after a burst."""

    interval: GoDuration = 0.0
    burst: Annotated[int, number_between(0, _MAX_BURST), Field(validate_default=True)] = 0

    @field_validator("burst")
    @classmethod
    def _check_burst(cls, burst: int, info: ValidationInfo) -> int:
        if info.data.get("interval") and not burst:
            raise ValueError("must be at least 1 beside an interval, or no request is answered")
        return burst

    @property
    def limit(self) -> RateLimit | None:
        """The limit, None without one."""
        return RateLimit(self.interval, self.burst) if self.interval else None


class Web(Section):
    """The whole web configuration."""

    tls_server_config: TlsServer = Field(default_factory=TlsServer)
    http_server_config: HttpServer = Field(default_factory=HttpServer)
    basic_auth_users: dict[User, BcryptHash] = Field(default_factory=dict)
    rate_limit: RateLimiter = Field(default_factory=RateLimiter)

    @property
    def settings(self) -> WebSettings:
        """The settings of the web server."""
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
