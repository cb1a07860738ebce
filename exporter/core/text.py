"""Sanitising, cutting and formatting of text."""

import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

LONGEST: Final = 1000
"""Longest name or description in a message, in characters."""

# Cc control, Cf format (bidirectional overrides, zero-width), Cs lone surrogates, Zl and Zp breaks.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset({"\u200d"})  # joins emoji
_BLANK: Final = frozenset("\u115f\u1160\u200d\u3164\uffa0 ")  # letters that show nothing

_SHARED_TEXTS: Final = 10_000
_LONGEST_SHARED: Final = 256
"""Number of texts kept for sharing, and their longest length in characters."""


def one_line(text: str, most: int = LONGEST) -> str:
    """Return ``text`` as one line of at most ``most`` characters without control characters.

    Line breaks and tabs become spaces; characters that could move a cursor, reverse the reading
    order or hide are removed.
    """
    # Cut before the loop too: a description may be megabytes.
    spaced = " ".join(text[: 4 * most].split())
    shown = (c for c in spaced if c in _KEPT or unicodedata.category(c) not in _HIDDEN)
    # Again: a removed character may have been between two spaces.
    line = " ".join("".join(shown).split())
    return "" if _BLANK.issuperset(line) else cut(line, most)


def cut(text: str, most: int = LONGEST) -> str:
    """Return ``text``, or its beginning and an ellipsis when longer than ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def scalar_text(text: str) -> str:
    """Return ``text`` with lone surrogates escaped, so that it can be encoded and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


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
