"""Events of stuck fine-tunes, and wall clock jumps, which must not cause them."""

import pytest
from structlog.testing import capture_logs

from exporter.cartesia.errors import CartesiaError
from tests.polling.poller_fixture import STUCK_AFTER, PollerFixture, listing, open_poller
from tests.store.sample_polls import fine_tune

DAY = 86_400.0
WAITING = listing(fine_tune("a"), fine_tune("b", "created"), fine_tune("c", "completed"))
CLOCK_JUMP = "clock set or machine suspended; times in status exclude the difference"


async def queued(p: PollerFixture) -> list[str]:
    return [f"{event.subject} {event.type}" for event in await p.queued()]


async def poll(p: PollerFixture, later: float = 60) -> None:
    p.clock.now += later
    await p.poller.poll()


async def test_a_stuck_fine_tune_is_notified_once(tmp_path):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        await p.poller.poll()
        await poll(p, STUCK_AFTER)
        assert await queued(p) == []
        for _ in range(3):
            await poll(p)
            assert await queued(p) == ["a fine_tune.stuck", "b fine_tune.stuck"]
        assert len(p.wakes) == 1


async def test_time_in_status_and_stuck_notifications_survive_restarts(tmp_path):
    path = tmp_path / "state.db"
    async with open_poller(path, WAITING) as p:
        await p.poller.poll()
    async with open_poller(path, WAITING) as p:
        p.clock.now += STUCK_AFTER
        await poll(p)
        assert len(await queued(p)) == 2
    async with open_poller(path, WAITING) as p:
        p.clock.now += 2 * STUCK_AFTER
        await poll(p)
        assert len(await queued(p)) == 2


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_clock_jump_does_not_change_the_time_in_status(tmp_path, jump):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        await p.poller.poll()
        await poll(p, STUCK_AFTER - 120)
        p.clock.set_by = jump
        await poll(p)
        await poll(p)
        assert await queued(p) == []
        await poll(p)
        assert await queued(p) == ["a fine_tune.stuck", "b fine_tune.stuck"]


async def test_a_clock_jump_is_logged_once_with_both_times(tmp_path):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        await p.poller.poll()
        p.clock.set_by = DAY
        with capture_logs() as logs:
            await poll(p)
            await poll(p)
        [line] = [line for line in logs if line["log_level"] == "warning"]
        assert (line["event"], line["account"]) == (CLOCK_JUMP, "default")
        assert line["expected"] == "2027-01-15T08:01:00Z"
        assert line["clock"] == "2027-01-16T08:01:00Z"


async def test_small_clock_corrections_are_logged_only_when_they_add_up(tmp_path):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        with capture_logs() as logs:
            for _ in range(3):
                p.clock.set_by += 4
                assert not [line for line in logs if line["log_level"] == "warning"]
                await poll(p)
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == [CLOCK_JUMP]


async def test_a_clock_jump_during_failed_polls_is_applied_by_the_next_successful_poll(tmp_path):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        await p.poller.poll()
        p.clock.set_by = DAY
        await p.refuse_events()
        p.answer(listing(fine_tune("a"), fine_tune("b", "created"), fine_tune("c", "failed")))
        await poll(p)
        p.answer(CartesiaError("timeout", "late"), WAITING)
        await poll(p)
        await p.accept_events()
        await poll(p)
        await poll(p)
        assert p.status.up
        assert await queued(p) == []


async def test_time_in_status_after_a_clock_jump_survives_a_restart(tmp_path):
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        await p.poller.poll()
        p.clock.set_by = DAY
        await poll(p)
    async with open_poller(tmp_path / "state.db", WAITING) as p:
        p.clock.now += DAY + 120
        await p.poller.poll()
        assert await queued(p) == []
