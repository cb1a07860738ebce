"""Bodies are decoded as the API documents them, or refused with a reason."""

import codecs
import json
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page, Problem, read_page, read_problem
from exporter.core.model import FineTune

KEY = "sk_car_test.secret"
DOCUMENTED = b"""
{"data": [{"id": "fine_tune_1", "name": "Ada", "description": "Ada's voice", "language": "en",
           "model_id": "sonic-3", "dataset": "dataset_1", "status": "training"}],
 "has_more": true}
"""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def read_item(**fields):
    """Return the fine-tune decoded from an item with an id and these fields."""
    body = json.dumps({"data": [{"id": "a", **fields}], "has_more": False}).encode()
    (fine_tune,) = read_page(body).fine_tunes
    return fine_tune


def test_all_fields_of_a_documented_page_are_read():
    voice = FineTune("fine_tune_1", "Ada", "Ada's voice", "en", "sonic-3", "dataset_1", "training")
    assert read_page(DOCUMENTED) == Page([voice], has_more=True)


def test_an_empty_last_page_is_valid():
    assert read_page(b'{"data":[],"has_more":false}') == Page([], has_more=False)


SHARED = ("language", "model_id", "dataset", "status")


def test_equal_texts_of_fine_tunes_are_held_once():
    """The decoder creates new ones each time."""
    one, other = (read_item(**dict.fromkeys(SHARED, "the same")) for _ in range(2))
    for name in SHARED:
        assert getattr(one, name) is getattr(other, name)


def test_a_missing_or_null_text_is_empty():
    for name in ("name", "description", "language", "dataset"):
        for fields in ({}, {name: None}, {name: ""}):
            assert getattr(read_item(**fields), name) == "", (name, fields)


def test_a_missing_null_or_empty_status_or_model_is_unknown():
    for name in ("status", "model_id"):
        for fields in ({}, {name: None}, {name: ""}):
            assert getattr(read_item(**fields), name) == "unknown", (name, fields)


@pytest.mark.parametrize("status", ["queued", "FAILED", " failed ", "\U0001f3a4", "x" * 500])
def test_an_unknown_status_is_kept_as_sent(status):
    assert read_item(status=status).status == status


@pytest.mark.parametrize("extra", [None, 1, "text", [{"deep": []}], {"accent": "parisian"}])
def test_unknown_fields_are_ignored(extra):
    body = {"data": [{"id": "a", "accent": extra}], "has_more": False, "next_page": extra}
    assert read_page(json.dumps(body).encode()) == Page([FineTune("a")], has_more=False)


def test_a_text_of_another_type_is_read_as_its_json():
    for value, text in (
        (5, "5"),
        (1.5, "1.5"),
        (False, "false"),
        ([], "[]"),
        ({"a": ["b"]}, '{"a": ["b"]}'),
        (float("nan"), "NaN"),
    ):
        for name in ("name", "description", "language", "dataset", "status"):
            assert getattr(read_item(**{name: value}), name) == text, name


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        pytest.param(rb"a\ud800b", "a\ufffdb", id="half of a pair, escaped"),
        pytest.param(rb"\udc00\ud800", "\ufffd\ufffd", id="a pair in the wrong order, escaped"),
        pytest.param(b"\xed\xa0\x80", "\ufffd" * 3, id="half of a pair, as bytes"),
        pytest.param(rb"a\u0000b", "a\ufffdb", id="null, escaped"),
        pytest.param(rb"\\u0000 \u0000", "\\u0000 \ufffd", id="null, beside its look-alike"),
        pytest.param(b"a\x00b", "a\ufffdb", id="null"),
        pytest.param(b"\x01\x1b[31m\x1f", "\ufffd\ufffd[31m\ufffd", id="control characters"),
        pytest.param(b"a\tb\r\nc", "a\ufffdb\ufffd\ufffdc", id="tab and line end"),
        pytest.param(rb"a\tb\nc\u0007", "a\tb\nc\x07", id="escaped control characters"),
        pytest.param(b"\xff", "\ufffd", id="no UTF-8"),
        pytest.param("Zoë".encode("latin-1"), "Zo\ufffd", id="Latin-1"),
        pytest.param("\U0001f3a4".encode()[:3], "\ufffd" * 3, id="cut inside a character"),
        pytest.param(b'\\"\xe2\x82\\"', '"\ufffd\ufffd"', id="beside escaped quotes"),
        pytest.param("é \ufffd ".encode(), "é \ufffd ", id="a replacement character"),
    ],
)
@pytest.mark.parametrize("field", ["name", "description", "language", "dataset", "status"])
def test_what_no_text_can_contain_is_replaced(field, sent, text):
    item = b'{"id":"a","%b":"%b"}' % (field.encode(), sent)
    page = read_page(b'{ "data":[%b,\t{"id":"b"}],\r\n"has_more":false}' % item)
    assert [fine_tune.id for fine_tune in page.fine_tunes] == ["a", "b"]
    assert getattr(page.fine_tunes[0], field) == text


@pytest.mark.parametrize(
    "sent", [b"\xff", b"\x1f", b"\n", b"\x00", rb"\u0000", rb"\ud800", b"\xed\xa0\x80", b"\xe2\x82"]
)
def test_an_id_with_what_no_text_can_contain_is_refused_with_its_place(sent):
    """As a cursor it would be another one."""
    body = b'{"data":[{"id":"a"},{"id":"b%b"}],"has_more":false}' % sent
    with pytest.raises(CartesiaError, match="item 1 has an id with characters that are not text"):
        read_page(body)


def test_an_id_may_have_escaped_control_characters_and_a_replacement_character():
    body = r'{"data":[{"id":"a\n\u0007","name":"\ud800"},{"id":"\ufffd�"}],"has_more":false}'
    assert [each.id for each in read_page(body.encode()).fine_tunes] == ["a\n\x07", "\ufffd\ufffd"]


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
def test_texts_that_databases_index_are_cut_at_2000_bytes(character):
    kept = character * (2_000 // len(character.encode()))
    for name in SHARED:
        assert getattr(read_item(**{name: kept}), name) == kept, name
        cut = getattr(read_item(**{name: kept + character}), name)
        assert cut.endswith("…"), name
        assert kept.startswith(cut[:-1]), name
        assert len(cut.encode()) <= 2_000, name
    # An id is not cut: it would be that of another fine-tune.
    assert read_item(name=kept * 100, id=kept * 100).id == kept * 100


def test_null_data_is_the_empty_list_on_the_last_page_only():
    assert read_page(b'{"data":null,"has_more":false}') == Page([], has_more=False)


def test_a_surrogate_pair_is_one_character():
    page = read_page(b'{"data":[{"id":"a","name":"\\ud83c\\udfa4"}],"has_more":false}')
    assert page.fine_tunes[0].name == "\U0001f3a4"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_accepted(encoding):
    assert read_page(DOCUMENTED.decode().encode(encoding)) == read_page(DOCUMENTED)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"<html>Bad gateway</html>", "not JSON", id="HTML"),
        pytest.param(DOCUMENTED[:-4], "not JSON", id="truncated"),
        pytest.param(DOCUMENTED + b"x", "not JSON", id="text after it"),
        pytest.param(codecs.BOM_UTF8, "not JSON", id="a byte order mark alone"),
        pytest.param(b'{"data":[],"has_more":\xfffalse}', "not JSON", id="not UTF-8"),
        pytest.param(b'{"data":[],\x01"has_more":false}', "not JSON", id="a control character"),
        pytest.param(b'{"data":%b,"has_more":false}' % (b"9" * 5000), "not JSON", id="huge number"),
        pytest.param(b"[]", "not a JSON object", id="a list"),
        pytest.param(b"null", "not a JSON object", id="null"),
        pytest.param(b"NaN", "not a JSON object", id="not a number"),
        pytest.param(b'"text"', "not a JSON object", id="a text"),
        pytest.param(b"{}", "`data` is not a list", id="nothing in it"),
        pytest.param(b'{"has_more":false}', "`data` is not a list", id="no data"),
        pytest.param(b'{"data":null,"has_more":true}', "`data` is not a list", id="data null"),
        pytest.param(b'{"data":null}', "`data` is not a list", id="data null alone"),
        pytest.param(b'{"data":{},"has_more":false}', "`data` is not a list", id="data an object"),
        pytest.param(b'{"data":NaN,"has_more":false}', "`data` is not a list", id="data NaN"),
        pytest.param(b'{"data":"","has_more":false}', "`data` is not a list", id="data a text"),
        pytest.param(b'{"data":[]}', "`has_more` is missing", id="no has_more"),
        pytest.param(b'{"data":[],"has_more":null}', "`has_more` is missing", id="has_more null"),
        pytest.param(b'{"data":[],"has_more":0}', "`has_more` is missing", id="has_more 0"),
        pytest.param(b'{"data":[],"has_more":"false"}', "`has_more` is missing", id="text"),
        pytest.param(b'{"Data":[],"has_more":false}', "`data` is not a list", id="another case"),
    ],
)
def test_a_body_that_is_not_a_page_is_refused(body, reason):
    with pytest.raises(CartesiaError, match=f"invalid page: .*{reason}"):
        read_page(body)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param("{}", id="no id"),
        pytest.param('{"name":"b"}', id="a name but no id"),
        pytest.param('{"id":null}', id="id null"),
        pytest.param('{"id":""}', id="id empty"),
        pytest.param('{"id":"","name":7}', id="id empty with a name of another type"),
        pytest.param("null", id="null"),
        pytest.param('"b"', id="a text"),
        pytest.param("[]", id="a list"),
        pytest.param("7", id="a number"),
    ],
)
def test_a_page_with_an_item_without_id_is_refused(item):
    with pytest.raises(CartesiaError, match="item 1 has no id"):
        read_page(f'{{"data":[{{"id":"a"}},{item},{{"id":"c"}}],"has_more":false}}'.encode())


@pytest.mark.parametrize("odd", ["7", '["b"]', "false", "{}"])
def test_a_page_with_an_id_that_is_not_a_string_is_refused(odd):
    with pytest.raises(CartesiaError, match="item 1 has an id that is not a text"):
        read_page(f'{{"data":[{{"id":"a"}},{{"id":{odd}}}],"has_more":false}}'.encode())


ALL_FIELDS = {name: name for name in FineTune.__struct_fields__}


@pytest.mark.parametrize("name", [b"stat\xffus", b"stat\x01us", rb"stat\ud800us"])
def test_a_damaged_name_of_a_field_is_refused_if_a_field_is_missing(name):
    """One flipped bit could remove a field, and so change the status of a fine-tune."""
    damaged = b'{"id":"a","name":"","description":"","language":"","model_id":"","dataset":"",'
    body = b'{"data":[%b"%b":"failed"}],"has_more":false}' % (damaged, name)
    with pytest.raises(CartesiaError, match="item 0 has a field whose name is not text"):
        read_page(body)
    whole = json.dumps(ALL_FIELDS).encode()[:-1]
    page = read_page(b'{"data":[%b,"%b":"failed"}],"has_more":false}' % (whole, name))
    assert page.fine_tunes == [FineTune(**ALL_FIELDS)]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"data":[{"id":"a","x":"\xfe"}],"has_more":false}', id="an ignored text"),
        pytest.param(b'{"data":[{"id":"a"}],"has_more":false,"\xc3\x28":1}', id="beside the data"),
    ],
)
def test_what_is_ignored_may_be_no_utf_8(body):
    assert read_page(body) == Page([FineTune("a")], has_more=False)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{{"data":{},"has_more":false}}', id="as the data"),
        pytest.param('{{"data":[{{"id":"a"}}],"has_more":false,"more":{}}}', id="beside the data"),
        pytest.param('{{"data":[{{"id":"a","name":{}}}],"has_more":false}}', id="as a name"),
        pytest.param("{}", id="as the body"),
    ],
)
def test_deeply_nested_json_is_a_page_or_refused(body):
    """Near the recursion limit, what json can read may be too deep for it to write."""
    limit = sys.getrecursionlimit()
    for depth in (*range(limit - 150, limit), 100_000):
        nested = "[" * depth + "]" * depth
        with suppress(CartesiaError):
            read_page(body.format(nested).encode())


@given(st.binary())
def test_any_bytes_are_a_page_or_refused(body):
    with suppress(CartesiaError):
        assert isinstance(read_page(body), Page)


@given(st.binary(max_size=20), st.integers(0))
def test_any_bytes_in_a_page_change_no_other_item(garbage, where):
    """Or refuse the page."""
    text = b"voice of Ada"
    name = text[: where % len(text)] + garbage + text[where % len(text) :]
    body = b'{"data":[{"id":"a","name":"%b"},{"id":"b","name":"Bram"}],"has_more":true}' % name
    with suppress(CartesiaError):
        page = read_page(body)
        assert page.has_more
        assert page.fine_tunes[-1] == FineTune("b", "Bram")
        assert all(getattr(each, f).encode() for each in page.fine_tunes for f in ("id", "status"))


items = st.dictionaries(st.sampled_from(FineTune.__struct_fields__), json_values, max_size=4)


@given(
    json_values
    | st.fixed_dictionaries(
        {"data": json_values | st.lists(items, max_size=4), "has_more": json_values}
    )
)
def test_any_json_is_a_page_of_encodable_texts_or_refused(value):
    try:
        page = read_page(json.dumps(value).encode())
    except CartesiaError:
        return
    assert [fine_tune.id for fine_tune in page.fine_tunes if not fine_tune.id] == []
    for fine_tune in page.fine_tunes:
        for name in FineTune.__struct_fields__:
            assert b"\0" not in getattr(fine_tune, name).encode()


def test_an_error_body_is_read():
    body = b'{"error_code":null,"title":"Bad","message":"No","request_id":"r","doc_url":"u"}'
    assert read_problem(body, KEY) == Problem("Bad", "No", "r", is_complete=True)


@pytest.mark.parametrize(
    "body",
    [b"", b"Title: Message", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"title":7,"message":[]}'],
)
def test_a_body_that_is_not_an_error_body_is_empty(body):
    assert read_problem(body, KEY) == Problem()


def test_an_error_body_may_be_damaged():
    body = b'{"title":"Zo\xeb\n","message":"Pl\x07ease wait"}'
    problem = read_problem(body, KEY)
    assert (problem.title, problem.message) == ("Zo", "Please wait")


def test_texts_of_an_error_body_are_short_and_printable():
    hostile = "a\x1b[31m\nb\u202e\ud800" + "c" * 10_000
    problem = read_problem(json.dumps({"title": hostile, "request_id": hostile}).encode(), KEY)
    assert problem.title == problem.request_id
    assert problem.title.startswith("a[31m b")
    assert len(problem.title) == 200
    assert problem.title.isprintable()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        pytest.param(KEY, f"The key {KEY} is bad", id="whole"),
        pytest.param("odd+/=~key", "The key odd+/=~key is bad", id="a key of another format"),
        pytest.param("sk_car_a+b/c=", "Key sk_car_a+b/c=, is bad", id="a key with punctuation"),
        pytest.param("odd+/=~key", "x" * 195 + "odd+/=~key", id="where the text is truncated"),
        pytest.param("odd+/=~key", "odd+\u200b/=~key", id="with an invisible character in it"),
        pytest.param(KEY, "Key sk_car_other+secret", id="another key"),
        pytest.param(KEY, "Key sk_car_test.sec...", id="its prefix"),
    ],
)
def test_keys_in_an_error_body_are_masked(key, text):
    fields = dict.fromkeys(("title", "message", "request_id"), text)
    problem = read_problem(json.dumps(fields).encode(), key)
    assert problem.title == problem.message == problem.request_id
    assert key not in problem.title
    assert "…" in problem.title
    assert not any(part in problem.title for part in ("sec", "+", "odd"))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_error_body_is_read_without_an_exception(body):
    assert isinstance(read_problem(body, KEY), Problem)
