"""A prefetched list is the list that a sequential reader would have read."""

from math import ceil

from hypothesis import event, given
from hypothesis import strategies as st

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister, Listing
from tests.cartesia.changing_list import Change, ChangingList
from tests.cartesia.client_fixture import new_lister

ORDERLY = ("insert at the head", "insert", "delete", "delete a cursor", "fail")
positions = st.integers(0, 10**6 - 1)
orderly_changes = st.lists(st.builds(Change, st.sampled_from(ORDERLY), positions), max_size=8)
all_changes = st.lists(
    st.builds(Change, st.sampled_from((*ORDERLY, "move")), positions), max_size=8
)
connection_counts = st.integers(1, 5)
changing_lists = st.builds(
    lambda size, length: ChangingList(size, [f"ft_{n}" for n in range(length)]),
    st.integers(1, 6),
    st.integers(0, 40),
)
# Of each poll: the changes before it, the changes during it, and the delays of its answers.
polls = st.lists(
    st.tuples(orderly_changes, orderly_changes, st.lists(st.integers(0, 4), max_size=20)),
    max_size=5,
)


async def read(api: ChangingList, lister: Lister, connections: int) -> Listing | CartesiaError:
    try:
        return await lister.read([api.fetch] * connections)
    except CartesiaError as error:
        return error


async def poll(api: ChangingList, lister: Lister, connections: int) -> Listing | None:
    """Read the list; return None if cursors were deleted and the poll failed for it."""
    api.start_poll()
    api.cursors = lister.cursors
    deletes = any(change.action.startswith("delete") for change in api.changes)
    result = await read(api, lister, connections)
    if isinstance(result, Listing):
        return result
    assert deletes
    assert result.status == 404
    event("a poll failed because cursors were deleted")
    return None


@given(changing_lists, connection_counts, polls)
async def test_a_listing_contains_what_was_always_present_and_nothing_that_never_was(
    api, connections, history
):
    lister = new_lister()
    for before, during, delays in history:
        for change in before:
            api.change(change)
        api.changes, api.delays = list(during), list(delays)
        listing = await poll(api, lister, connections)
        if listing is not None:
            assert api.always_present <= listing.fine_tunes.keys()
            assert {(f.id, f.status) for f in listing.fine_tunes.values()} <= api.observable
            assert [f.id for f in listing.fine_tunes.values()] == list(listing.fine_tunes)


@given(changing_lists, connection_counts, polls)
async def test_an_unchanged_list_takes_one_request_per_page(api, connections, history):
    lister = new_lister()
    for before, during, delays in history:
        for change in before:
            api.change(change)
        api.changes, api.delays = list(during), list(delays)
        await poll(api, lister, connections)
    api.changes = []
    await poll(api, lister, connections)
    listing = await poll(api, lister, connections)
    assert listing is not None
    assert list(listing.fine_tunes) == api.ids
    assert len(api.requests) == listing.pages == max(1, ceil(len(api.ids) / api.size))


@given(changing_lists, connection_counts, orderly_changes)
async def test_each_change_costs_at_most_one_request(api, connections, changes):
    lister = new_lister()
    await poll(api, lister, connections)
    length_before = len(api.ids)
    for change in changes:
        api.change(change)
    await poll(api, lister, connections)
    pages = max(1, ceil(max(length_before, len(api.ids)) / api.size))
    assert len(api.requests) <= pages + len(changes)


@given(changing_lists, connection_counts, all_changes, all_changes)
async def test_a_reordered_list_is_read_or_refused(api, connections, before, during):
    lister = new_lister()
    await poll(api, lister, connections)
    for change in before:
        api.change(change)
    api.changes = list(during)
    result = await read(api, lister, connections)
    if isinstance(result, CartesiaError):
        assert result.status == 404 or "ends where an earlier page ended" in str(result)
    else:
        assert {(f.id, f.status) for f in result.fine_tunes.values()} <= api.observable
        assert [f.id for f in result.fine_tunes.values()] == list(result.fine_tunes)
