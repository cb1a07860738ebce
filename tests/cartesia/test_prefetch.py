"""What is asked ahead helps the poll and never harms it: lanes, errors, and what is remembered."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Lister, Listing
from exporter.cartesia.pages import Page
from tests.cartesia.changing_list import World

IDS = [f"ft_{n}" for n in range(20)]
CURSORS = ["ft_4", "ft_9", "ft_14"]
BOOM = CartesiaError("server_error", "boom", status=500)


@dataclass
class Api:
    """Pages of five; what `answers` has for a cursor is its answer, an awaitable is waited for."""

    world: World = field(default_factory=lambda: World(5, list(IDS)))
    answers: dict[str | None, object] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    under_way: int = 0
    most: int = 0

    async def __call__(self, cursor: str | None) -> Page:
        self.asked.append(cursor)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            answer = self.answers.get(cursor)
            if isinstance(answer, asyncio.Event):
                await answer.wait()
            elif isinstance(answer, Exception):
                raise answer
            return self.world.page(cursor)
        finally:
            self.under_way -= 1


def lister(cursors: Sequence[str] = CURSORS) -> Lister:
    made = Lister()
    made.cursors = tuple(cursors)
    return made


def read(api: Api, made: Lister, width: int = 4, patience: float = 10.0) -> Listing:
    async def run() -> Listing:
        async with asyncio.timeout(20):
            return await made.read([api] * width, patience=patience)

    return asyncio.run(run())


@pytest.mark.parametrize(("width", "most"), [(1, 1), (2, 2), (4, 4), (16, 4)])
def test_pages_are_under_way_on_all_lanes_and_on_no_more_than_there_are_pages(width, most):
    api = Api()
    assert list(read(api, lister(), width).fine_tunes) == IDS
    assert api.most == most
    assert sorted(api.asked, key=str) == sorted([None, *CURSORS], key=str)


def test_a_first_listing_is_read_page_by_page_and_the_second_side_by_side():
    api, made = Api(), Lister()
    first = read(api, made)
    assert (api.most, first.pages, first.cursors) == (1, 4, tuple(CURSORS))
    read(api, made)
    assert api.most == 4


def test_one_lane_asks_for_nothing_before_it_is_needed():
    api = Api()
    del api.world.ids[4:]
    read(api, lister(), width=1)
    assert api.asked == [None]


@pytest.mark.parametrize("error", [BOOM, CartesiaError("client_error", "gone", status=404)])
def test_the_error_of_a_page_that_is_not_needed_is_ignored(error):
    api = Api(answers={"ft_4": error, "ft_14": error})
    api.world.ids.remove("ft_4")
    del api.world.ids[12:]
    assert list(read(api, lister()).fine_tunes) == api.world.ids


def test_a_page_that_is_not_needed_and_never_comes_holds_up_nothing():
    api = Api(answers={"ft_4": asyncio.Event()})
    api.world.ids.remove("ft_4")
    assert list(read(api, lister()).fine_tunes) == api.world.ids
    assert api.under_way == 0, "it was given up"


def test_when_pages_that_are_not_needed_hold_up_all_lanes_the_rest_is_read_page_by_page():
    """Or it would fail poll after poll: the cursors that hold it up stay those of the last one."""
    api, made = Api(answers={"ft_4": asyncio.Event(), "ft_9": asyncio.Event()}), lister()
    api.world.ids = [text for text in IDS if text not in api.answers]
    assert list(read(api, made, 2, patience=0.01).fine_tunes) == api.world.ids
    assert api.asked == [None, "ft_4", "ft_9", "ft_5", "ft_11", "ft_14"]
    assert not set(made.cursors) & api.answers.keys()
    assert api.under_way == 0


def test_a_page_that_takes_long_is_waited_for_when_it_is_needed():
    class Slow(Api):
        async def __call__(self, cursor):
            await asyncio.sleep(0.05)
            return await super().__call__(cursor)

    api = Slow()
    read(api, lister(), width=4, patience=0.01)
    assert api.asked.count("ft_4") == 1
    read(api, Lister(), width=1, patience=0.01)
    assert api.asked.count("ft_4") == 2


@pytest.mark.parametrize(("cursor", "text"), [(None, "boom"), ("ft_9", "page 3: boom")])
def test_the_error_of_a_page_that_is_needed_is_the_listings_error(cursor, text):
    with pytest.raises(CartesiaError) as caught:
        read(Api(answers={cursor: BOOM}), lister())
    assert (str(caught.value), caught.value.status) == (text, 500)


def test_when_a_listing_has_failed_the_next_asks_for_the_first_page_alone():
    """An API that is down is not asked for every page, poll after poll."""
    api, made = Api(answers={None: BOOM}), lister()
    for asked in ([None, *CURSORS], [None], [None]):
        api.asked.clear()
        with pytest.raises(CartesiaError):
            read(api, made)
        assert api.asked == asked
    api.answers.clear()
    api.asked.clear()
    assert list(read(api, made).fine_tunes) == IDS
    assert api.asked[0] is None
    assert api.most == 4, "side by side once the first page is there"


def test_a_bug_in_a_lane_is_not_taken_for_an_answer():
    with pytest.raises(ExceptionGroup, match="unhandled") as caught:
        read(Api(answers={"ft_14": KeyError("a bug")}), lister())
    assert caught.group_contains(KeyError)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_listing_that_is_cancelled_at_any_moment_is_cancelled_and_nothing_else(width):
    """Also when a page comes in the same turn: at the end of the agent that is no bug."""

    class Slow(Api):
        async def __call__(self, cursor):
            for _ in range(2):
                await asyncio.sleep(0)
            return await super().__call__(cursor)

    async def cancelled_after(turns: int) -> bool:
        reading = asyncio.create_task(lister().read([Slow()] * width))
        for _ in range(turns):
            await asyncio.sleep(0)
        over = reading.done()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        return over

    async def run() -> None:
        async with asyncio.timeout(20):
            turns = 0
            while not await cancelled_after(turns):
                turns += 1
            assert turns > 5

    asyncio.run(run())


def test_a_list_too_long_for_one_poll_is_read_in_the_next():
    """Page by page, the first listing of a long list may never end in time."""
    api, made = Api(answers={"ft_14": CartesiaError("timeout", "over")}), Lister()
    with pytest.raises(CartesiaError, match="page 4: over"):
        read(api, made)
    assert made.cursors == tuple(CURSORS)
    api.answers.clear()
    read(api, made)
    assert api.most == 3, "the head alone, then the others"


def test_a_listing_that_fails_early_forgets_nothing():
    made = lister()
    with pytest.raises(CartesiaError):
        read(Api(answers={"ft_4": BOOM}), made)
    assert made.cursors == tuple(CURSORS)


def test_a_cursor_that_is_gone_when_it_is_needed_begins_the_listing_again_without_it():
    class Deleting(Api):
        async def __call__(self, cursor):
            if cursor == "ft_9":
                for _ in range(4):  # until the page that ends with it was read
                    await asyncio.sleep(0)
                self.world.ids.remove("ft_9")
            return await super().__call__(cursor)

    api = Deleting()
    assert list(read(api, lister()).fine_tunes) == [text for text in IDS if text != "ft_9"]
    assert api.asked.count(None) == 2
    assert api.asked.count("ft_9") == 1


def test_a_cursor_that_is_gone_again_fails_the_listing():
    api, made = Api(answers={"ft_9": CartesiaError("client_error", "gone", status=404)}), lister()
    with pytest.raises(CartesiaError, match="page 3: gone"):
        read(api, made)
    assert api.asked.count(None) == 2
    assert "ft_9" not in made.cursors


def test_pages_that_together_are_too_large_are_given_up(monkeypatch):
    monkeypatch.setattr("exporter.cartesia.prefetch._MOST_BYTES", 3)
    with pytest.raises(CartesiaError, match="page 4: the pages of the list are larger") as caught:
        read(Api(), Lister())
    assert caught.value.reason == "too_large"
