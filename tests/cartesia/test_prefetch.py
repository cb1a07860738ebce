"""Prefetched pages speed a listing up and never harm it."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister, Listing, ReadSettings
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune
from tests.cartesia.changing_list import ChangingList
from tests.cartesia.client_fixture import new_lister

IDS = [f"ft_{n}" for n in range(20)]
CURSORS = ["ft_4", "ft_9", "ft_14"]
BOOM = CartesiaError("server_error", "boom", status=500)


@dataclass
class ListApi:
    """A list in pages of five.

    ``answers`` by cursor are exceptions to raise, or events to wait for.
    """

    source: ChangingList = field(default_factory=lambda: ChangingList(5, [*IDS]))
    answers: dict[str | None, object] = field(default_factory=dict)
    requests: list[str | None] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0

    async def __call__(self, cursor: str | None) -> Page:
        self.requests.append(cursor)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            answer = self.answers.get(cursor)
            if isinstance(answer, asyncio.Event):
                await answer.wait()
            elif isinstance(answer, Exception):
                raise answer
            return self.source.page(cursor)
        finally:
            self.in_flight -= 1


def warm_lister() -> Lister:
    """Return a lister that knows the cursors of the list."""
    lister = new_lister()
    lister.cursors = tuple(CURSORS)
    return lister


async def read(
    api: ListApi, lister: Lister, connections: int = 4, stall_timeout: float = 10.0
) -> Listing:
    async with asyncio.timeout(20):
        return await lister.read([api] * connections, ReadSettings(stall_timeout=stall_timeout))


@pytest.mark.parametrize(("connections", "max_in_flight"), [(1, 1), (2, 2), (4, 4), (16, 4)])
async def test_pages_are_fetched_over_all_connections_but_no_more_than_there_are_pages(
    connections, max_in_flight
):
    api = ListApi()
    assert list((await read(api, warm_lister(), connections)).fine_tunes) == IDS
    assert api.max_in_flight == max_in_flight
    assert sorted(api.requests, key=str) == sorted([None, *CURSORS], key=str)


async def test_the_first_listing_is_read_page_by_page_and_the_second_in_parallel():
    api, lister = ListApi(), new_lister()
    first = await read(api, lister)
    assert (api.max_in_flight, first.pages, first.cursors) == (1, 4, tuple(CURSORS))
    await read(api, lister)
    assert api.max_in_flight == 4


async def test_a_single_connection_does_not_prefetch():
    api = ListApi()
    await read(api, warm_lister(), connections=1)
    assert (api.requests, api.max_in_flight) == ([None, *CURSORS], 1)


@pytest.mark.parametrize("connections", [1, 4])
async def test_the_end_of_the_list_is_checked_by_the_last_known_cursor_that_was_not_read(
    connections,
):
    """A page may say by mistake that it is the last one."""
    api = ListApi()
    del api.source.ids[4:]
    assert list((await read(api, warm_lister(), connections)).fine_tunes) == IDS[:4]
    assert set(api.requests) == ({None, CURSORS[-1]} if connections == 1 else {None, *CURSORS})


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("items", [[], [FineTune("ft_5")]], ids=["empty", "one item"])
async def test_a_page_that_ends_the_list_by_mistake_is_read_again(connections, items):
    class Ends(ListApi):
        async def __call__(self, cursor):
            page = await super().__call__(cursor)
            return (
                Page(items, has_more=False)
                if self.requests.count("ft_4") == 1 and cursor == "ft_4"
                else page
            )

    api = Ends()
    assert list((await read(api, warm_lister(), connections)).fine_tunes) == IDS
    assert api.requests.count(None) == 2


@pytest.mark.parametrize("error", [BOOM, CartesiaError("client_error", "gone", status=404)])
async def test_the_error_of_a_page_that_is_not_needed_is_ignored(error):
    api = ListApi(answers={"ft_4": error, "ft_14": error})
    api.source.ids.remove("ft_4")
    del api.source.ids[12:]
    assert list((await read(api, warm_lister())).fine_tunes) == api.source.ids


async def test_a_hanging_page_that_is_not_needed_is_cancelled():
    api = ListApi(answers={"ft_4": asyncio.Event()})
    api.source.ids.remove("ft_4")
    assert list((await read(api, warm_lister())).fine_tunes) == api.source.ids
    assert api.in_flight == 0, "it is cancelled"


async def test_when_unneeded_pages_hang_on_all_connections_the_rest_is_read_page_by_page():
    """Or every poll would fail: its cursors stay those of the last successful one."""
    api = ListApi(answers={"ft_4": asyncio.Event(), "ft_9": asyncio.Event()})
    lister = warm_lister()
    api.source.ids = [text for text in IDS if text not in api.answers]
    assert list((await read(api, lister, 2, stall_timeout=0.01)).fine_tunes) == api.source.ids
    assert api.requests == [None, "ft_4", "ft_9", "ft_5", "ft_11", "ft_14"]
    assert not set(lister.cursors) & api.answers.keys()
    assert api.in_flight == 0


async def test_a_slow_page_that_is_needed_is_waited_for():
    class Slow(ListApi):
        async def __call__(self, cursor):
            await asyncio.sleep(0.05)
            return await super().__call__(cursor)

    api = Slow()
    await read(api, warm_lister(), connections=4, stall_timeout=0.01)
    assert api.requests.count("ft_4") == 1
    await read(api, new_lister(), connections=1, stall_timeout=0.01)
    assert api.requests.count("ft_4") == 2


@pytest.mark.parametrize(("cursor", "text"), [(None, "boom"), ("ft_9", "page 3: boom")])
async def test_the_error_of_a_page_that_is_needed_is_raised(cursor, text):
    with pytest.raises(CartesiaError) as caught:
        await read(ListApi(answers={cursor: BOOM}), warm_lister())
    assert (str(caught.value), caught.value.status) == (text, 500)


async def test_after_a_failed_listing_the_next_requests_the_first_page_alone():
    """An API that is down must not get a request per page and poll."""
    api, lister = ListApi(answers={None: BOOM}), warm_lister()
    for expected in ([None, *CURSORS], [None], [None]):
        api.requests.clear()
        with pytest.raises(CartesiaError):
            await read(api, lister)
        assert api.requests == expected
    api.answers.clear()
    api.requests.clear()
    assert list((await read(api, lister)).fine_tunes) == IDS
    assert api.requests[0] is None
    assert api.max_in_flight == 4, "all connections, after the first page"


async def test_a_bug_of_a_connection_is_raised():
    with pytest.raises(ExceptionGroup, match="unhandled") as caught:
        await read(ListApi(answers={"ft_14": KeyError("a bug")}), warm_lister())
    assert caught.group_contains(KeyError)


@pytest.mark.parametrize("connections", [1, 2, 4])
async def test_a_listing_cancelled_at_any_moment_raises_cancelled_error_only(connections):
    """Also if a page arrives in the same turn of the loop: that must not look like a bug."""

    class Slow(ListApi):
        async def __call__(self, cursor):
            for _ in range(2):
                await asyncio.sleep(0)
            return await super().__call__(cursor)

    async def cancelled_after(turns: int) -> bool:
        """Cancel a listing after some turns of the loop; return whether it had ended before."""
        reading = asyncio.create_task(warm_lister().read([Slow()] * connections))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = reading.done()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        return ended

    async with asyncio.timeout(20):
        turns = 0
        while not await cancelled_after(turns):
            turns += 1
    assert turns > 5


async def test_a_list_too_long_for_one_poll_is_prefetched_in_the_next():
    """Page by page, the first listing of a long list might never end in time."""
    api, lister = ListApi(answers={"ft_14": CartesiaError("timeout", "over")}), new_lister()
    with pytest.raises(CartesiaError, match="page 4: over"):
        await read(api, lister)
    assert lister.cursors == tuple(CURSORS)
    api.answers.clear()
    await read(api, lister)
    assert api.max_in_flight == 3, "the first page alone, then the others"


async def test_a_listing_that_fails_early_keeps_the_cursors():
    lister = warm_lister()
    with pytest.raises(CartesiaError):
        await read(ListApi(answers={"ft_4": BOOM}), lister)
    assert lister.cursors == tuple(CURSORS)


async def test_a_needed_cursor_that_is_deleted_restarts_the_listing_without_it():
    class Deleting(ListApi):
        async def __call__(self, cursor):
            if cursor == "ft_9":
                for _ in range(4):  # until the page that ends with it was read
                    await asyncio.sleep(0)
                self.source.ids.remove("ft_9")
            return await super().__call__(cursor)

    api = Deleting()
    assert list((await read(api, warm_lister())).fine_tunes) == [
        text for text in IDS if text != "ft_9"
    ]
    assert api.requests.count(None) == 2
    assert api.requests.count("ft_9") == 1


async def test_a_cursor_deleted_again_fails_the_listing():
    api, lister = (
        ListApi(answers={"ft_9": CartesiaError("client_error", "gone", status=404)}),
        warm_lister(),
    )
    with pytest.raises(CartesiaError, match="page 3: gone"):
        await read(api, lister)
    assert api.requests.count(None) == 2
    assert "ft_9" not in lister.cursors


async def test_the_total_size_of_the_pages_is_limited(monkeypatch):
    monkeypatch.setattr("exporter.cartesia.prefetch._MAX_BYTES", 3)
    with pytest.raises(CartesiaError, match="page 4: the pages of the list are larger") as caught:
        await read(ListApi(), new_lister())
    assert caught.value.reason == "too_large"
