"""A listing is complete, or it is a CartesiaError."""

import itertools
import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import ReadSettings
from exporter.cartesia.pages import read_page
from tests.cartesia.client_fixture import new_lister


class ListApi:
    """A list in memory; ``faults`` replace the answers to the n-th requests (from 1)."""

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


async def read(api, on_page=None):
    return await new_lister().read([api.fetch], ReadSettings(on_page=on_page))


async def read_ids(api):
    return list((await read(api)).fine_tunes)


async def read_error(api, reason="protocol", match=None):
    with pytest.raises(CartesiaError, match=match) as caught:
        await read(api)
    assert caught.value.reason == reason
    return caught.value


def gone(status=404):
    return CartesiaError("client_error", "no such cursor", status=status)


async def test_the_last_id_is_the_cursor_until_has_more_is_false():
    api = ListApi("abcde")
    listing = await read(api)
    assert list(listing.fine_tunes) == list("abcde")
    assert listing.pages == 3
    assert api.cursors == [None, "b", "d"]


async def test_a_last_page_that_is_full_is_not_followed():
    api = ListApi("abcd")
    assert await read_ids(api) == list("abcd")
    assert api.cursors == [None, "b"]


async def test_an_empty_list_is_one_page():
    listing = await read(ListApi(""))
    assert (dict(listing.fine_tunes), listing.pages) == ({}, 1)


async def test_a_short_page_does_not_end_the_list():
    faults = {1: body("a", has_more=True), 2: body("bcd", has_more=False)}
    assert await read_ids(ListApi("", faults=faults)) == list("abcd")


async def test_an_empty_last_page_ends_the_list():
    faults = {1: body("ab", has_more=True), 2: body("", has_more=False)}
    assert await read_ids(ListApi("", faults=faults)) == list("ab")


async def test_of_two_items_with_one_id_the_later_counts_in_the_place_of_the_first():
    later = b'{"data":[{"id":"c"},{"id":"a","status":"failed"}],"has_more":false}'
    listing = await read(ListApi("ab", faults={1: body("ab", has_more=True), 2: later}))
    assert [(i, f.status) for i, f in listing.fine_tunes.items()] == [
        ("a", "failed"),
        ("b", "created"),
        ("c", "unknown"),
    ]


async def test_an_error_of_any_page_is_raised_with_the_page_number():
    for number, status in itertools.product([1, 2, 3], [None, 401, 429, 500]):
        error = CartesiaError("server_error", "boom", status=status, retryable=True, retry_after=7)
        api = ListApi("abcdef", faults={number: error})
        raised = await read_error(api, "server_error")
        assert str(raised) == ("boom" if number == 1 else f"page {number}: boom")
        assert (raised.status, raised.retryable, raised.retry_after) == (status, True, 7)
        assert len(api.cursors) == number


@pytest.mark.parametrize(
    ("pages", "number"),
    [
        pytest.param([""], 1, id="the first page is empty but more follow"),
        pytest.param(["ab", ""], 2, id="the second page is empty but more follow"),
        pytest.param(["ab", "ab", "ab"], 3, id="the cursor is ignored"),
        pytest.param(["ab", "xb", "yb"], 3, id="all pages end with the same id"),
        pytest.param(["ab", "cd", "ab", "cd", "ab"], 5, id="two pages in turn"),
        pytest.param(["ab", *["cd", "ef"] * 3], 6, id="a cycle that leaves out the first page"),
    ],
)
async def test_endless_lists_are_detected(pages, number):
    faults = {n: body(ids, has_more=True) for n, ids in enumerate(pages, 1)}
    api = ListApi("", faults=faults)
    await read_error(api, match=f"page {number} ")
    assert len(api.cursors) == number


@pytest.mark.parametrize("status", [400, 404])
async def test_a_deleted_cursor_restarts_the_listing_once(status):
    api = ListApi("abcde", faults={3: gone(status)})
    listing = await read(api)
    assert list(listing.fine_tunes) == list("abcde")
    assert listing.pages == 3
    assert api.cursors == [None, "b", "d", None, "b", "d"]


async def test_a_restarted_listing_drops_what_was_read_before():
    api = ListApi("acd", faults={1: body("ab", has_more=True), 2: gone()})
    assert await read_ids(api) == list("acd")


@pytest.mark.parametrize("status", [400, 404])
async def test_a_second_deleted_cursor_fails_the_listing(status):
    api = ListApi("abcde", faults={2: gone(), 4: gone(status)})
    assert str(await read_error(api, "client_error")) == "page 2: no such cursor"
    assert api.cursors == [None, "b", None, "b"]


@pytest.mark.parametrize("status", [400, 404])
async def test_a_refused_first_page_does_not_restart_the_listing(status):
    api = ListApi("abc", faults={1: gone(status)})
    assert (await read_error(api, "client_error")).status == status
    assert api.cursors == [None]


async def test_a_refused_first_page_after_a_restart_fails_the_listing():
    api = ListApi("abc", faults={2: gone(), 3: gone()})
    await read_error(api, "client_error")
    assert api.cursors == [None, "b", None]


@pytest.mark.parametrize("status", [401, 403, 405, 410, 422])
async def test_other_refusals_do_not_restart_the_listing(status):
    api = ListApi("abc", faults={2: gone(status)})
    await read_error(api, "client_error")
    assert api.cursors == [None, "b"]


async def test_on_page_is_called_after_each_page_and_starts_over_with_the_listing():
    progress = []
    await read(ListApi("abcde", faults={3: gone()}), lambda *counts: progress.append(counts))
    assert progress == [(1, 2), (2, 4), (1, 2), (2, 4), (3, 5)]


async def test_the_number_of_fine_tunes_is_limited(monkeypatch):
    """Pages are limited in bytes, but a fine-tune may be as short as its id."""
    monkeypatch.setattr("exporter.cartesia.listing._MAX_FINE_TUNES", 4)
    assert len(await read_ids(ListApi("abcd"))) == 4
    error = await read_error(ListApi("abcdefgh"), "too_large")
    assert str(error) == "the list is larger than 4 fine-tunes"


async def test_the_error_of_a_malformed_page_has_its_number_and_none_of_its_content():
    error = await read_error(
        ListApi("abc", faults={2: b'{"data":[{"name":"x-secret"}],"has_more":false}'})
    )
    assert str(error) == "page 2: invalid page: item 0 has no id"


ascii_texts = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=3)
lists_of_ids = st.lists(ascii_texts, unique=True)
sizes = st.integers(1, 7)


@given(lists_of_ids, sizes)
async def test_any_list_is_read_in_order_with_one_request_per_page(ids, size):
    api = ListApi(ids, size)
    listing = await read(api)
    requests = max(1, ceil(len(ids) / size))
    assert list(listing.fine_tunes) == ids
    assert listing.pages == len(api.cursors) == requests
    assert api.cursors == [None, *(ids[n * size - 1] for n in range(1, requests))]


INVALID = [
    b"",
    b"{",
    b"[]",
    b'{"data":null,"has_more":true}',
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
async def test_an_invalid_page_never_results_in_a_smaller_listing(ids, size, data):
    number = data.draw(st.integers(1, ceil(len(ids) / size)))
    api = ListApi(ids, size, {number: data.draw(st.sampled_from(INVALID))})
    with pytest.raises(CartesiaError):
        await read(api)


@given(lists_of_ids.filter(lambda ids: len(ids) > 1), st.data())
async def test_a_repeated_page_never_results_in_a_smaller_listing(ids, data):
    """A fine-tune that moves towards the head repeats pages; a server may also ignore cursors."""
    number = data.draw(st.integers(2, len(ids)))
    earlier = data.draw(st.integers(1, number - 1))
    again = ListApi(ids, 1).page(None if earlier == 1 else ids[earlier - 2])
    assert await read_ids(ListApi(ids, 1, {number: again})) == ids
    endless = dict.fromkeys(range(number, 3 * len(ids)), again)
    await read_error(ListApi(ids, 1, endless), match="ends where an earlier page ended")
