r"""Patterns: what RE2 answers equals what Python's ``re.fullmatch`` with DOTALL answers."""

# ruff: noqa: RUF001 - characters that look like others are what is tested
import re
import unicodedata
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.pattern import MAX_PATTERN, PatternError, compile_pattern

ELEMENTS = [
    *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", "."),
    *(r"[\w]", r"[\W]", r"[\d]", r"[\D]", r"[\s]", r"[\S]", r"[^\w]", r"[^\W]", r"[^\d]", r"[^\D]"),
    *(r"[^\s]", r"[^\S]", r"[^\W_]", r"[^\W\d_]", r"[\w.-]", r"[\s\d]", r"[^\S\n]", r"[\w\W]"),
    *(r"[\W\d]", r"[\S\x00]", "[a-z]", "[^a-z]", "[\u0130-\u0131]", "[\u00e0-\U0001f600]"),
    *("[[:alpha:]]", r"[\b]", r"[\0-\37]", r"[]a]", r"[^]a]", "[a-]", "[--0]", r"[\]-a]", "[^^]"),
    *(r"\N{LATIN SMALL LETTER A}", r"\u00e9", r"\U0001f600", r"\x7f", r"\141", r"\07", r"\0", "\n"),
    *(
        "a",
        "K",
        "k",
        "s",
        "ſ",
        "ß",
        "ẞ",
        "I",
        "i",
        "İ",
        "ı",
        "Å",
        "å",
        "µ",
        "σ",
        "ς",
        "θ",
        "ǆ",
        "ΐ",
    ),
    *("\u0345", "\u1e9b", "\u0450", "\u10a0", "\u13a0", "\uab70", "\U00010400", "Ω", "ﬅ", "ⅷ", "ⓐ"),
]


def python_matches(pattern: str, text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.fullmatch(pattern, text, re.DOTALL) is not None


@pytest.fixture(scope="module")
def assigned():
    """All characters, but not those that are unassigned: the tables of RE2 may know them already.

    Lone surrogates are left out, too.
    """
    every = map(chr, range(0x110000))
    return "".join(each for each in every if unicodedata.category(each)[1:] not in "ns")


@pytest.mark.parametrize("flag", ["", "(?i)", "(?-s:"])
def test_an_element_matches_the_same_characters_as_in_python(flag, assigned):
    assert len(assigned) > 250_000
    for element in ELEMENTS:
        pattern = f"{flag}(?:{element})+{')' * flag.endswith(':')}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rest = re.sub(pattern, "", assigned, flags=re.DOTALL)
        assert compile_pattern(pattern)._compiled.sub("", assigned) == rest, pattern


CHARACTERS = st.sampled_from("abkKsSiI0_ -.,^$[](){}|?*+\\/\n\r\t\x85\u2028ſKßẞİıåÅéЖжσςǅ漢٣😀\x00")
ESCAPES = st.sampled_from([
    *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\n", r"\t", r"\x41", r"\u0131", r"\U00000130"),
    *(r"\N{KELVIN SIGN}", r"\101", r"\0", r"\.", r"\\", r"\-", r"\]", r"\^", r"\{", r"\~", r"\ "),
])  # fmt: skip
PLAIN = CHARACTERS.map(re.escape)
CLASSES = st.builds(
    "[{}{}]".format,
    st.sampled_from(["", "^", "]", "^]", "-", "[:alpha:]"]),
    st.lists(
        ESCAPES
        | st.sampled_from("abkKsSiI_.$|?*+{}()^:=é😀")
        | st.tuples(st.characters(codec="utf-8"), st.characters(codec="utf-8")).map(
            lambda pair: "-".join(map(re.escape, sorted(pair)))
        ),
        min_size=1,
        max_size=4,
    ).map("".join),
)
ATOMS = PLAIN | ESCAPES | CLASSES | st.sampled_from([".", "{", "}", "{a}", "{}", "]", ",", "-"])
ANCHORS = st.sampled_from(["^", "$", r"\A", r"\Z", "(?m:^)", "(?m:$)", "(?#comment)"])
REPEATS = st.sampled_from(["", "*", "+", "?", "{2}", "{,2}", "{1,}", "{1,2}", "*?", "+?", "{0,3}?"])
PATTERNS = st.recursive(
    st.builds("{}{}".format, ATOMS, REPEATS) | ANCHORS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4).map("".join)
        | st.builds("{}|{}".format, inner, inner)
        | st.builds(
            "{}{}){}".format,
            st.sampled_from(["(", "(?:", "(?i:", "(?s:", "(?-s:", "(?m:", "(?im-s:", "(?-i:"]),
            inner,
            REPEATS,
        )
    ),
    max_leaves=8,
)
WITH_FLAGS = st.builds(
    "{}{}".format, st.sampled_from(["", "", "(?i)", "(?s)", "(?m)", "(?im)"]), PATTERNS
)


@given(pattern=WITH_FLAGS, texts=st.lists(st.text(CHARACTERS, max_size=5), max_size=20))
@example("a$", ["a\n"]).via("a line break at the end")
@example("(?:a|)*b", ["aab"]).via("an empty alternative in a loop")
def test_a_pattern_matches_the_same_texts_as_in_python(pattern, texts):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except re.error:
        with pytest.raises(PatternError, match=r"character \d+: "):
            compile_pattern(pattern)
        return
    try:
        compiled = compile_pattern(pattern)
    except PatternError as error:
        assert r"write \Z or \n? here" in str(error)  # noqa: PT017 - nothing else is refused here
        return
    for text in [*texts, *likely_texts(pattern)]:
        if not any(unicodedata.category(c) in {"Cn", "Cs"} for c in text):
            assert compiled.matches(text) == python_matches(pattern, text), text


def likely_texts(pattern: str) -> list[str]:
    """Return short texts of the characters in a pattern."""
    each = {*pattern, *pattern.swapcase(), "a", "\n", ""}
    return [first + second + end for first in each for second in each for end in ("", "\n")]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "character 1: missing ), unterminated subpattern"),
        ("ab[c", "character 3: unterminated character set"),
        ("*a", "character 1: nothing to repeat"),
        ("a**", "character 3: multiple repeat"),
        ("[z-a]", "character 2: bad character range"),
        ("a\\", "character 2: bad escape (end of pattern)"),
        (r"(?P<hunter2 x>a)", "character 5: bad character in group name"),
        (r"\N{hunter2}", "character 1: undefined character name"),
        ("a(?i)b", "character 2: global flags not at the start of the expression"),
        (r"ab\bc", r"character 3: \b and \B are not supported; write what"),
        (r"\Bc", r"character 1: \b and \B are not supported; write what"),
        ("a(?=b)", "character 2: (?= (?! (?<= (?<! are not supported; write"),
        ("a(?!b)", "character 2: (?= (?! (?<= (?<! are not supported; write"),
        ("(?<=a)b", "character 1: (?= (?! (?<= (?<! are not supported; write"),
        ("(?<!a)b", "character 1: (?= (?! (?<= (?<! are not supported; write"),
        (r"(a)\1", "character 4: a reference to a group is not supported; write its"),
        ("(?P<n>a)(?P=n)", "character 9: a reference to a group is not supported; write its"),
        ("(a)?(?(1)b|c)", "character 5: a condition on a group is not supported; write both"),
        ("(?>a)", "character 1: an atomic group is not supported; write (?: in place"),
        ("ba*+", "character 3: a possessive repetition is not supported; leave out"),
        ("ba{1,2}+", "character 3: a possessive repetition is not supported; leave out"),
        ("(?x) a", "character 1: only the flags i, m and s are supported"),
        ("a(?a:b)", "character 2: only the flags i, m and s are supported"),
        ("(?u)b", "character 1: only the flags i, m and s are supported"),
        ("(?au)b", "flags"),
        ("(?L)b", "flag"),
        ("a$b", "character 2: $ must end the pattern or an alternative; write"),
        ("(a$|b)+", "character 3: $ must end the pattern or an alternative; write"),
        ("ba{1001}", "character 3: more than 1000 repetitions are not supported; use"),
        ("ba{5,1001}", "character 3: more than 1000 repetitions are not supported; use"),
        ("ba{9999999999}", "a number that is too large"),
        ("(a{100}){100}", "nested repetitions must not multiply to more than 1000"),
        (r"\w{1,1000}", "it needs too much memory; use smaller numbers"),
        ("(" * 500 + ")" * 500, "it is nested too deeply"),
        ("a" * (MAX_PATTERN + 1), "it has more than 1000 characters"),
        ("[a]" * 51, "it has more than 50 classes"),
    ],
)
def test_a_pattern_is_refused_with_place_and_reason(pattern, reason):
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert str(caught.value).startswith("must be a regular expression; ")
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_nothing_is_written_to_the_standard_error_by_a_refusal(capfd):
    """RE2 logs its errors itself unless it is told not to."""
    for pattern in (r"\w{1,999}", "(a{100}){100}"):
        with pytest.raises(PatternError):
            compile_pattern(pattern)
    compile_pattern(r".*a.{900}").matches("ab" * 4_000)
    assert capfd.readouterr() == ("", "")
