"""Sanitising, cutting and formatting of text."""

import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

LONGEST: Final = 1000
"""How many characters of a name or a description a message carries."""

# Cc control, Cf format (bidirectional overrides, zero-width), Cs lone surrogates, Zl and Zp breaks.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset({"\u200d"})  # joins emoji
_BLANK: Final = frozenset("\u115f\u1160\u200d\u3164\uffa0 ")  # letters that show nothing

_MANY: Final = 10_000
_LONG: Final = 256
"""How many texts are kept to be shared, and how many characters they have at most."""


def one_line(text: str, most: int = LONGEST) -> str:
    """Return ``text`` as one line of at most ``most`` characters without control characters.

    Line breaks and tabs become spaces; characters that could move a cursor, reverse the reading
    order or hide are removed.
    """
    # Cut before the loop too: a description may be megabytes.
    spaced = " ".join(text[: 4 * most].split())
    shown = (c for c in spaced if c in _KEPT or unicodedata.category(c) not in _HIDDEN)
    # Again: what was removed may have stood between spaces.
    line = " ".join("".join(shown).split())
    return "" if _BLANK.issuperset(line) else cut(line, most)


def cut(text: str, most: int = LONGEST) -> str:
    """Return ``text``, or its beginning and an ellipsis when longer than ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def scalar_text(text: str) -> str:
    """Return ``text`` with lone surrogates spelled out, so that it can be encoded and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def shared(text: str) -> str:
    """Return ``text``, as one object for equal texts of which others came not long ago.

    Not interned: some versions of Python 3.12 keep an interned text for good, and an API may go on
    to make up new ones.
    """
    return _first(text) if len(text) <= _LONG else text


@lru_cache(_MANY)
def _first(text: str) -> str:
    return text


def timestamp(at: float) -> str:
    """Return Unix seconds as RFC 3339 text in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
