"""The listing is complete or it is a CartesiaError."""

import asyncio
import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister
from exporter.cartesia.pages import read_page


class Api:
    """A list in memory; `faults` replaces the answer to the n-th request (from 1)."""

    def __init__(self, ids, size=2, faults=None):
        self.ids = list(ids)
        self.size = size
        self.faults = faults or {}
        self.cursors = []

    async def fetch(self, cursor):
        self.cursors.append(cursor)
        fault = self.faults.get(len(self.cursors))
        if isinstance(fault, Exception):
            raise fault
        return read_page(self.page(cursor) if fault is None else fault)

    def page(self, cursor):
        begin = 0 if cursor is None else self.ids.index(cursor) + 1
        end = begin + self.size
        return body(self.ids[begin:end], end < len(self.ids))


def body(ids, has_more):
    data = [{"id": text, "status": "created"} for text in ids]
    return json.dumps({"data": data, "has_more": has_more}).encode()


def listed(api, on_page=None):
    return asyncio.run(Lister().read([api.fetch], on_page))


def refused(api, reason="protocol", match=None):
    with pytest.raises(CartesiaError, match=match) as caught:
        listed(api)
    assert caught.value.reason == reason
    return caught.value


def gone(status=404):
    return CartesiaError("client_error", "no such cursor", status=status)


def test_the_cursor_is_the_last_id_and_has_more_false_ends_it():
    api = Api("abcde")
    listing = listed(api)
    assert list(listing.fine_tunes) == list("abcde")
    assert listing.pages == 3
    assert api.cursors == [None, "b", "d"]


def test_a_last_page_that_is_full_is_not_followed():
    api = Api("abcd")
    assert list(listed(api).fine_tunes) == list("abcd")
    assert api.cursors == [None, "b"]


def test_an_empty_account_is_one_page():
    listing = listed(Api(""))
    assert (dict(listing.fine_tunes), listing.pages) == ({}, 1)


def test_a_short_page_does_not_end_it_while_more_follow():
    faults = {1: body("a", has_more=True), 2: body("bcd", has_more=False)}
    assert list(listed(Api("", faults=faults)).fine_tunes) == list("abcd")


def test_an_empty_last_page_ends_it():
    faults = {1: body("ab", has_more=True), 2: body("", has_more=False)}
    assert list(listed(Api("", faults=faults)).fine_tunes) == list("ab")


def test_the_later_of_two_items_with_one_id_counts_at_the_place_of_the_first():
    later = b'{"data":[{"id":"c"},{"id":"a","status":"failed"}],"has_more":false}'
    listing = listed(Api("ab", faults={1: body("ab", has_more=True), 2: later}))
    assert [(i, f.status) for i, f in listing.fine_tunes.items()] == [
        ("a", "failed"),
        ("b", "created"),
        ("c", "unknown"),
    ]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("status", [None, 401, 429, 500])
def test_an_error_on_any_page_is_the_listings_error(number, status):
    error = CartesiaError("server_error", "boom", status=status, retryable=True, retry_after=7)
    api = Api("abcdef", faults={number: error})
    told = refused(api, "server_error")
    assert str(told) == ("boom" if number == 1 else f"page {number}: boom")
    assert (told.status, told.retryable, told.retry_after) == (status, True, 7)
    assert len(api.cursors) == number


@pytest.mark.parametrize(
    ("pages", "number"),
    [
        pytest.param([""], 1, id="the first page is empty but more follow"),
        pytest.param(["ab", ""], 2, id="the second page is empty but more follow"),
        pytest.param(["ab", "ab"], 2, id="the cursor is ignored"),
        pytest.param(["ab", "xb"], 2, id="another page ends with the same id"),
        pytest.param(["ab", "cd", "ab"], 3, id="two pages in turn"),
        pytest.param(["ab", "cd", "ef", "cd"], 4, id="a cycle that leaves out the first page"),
    ],
)
def test_pages_that_never_end_are_found_out(pages, number):
    faults = {n: body(ids, has_more=True) for n, ids in enumerate(pages, 1)}
    api = Api("", faults=faults)
    refused(api, match=f"page {number} ")
    assert len(api.cursors) == number


@pytest.mark.parametrize("status", [400, 404])
def test_a_cursor_that_is_gone_begins_the_listing_again_once(status):
    api = Api("abcde", faults={3: gone(status)})
    listing = listed(api)
    assert list(listing.fine_tunes) == list("abcde")
    assert listing.pages == 3
    assert api.cursors == [None, "b", "d", None, "b", "d"]


def test_what_was_read_before_the_new_beginning_is_forgotten():
    api = Api("acd", faults={1: body("ab", has_more=True), 2: gone()})
    assert list(listed(api).fine_tunes) == list("acd")


@pytest.mark.parametrize("status", [400, 404])
def test_a_second_cursor_that_is_gone_fails_the_listing(status):
    api = Api("abcde", faults={2: gone(), 4: gone(status)})
    assert str(refused(api, "client_error")) == "page 2: no such cursor"
    assert api.cursors == [None, "b", None, "b"]


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_first_page_does_not_begin_again(status):
    api = Api("abc", faults={1: gone(status)})
    assert refused(api, "client_error").status == status
    assert api.cursors == [None]


def test_after_a_new_beginning_a_refused_first_page_fails_the_listing():
    api = Api("abc", faults={2: gone(), 3: gone()})
    refused(api, "client_error")
    assert api.cursors == [None, "b", None]


@pytest.mark.parametrize("status", [401, 403, 405, 410, 422])
def test_other_refusals_of_a_continuation_do_not_begin_again(status):
    api = Api("abc", faults={2: gone(status)})
    refused(api, "client_error")
    assert api.cursors == [None, "b"]


def test_progress_is_told_after_each_page_and_starts_over_with_the_listing():
    told = []
    listed(Api("abcde", faults={3: gone()}), lambda *progress: told.append(progress))
    assert told == [(1, 2), (2, 4), (1, 2), (2, 4), (3, 5)]


def test_a_list_of_a_million_fine_tunes_and_no_end_is_given_up(monkeypatch):
    """A page is bounded in bytes, but a fine-tune may be as short as its id."""
    monkeypatch.setattr("exporter.cartesia.listing._MOST_FINE_TUNES", 4)
    assert len(listed(Api("abcd")).fine_tunes) == 4
    assert "larger than 1,000,000 fine-tunes" in str(refused(Api("abcdefgh"), "too_large"))


def test_an_odd_page_is_named_by_its_number_and_nothing_of_it_is_quoted():
    error = refused(Api("abc", faults={2: b'{"data":[{"name":"x-secret"}],"has_more":false}'}))
    assert str(error) == "page 2: an odd page: item 0 has no id"


lists_of_ids = st.lists(st.text(min_size=1, max_size=3).filter(str.isascii), unique=True)
sizes = st.integers(1, 7)


@given(lists_of_ids, sizes)
def test_any_list_is_read_exactly_and_in_order_with_no_request_too_many(ids, size):
    api = Api(ids, size)
    listing = listed(api)
    requests = max(1, ceil(len(ids) / size))
    assert list(listing.fine_tunes) == ids
    assert listing.pages == len(api.cursors) == requests
    assert api.cursors == [None, *(ids[n * size - 1] for n in range(1, requests))]


BROKEN = [
    b"",
    b"{",
    b"[]",
    b'{"data":null,"has_more":false}',
    b'{"has_more":false}',
    b'{"data":[]}',
    b'{"data":[],"has_more":null}',
    b'{"data":[],"has_more":true}',
    b'{"data":[{"name":"no id"}],"has_more":false}',
    b'{"data":[{"id":""}],"has_more":false}',
    b'{"data":["a"],"has_more":false}',
    CartesiaError("timeout", "late"),
    CartesiaError("server_error", "boom", status=500),
    CartesiaError("too_large", "a page is larger"),
]


@given(lists_of_ids.filter(bool), sizes, st.data())
def test_one_broken_page_never_gives_a_smaller_listing(ids, size, data):
    number = data.draw(st.integers(1, ceil(len(ids) / size)))
    api = Api(ids, size, {number: data.draw(st.sampled_from(BROKEN))})
    with pytest.raises(CartesiaError):
        listed(api)


@given(lists_of_ids.filter(lambda ids: len(ids) > 1), st.data())
def test_a_repeated_page_never_gives_a_smaller_listing(ids, data):
    """As a server does that ignores the cursor from some page on."""
    number = data.draw(st.integers(2, len(ids)))
    earlier = data.draw(st.integers(1, number - 1))
    again = Api(ids, 1).page(None if earlier == 1 else ids[earlier - 2])
    with pytest.raises(CartesiaError):
        listed(Api(ids, 1, {number: again}))
