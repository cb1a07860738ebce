"""Value types and checks of the configuration: durations, bounded numbers, names, URLs, keys.

A check raises ValueError with a reason that starts with a verb ("must use https"), because the path
of a key or a file, or the name of a variable, is put in front. No reason repeats the refused value.
"""

import base64
import binascii
import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from exporter.core.text import NOT_A_DURATION, format_duration, is_loopback, parse_duration

Check = Callable[[str], None]

_LARGEST_WITHOUT_UNIT = 1_000_000
"""Up to here a number without a unit is taken for seconds in the hint of the error."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")

_SIGNING_PREFIX = "whsec_"
_SIGNING_BYTES = range(24, 65)
_SIGNING_LINES = 2
_SECRET_PREFIXES = ("sk_car_", _SIGNING_PREFIX)


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(NOT_A_DURATION)  # noqa: TRY004  # pydantic reports ValueError only
    if value == 0:
        return 0.0
    if 0 < value < _LARGEST_WITHOUT_UNIT:
        raise ValueError(f"must be a duration with a unit; write {value}s, not {value}")
    raise ValueError(NOT_A_DURATION)


READ_DURATION: Final = BeforeValidator(_read_duration)
"""Distinguishes a Duration from other numbers in a field's metadata."""

Duration = Annotated[float, READ_DURATION, PlainSerializer(format_duration)]
"""Seconds as a float, written and serialised as a Prometheus duration."""


def duration_between(low: str, high: str) -> AfterValidator:
    """Return a validator of a Duration: from ``low`` to ``high``, both included."""
    least, most = parse_duration(low), parse_duration(high)

    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"must be between {low} and {high}")
        return seconds

    return AfterValidator(check)


def number_between(low: int, high: int) -> AfterValidator:
    """Return a validator of a number: from ``low`` to ``high``, both included."""

    def check(number: float) -> float:
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return AfterValidator(check)


def full_match(pattern: str, reason: str) -> AfterValidator:
    """Return a validator: the whole text matches ``pattern``, else ValueError with ``reason``."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(reason)
        return text

    return AfterValidator(check)


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


def check_date(text: str) -> str:
    """Return the text unchanged; raise ValueError unless it is a date such as 2026-03-01."""
    try:
        valid = date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise ValueError('must be a date such as "2026-03-01"')
    return text


def check_regex(text: str) -> str:
    """Return the text unchanged; raise ValueError unless it is a regular expression."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise ValueError("must be a valid regular expression") from None
    return text


def check_printable(text: str) -> None:
    """Refuse control characters and line breaks."""
    if _UNPRINTABLE.search(text):
        raise ValueError("must not contain control characters or line breaks")


def check_header_text(text: str) -> None:
    """Refuse text that cannot be the value of an HTTP header."""
    check_printable(text)
    if not text.isascii():
        raise ValueError("must be ASCII text")


def check_token(text: str) -> None:
    """Refuse a bearer token with anything but printable ASCII without spaces."""
    if _VISIBLE_ASCII.fullmatch(text) is None:
        raise ValueError("must be printable ASCII without spaces or line breaks")


def check_api_key(text: str) -> None:
    """Refuse a garbled key, and an admin key: the fine-tune routes do not accept those."""
    if text.startswith("sk_car_admin_"):
        raise ValueError(
            "is an admin key (sk_car_admin_…), which works only on admin routes;"
            " use a standard sk_car_… key"
        )
    check_token(text)


def check_signing_secret(text: str) -> None:
    """Refuse anything but one Standard Webhooks secret, or two on two lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > _SIGNING_LINES:
        raise ValueError("must have at most two lines, the new secret and the old one")
    for line in lines:
        if not _is_signing_secret(line):
            raise ValueError("must be whsec_ followed by the base64 of 24 to 64 bytes")


def _is_signing_secret(line: str) -> bool:
    try:
        key = base64.b64decode(line.removeprefix(_SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return line.startswith(_SIGNING_PREFIX) and len(key) in _SIGNING_BYTES


def looks_like_secret(text: str) -> bool:
    """Return whether a text is a key or a URL where a path or a variable's name is expected."""
    return text.strip().startswith(_SECRET_PREFIXES) or "://" in text


def _split_url(url: str) -> SplitResult:
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


def check_web_url(url: str) -> None:
    """Refuse anything but an absolute http or https URL."""
    _split_url(url)


def check_url(url: str) -> None:
    """Refuse anything but an absolute https URL, or an http one to a loopback address."""
    parts = _split_url(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "must use https; http is only for loopback addresses, or with allow_http: true"
        )


def check_heartbeat_url(url: str) -> None:
    """Refuse what check_url refuses; the reason does not name allow_http, which has no effect."""
    parts = _split_url(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must use https; http is only for loopback addresses")


def check_without_query(url: str) -> None:
    """Refuse a URL with a query or a fragment: no path can be appended to it."""
    if "?" in url or "#" in url:
        raise ValueError("must not contain a query or a fragment")


def check_without_userinfo(url: str) -> None:
    """Refuse a URL with a user name or a password."""
    if "@" in _split_url(url).netloc:
        raise ValueError("must not contain a user name or a password")


def check_proxy_url(url: str) -> None:
    """Refuse anything but the http or https URL of a proxy; a user and password are allowed."""
    try:
        parts = _split_url(url)
        usable = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the URL of a proxy such as http://host:3128")


def check_apprise_url(url: str) -> None:
    """Refuse anything but one URL, of any scheme."""
    check_printable(url)
    # Apprise would split a text into several URLs. A retry for one that failed would then repeat
    # the message at the others; separate receivers have separate queues.
    if re.search(r"[\s,][a-zA-Z][a-zA-Z0-9+.-]*://", url) is not None:
        raise ValueError("must be one URL; give each service a receiver of its own")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", url) is None:
        raise ValueError("must be an Apprise URL such as mailto://user:password@host")
