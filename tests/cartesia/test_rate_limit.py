"""When requests may go: in the order in which they came, and never more than are allowed."""

import asyncio
from collections.abc import Coroutine
from itertools import pairwise

import pytest

from exporter.cartesia import rate_limit as pace_module
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.rate_limit import Limits, RateLimiter

LATE = 1e12
SORRY = CartesiaError("rate_limited", "sorry", status=429)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Requests:
    """Starts requests that stay under way until they are told to end."""

    def __init__(self, pace: RateLimiter) -> None:
        self.pace = pace
        self.under_way: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._enter(name))
        await settle()

    async def _enter(self, name: str) -> None:
        await self.pace.enter(LATE)
        self.under_way.append(name)

    async def end(self, *names: str) -> None:
        for name in names:
            self.under_way.remove(name)
            self.pace.leave()
        await settle()


def run(work: Coroutine[None, None, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(limited())


def test_who_waits_longest_goes_first_also_before_one_that_comes_just_then(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(2), clock.clock)
        requests = Requests(pace)
        await requests.begin("a", "b", "c", "d")
        assert requests.under_way == ["a", "b"]
        requests.under_way.remove("a")
        pace.leave()
        await requests.begin("e")
        assert requests.under_way == ["b", "c"]
        await requests.end("b", "c")
        assert requests.under_way == ["d", "e"]

    run(test())


def test_one_that_gives_up_while_it_waits_takes_no_place(clock):
    async def test() -> None:
        requests = Requests(RateLimiter(Limits(1), clock.clock))
        await requests.begin("a", "b", "c", "d")
        requests.tasks["b"].cancel()
        await requests.end("a")
        assert requests.under_way == ["c"]
        requests.pace.leave()
        requests.tasks["d"].cancel()  # its place was given to it a moment ago
        await settle()
        await requests.begin("e")
        assert requests.under_way == ["c", "e"]

    run(test())


def test_after_a_429_those_under_way_end_and_then_they_go_one_by_one(clock):
    async def test() -> None:
        requests = Requests(RateLimiter(Limits(3), clock.clock))
        await requests.begin("a", "b", "c", "d", "e")
        requests.pace.slow_down(SORRY, 7)
        await requests.end("a", "b")
        assert requests.under_way == ["c"]
        await requests.end("c")
        assert requests.under_way == ["d"]
        assert clock.slept == [7]
        requests.pace.begin()
        await requests.begin("f", "g", "h", "i")
        assert requests.under_way == ["d", "f", "g", "h"]

    run(test())


def test_a_429_counts_also_for_one_that_waits_for_its_slot(clock, monkeypatch):
    async def test() -> None:
        pace = RateLimiter(Limits(2, per_second=1), clock.clock)

        async def told_meanwhile(seconds):
            await clock.sleep(seconds)
            if len(clock.slept) == 1:
                pace.slow_down(SORRY, 7)

        monkeypatch.setattr(pace_module, "sleep", told_meanwhile)
        await pace.enter(LATE)
        pace.leave()
        await pace.enter(LATE)
        assert clock.slept == [1, 7]

    run(test())


@pytest.mark.parametrize("asked", [0, 60])
def test_after_a_429_those_that_waited_for_their_slots_do_not_go_all_at_once(
    clock, monkeypatch, asked
):
    """Their slots pass while the API asks to wait, and then all of them would go side by side."""

    async def test() -> None:
        pace, told = RateLimiter(Limits(8, per_second=1), clock.clock), asyncio.Event()
        begun, under_way, most = [], 0, 0

        async def sleep(seconds):
            due = clock.now + seconds
            await told.wait()
            clock.now = max(clock.now, due)

        async def request() -> None:
            nonlocal under_way, most
            await pace.enter(LATE)
            begun.append(clock.now - start)
            under_way += 1
            most = max(most, under_way)
            await settle()
            under_way -= 1
            pace.leave()

        monkeypatch.setattr(pace_module, "sleep", sleep)
        start = clock.now
        await pace.enter(LATE)
        waiting = [asyncio.create_task(request()) for _ in range(5)]
        await settle()
        pace.slow_down(SORRY, asked)
        pace.leave()
        told.set()
        await asyncio.gather(*waiting)
        assert most == 1
        assert begun[0] >= asked
        assert [b - a for a, b in pairwise(begun)] == [1] * 4

    run(test())


def test_a_429_counts_in_the_next_poll_too_when_the_page_it_was_for_was_not_needed(clock):
    async def test() -> None:
        requests = Requests(RateLimiter(Limits(2), clock.clock))
        requests.pace.slow_down(SORRY, 7)
        requests.pace.begin()
        await requests.begin("a", "b")
        assert clock.slept == [7]
        assert requests.under_way == ["a", "b"], "and after it they go side by side"

    run(test())


def test_a_redirect_too_waits_for_what_a_429_asked(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(2), clock.clock)
        await pace.enter(LATE)
        pace.slow_down(SORRY, 7)
        await pace.slot(LATE)
        assert clock.slept == [7]

    run(test())


def test_a_429_that_lasts_longer_than_the_poll_is_its_error(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(1), clock.clock)
        pace.slow_down(SORRY, 10)
        with pytest.raises(CartesiaError, match="sorry"):
            await pace.enter(clock.now + 10)
        await pace.enter(clock.now + 11)  # the place is free again
        assert clock.slept == [10]

    run(test())


@pytest.mark.parametrize(("per_second", "at"), [(0, [0] * 4), (4, [0, 0.25, 0.5, 0.75])])
def test_requests_begin_a_fraction_of_a_second_apart(clock, per_second, at):
    async def test() -> None:
        pace, start, begun = RateLimiter(Limits(1, per_second), clock.clock), clock.now, []
        for _ in range(4):
            await pace.enter(LATE)
            begun.append(clock.now - start)
            pace.leave()
        assert begun == at

    run(test())


def test_slots_that_are_given_up_do_not_hold_up_what_comes_next(clock, monkeypatch):
    async def test() -> None:
        pace = RateLimiter(Limits(8, per_second=0.1), clock.clock)
        polling = [asyncio.create_task(pace.enter(clock.now + 60)) for _ in range(5)]
        monkeypatch.setattr(pace_module, "sleep", asyncio.sleep)
        await settle()
        for each in polling:
            each.cancel()
        await settle()
        monkeypatch.setattr(pace_module, "sleep", clock.sleep)
        await pace.enter(LATE)
        assert clock.slept == [10]

    run(test())


def test_of_two_429s_the_longer_wait_counts(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(1), clock.clock)
        pace.slow_down(SORRY, 7)
        pace.slow_down(SORRY, 1)
        await pace.enter(LATE)
        assert clock.slept == [7]

    run(test())


def test_a_slot_behind_the_end_of_the_poll_is_not_waited_for(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(1, per_second=0.1), clock.clock)
        await pace.slot(LATE)
        with pytest.raises(CartesiaError, match=r"poll\.timeout"):
            await pace.slot(clock.now + 10)
        assert clock.slept == []

    run(test())


def test_time_that_no_request_used_is_not_made_up_for(clock):
    async def test() -> None:
        pace = RateLimiter(Limits(1, per_second=1), clock.clock)
        await pace.slot(LATE)
        clock.now += 100
        await pace.slot(LATE)
        await pace.slot(LATE)
        assert clock.slept == [1]

    run(test())
