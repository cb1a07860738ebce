r"""Regular expressions of the configuration: Python's syntax, evaluated by RE2 in linear time.

RE2 differs from Python in what its escapes and classes mean (https://github.com/google/re2/wiki/
Syntax). So a pattern is translated: every character becomes ``\x{…}``, the flags i, m and s are
resolved, and what RE2 cannot express is refused.
"""

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final

MAX_PATTERN: Final = 1_000
MAX_TEXT: Final = 10_000
"""Longest pattern, and longest text that is compared, in characters."""

_MAX_REPEATS: Final = 1_000  # RE2's kMaxRepeat
_MAX_CLASSES: Final = 50
"""Python takes up to 12 ms to compile each of them with the flag i."""

_ESCAPED: Final = r"""
    \\(?: x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} | N\{[^}]*\} | . )
"""
_TOKEN: Final = re.compile(
    rf"""
    (?P<category> \\[dDsSwW] )
    | (?P<anchor> \\[AZz] | [\^$] )
    | (?P<boundary> \\[bB] )
    | (?P<octal> \\(?: 0[0-7]{{0,2}} | [1-3][0-7]{{2}} ) )
    | (?P<reference> \\[1-9] | \(\?P= )
    | (?P<conditional> \(\?\( )
    | (?P<lookaround> \(\?<?[=!] )
    | (?P<atomic> \(\?> )
    | (?P<comment> \(\?\#[^)]*\) )
    | (?P<group> \((?: \?P<[^>]*> )?(?!\?) )
    | (?P<flags> \(\? (?P<on>[a-zA-Z]*) (?: -(?P<off>[a-zA-Z]+) )? [:)] )
    | (?P<repeat> (?: [*+?] | \{{ (?!\}}) (?P<low>[0-9]*) (?P<comma>,(?P<high>[0-9]*))? \}} )
        (?P<mode>[+?]?) )
    | (?P<close> \) )
    | (?P<branch> \| )
    | (?P<class> \[ )
    | (?P<any> \. )
    | (?P<literal> {_ESCAPED} | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_CLASS_ITEM: Final = re.compile(
    rf"(?P<category> \\[dDsSwW] ) | \\[0-7]{{1,3}} | {_ESCAPED} | .", re.VERBOSE | re.DOTALL
)
_CONTROL: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_QUOTED_PART: Final = re.compile(r""" ?('.*'|".*"|\\\S+|\?\S+|(?<=range )\S.*)""", re.DOTALL)
"""A part of the pattern in a reason of ``re``."""

_REFUSED: Final = {
    "boundary": r"\b and \B are not supported; write what may stand there, such as (.*\W)?",
    "reference": "a reference to a group is not supported; write its text again",
    "conditional": "a condition on a group is not supported; write both alternatives with |",
    "lookaround": "(?= (?! (?<= (?<! are not supported; write what may match instead",
    "atomic": "an atomic group is not supported; write (?: in place of (?>",
    "possessive": "a possessive repetition is not supported; leave out the second +",
    "flag": "only the flags i, m and s are supported",
    "repeats": f"more than {_MAX_REPEATS} repetitions are not supported; use smaller numbers or *",
    "end": r"$ must end the pattern or an alternative; write \Z or \n? here",
}
_RE2_ERRORS: Final = {
    "invalid repetition size": f"nested repetitions must not multiply to more than {_MAX_REPEATS}",
    "pattern too large": "it needs too much memory; use smaller numbers of repetitions",
    "bad nesting": "it is nested too deeply",
}


class PatternError(ValueError):
    """A pattern is invalid or cannot be evaluated by RE2; the text says where and why.

    The text has no part of the pattern, which may be a secret in the wrong place.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        place = "" if position is None else f"character {position + 1}: "
        super().__init__(f"must be a regular expression; {place}{reason}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern."""

    source: str
    _compiled: Any = field(repr=False, compare=False)

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches, as ``re.fullmatch`` with DOTALL decides it.

        Raises ValueError for a text longer than MAX_TEXT and for one with lone surrogates.
        """
        if len(text) > MAX_TEXT:
            raise ValueError(f"the value has more than {MAX_TEXT:,} characters")
        return self._compiled.fullmatch(text) is not None


@lru_cache(256)
def compile_pattern(text: str) -> Pattern:
    """Compile a pattern in the syntax of Python's ``re``; raise PatternError if it is refused."""
    if len(text) > MAX_PATTERN:
        raise PatternError(f"it has more than {MAX_PATTERN} characters")
    if text.count("[") > _MAX_CLASSES:
        raise PatternError(f"it has more than {_MAX_CLASSES} classes")
    _check_syntax(text)
    import re2  # noqa: PLC0415 - 3 MiB that an agent without patterns does not need

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        return Pattern(text, re2.compile(_Translator(text).translate(), options))
    except re2.error as error:
        details = next((t for key, t in _RE2_ERRORS.items() if key in str(error)), None)
        raise PatternError(details or "it cannot be evaluated by RE2") from None


def _check_syntax(text: str) -> None:
    try:
        with warnings.catch_warnings():
            # A FutureWarning says that [[ may get another meaning; here it will keep its own.
            warnings.simplefilter("ignore")
            re.compile(text, re.DOTALL)
    except re.error as error:
        reason = _QUOTED_PART.sub("", error.msg)
        raise PatternError(reason, error.pos) from None
    except RecursionError:
        raise PatternError("it is nested too deeply") from None
    except (ValueError, OverflowError):
        raise PatternError("it has a number that is too large, or flags that conflict") from None


@dataclass(slots=True)
class _Group:
    """An open group: its flags, and where its alternatives end with a ``$``.

    ``ends`` are the positions of ``$`` that nothing follows in the current alternative,
    ``ends_before`` the same of the previous alternatives.
    """

    flags: frozenset[str]
    ends: list[int] = field(default_factory=list)
    ends_before: list[int] = field(default_factory=list)


class _Translator:
    """Translates a pattern that ``re`` accepts into RE2's syntax, token by token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._groups = [_Group(frozenset("s"))]

    def translate(self) -> str:
        """Return the pattern for RE2; raise PatternError for what it cannot express."""
        return "".join(self._tokens())

    def _tokens(self) -> Iterator[str]:
        while self._at < len(self._text):
            token = _TOKEN.match(self._text, self._at)
            assert token is not None  # every character is a literal at least
            self._at = token.end()
            kind = token.lastgroup or ""
            if kind in _REFUSED:
                raise PatternError(_REFUSED[kind], token.start())
            if kind in _ATOMS:
                self._check_nothing_ended()
            yield self._TRANSLATIONS[kind](self, token)

    @property
    def _group(self) -> _Group:
        return self._groups[-1]

    def _check_nothing_ended(self) -> None:
        # Without the flag m, $ also matches before a line break at the end of the text, which RE2
        # cannot express. It makes no difference where nothing follows: the whole text must match.
        if self._group.ends:
            raise PatternError(_REFUSED["end"], self._group.ends[0])

    def _anchor(self, token: re.Match[str]) -> str:
        anchor, by_line = token[0], "m" in self._group.flags
        if anchor in (r"\Z", r"\z"):
            return r"\z"
        if anchor == "$" and not by_line:
            self._group.ends.append(token.start())
            return r"\z"
        self._check_nothing_ended()
        return f"(?m:{anchor})" if by_line and anchor in "^$" else r"\A"

    def _branch(self, token: re.Match[str]) -> str:
        self._group.ends_before += self._group.ends
        self._group.ends = []
        return token[0]

    def _open_group(self, _: re.Match[str]) -> str:
        self._groups.append(_Group(self._group.flags))
        return "(?:"

    def _close_group(self, token: re.Match[str]) -> str:
        closed = self._groups.pop()
        self._group.ends += closed.ends_before + closed.ends
        return token[0]

    def _set_flags(self, token: re.Match[str]) -> str:
        on, off = frozenset(token["on"]), frozenset(token["off"] or "")
        if not (on | off) <= frozenset("ims"):
            raise PatternError(_REFUSED["flag"], token.start())
        flags = (self._group.flags | on) - off
        if token[0].endswith(")"):
            self._group.flags = flags
            return ""
        self._check_nothing_ended()
        self._groups.append(_Group(flags))
        return "(?:"

    def _repeat(self, token: re.Match[str]) -> str:
        self._check_nothing_ended()
        if token["mode"] == "+":
            raise PatternError(_REFUSED["possessive"], token.start())
        if token["low"] is None:
            return token[0]
        low = int(token["low"] or 0)
        high = token["low"] if token["comma"] is None else token["high"]
        if max(low, int(high or 0)) > _MAX_REPEATS:
            raise PatternError(_REFUSED["repeats"], token.start())
        return f"{{{low},{int(high) if high else ''}}}"

    def _category(self, token: re.Match[str]) -> str:
        return f"[{_CATEGORIES[token[0]]}]"

    def _any(self, _: re.Match[str]) -> str:
        return "(?s:.)" if "s" in self._group.flags else r"[^\x{a}]"

    def _literal(self, token: re.Match[str]) -> str:
        character = _character(token[0])
        if "i" in self._group.flags:
            return f"[{_code(character)}{_cased_matches(re.escape(character))}]"
        return _code(character)

    def _class(self, token: re.Match[str]) -> str:
        is_negated = self._text.startswith("^", self._at)
        self._at += is_negated
        content = "".join(self._class_items())
        if "i" in self._group.flags:
            element = self._text[token.start() : self._at]
            content += _cased_matches(element, is_negated=is_negated)
        return f"[{'^' if is_negated else ''}{content}]"

    def _class_items(self) -> Iterator[str]:
        first = self._at
        while self._at == first or self._text[self._at] != "]":
            item = self._class_item()
            if item in _CATEGORIES:
                yield _CLASS_CATEGORIES.get(item) or _matching_ranges(item)
                continue
            character = _character(item)
            if self._text[self._at] == "-" and self._text[self._at + 1] != "]":
                self._at += 1
                yield f"{_code(character)}-{_code(_character(self._class_item()))}"
            else:
                yield _code(character)
        self._at += 1

    def _class_item(self) -> str:
        item = _CLASS_ITEM.match(self._text, self._at)
        assert item is not None
        self._at = item.end()
        return item[0]

    _TRANSLATIONS: ClassVar[Mapping[str, Callable[["_Translator", re.Match[str]], str]]] = {
        "anchor": _anchor,
        "any": _any,
        "branch": _branch,
        "category": _category,
        "class": _class,
        "close": _close_group,
        "comment": lambda *_: "",
        "flags": _set_flags,
        "group": _open_group,
        "literal": _literal,
        "octal": _literal,
        "repeat": _repeat,
    }


_ATOMS: Final = frozenset({"any", "category", "class", "group", "literal", "octal"})


def _character(token: str) -> str:
    """Return the character that a literal stands for, as it is or escaped."""
    if not token.startswith("\\"):
        return token
    kind = token[1]
    if kind in "xuU":
        return chr(int(token[2:], 16))  # noqa: FURB166 - no prefix that int() knows
    if kind == "N":
        return unicodedata.lookup(token[3:-1])
    return chr(int(token[1:], 8)) if kind in "01234567" else _CONTROL.get(kind, kind)


def _code(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"


@lru_cache
def _matching_ranges(pattern: str) -> str:
    """Return all characters that match a pattern of Python, as the content of a class."""
    every_character = "".join(map(chr, range(0x110000)))
    spans = (match.span() for match in re.finditer(f"{pattern}+", every_character))
    return "".join(f"\\x{{{first:x}}}-\\x{{{after - 1:x}}}" for first, after in spans)


@lru_cache(1)
def _cased() -> str:
    """Return all characters that have an upper or a lower case; they are in planes 0 and 1."""
    each = map(chr, range(0x20000))
    return "".join(c for c in each if c.lower() != c or c.upper() != c)


def _cased_matches(element: str, *, is_negated: bool = False) -> str:
    """Return the cased characters that a literal or a class of Python matches with the flag i.

    Taken from Python because RE2 folds cases differently: (?i)[a-z] matches U+0130 and U+0131 in
    Python only. Of a negated class, the characters that it does not match.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = re.findall(element, _cased(), re.IGNORECASE)
    return "".join(map(_code, sorted(set(_cased()).difference(found)) if is_negated else found))


_SPACES: Final = (
    r"\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{3000}"
)
_CLASS_CATEGORIES: Final = {
    r"\w": r"\p{L}\p{N}_",
    r"\d": r"\p{Nd}",
    r"\D": r"\P{Nd}",
    r"\s": _SPACES,
}
"""Categories as Python means them, as they can stand in a class beside others."""
_CATEGORIES: Final = _CLASS_CATEGORIES | {r"\W": r"^\p{L}\p{N}_", r"\S": f"^{_SPACES}"}
"""Categories as the whole content of a class."""
