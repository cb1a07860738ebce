"""The value types of the configuration: durations, bounded numbers, names, URLs, keys.

A check raises ValueError with a reason that starts with a verb ("must use https"), so that it
reads well behind the path of a key, a file or a variable. No reason repeats the value it refuses.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator

Check = Callable[[str], None]

_MILLISECONDS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_DURATION = re.compile("".join(f"(?:([0-9]{{1,12}}){unit})?" for unit in _MILLISECONDS))
_NOT_A_DURATION = "must be a duration such as 500ms, 30s, 5m or 1h30m"
_LARGEST_GUESS = 1_000_000

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")

_SIGNING_PREFIX = "whsec_"
_SIGNING_BYTES = range(24, 65)
_SIGNING_LINES = 2
_SECRET_PREFIXES = ("sk_car_", _SIGNING_PREFIX)


def parse_duration(text: str) -> float:
    """Return the seconds of a Prometheus-style duration (1h30m, 500ms, 0); else ValueError."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0.0
    if not text or match is None:
        raise ValueError(_NOT_A_DURATION)
    counts = zip(match.groups(default="0"), _MILLISECONDS.values(), strict=True)
    return sum(int(count) * size for count, size in counts) / 1000


def format_duration(seconds: float) -> str:
    """Return seconds, rounded to milliseconds, as the text that parse_duration reads: 1d2h, 50s."""
    rest = round(seconds * 1000)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _MILLISECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(_NOT_A_DURATION)  # noqa: TRY004  # pydantic reports ValueError only
    if value == 0:
        return 0.0
    if 0 < value < _LARGEST_GUESS:
        raise ValueError(f"must be a duration with a unit; write {value}s, not {value}")
    raise ValueError(_NOT_A_DURATION)


READ_DURATION: Final = BeforeValidator(_read_duration)
"""By this one tells a duration from another number."""

Duration = Annotated[float, READ_DURATION]


def lasting(low: str, high: str) -> AfterValidator:
    """Bound a Duration: both ends, written as durations, are allowed."""
    least, most = parse_duration(low), parse_duration(high)

    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"must be between {low} and {high}")
        return seconds

    return AfterValidator(check)


def between(low: int, high: int) -> AfterValidator:
    """Bound a number: both ends are allowed."""

    def check(number: float) -> float:
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return AfterValidator(check)


def matching(pattern: str, reason: str) -> AfterValidator:
    """Bound a text: the whole of it matches the pattern, else ValueError with the reason."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(reason)
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    matching(r"[a-zA-Z0-9_.-]{1,64}", 'must be 1 to 64 letters, digits, "_", "." or "-"'),
]


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the list as it is; ValueError if nothing is in it."""
    if not values:
        raise ValueError("must not be empty")
    return values


def without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the list as it is; ValueError if something is in it twice."""
    if len(set(values)) != len(values):
        raise ValueError("must not list anything twice")
    return values


def check_date(text: str) -> str:
    """Return the text if it is a date as the API's versions are written."""
    try:
        valid = date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise ValueError('must be a date such as "2026-03-01"')
    return text


def check_regex(text: str) -> str:
    """Return the text if it is a regular expression."""
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
    """Refuse what cannot be sent as the value of an HTTP header."""
    check_printable(text)
    if not text.isascii():
        raise ValueError("must be ASCII text")


def check_token(text: str) -> None:
    """Refuse what cannot be a bearer token: other than printable ASCII, or with spaces."""
    if _VISIBLE_ASCII.fullmatch(text) is None:
        raise ValueError("must be printable ASCII without spaces or line breaks")


def check_api_key(text: str) -> None:
    """Refuse an admin key, which the routes of fine-tunes do not take, and a garbled one."""
    if text.startswith("sk_car_admin_"):
        raise ValueError(
            "is an admin key (sk_car_admin_…), which works only on admin routes;"
            " use a standard sk_car_… key"
        )
    check_token(text)


def check_signing_secret(text: str) -> None:
    """Refuse what is not one Standard Webhooks secret, or two of them on two lines."""
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


def looks_secret(text: str) -> bool:
    """Tell whether a text is a key or a URL, where a path or a variable's name is expected."""
    return text.strip().startswith(_SECRET_PREFIXES) or "://" in text


def _split(url: str) -> SplitResult:
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


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_web_url(url: str) -> None:
    """Refuse what is not an absolute http or https URL."""
    _split(url)


def check_url(url: str) -> None:
    """Refuse what is not an absolute https URL, or an http one to a loopback address."""
    parts = _split(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "must use https; http is only for loopback addresses, or with allow_http: true"
        )


def check_heartbeat_url(url: str) -> None:
    """Refuse what check_url refuses, in words that do not name a key heartbeats lack."""
    parts = _split(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must use https; http is only for loopback addresses")


def check_without_query(url: str) -> None:
    """Refuse a URL that cannot be extended by a path."""
    if "?" in url or "#" in url:
        raise ValueError("must not contain a query or a fragment")


def check_without_userinfo(url: str) -> None:
    """Refuse a URL with a user name or a password."""
    if "@" in _split(url).netloc:
        raise ValueError("must not contain a user name or a password")


def check_proxy_url(url: str) -> None:
    """Refuse what is not the http or https URL of a proxy; it may carry a user and password."""
    try:
        parts = _split(url)
        usable = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the URL of a proxy such as http://host:3128")


def check_apprise_url(url: str) -> None:
    """Refuse what is not one URL with any scheme."""
    check_printable(url)
    # Apprise splits a text of several; here each has its own queue, so that none repeats another.
    if re.search(r"[\s,][a-zA-Z][a-zA-Z0-9+.-]*://", url) is not None:
        raise ValueError("must be one URL; give each service a receiver of its own")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", url) is None:
        raise ValueError("must be an Apprise URL such as mailto://user:password@host")
