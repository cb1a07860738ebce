"""Value types and checks of the configuration: durations, bounded numbers, names, URLs, keys.

A check raises ValueError with a reason that starts with a verb ("must use https"), because the path
of a key or a file, or the name of a variable, is put in front. No reason repeats the refused value.
"""

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr

from exporter.core.text import NOT_A_DURATION, format_duration, is_loopback, parse_duration

Check = Callable[[str], object]
Item = TypeVar("Item")

_LARGEST_WITHOUT_UNIT = 1_000_000
"""Up to here a number without a unit is taken for seconds in the hint of the error."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")

_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_ASSIGNMENT = re.compile(r"(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=\s*(?!=*$)")
"""NAME=value. Only padding of base64 may follow the first ``=`` of a value."""
_SCHEME = re.compile(r"(?:authorization|x-api-key)\s*:|bearer\s", re.IGNORECASE)

_SIGNING_PREFIX = "whsec_"
_SIGNING_BYTES = range(24, 65)
_SECRET_PREFIXES = ("sk_car_", _SIGNING_PREFIX)


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if type(value) is int and value == 0:
        return 0.0
    if type(value) is int and 0 < value < _LARGEST_WITHOUT_UNIT:
        raise ValueError(f"must be a duration with a unit; write {value}s, not {value}")
    raise ValueError(NOT_A_DURATION)


READ_DURATION: Final = BeforeValidator(_read_duration)
"""Distinguishes a Duration from other numbers in a field's metadata."""

Duration = Annotated[float, READ_DURATION, PlainSerializer(format_duration)]
"""Seconds as a float, written and serialised as a Prometheus duration."""


def between(low: int | str, high: int | str) -> AfterValidator:
    """Return a validator of a number or, with limits such as "1m", of a Duration.

    Both limits are included.
    """
    least, most = (parse_duration(each) if isinstance(each, str) else each for each in (low, high))

    def validate(number: float) -> float:
        if not least <= number <= most:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return AfterValidator(validate)


def passes(*checks: Check) -> AfterValidator:
    """Return a validator that applies the checks to a text or a secret."""

    def validate(value: str | SecretStr) -> str | SecretStr:
        for check in checks:
            check(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    return AfterValidator(validate)


def full_match(pattern: str, reason: str) -> AfterValidator:
    """Return a validator: the whole text matches ``pattern``, else ValueError with ``reason``."""

    def check(text: str) -> None:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(reason)

    return passes(check)


Name = Annotated[
    str,
    full_match(r"[a-zA-Z0-9_.-]{1,64}", 'must be 1 to 64 letters, digits, "_", "." or "-"'),
]


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values unchanged; raise ValueError when there are none."""
    if not values:
        raise ValueError("must not be empty")
    return values


def without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values unchanged; raise ValueError when one occurs twice."""
    if len(set(values)) != len(values):
        raise ValueError("must not list anything twice")
    return values


Items = Annotated[tuple[Item, ...], Field(strict=False)]
"""A list in the file."""

DistinctItems = Annotated[tuple[Item, ...], Field(strict=False), AfterValidator(without_repeats)]


def check_date(text: str) -> None:
    """Refuse anything but a date such as 2026-03-01."""
    with suppress(ValueError):
        if date.fromisoformat(text).isoformat() == text:
            return
    raise ValueError('must be a date such as "2026-03-01"')


def check_printable(text: str) -> None:
    """Refuse control characters and line breaks."""
    if _UNPRINTABLE.search(text):
        raise ValueError("must not contain control characters or line breaks")


def check_header_text(text: str) -> None:
    """Refuse text that cannot be the value of an HTTP header."""
    check_printable(text)
    if not text.isascii():
        raise ValueError("must be ASCII text")


def check_bare(text: str) -> None:
    """Refuse a value that was copied together with its quotes, its name or its HTTP header."""
    if _ASSIGNMENT.match(text):
        raise ValueError("must be the value alone; remove the name and the = before it")
    # Of a URL only the first: a quote is valid at its end.
    ends = text[:1] if "://" in text else text[:1] + text[-1:]
    if any(character in _QUOTES for character in ends):
        raise ValueError(
            "must not be in quotes; remove them (docker --env-file takes them for part of the"
            " value)"
        )
    if _SCHEME.match(text):
        raise ValueError('must be the value alone; remove "Bearer" or the header name before it')


def check_token(text: str) -> None:
    """Refuse a bearer token with anything but printable ASCII without spaces."""
    check_bare(text)
    if _VISIBLE_ASCII.fullmatch(text) is None:
        raise ValueError("must be printable ASCII without spaces or line breaks")


def check_api_key(text: str) -> None:
    """Refuse a garbled key, and an admin key: the fine-tune routes do not accept those."""
    check_bare(text)
    if text.startswith("sk_car_admin_"):
        raise ValueError(
            "is an admin key (sk_car_admin_…), which works only on admin routes;"
            " use a standard sk_car_… key"
        )
    check_token(text)


def check_signing_secret(text: str) -> None:
    """Refuse anything but one Standard Webhooks secret, or two on two lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[2:]:
        raise ValueError("must have at most two lines, the new secret and the old one")
    for line in lines:
        check_bare(line)
        key = b""
        with suppress(ValueError):
            key = base64.b64decode(line.removeprefix(_SIGNING_PREFIX), validate=True)
        if not line.startswith(_SIGNING_PREFIX) or len(key) not in _SIGNING_BYTES:
            raise ValueError("must be whsec_ followed by the base64 of 24 to 64 bytes")


def looks_like_secret(text: str) -> bool:
    """Return whether a text is a key or a URL where a path or a variable's name is expected."""
    return text.strip().startswith(_SECRET_PREFIXES) or "://" in text


def check_web_url(url: str) -> SplitResult:
    """Return the parts of an absolute http or https URL; refuse anything else."""
    check_bare(url)
    if _UNSAFE_IN_URL.search(url):
        raise ValueError("must be a URL without spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        raise ValueError("must be an absolute URL such as https://host/path")
    return parts


def check_url(url: str, *, remedy: str = ", or with allow_http: true") -> None:
    """Refuse anything but an absolute https URL, or an http one to a loopback address."""
    parts = check_web_url(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"must use https; http is only for loopback addresses{remedy}")


def check_without_query(url: str) -> None:
    """Refuse a URL with a query or a fragment: no path can be appended to it."""
    if "?" in url or "#" in url:
        raise ValueError("must not contain a query or a fragment")


def check_without_userinfo(url: str) -> None:
    """Refuse a URL with a user name or a password."""
    if "@" in check_web_url(url).netloc:
        raise ValueError("must not contain a user name or a password")


def check_database_url(url: str) -> None:
    """Refuse anything but the URL of a PostgreSQL database."""
    check_bare(url)
    if _UNSAFE_IN_URL.search(url) or not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be the URL of a database such as postgresql://user@host/database")


def check_proxy_url(url: str) -> None:
    """Refuse anything but the http or https URL of a proxy; a user and password are allowed."""
    check_bare(url)
    try:
        parts = check_web_url(url)
        usable = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the URL of a proxy such as http://host:3128")
