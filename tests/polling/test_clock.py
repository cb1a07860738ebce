"""Stays that last too long are told, and a wall clock that is set makes none of them."""

import asyncio

import pytest
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from tests.polling.poller_fixture import STUCK_AFTER, Bench, bench, listing, on_bench
from tests.store.sample_polls import fine_tune

DAY = 86_400.0
WAITING = listing(fine_tune("a"), fine_tune("b", "created"), fine_tune("c", "completed"))
SET = "the clock was set, or this machine slept: what waits does not count that time"


async def told(b: Bench) -> list[str]:
    return [f"{event.subject} {event.type}" for event in await b.owed()]


async def poll(b: Bench, later: float = 60) -> None:
    b.clock.now += later
    await b.poller.poll()


def test_what_waits_for_too_long_is_told_once(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        await poll(b, STUCK_AFTER)
        assert await told(b) == []
        for _ in range(3):
            await poll(b)
            assert await told(b) == ["a fine_tune.stuck", "b fine_tune.stuck"]
        assert len(b.wakes) == 1

    on_bench(tmp_path / "state.db", test, WAITING)


def test_a_restart_neither_tells_it_again_nor_begins_anew(tmp_path):
    path = tmp_path / "state.db"

    async def first(b: Bench) -> None:
        await b.poller.poll()

    async def second(b: Bench) -> None:
        b.clock.now += STUCK_AFTER
        await poll(b)
        assert len(await told(b)) == 2

    async def third(b: Bench) -> None:
        b.clock.now += 2 * STUCK_AFTER
        await poll(b)
        assert len(await told(b)) == 2

    for test in (first, second, third):
        on_bench(path, test, WAITING)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_is_set_makes_nothing_wait_longer_or_shorter(tmp_path, jump):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        await poll(b, STUCK_AFTER - 120)
        b.clock.set_by = jump
        await poll(b)
        await poll(b)
        assert await told(b) == []
        await poll(b)
        assert await told(b) == ["a fine_tune.stuck", "b fine_tune.stuck"]

    on_bench(tmp_path / "state.db", test, WAITING)


def test_that_it_was_set_is_logged_once_with_both_times(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        b.clock.set_by = DAY
        with capture_logs() as logs:
            await poll(b)
            await poll(b)
        [line] = [line for line in logs if line["log_level"] == "warning"]
        assert (line["event"], line["account"]) == (SET, "default")
        assert line["expected"] == "2027-01-15T08:01:00Z"
        assert line["clock"] == "2027-01-16T08:01:00Z"

    on_bench(tmp_path / "state.db", test, WAITING)


def test_a_small_correction_is_not_worth_a_word_and_many_small_ones_are(tmp_path):
    async def test(b: Bench) -> None:
        with capture_logs() as logs:
            for _ in range(3):
                b.clock.set_by += 4
                assert not [line for line in logs if line["log_level"] == "warning"]
                await poll(b)
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == [SET]

    on_bench(tmp_path / "state.db", test, WAITING)


def test_a_jump_during_polls_that_fail_counts_at_the_next_that_does_not(tmp_path):
    async def test(b: Bench) -> None:
        await b.poller.poll()
        b.clock.set_by = DAY
        await b.forbid()
        b.then(listing(fine_tune("a"), fine_tune("b", "created"), fine_tune("c", "failed")))
        await poll(b)
        b.then(CartesiaError("timeout", "late"), WAITING)
        await poll(b)
        await b.allow()
        await poll(b)
        await poll(b)
        assert b.view.up
        assert await told(b) == []

    on_bench(tmp_path / "state.db", test, WAITING)


def test_a_stay_that_moved_with_the_clock_is_where_it_is_after_a_restart(tmp_path):
    async def run() -> None:
        async with bench(tmp_path / "state.db", WAITING) as b:
            await b.poller.poll()
            b.clock.set_by = DAY
            await poll(b)
        async with bench(tmp_path / "state.db", WAITING) as b:
            b.clock.now += DAY + 120
            await b.poller.poll()
            assert await told(b) == []

    asyncio.run(run())
