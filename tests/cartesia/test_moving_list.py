"""Lists that change their order while they are read, in virtual time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import pytest
import structlog
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.cartesia import listing
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister, Listing, ReadSettings
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune
from tests.cartesia.moving_list import Action, Change, MovingList, read_in_sequence
from tests.polling.virtual_time import VIRTUAL_TIME


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


def new_lister() -> Lister:
    return Lister(asyncio.get_running_loop().time, structlog.get_logger())


def new_list(order, length, size, delays=(0.1,)) -> MovingList:
    return MovingList(order, [f"ft_{n}" for n in range(length)], size, delays)


async def warmed(api: MovingList, connections: int) -> Lister:
    """Return a lister that has read the list once."""
    api.start()
    lister = new_lister()
    await lister.read([api.fetch] * connections)
    api.cursors = lister.cursors
    return lister


async def poll(api: MovingList, lister: Lister, connections: int, changes: Sequence[Change] = ()):
    api.start(changes)
    return await lister.read([api.fetch] * connections)


ACTIONS: Final[tuple[Action, ...]] = (
    "change",
    "change a cursor",
    "change a cursor",
    "insert",
    "delete",
)
millionths = st.integers(0, 10**6 - 1)
some_changes = st.lists(
    st.builds(Change, st.floats(0, 1), st.sampled_from(ACTIONS), millionths), max_size=8
)


@given(
    st.sampled_from(["created first", "created last", "changed first"]),
    st.integers(10, 200),
    st.integers(1, 16),
    st.tuples(some_changes, some_changes),
    st.lists(st.sampled_from([0.01, 0.1, 0.2, 0.7]), min_size=1, max_size=9),
)
async def test_fewer_changes_than_a_page_has_items_hide_nothing_that_did_not_move(
    order, length, connections, changes, delays
):
    before, during = changes
    api = new_list(order, length, 10, delays)
    lister = await warmed(api, connections)
    for change in before:
        api.change(change)
    try:
        listing = await poll(api, lister, connections, during)
    except CartesiaError as error:
        assume(error.status != 404)  # two cursors were deleted
        raise
    assert api.steady <= listing.fine_tunes.keys() <= api.ever


@dataclass
class Comparison:
    """Totals over several polls; what is lost did not move."""

    lost: int = 0
    lost_in_sequence: int = 0
    read_again: int = 0
    requests: int = 0
    pages: int = 0


async def compare(order, polls: int) -> Comparison:
    """Poll lists with and without prefetch while they change at the same times."""
    chance, total = random.Random(order), Comparison()
    for _ in range(polls):
        connections = chance.choice([1, 2, 4, 8, 16])
        api = new_list(order, 300, 10, chance.choices([0.02, 0.1, 0.12, 0.3], k=50))
        lister = await warmed(api, connections)
        actions = chance.choices(ACTIONS, k=chance.choice([1, 2, 4, 8]))
        changes = [
            Change(chance.uniform(0, 2), action, chance.randrange(10**6), chance.randrange(10**6))
            for action in actions
        ]
        other = api.copy()
        listing = await poll(api, lister, connections, changes)
        other.start(changes)
        found = await read_in_sequence(other)
        total.lost += len(api.steady - listing.fine_tunes.keys())
        total.lost_in_sequence += len(other.steady - found)
        total.read_again += api.requests.count(None) > 1
        total.requests += len(api.requests)
        total.pages += 30
    return total


@pytest.mark.parametrize("order", ["changed last", "none"])
async def test_of_a_list_without_a_stable_order_less_is_lost_than_by_a_sequential_reader(order):
    """A cursor that moves towards the end hides from any reader what it jumps over."""
    total = await compare(order, 150)
    assert total.lost < total.lost_in_sequence / 2


@pytest.mark.parametrize(
    ("order", "most"), [("created first", 1), ("created last", 1), ("changed first", 10)]
)
async def test_a_second_reading_is_rare(order, most):
    total = await compare(order, 100)
    assert (total.lost, total.lost_in_sequence) == (0, 0)
    assert total.read_again <= most
    assert total.requests <= 1.2 * total.pages


@pytest.mark.parametrize("connections", [1, 2, 8, 16])
@pytest.mark.parametrize("length", [0, 1, 10, 11, 199, 200])
async def test_an_unchanged_list_costs_one_request_per_page(connections, length):
    api = new_list("changed first", length, 10, (0.3, 0.1, 0.2))
    lister = await warmed(api, connections)
    for _ in range(3):
        assert list((await poll(api, lister, connections)).fine_tunes) == api.ids
        assert len(api.requests) == max(1, ceil(length / 10))


async def test_a_cursor_that_moves_to_the_head_before_the_first_page_is_answered():
    """The page after it is that of its old place, and most of the list would be skipped."""
    api = new_list("changed first", 200, 10, delays=(0.5, *[0.1] * 40))
    lister = await warmed(api, 16)
    cursor = api.cursors[9]
    changes = [Change(0.1, "change a cursor", 9 * 10**6 // len(api.cursors) + 1)]
    listing = await poll(api, lister, 16, changes)
    assert api.ids[0] == cursor
    assert listing.fine_tunes.keys() == set(api.ids)
    assert api.requests.count(None) == 1
    assert len(api.requests) <= 20 + 3


@pytest.mark.parametrize("connections", [1, 2, 16])
async def test_a_cursor_that_moves_to_the_head_before_its_page_is_requested(connections):
    """The sequential reader meets all of the list again, and follows some cursors twice."""
    api = new_list("changed first", 50, 10)
    lister = await warmed(api, 1)
    lister.cursors = ()
    changes = [Change(0.17, "change a cursor", 10**6 // 4 + 1)]
    listing = await poll(api, lister, connections, changes)
    assert api.ids[0] == api.cursors[1]
    assert listing.fine_tunes.keys() == set(api.ids)


@pytest.mark.parametrize("connections", [1, 2, 16])
async def test_a_cursor_that_moves_to_the_end_does_not_end_the_list(connections):
    """A sequential reader has no other cursor and takes the list for complete."""
    api = new_list("changed last", 200, 10)
    lister = await warmed(api, connections)
    api.delays = (0.1, 0.1, 0.1, 1.0, *[0.1] * 40)
    changes = [Change(0.3, "change a cursor", 2 * 10**6 // 19 + 1)]
    listing = await poll(api, lister, connections, changes)
    assert api.ids[-1] == api.cursors[2]
    assert listing.fine_tunes.keys() == set(api.ids)
    assert api.requests.count(None) == 2, "it was read again"
    second = api.requests[-20:]
    assert second == [None, *(api.ids[n] for n in range(9, 190, 10))], "page by page"


async def test_deletion_of_the_end_of_the_list_is_no_change_of_order():
    api = new_list("created first", 200, 10)
    for connections in (1, 2, 16):
        lister = await warmed(api, connections)
        del api.ids[-45:]
        listing = await poll(api, lister, connections)
        assert list(listing.fine_tunes) == api.ids
        assert api.requests.count(None) == 1


@dataclass
class EndsEarly:
    """A list of five pages with an ``end`` after the second page, but for whoever knows more.

    Each answer takes ``delay`` seconds.
    """

    delay: float = 1.0
    end: bool = True
    requests: list[str | None] = field(default_factory=list)

    async def fetch(self, cursor: str | None) -> Page:
        self.requests.append(cursor)
        await asyncio.sleep(self.delay)
        begin = 0 if cursor is None else int(cursor) + 1
        items = [FineTune(str(n)) for n in range(begin, min(begin + 2, 10))]
        return Page(items, begin + 2 < 10 and not (self.end and begin == 2), 1)

    async def poll(self, lister: Lister, seconds: float, connections: int = 5) -> Listing:
        self.requests.clear()
        now = asyncio.get_running_loop().time()

        async def fetch(cursor: str | None) -> Page:
            try:
                async with asyncio.timeout_at(now + seconds):
                    return await self.fetch(cursor)
            except TimeoutError:
                raise CartesiaError("timeout", "the time for the whole poll is over") from None

        return await lister.read([fetch] * connections, ReadSettings(deadline=now + seconds))

    async def poll_error(self, lister: Lister, seconds: float, connections: int = 5) -> str:
        with pytest.raises(CartesiaError) as caught:
            await self.poll(lister, seconds, connections)
        return f"{caught.value.reason}: {caught.value}"


CURSORS = ["1", "3", "5", "7"]
SEQUENCE = [None, *CURSORS]


def lister_with_cursors() -> Lister:
    lister = new_lister()
    lister.cursors = tuple(CURSORS)
    return lister


async def test_an_end_that_is_contradicted_twice_is_no_listing():
    api = EndsEarly()
    error = await api.poll_error(lister_with_cursors(), 60)
    assert error == "protocol: the list changed its order during both readings"
    assert api.requests == [*SEQUENCE, None, "1", "7"], "7 is the last known cursor"


TOO_SHORT = "protocol: the list changed its order while it was read"


@pytest.mark.parametrize(
    ("seconds", "requests"),
    [
        pytest.param(1.5, SEQUENCE, id="shorter than the first reading"),
        pytest.param(2.5, [*SEQUENCE, None, "1"], id="longer than that"),
    ],
)
async def test_a_poll_without_time_for_the_second_reading_fails(seconds, requests):
    api = EndsEarly()
    error = await api.poll_error(lister_with_cursors(), seconds)
    assert error.startswith(TOO_SHORT)
    assert error.endswith("increase poll.timeout")
    assert api.requests == requests


async def test_after_two_such_polls_the_list_is_read_page_by_page(monkeypatch):
    monkeypatch.setattr(listing, "_PAGE_BY_PAGE_POLLS", 3)
    api, lister = EndsEarly(), lister_with_cursors()
    with capture_logs() as logs:
        for _ in range(2):
            assert (await api.poll_error(lister, 2.5)).startswith(TOO_SHORT)
        api.end = False
        for _ in range(3):
            assert len((await api.poll(lister, 5.5)).fine_tunes) == 10
            assert api.requests == SEQUENCE
    assert logs == [
        {
            "event": "the list is read page by page from now on",
            "log_level": "warning",
            "reason": "it changed its order during 2 polls in a row",
            "polls": 3,
        }
    ]
    assert len((await api.poll(lister, 1.5)).fine_tunes) == 10, "prefetched again"


async def test_a_successful_poll_between_two_such_polls_keeps_the_prefetch():
    api, lister = EndsEarly(), lister_with_cursors()
    for _ in range(3):
        api.end = True
        await api.poll_error(lister, 2.5)
        api.end = False
        await api.poll(lister, 2.5)


async def test_a_list_too_long_to_be_read_page_by_page_is_prefetched_again():
    """Else every poll would fail until the agent restarts."""
    api, lister = EndsEarly(), lister_with_cursors()
    for _ in range(2):
        await api.poll_error(lister, 2.5)
    api.end = False
    assert (await api.poll_error(lister, 2.5)).startswith("timeout: ")
    assert len((await api.poll(lister, 2.5)).fine_tunes) == 10
