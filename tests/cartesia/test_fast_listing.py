"""Pages asked for side by side make the list that a sequential reader would have read."""

import asyncio
from math import ceil

from hypothesis import event, given
from hypothesis import strategies as st

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister, Listing
from tests.cartesia.changing_list import Change, World

ORDERLY = ("insert at the head", "insert", "delete", "delete a cursor", "fail")
places = st.integers(0, 10**6 - 1)
changes = st.lists(st.builds(Change, st.sampled_from(ORDERLY), places), max_size=8)
disorder = st.lists(st.builds(Change, st.sampled_from((*ORDERLY, "move")), places), max_size=8)
lanes = st.integers(1, 5)
worlds = st.builds(
    lambda size, length: World(size, [f"ft_{n}" for n in range(length)]),
    st.integers(1, 6),
    st.integers(0, 40),
)
polls = st.lists(st.tuples(changes, changes, st.lists(st.integers(0, 4), max_size=20)), max_size=5)


def read(world: World, lister: Lister, width: int) -> Listing | CartesiaError:
    try:
        return asyncio.run(lister.read([world.fetch] * width))
    except CartesiaError as error:
        return error


def poll(world: World, lister: Lister, width: int) -> Listing | None:
    """Read the list; None when its cursors went away too often."""
    world.begin()
    world.cursors = lister.cursors
    deleting = any(change.kind.startswith("delete") for change in world.during)
    answer = read(world, lister, width)
    if isinstance(answer, Listing):
        return answer
    assert deleting
    assert answer.status == 404
    event("a poll failed for want of a cursor")
    return None


@given(worlds, lanes, polls)
def test_what_is_there_all_the_while_is_read_once_and_what_is_not_there_is_not(
    world, width, history
):
    lister = Lister()
    for before, during, delays in history:
        for change in before:
            world.change(change)
        world.during, world.delays = list(during), list(delays)
        listing = poll(world, lister, width)
        if listing is not None:
            assert world.throughout <= listing.fine_tunes.keys()
            assert {(f.id, f.status) for f in listing.fine_tunes.values()} <= world.seen
            assert [f.id for f in listing.fine_tunes.values()] == list(listing.fine_tunes)


@given(worlds, lanes, polls)
def test_a_list_that_stands_still_takes_no_request_too_many(world, width, history):
    lister = Lister()
    for before, during, delays in history:
        for change in before:
            world.change(change)
        world.during, world.delays = list(during), list(delays)
        poll(world, lister, width)
    world.during = []
    poll(world, lister, width)
    listing = poll(world, lister, width)
    assert listing is not None
    assert list(listing.fine_tunes) == world.ids
    assert len(world.requests) == listing.pages == max(1, ceil(len(world.ids) / world.size))


@given(worlds, lanes, changes)
def test_a_few_changes_take_a_few_requests_more(world, width, between):
    lister = Lister()
    poll(world, lister, width)
    before = len(world.ids)
    for change in between:
        world.change(change)
    poll(world, lister, width)
    least = max(1, ceil(max(before, len(world.ids)) / world.size))
    assert len(world.requests) <= least + len(between)


@given(worlds, lanes, disorder, disorder)
def test_a_list_that_changes_its_order_is_read_or_refused(world, width, between, during):
    lister = Lister()
    poll(world, lister, width)
    for change in between:
        world.change(change)
    world.during = list(during)
    answer = read(world, lister, width)
    if isinstance(answer, CartesiaError):
        assert answer.status == 404 or "ends where an earlier page ended" in str(answer)
    else:
        assert {(f.id, f.status) for f in answer.fine_tunes.values()} <= world.seen
        assert [f.id for f in answer.fine_tunes.values()] == list(answer.fine_tunes)
