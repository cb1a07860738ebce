"""Delivery to Alertmanager: each member by itself, in outages, over restarts and store errors."""

import asyncio
from collections.abc import Mapping
from functools import partial

import pytest
from sqlalchemy import Connection, insert
from structlog.testing import capture_logs

from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.events import Event
from exporter.core.retry import CircuitState
from exporter.delivery.alertmanager import ROUND_SECONDS
from exporter.store.outbox import Outbox
from exporter.store.receiver_outbox import Backlog, request_retry
from exporter.store.schema import poll_outages
from tests.delivery.alertmanager_fixture import (
    AM,
    BUSY,
    GONE,
    HOLD,
    AlertmanagerFixture,
    FakeMember,
    open_alertmanager,
)
from tests.delivery.delivery_fixture import EXPIRED, delivery_settings, until
from tests.fakes.alertmanager import seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW, fine_tune


def holds(member: FakeMember, number: int) -> bool:
    return len(member.alerts.held) == number


async def event_types(outbox: Outbox) -> list[str]:
    return [queued.event.type for queued in await outbox.unsent()]


async def test_every_event_is_an_alert_and_a_request_carries_at_most_64(single):
    names = sorted(f"ft{n}" for n in range(150))
    await single.queue_failures(*names)
    await single.post_all()
    [member] = single.members
    assert [len(request) for request in member.alerts.requests] == [64, 64, 22]
    assert member.alerts.names() == names
    assert await single.outbox.backlog() == Backlog()
    assert single.metric("cartesia_exporter_notifications_total") == 3
    assert single.metric("cartesia_exporter_notification_delay_seconds_count") == 150


async def test_the_first_2xx_of_any_member_delivers_and_starts_the_hold(cluster):
    await cluster.queue_failures("ft")
    cluster.members[0].answers.append(BUSY)
    await cluster.post_all(0)
    assert [row.settled for row in await cluster.rows()] == [None]
    cluster.clock.now += 600
    await cluster.post_all(1)
    assert [row.settled for row in await cluster.rows()] == [600]
    assert cluster.members[1].ends() == {"ft": NOW + 600 + HOLD}
    cluster.clock.now += 1000
    await cluster.post_all(0)
    assert cluster.members[0].ends() == {"ft": NOW + 600 + HOLD}
    assert [row.settled for row in await cluster.rows()] == [600]
    assert cluster.metric("cartesia_exporter_notification_delay_seconds_count") == 1
    assert cluster.metric("cartesia_exporter_notification_delay_seconds_sum") == 600


async def test_an_alert_is_posted_each_minute_to_every_member_until_it_ends(cluster):
    await cluster.queue_failures("ft")
    await cluster.post_all()
    posted = [1]
    while cluster.clock.now < NOW + HOLD + 600:
        cluster.clock.now += ROUND_SECONDS
        await cluster.post_all()
        posted.append(len(cluster.members[0].alerts.requests))
    assert posted[:4] == [1, 2, 3, 4]
    assert posted[-1] == HOLD / ROUND_SECONDS
    assert [len(member.alerts.requests) for member in cluster.members] == [posted[-1]] * 2
    assert {member.ends()["ft"] for member in cluster.members} == {NOW + HOLD}


async def test_a_restart_neither_resolves_nor_prolongs_an_alert(tmp_path):
    clock, member = FakeClock(NOW), FakeMember()
    for wait in (0.0, 100.0, 1000.0):
        async with open_alertmanager(tmp_path, [member], clock=clock) as fixture:
            clock.now += wait
            if not wait:
                await fixture.queue_failures("ft")
            await fixture.post_all()
            assert member.ends() == {"ft": NOW + HOLD}
    assert len(member.alerts.requests) == 3


async def test_leaving_failed_resolves_the_alert_at_once_for_15_minutes(single):
    [member] = single.members
    await single.queue_failures("ft")
    await single.post_all()
    single.clock.now += 5
    await single.leave_failed("ft")
    await single.post_all()
    assert member.ends() == {"ft": NOW + 5}
    while single.clock.now < NOW + 2 * RESOLVED_SECONDS:
        single.clock.now += ROUND_SECONDS
        await single.post_all()
    # One when it failed, one when it left, and one a minute for 15 minutes.
    assert len(member.alerts.requests) == 2 + RESOLVED_SECONDS / ROUND_SECONDS - 1
    assert member.ends() == {"ft": NOW + 5}


async def test_an_alert_that_ended_before_its_delivery_is_delivered_as_resolved(single):
    await single.queue_failures("ft")
    single.members[0].answers.append(BUSY)
    await single.post_all()
    single.clock.now += 3600
    await single.leave_failed("ft")
    await single.post_all()
    assert single.members[0].ends() == {"ft": NOW + 3600}
    assert await single.outbox.backlog() == Backlog()


async def test_two_failures_during_an_outage_are_one_alert_and_both_are_delivered(single):
    await single.queue_failures("ft")
    await single.leave_failed("ft")
    single.clock.now += 60
    again = fine_tune("ft", "failed")
    event = Event("again", "fine_tune.failed", "default", single.clock.now, again)
    await single.record_event(event, AM)
    await single.post_all()
    [request] = single.members[0].alerts.requests
    assert len(request) == 1
    assert single.members[0].ends() == {"ft": NOW + 60 + HOLD}
    assert await single.outbox.backlog() == Backlog()


async def test_a_member_that_hangs_does_not_delay_others_and_stops(cluster, monkeypatch):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 3600.0)  # only wake-ups count
    hanging, quick = cluster.members
    hanging.released.clear()
    stop = asyncio.Event()
    running = asyncio.create_task(cluster.deliverer.run(stop))
    for number, name in enumerate(("a", "b"), 1):
        await cluster.queue_failures(name)
        cluster.deliverer.wake()
        await until(partial(holds, quick, number))
    assert quick.alerts.names() == ["a", "b"]
    assert len(hanging.requests) == 1
    assert await cluster.outbox.backlog() == Backlog()
    stop.set()
    hanging.released.set()  # the request in flight is finished
    await asyncio.wait_for(running, 10)
    assert hanging.alerts.names() == ["a"]


async def test_the_backlog_is_served_while_the_first_request_hangs(single):
    single.members[0].released.clear()
    await single.queue_failures("ft")
    running = asyncio.create_task(single.deliverer.run(asyncio.Event()))
    await until(lambda: bool(single.members[0].requests))
    assert single.metric("cartesia_exporter_deliveries_pending") == 1
    running.cancel()
    await asyncio.wait((running,), timeout=10)


async def test_it_can_be_cancelled_while_a_member_hangs(cluster):
    cluster.members[0].released.clear()
    await cluster.queue_failures("ft")
    running = asyncio.create_task(cluster.deliverer.run(asyncio.Event()))
    await until(lambda: all(member.requests for member in cluster.members))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)


async def test_a_bug_in_one_member_ends_all(cluster, monkeypatch):
    async def broken(body: bytes, headers: Mapping[str, str], now: float):
        raise ZeroDivisionError

    monkeypatch.setattr(cluster.members[1], "attempt", broken)
    await cluster.queue_failures("ft")
    with pytest.raises(ExceptionGroup) as raised:
        await cluster.deliverer.run(asyncio.Event())
    assert raised.group_contains(ZeroDivisionError)


async def test_a_retry_ends_the_pause_of_every_member(cluster):
    for member in cluster.members:
        member.answers.append(GONE)
    await cluster.queue_failures("ft")
    await cluster.post_all()
    await cluster.post_all()
    assert [len(member.requests) for member in cluster.members] == [1, 1]
    await cluster.write(lambda connection: request_retry(connection, AM))
    await cluster.post_all()
    assert [member.alerts.names() for member in cluster.members] == [["ft"], ["ft"]]


async def test_it_is_unhealthy_when_every_member_is_and_notifies_others_once(tmp_path):
    wakeups: list[bool] = []
    settings = delivery_settings(wake=lambda: wakeups.append(True))
    members = [FakeMember(), FakeMember()]
    members[0].answers += [GONE] * 3
    members[1].answers += [BUSY, GONE, GONE]
    async with open_alertmanager(tmp_path, members, settings) as cluster:
        other = Outbox(cluster.database, "other")
        await cluster.queue_failures("ft")
        for _ in range(2):
            await cluster.post_all(0)
            cluster.clock.now += 3600
        await cluster.post_all(1)
        assert await event_types(other) == []
        assert not (await cluster.outbox.receiver_state()).circuit.open
        cluster.clock.now += 3600
        await cluster.post_all()
        assert await event_types(other) == ["agent.receiver_unhealthy"]
        assert (await cluster.outbox.receiver_state()).circuit.open
        assert wakeups == [True]
        assert cluster.metric("cartesia_exporter_receiver_up") == 0
        cluster.clock.now += 7200
        await cluster.post_all()
        both = ["agent.receiver_unhealthy", "agent.receiver_recovered"]
        assert await event_types(other) == both
        assert cluster.metric("cartesia_exporter_receiver_up") == 1


async def test_the_circuit_is_kept_over_a_restart_and_its_recovery_notified(tmp_path):
    clock, members = FakeClock(NOW), [FakeMember(), FakeMember()]
    for member in members:
        member.answers.append(GONE)
    async with open_alertmanager(tmp_path, members, clock=clock) as cluster:
        await cluster.queue_failures("ft")
        await cluster.post_all()
    clock.now += 5
    members[1].answers.append(GONE)
    async with open_alertmanager(tmp_path, members, clock=clock) as cluster:
        other = Outbox(cluster.database, "other")
        await cluster.post_all(1)
        state = await cluster.outbox.receiver_state()
        assert state.circuit == CircuitState(1, NOW, True, "answered 404")
        assert await event_types(other) == ["agent.receiver_unhealthy"]
        await cluster.post_all(0)
        both = ["agent.receiver_unhealthy", "agent.receiver_recovered"]
        assert await event_types(other) == both


async def test_a_recovery_by_the_first_member_after_a_restart_is_notified(tmp_path):
    members = [FakeMember(), FakeMember()]
    for member in members:
        member.answers.append(GONE)
    async with open_alertmanager(tmp_path, members) as cluster:
        await cluster.queue_failures("ft")
        await cluster.post_all()
    async with open_alertmanager(tmp_path, members) as cluster:
        await cluster.post_all(0)
        both = ["agent.receiver_unhealthy", "agent.receiver_recovered"]
        assert await event_types(Outbox(cluster.database, "other")) == both


async def test_deliveries_expire_after_a_failed_attempt_of_every_member(tmp_path):
    settings, members = delivery_settings(max_age=3600.0), [FakeMember(), FakeMember()]
    async with open_alertmanager(tmp_path, members, settings) as cluster:
        await cluster.queue_failures("ft", "ft2")
        cluster.clock.now += 3601
        for member in members:
            member.answers += [BUSY]
        await cluster.post_all(0)
        assert (await cluster.outbox.backlog()).pending == 2, "the other member may accept them"
        await cluster.post_all(1)
        assert await cluster.outbox.backlog() == Backlog(0, 2)
        assert cluster.metric(EXPIRED) == 2


async def refuse_updates(fixture: AlertmanagerFixture) -> None:
    """Make the store refuse to change deliveries, as on a full disk."""
    await fixture.execute(
        "CREATE TRIGGER no BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'no'); END"
    )


async def test_posts_go_on_while_the_store_cannot_be_written_and_are_stored_later(single):
    [member] = single.members
    await single.queue_failures("ft")
    await refuse_updates(single)
    with capture_logs() as logs:
        await single.post_all()
        single.clock.now += ROUND_SECONDS
        await single.post_all()
        assert len(member.alerts.requests) == 2
        assert member.ends() == {"ft": NOW + HOLD}, "the first 2xx started the hold"
        assert (await single.outbox.backlog()).pending == 1
        await single.execute("DROP TRIGGER no")
        await single.post_all()
    assert [row.settled for row in await single.rows()] == [0]
    events = [line["event"] for line in logs if line["event"].startswith("outbox")]
    assert events == ["outbox unavailable", "outbox available again"]


async def test_only_the_last_of_many_circuits_is_kept_while_the_store_cannot_be_written(single):
    [member] = single.members
    await single.queue_failures("ft")
    await single.execute(
        "CREATE TRIGGER no BEFORE INSERT ON receivers BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    member.answers += [BUSY] * 20
    while member.answers:
        single.clock.now += await single.deliverer.members[0].deliver_due()
    assert len(single.deliverer._unstored) == 2
    await single.execute("DROP TRIGGER no")
    await single.deliverer.store()
    assert (await single.outbox.receiver_state()).circuit.failures == 20


async def test_good_news_that_was_reassigned_is_delivered_as_a_resolved_alert(single):
    """It has the labels of the trouble that it ends."""
    news = Event("evt", "agent.poll_recovered", "default", NOW, facts={"since": "before"})
    await single.record_event(news, AM)
    await single.post_all()
    [alert] = single.members[0].alerts.held.values()
    assert alert["labels"]["alertname"] == "CartesiaPollFailing"
    assert seconds(alert["endsAt"]) == NOW
    assert (await single.outbox.backlog()).pending == 0


async def test_a_discarded_alert_is_not_posted_any_more(single):
    single.members[0].answers.append(BUSY)
    await single.queue_failures("ft")
    await single.post_all()
    single.clock.now += ROUND_SECONDS
    await single.execute("UPDATE deliveries SET state = 'discarded'")
    await single.post_all()
    assert len(single.members[0].requests) == 1


async def test_an_alert_discarded_during_its_request_is_delivered(single):
    [member] = single.members
    member.released.clear()
    await single.queue_failures("ft")
    request = asyncio.create_task(single.deliverer.members[0].deliver_due())
    await until(lambda: bool(member.requests))
    await single.execute("UPDATE deliveries SET state = 'discarded'")
    member.released.set()
    await request
    assert [row.settled for row in await single.rows()] == [0]


async def test_forget_removes_the_receivers_series(single):
    await single.queue_failures("ft")
    await single.post_all()
    single.deliverer.forget()
    samples = [each for metric in single.registry.collect() for each in metric.samples]
    assert [each for each in samples if each.labels.get("receiver") == AM] == []


async def test_an_account_that_cannot_be_read_fires_until_it_can_over_restarts(tmp_path):
    """It was resolved after ``hold`` while the account still could not be read."""
    clock, member = FakeClock(NOW), FakeMember()

    def store_outage(connection: Connection) -> None:
        start = {"since": NOW, "since_awake": 0.0, "reason": "timeout", "reported": True}
        row = {"name": "main", "base_url": "x", **start}
        connection.execute(insert(poll_outages), [row])

    def end() -> float:
        [alert] = member.alerts.held.values()
        return seconds(alert["endsAt"])

    for hours in range(4):
        async with open_alertmanager(tmp_path, [member], clock=clock) as fixture:
            if not hours:
                await fixture.write(store_outage)
                await fixture.record_event(Event("f", "agent.poll_failing", "main", NOW), AM)
            await fixture.post_all()
            for _ in range(60):
                clock.now += 60
                await fixture.post_all()
                assert end() > clock.now + 60
    async with open_alertmanager(tmp_path, [member], clock=clock) as fixture:
        await fixture.record_event(Event("r", "agent.poll_recovered", "main", clock.now))
        clock.now += 1
        await fixture.post_all()
    assert end() <= clock.now
