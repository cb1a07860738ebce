"""The value types of the web configuration. Reasons read as those in values.py do."""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, SecretBytes, SecretStr, ValidationInfo

from exporter.config.problems import suggest
from exporter.config.sources import MAX_CA_BYTES, Origin, check_path, origin_of, os_reason
from exporter.config.values import check_header_text
from exporter.web.ciphers import SUITES, TLS13_SUITES
from exporter.web.tls import ClientAuth as ClientAuthType

_COSTS = range(4, 19)  # 18 takes half a minute, longer than any scrape waits
_BCRYPT = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")

_SECONDS = {
    "ns": "1e-9",
    "us": "1e-6",
    "µs": "1e-6",
    "ms": "1e-3",
    "s": "1",
    "m": "60",
    "h": "3600",
}
_TERM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_LONGEST = 86400


class Reader(Protocol):
    """Reads a file that the configuration names."""

    def __call__(self, path: Path, limit: int) -> bytes:
        """Return what a regular file holds; OSError, also when it holds over ``limit`` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class WebOrigin(Origin):
    """The folder of the file, and what reads the files that it names."""

    read: Reader = field(repr=False)


def _pem_file(value: object, info: ValidationInfo) -> SecretBytes:
    origin = origin_of(info)
    if not isinstance(value, str) or not isinstance(origin, WebOrigin):
        raise ValueError("must be the path of a file")  # noqa: TRY004  # pydantic reports ValueError only
    check_path(value)
    path = origin.folder / value
    try:
        return SecretBytes(origin.read(path, MAX_CA_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {os_reason(error)}") from None


PemFile = Annotated[SecretBytes, BeforeValidator(_pem_file)]


def _inline(text: SecretStr) -> SecretBytes:
    return SecretBytes(text.get_secret_value().encode())


Pem = Annotated[SecretStr, AfterValidator(_inline)]


def _client_auth(kind: object) -> object:
    if kind in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            "must be VerifyClientCertIfGiven or RequireAndVerifyClientCert:"
            " Python cannot ask for a certificate without verifying it"
        )
    return kind


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
    """Return the curves as they are; ValueError when there are several."""
    if len(curves) > 1:
        raise ValueError("must list one curve: Python cannot offer a choice of several")
    return curves


def _bcrypt_hash(text: SecretStr) -> SecretStr:
    match = _BCRYPT.fullmatch(text.get_secret_value())
    if match is None:
        raise ValueError("must be a bcrypt hash, as `htpasswd -nBC 10 USER` prints it")
    if int(match.group(1)) not in _COSTS:
        raise ValueError(f"must have a cost between {_COSTS[0]} and {_COSTS[-1]}")
    return text


BcryptHash = Annotated[SecretStr, AfterValidator(_bcrypt_hash)]


def _user(name: str) -> str:
    # RFC 7617, 2: what stands before the first colon is the name.
    if ":" in name:
        raise ValueError("must not contain a colon; no client could send such a name")
    return name


User = Annotated[str, AfterValidator(_user)]

_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}


def check_header(name: object, value: object) -> None:
    """Refuse a header that cannot be configured, and a value that it cannot have."""
    if not isinstance(name, str) or name not in _HEADERS:
        hint = suggest(name, _HEADERS) or f"; those are {', '.join(_HEADERS)}"
        raise ValueError(f"must be one of the headers that can be set here{hint}")
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")  # noqa: TRY004  # pydantic reports ValueError only
    check_header_text(value)
    choice = _HEADERS[name]
    if choice and value not in choice:
        raise ValueError(f"must be {' or '.join(choice)}")


def _go_duration(value: object) -> float:
    terms = _TERM.findall(value) if isinstance(value, str) else []
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not terms or "".join(map("".join, terms)) != value:
        raise ValueError("must be a duration such as 100ms, 1.5s or 1m30s")
    seconds = float(sum(Decimal(count) * Decimal(_SECONDS[unit]) for count, unit in terms))
    if seconds > _LONGEST:
        raise ValueError("must not be longer than 24h")
    return seconds


GoDuration = Annotated[float, BeforeValidator(_go_duration)]
"""Seconds, written as Go's time.ParseDuration reads them, up to a day."""
