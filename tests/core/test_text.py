"""Sanitised text is one short line without control characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.text import LONGEST, cut, one_line, shared, storable_text

hostile = st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "L", "So"]))


@pytest.mark.parametrize(
    ("case", "text", "shown"),
    [
        ("plain text stays", "My voice", "My voice"),
        ("line breaks and tabs are spaces", "a\r\nb\tc\x0bd", "a b c d"),
        ("Unicode's own line breaks are too", "a\u2028b\u2029c\x85d", "a b c d"),
        ("nothing is left at the ends", "  a  ", "a"),
        ("control characters go", "a\x00b\x1b[31mc\x7f", "ab[31mc"),
        ("the reading order is not reversed", "invoice\u202egpj.exe", "invoicegpj.exe"),
        ("nothing hides between letters", "a\u200bb\ufeffc\u00add", "abcd"),
        ("no gap is left by what hid", "a \u200b b", "a b"),
        ("what only hides is nothing", "\u200b \u202e\x00", ""),
        ("letters that show nothing are nothing", "\u200d\u3164 \u200d", ""),
        ("lone surrogates go", "a\ud800b", "ab"),
        ("joined emoji stay together", "\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("other scripts stay", "声 звук صوت", "声 звук صوت"),
    ],
)
def test_one_line(case, text, shown):
    assert one_line(text) == shown, case


@given(hostile, st.integers(1, 40))
def test_one_line_is_bounded_and_clean(text, most):
    line = one_line(text, most)
    assert len(line) <= most
    assert line == " ".join(line.split())
    assert {unicodedata.category(c) for c in line if c != "\u200d"} & {"Cc", "Cf", "Cs"} == set()
    line.encode()


def test_one_line_cuts_before_cleaning():
    assert one_line("x" * 50_000_000) == "x" * (LONGEST - 1) + "…"


@given(st.text(), st.integers(1, 20))
def test_cut_marks_only_texts_that_are_too_long(text, most):
    shown = cut(text, most)
    assert len(shown) <= most
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))
    assert (len(text) <= most) == (shown == text) or text == shown


@given(st.text(st.characters()))
def test_storable_text_is_encodable_and_otherwise_unchanged(text):
    stored = storable_text(text)
    assert stored.encode().decode() == stored
    assert stored == "".join(
        "\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text
    )


def test_null_and_lone_surrogates_are_replaced():
    assert storable_text("\ud800a\0\udfff\ud7ff\ue000") == "\ufffda\ufffd\ufffd\ud7ff\ue000"


def test_equal_texts_are_shared():
    """Not for good: an API that always sends new ones would fill the memory."""
    first, again, late = (b"set_1".decode() for _ in range(3))
    assert shared(first) is first
    assert shared(again) is first
    for number in range(10_000):
        shared(f"other_{number}")
    assert shared(late) is late


def test_long_text_is_not_shared():
    first, again = (b"x".decode() * 257 for _ in range(2))
    assert shared(first) is first
    assert shared(again) is again
