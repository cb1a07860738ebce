"""Setting the wall clock neither expires, holds, ends nor repeats an alert; awake time does."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.alertmanager import ROUND_SECONDS
from exporter.store.receiver_outbox import Backlog
from tests.delivery.alertmanager_fixture import (
    HOLD,
    FakeMember,
    open_alertmanager,
)
from tests.delivery.delivery_fixture import (
    ACCEPTED,
    BUSY,
    EXPIRED,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
)
from tests.fakes.alertmanager import seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW

DAY = 86_400.0
MAX_AGE = 3 * DAY
OLDEST = "cartesia_exporter_delivery_oldest_pending_timestamp_seconds"

jumps = pytest.mark.parametrize("days", [-7300, -4, -1, 1, 4, 7300])


@jumps
async def test_a_jump_while_the_agent_runs_expires_nothing(tmp_path, days):
    async with open_delivery(tmp_path, answering(BUSY, BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        delivery.clock.set_by = days * DAY
        await delivery.make_attempts(1)
        assert (await delivery.outbox.backlog()).pending == 1
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a"] * 3
        assert delivery.metric(EXPIRED) == 0
        delay = delivery.metric("cartesia_exporter_notification_delay_seconds_sum")
        assert delay == pytest.approx(delivery.clock.now - NOW)


@jumps
async def test_a_jump_while_the_agent_is_stopped_expires_nothing(tmp_path, days):
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
    clock = FakeClock(NOW)
    clock.set_by = days * DAY
    async with open_delivery(tmp_path, answering(BUSY), clock=clock) as delivery:
        await delivery.make_attempts(1)
        assert (await delivery.outbox.backlog()).pending == 1
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a"] * 2


@jumps
async def test_max_age_is_counted_over_restarts_whatever_the_wall_clock_says(tmp_path, days):
    clock = FakeClock(NOW)
    async with open_delivery(tmp_path, answering(BUSY), clock=clock) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        clock.now += MAX_AGE / 2
    clock = FakeClock(5.0)  # the monotonic clock of another boot
    clock.set_by = NOW + days * DAY
    async with open_delivery(tmp_path, answering(BUSY, BUSY), clock=clock) as delivery:
        clock.now += MAX_AGE / 2 - 900
        await delivery.make_attempts(1)
        assert (await delivery.outbox.backlog()).pending == 1
        clock.now += 901
        await delivery.make_attempts(1)
        assert await delivery.outbox.backlog() == Backlog(0, 1)
        assert delivery.metric(EXPIRED) == 1


@jumps
async def test_the_backlog_is_as_old_as_it_is_on_the_wall_clock_of_now(tmp_path, days):
    async with open_delivery(tmp_path, FakeReceiver()) as delivery:
        await delivery.queue_failures("a")
        delivery.receiver.answers += [BUSY] * 9
        await delivery.make_attempts(1)
        assert delivery.metric(OLDEST) == NOW
        delivery.clock.now += 100
        delivery.clock.set_by = days * DAY
        await delivery.deliverer.deliver_due()
        assert delivery.metric(OLDEST) == pytest.approx(NOW + days * DAY, abs=1)


async def test_small_corrections_of_the_wall_clock_do_not_change_the_page(tmp_path):
    async with open_delivery(tmp_path, answering(*[BUSY] * 9)) as delivery:
        await delivery.queue_failures("a")
        for _ in range(3):
            await delivery.make_attempts(1)
            delivery.clock.set_by += 0.3
            assert delivery.metric(OLDEST) == NOW
        delivery.clock.set_by += 0.3
        await delivery.make_attempts(1)
        assert delivery.metric(OLDEST) == pytest.approx(NOW + 1.2)


async def test_the_pauses_of_a_new_outage_do_not_grow_with_the_wall_clock(tmp_path):
    async with open_delivery(tmp_path, answering(*[BUSY] * 20)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        delivery.clock.set_by = 4 * DAY
        for _ in range(12):
            await delivery.make_attempts(1)
            assert await delivery.deliverer.deliver_due() <= 150


def posted_times(member: FakeMember) -> tuple[float, float]:
    """Return start and end of the only alert, as it was posted last."""
    [alert] = member.alerts.requests[-1]
    return seconds(alert["startsAt"]), seconds(alert["endsAt"])


@jumps
async def test_a_held_alert_keeps_the_rest_of_its_hold_after_a_jump(tmp_path, days):
    clock, member = FakeClock(NOW), FakeMember()
    async with open_alertmanager(tmp_path, [member], clock=clock) as alertmanager:
        await alertmanager.queue_failures("ft")
        await alertmanager.post_all()
        clock.now += 1000
        clock.set_by = days * DAY
        await alertmanager.post_all()
        assert posted_times(member)[1] == pytest.approx(NOW + days * DAY + HOLD, abs=0.01)
    clock.set_by = -days * DAY
    async with open_alertmanager(tmp_path, [member], clock=clock) as alertmanager:
        await alertmanager.post_all()
        assert posted_times(member)[1] == pytest.approx(NOW - days * DAY + HOLD, abs=0.01)
        requests = len(member.requests)
        clock.now += HOLD - 1000
        await alertmanager.post_all()
        assert len(member.requests) == requests, "the hold is over"


@jumps
async def test_an_alert_that_ends_after_a_jump_is_posted_as_resolved_for_15_minutes(tmp_path, days):
    member = FakeMember()
    async with open_alertmanager(tmp_path, [member]) as alertmanager:
        clock = alertmanager.clock
        clock.set_by = days * DAY
        await alertmanager.queue_failures("ft")
        await alertmanager.post_all()
        clock.now += 100
        clock.set_by = 0
        await alertmanager.leave_failed("ft")
        for _ in range(int(RESOLVED_SECONDS / ROUND_SECONDS)):
            requests = len(member.requests)
            await alertmanager.post_all()
            start, end = posted_times(member)
            now = clock.clock.now()
            assert start <= end <= now, "it is resolved: it neither starts nor ends in the future"
            assert len(member.requests) == requests + 1
            clock.now += ROUND_SECONDS
        await alertmanager.post_all()
        assert len(member.requests) == requests + 1


@jumps
async def test_pending_alerts_do_not_expire_by_a_jump(tmp_path, days):
    member = FakeMember()
    async with open_alertmanager(tmp_path, [member]) as alertmanager:
        await alertmanager.queue_failures("ft")
        member.answers += [BUSY, BUSY]
        await alertmanager.post_all()
        alertmanager.clock.set_by = days * DAY
        alertmanager.clock.now += 600
        await alertmanager.post_all()
        assert await alertmanager.outbox.backlog() == Backlog(1, 0, 600)
        alertmanager.clock.now += 600
        await alertmanager.post_all()
        assert await alertmanager.outbox.backlog() == Backlog()


LOST = Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True)
steps = st.one_of(
    st.tuples(st.just("attempt"), st.sampled_from([ACCEPTED, BUSY, BUSY, BUSY, LOST])),
    st.tuples(st.just("set wall clock"), st.floats(-40 * 365 * DAY, 40 * 365 * DAY)),
    st.tuples(st.just("pass time"), st.floats(1, 2 * DAY)),
    st.tuples(st.just("restart"), st.floats(0, 1e7)),
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=15))
async def test_only_awake_time_decides_what_becomes_of_an_alert(history):
    """One alert over any history of attempts, wall clocks, restarts and time."""
    awake, expected, accepted = 0.0, "pending", 0
    clock, receiver = FakeClock(NOW), FakeReceiver()
    with tempfile.TemporaryDirectory() as name:
        opened = open_delivery(Path(name), receiver, delivery_settings(), clock)
        delivery = await opened.__aenter__()
        await delivery.queue_failures("a")
        for step, value in history:
            if step == "set wall clock":
                clock.set_by = value
            elif step == "pass time":
                clock.now += value
                awake += value
            elif step == "restart":
                await opened.__aexit__(None, None, None)
                wall = clock.clock.now()
                clock.now = value
                clock.set_by = wall - value
                opened = open_delivery(Path(name), receiver, delivery_settings(), clock)
                delivery = await opened.__aenter__()
            else:
                receiver.answers.append(value)
                before, sent = clock.now, len(receiver.sent)
                while receiver.answers and expected == "pending":
                    clock.now += await delivery.deliverer.deliver_due()
                receiver.answers.clear()
                awake += clock.now - before
                assert len(receiver.sent) == sent + (expected == "pending")
                if expected == "pending" and value is ACCEPTED:
                    expected, accepted = "delivered", accepted + 1
                elif expected == "pending" and awake > MAX_AGE:
                    expected = "dead"
            backlog = await delivery.outbox.backlog()
            assert (backlog.pending, backlog.dead) == (expected == "pending", expected == "dead")
            if backlog.oldest_age is not None:
                assert backlog.oldest_age == pytest.approx(awake, abs=1)
        await opened.__aexit__(None, None, None)
    assert accepted == (expected == "delivered")
