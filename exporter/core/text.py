"""Sanitising, cutting, parsing and formatting of text."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

LONGEST: Final = 1000
"""Longest name or description in a message, in characters."""

# Cc control, Cf format (bidirectional overrides, zero-width), Cs lone surrogates, Zl and Zp breaks.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset({"\u200d"})  # joins emoji
_BLANK: Final = frozenset("\u115f\u1160\u200d\u3164\uffa0 ")  # letters that show nothing

_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")

_MAX_BYTES_PER_CHARACTER: Final = 4
_ELLIPSIS: Final = "…"

_SHARED_TEXTS: Final = 10_000
_LONGEST_SHARED: Final = 256
"""Number of texts kept for sharing, and their longest length in characters."""

_MILLISECONDS: Final = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_DURATION: Final = re.compile("".join(f"(?:([0-9]{{1,12}}){unit})?" for unit in _MILLISECONDS))
NOT_A_DURATION: Final = "must be a duration such as 500ms, 30s, 5m or 1h30m"


def one_line(text: str, most: int = LONGEST) -> str:
    """Return ``text`` as one line of at most ``most`` characters without control characters.

    Line breaks and tabs become spaces; characters that could move a cursor, reverse the reading
    order or hide are removed.
    """
    # Cut before the loop too: a description may be megabytes.
    spaced = " ".join(text[: 4 * most].split())
    if spaced.isprintable():
        return "" if _BLANK.issuperset(spaced) else cut(spaced, most)
    shown = (c for c in spaced if c in _KEPT or unicodedata.category(c) not in _HIDDEN)
    # Again: a removed character may have been between two spaces.
    line = " ".join("".join(shown).split())
    return "" if _BLANK.issuperset(line) else cut(line, most)


def cut(text: str, most: int = LONGEST) -> str:
    """Return ``text``, or its beginning and an ellipsis when longer than ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def cut_bytes(text: str, most: int) -> str:
    """Return ``text``, or its beginning and an ellipsis when longer than ``most`` bytes in UTF-8.

    No character is cut in two.
    """
    if len(text) * _MAX_BYTES_PER_CHARACTER <= most:
        return text
    # Cut before it is encoded, too: an API text may be megabytes.
    encoded = text[: most + 1].encode()
    if len(encoded) <= most:
        return text
    kept = encoded[: most - len(_ELLIPSIS.encode())]
    return kept.decode(errors="ignore") + _ELLIPSIS


def storable_text(text: str) -> str:
    """Return ``text`` with U+0000 and lone surrogates replaced by U+FFFD.

    UTF-8 cannot encode the latter, and PostgreSQL cannot store the former.
    """
    return _NOT_STORABLE.sub("\ufffd", text)


def searchable(*texts: str) -> str:
    """Return texts in the form in which parts of them are searched for, whatever their case."""
    return "\n".join(texts).casefold()


def shared(text: str) -> str:
    """Return ``text``, as the same object for recently used equal texts.

    ``sys.intern`` is no alternative: some versions of Python 3.12 never free an interned text, and
    the API may always send new ones.
    """
    return _first(text) if len(text) <= _LONGEST_SHARED else text


@lru_cache(_SHARED_TEXTS)
def _first(text: str) -> str:
    return text


def timestamp(at: float) -> str:
    """Return Unix seconds as RFC 3339 text in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def readable_time(at: float) -> str:
    """Return Unix seconds as a time in UTC for people, to the minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def parse_duration(text: str) -> float:
    """Return the seconds of a Prometheus-style duration (1h30m, 500ms, 0); else ValueError."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0.0
    if not text or match is None:
        raise ValueError(NOT_A_DURATION)
    counts = zip(match.groups(default="0"), _MILLISECONDS.values(), strict=True)
    return sum(int(count) * size for count, size in counts) / 1000


def format_duration(seconds: float) -> str:
    """Return seconds, rounded to milliseconds, as the text that parse_duration reads: 1d2h, 50s."""
    rest = round(seconds * 1000)
    terms = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _MILLISECONDS[unit])
        if count:
            terms.append(f"{count}{unit}")
    return "".join(terms) or "0s"


def rounded_duration(seconds: float) -> str:
    """Return a duration in at most two units: 2 d 3 h, 2 h 05 min, 58 min, 41 s."""
    rest = max(round(seconds), 0)
    days, hours, minutes = rest // 86_400, rest // 3600 % 24, rest // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{rest} s"


def ordinal(number: int) -> str:
    """Return a number as a place in a row: 1st, 2nd, 3rd, 4th, 11th."""
    teens = number // 10 % 10 == 1
    suffix = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Return words as an enumeration: a, b and c."""
    if len(words) <= 1:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def capitalized(text: str) -> str:
    """Return a text with its first character in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def os_error_text(error: OSError) -> str:
    """Return the system's reason, such as "Permission denied", without error number and path."""
    return error.strerror or str(error) or type(error).__name__
