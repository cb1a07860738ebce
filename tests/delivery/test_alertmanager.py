"""An Alertmanager is told what is wrong for as long as it is: each member by itself."""

import asyncio
from functools import partial

import pytest
from structlog.testing import capture_logs

from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.events import Event
from exporter.core.retry import CircuitState
from exporter.delivery.alertmanager import ROUND_SECONDS
from exporter.receivers.alertmanager import content_of
from exporter.store.events import record_events
from exporter.store.outbox import Backlog, Outbox, request_retry
from tests.delivery.alertmanager_fixture import (
    AM,
    BUSY,
    GONE,
    HOLD,
    Alerting,
    FakeMember,
    alerting,
    on_bench,
)
from tests.delivery.delivery_fixture import plan_of, until
from tests.fakes.alertmanager import seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW, fine_tune

MORE_THAN_A_ROUND = ROUND_SECONDS + 1


async def leave(a: Alerting, fine_tune_id: str) -> None:
    """Have a fine-tune leave its status, which is recorded and told to nobody."""
    event = Event(f"left_{fine_tune_id}", "fine_tune.changed", "default", a.clock.now)
    event = Event(event.id, event.type, "default", event.observed_at, fine_tune(fine_tune_id))
    await run_in(a, lambda connection: record_events(connection, [(event, [])]))


async def run_in(a: Alerting, work) -> None:
    def write() -> None:
        with a.database.write() as connection:
            work(connection)

    await a.database.run(write)


def is_told(member: FakeMember, name: str) -> bool:
    return name in member.alerts.names()


def test_every_event_is_an_alert_of_its_own_never_more_than_64_a_request(tmp_path):
    async def test(a: Alerting) -> None:
        names = sorted(f"ft{n}" for n in range(150))
        await a.fail(*names)
        await a.turns()
        [member] = a.members
        assert [len(request) for request in member.alerts.requests] == [64, 64, 22]
        assert member.alerts.names() == names
        assert await a.outbox.backlog() == Backlog()
        assert a.metric("cartesia_exporter_notifications_total") == 3
        assert a.metric("cartesia_exporter_notification_delay_seconds_count") == 150

    on_bench(tmp_path, test)


def test_it_is_delivered_at_the_first_2xx_of_any_member_and_hold_begins_with_it(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail("ft")
        a.members[0].answers.append(BUSY)
        await a.turns(0)
        assert [alert.settled_at for alert in await a.owed()] == [None]
        a.clock.now += 600
        await a.turns(1)
        assert [alert.settled_at for alert in await a.owed()] == [NOW + 600]
        assert a.members[1].ends() == {"ft": NOW + 600 + HOLD}
        a.clock.now += 1000
        await a.turns(0)
        assert a.members[0].ends() == {"ft": NOW + 600 + HOLD}
        assert [alert.settled_at for alert in await a.owed()] == [NOW + 600]
        assert a.metric("cartesia_exporter_notification_delay_seconds_count") == 1
        assert a.metric("cartesia_exporter_notification_delay_seconds_sum") == 600

    on_bench(tmp_path, test, members=2)


def test_it_is_posted_again_each_minute_to_every_member_until_it_is_over(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail("ft")
        await a.turns()
        posted = [1]
        while a.clock.now < NOW + HOLD + 600:
            a.clock.now += ROUND_SECONDS
            await a.turns()
            posted.append(len(a.members[0].alerts.requests))
        assert posted[:4] == [1, 2, 3, 4]
        assert posted[-1] == HOLD / ROUND_SECONDS
        assert [len(member.alerts.requests) for member in a.members] == [posted[-1]] * 2
        assert {member.ends()["ft"] for member in a.members} == {NOW + HOLD}

    on_bench(tmp_path, test, members=2)


def test_a_restart_resolves_nothing_and_prolongs_nothing(tmp_path):
    async def run() -> None:
        clock, member = FakeClock(NOW), FakeMember()
        for wait in (0.0, 100.0, 1000.0):
            clock.now += wait
            async with alerting(tmp_path, [member], clock=clock) as a:
                if not wait:
                    await a.fail("ft")
                await a.turns()
                assert member.ends() == {"ft": NOW + HOLD}
        assert len(member.alerts.requests) == 3

    asyncio.run(run())


def test_leaving_failed_resolves_it_at_once_for_15_minutes(tmp_path):
    async def test(a: Alerting) -> None:
        [member] = a.members
        await a.fail("ft")
        await a.turns()
        a.clock.now += 5
        await leave(a, "ft")
        await a.turns()
        assert member.ends() == {"ft": NOW + 5}
        while a.clock.now < NOW + 2 * RESOLVED_SECONDS:
            a.clock.now += ROUND_SECONDS
            await a.turns()
        # One when it failed, one when it left, and one a minute for the quarter of an hour.
        assert len(member.alerts.requests) == 2 + RESOLVED_SECONDS / ROUND_SECONDS - 1
        assert member.ends() == {"ft": NOW + 5}

    on_bench(tmp_path, test)


def test_one_that_left_before_anybody_took_it_is_delivered_as_resolved(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail("ft")
        a.members[0].answers.append(BUSY)
        await a.turns()
        a.clock.now += 3600
        await leave(a, "ft")
        await a.turns()
        assert a.members[0].ends() == {"ft": NOW + 3600}
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test)


def test_one_that_fails_again_during_an_outage_fires_once_and_both_are_delivered(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail("ft")
        await leave(a, "ft")
        a.clock.now += 60
        again = Event(
            "again", "fine_tune.failed", "default", a.clock.now, fine_tune("ft", "failed")
        )
        await run_in(a, lambda connection: record_events(connection, [(again, [AM])]))
        await a.turns()
        [request] = a.members[0].alerts.requests
        assert len(request) == 1
        assert a.members[0].ends() == {"ft": NOW + 60 + HOLD}
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test)


def test_a_member_that_hangs_delays_no_other_and_ends_when_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 3600.0)  # only when woken

    async def test(a: Alerting) -> None:
        hanging, well = a.members
        hanging.go.clear()
        stop = asyncio.Event()
        running = asyncio.create_task(a.deliverer.run(stop))
        for name in ("a", "b"):
            await a.fail(name)
            a.deliverer.wake()
            await until(partial(is_told, well, name))
        assert len(hanging.asked) == 1
        assert await a.outbox.backlog() == Backlog()
        stop.set()
        hanging.go.set()  # what is in flight may finish
        await asyncio.wait_for(running, 10)
        assert hanging.alerts.names() == ["a"]

    on_bench(tmp_path, test, members=2)


def test_what_is_owed_is_shown_while_the_first_request_hangs(tmp_path):
    async def test(a: Alerting) -> None:
        a.members[0].go.clear()
        await a.fail("ft")
        running = asyncio.create_task(a.deliverer.run(asyncio.Event()))
        await until(lambda: bool(a.members[0].asked))
        assert a.metric("cartesia_exporter_deliveries_pending") == 1
        running.cancel()
        await asyncio.wait((running,), timeout=10)

    on_bench(tmp_path, test)


def test_cut_off_while_a_member_hangs_it_ends(tmp_path):
    async def test(a: Alerting) -> None:
        a.members[0].go.clear()
        await a.fail("ft")
        running = asyncio.create_task(a.deliverer.run(asyncio.Event()))
        await until(lambda: all(member.asked for member in a.members))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 10)

    on_bench(tmp_path, test, members=2)


def test_a_bug_in_one_member_ends_all(tmp_path, monkeypatch):
    async def test(a: Alerting) -> None:
        async def broken(body: bytes, now: float):
            raise ZeroDivisionError

        monkeypatch.setattr(a.members[1], "post", broken)
        await a.fail("ft")
        with pytest.raises(ExceptionGroup) as raised:
            await a.deliverer.run(asyncio.Event())
        assert raised.group_contains(ZeroDivisionError)

    on_bench(tmp_path, test, members=2)


def named(*bad: str):
    """A rule that refuses these fine-tunes in any form."""
    return lambda alert: alert["labels"].get("fine_tune_id") in bad


def test_of_a_refused_request_the_good_ones_are_delivered_and_the_bad_one_given_up(tmp_path):
    async def test(a: Alerting) -> None:
        [member] = a.members
        member.alerts.refuses = named("ft7")
        await a.fail(*(f"ft{n}" for n in range(40)))
        with capture_logs() as logs:
            await a.turns()
        assert len(member.alerts.names()) == 39
        assert await a.outbox.backlog() == Backlog(dead=1)
        assert len(member.asked) <= 2 * 6 + 3
        [given_up] = [line for line in logs if line["log_level"] == "error"]
        assert given_up["event"] == "alert given up, every member refuses it"
        assert given_up["member"] == 1
        assert (a.failed("payload") or 0) > 2
        tried = len(member.asked)
        a.clock.now += MORE_THAN_A_ROUND
        await a.turns()
        assert len(member.asked) == tried + 1, "it is not asked again about the one it refuses"

    on_bench(tmp_path, test)


def test_a_refused_alert_is_tried_once_more_without_what_people_wrote(tmp_path):
    async def test(a: Alerting) -> None:
        [member] = a.members
        member.alerts.refuses = lambda alert: "model_id" in alert["labels"]
        await a.fail("ft")
        await a.turns()
        assert [len(request) for request in member.alerts.requests] == [1, 1]
        [alert] = member.alerts.held.values()
        assert alert["labels"] == {
            "alertname": "CartesiaFineTuneFailed",
            "severity": "critical",
            "account": "default",
            "fine_tune_id": "ft",
        }
        assert "description" not in alert["annotations"]
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test)


def test_while_another_member_may_take_it_a_refused_alert_is_pending(tmp_path):
    async def test(a: Alerting) -> None:
        refusing, busy = a.members
        refusing.alerts.refuses = named("ft")
        busy.answers += [BUSY]
        await a.fail("ft")
        await a.turns()
        assert await a.outbox.backlog() == Backlog(1, 0, NOW)
        a.clock.now += MORE_THAN_A_ROUND
        await a.turns()
        assert busy.alerts.names() == ["ft"]
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test, members=2)


def test_when_every_member_refuses_it_an_alert_is_dead_and_a_retry_tries_all(tmp_path):
    async def test(a: Alerting) -> None:
        for member in a.members:
            member.alerts.refuses = named("ft")
        await a.fail("ft")
        await a.turns(0)
        assert await a.outbox.backlog() == Backlog(1, 0, NOW)
        await a.turns(1)
        assert await a.outbox.backlog() == Backlog(0, 1)
        asked = [len(member.asked) for member in a.members]
        a.clock.now += MORE_THAN_A_ROUND
        await a.turns()
        assert [len(member.asked) for member in a.members] == asked

        def retry(connection) -> None:
            connection.exec_driver_sql("UPDATE deliveries SET state = 'pending', settled_at = NULL")
            request_retry(connection, AM)

        for member in a.members:
            member.alerts.refuses = named()
        await run_in(a, retry)
        await a.turns()
        assert [member.alerts.names() for member in a.members] == [["ft"], ["ft"]]
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test, members=2)


def test_what_was_delivered_and_is_refused_later_is_not_given_up(tmp_path):
    async def test(a: Alerting) -> None:
        await a.fail("ft")
        await a.turns()
        a.members[0].alerts.refuses = named("ft")
        a.clock.now += MORE_THAN_A_ROUND
        with capture_logs() as logs:
            await a.turns()
        assert await a.outbox.backlog() == Backlog()
        assert [each["event"] for each in logs if each["log_level"] == "error"] == ["alert refused"]

    on_bench(tmp_path, test)


def test_a_nudge_ends_every_members_pause(tmp_path):
    async def test(a: Alerting) -> None:
        for member in a.members:
            member.answers.append(GONE)
        await a.fail("ft")
        await a.turns()
        await a.turns()
        assert [len(member.asked) for member in a.members] == [1, 1]
        await run_in(a, lambda connection: request_retry(connection, AM))
        await a.turns()
        assert [member.alerts.names() for member in a.members] == [["ft"], ["ft"]]

    on_bench(tmp_path, test, members=2)


def test_a_nudge_has_a_member_try_again_what_it_refused(tmp_path):
    async def test(a: Alerting) -> None:
        mended, refusing = a.members
        mended.alerts.refuses = refusing.alerts.refuses = named("ft")
        await a.fail("ft")
        await a.turns(0)
        mended.alerts.refuses = named()
        await run_in(a, lambda connection: request_retry(connection, AM))
        mended.answers.append(BUSY)
        await a.turns(0)
        await a.turns(1)
        assert await a.outbox.backlog() == Backlog(1, 0, NOW), "only one has refused it since"
        a.clock.now += MORE_THAN_A_ROUND
        await a.turns(0)
        assert mended.alerts.names() == ["ft"]
        assert await a.outbox.backlog() == Backlog()

    on_bench(tmp_path, test, members=2)


def test_it_is_unhealthy_only_when_every_member_is_and_the_others_are_told_once(tmp_path):
    woken: list[bool] = []

    async def test(a: Alerting) -> None:
        told = Outbox(a.database, "other")
        await a.fail("ft")
        a.members[0].answers += [GONE] * 3
        a.members[1].answers += [BUSY, GONE, GONE]
        for _ in range(2):
            await a.turns(0)
            a.clock.now += 3600
        await a.turns(1)
        assert (await told.unsent(), (await a.outbox.receiver_state()).health.open) == ([], False)
        a.clock.now += 3600
        await a.turns()
        assert [each.event.type for each in await told.unsent()] == ["agent.receiver_unhealthy"]
        assert (await a.outbox.receiver_state()).health.open
        assert woken == [True]
        assert a.metric("cartesia_exporter_receiver_up") == 0
        a.clock.now += 7200
        await a.turns()
        assert [each.event.type for each in await told.unsent()] == [
            "agent.receiver_unhealthy",
            "agent.receiver_recovered",
        ]
        assert a.metric("cartesia_exporter_receiver_up") == 1

    plan = plan_of(wake=lambda: woken.append(True))
    on_bench(tmp_path, test, members=2, plan=plan)


def test_over_a_restart_its_health_is_known_and_each_end_of_a_trouble_told(tmp_path):
    async def run() -> None:
        clock, members = FakeClock(NOW), [FakeMember(), FakeMember()]
        for member in members:
            member.answers.append(GONE)
        async with alerting(tmp_path, members, clock=clock) as a:
            await a.fail("ft")
            await a.turns()
        clock.now += 5
        members[1].answers.append(GONE)
        async with alerting(tmp_path, members, clock=clock) as a:
            told = Outbox(a.database, "other")
            await a.turns(1)
            assert (await a.outbox.receiver_state()).health == CircuitState(
                1, NOW, True, "answered 404"
            )
            assert len(await told.unsent()) == 1
            await a.turns(0)
            types = [each.event.type for each in await told.unsent()]
            assert types == ["agent.receiver_unhealthy", "agent.receiver_recovered"]

    asyncio.run(run())


def test_too_old_it_is_given_up_behind_a_failed_attempt_but_each_member_has_its_chance(tmp_path):
    async def run() -> None:
        clock, members = FakeClock(NOW), [FakeMember(), FakeMember()]
        async with alerting(tmp_path, members, plan_of(max_age=3600.0), clock) as a:
            await a.fail("ft", "ft2")
            clock.now += 3601
            members[0].answers += [BUSY]
            members[1].answers += [BUSY]
            await a.turns(0)
            assert (await a.outbox.backlog()).pending == 2, "the other member may take it"
            await a.turns(1)
            assert await a.outbox.backlog() == Backlog(0, 2)
            assert a.failed("expired") == 2

    asyncio.run(run())


async def forbid_writing(a: Alerting) -> None:
    trigger = "CREATE TRIGGER no BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'no'); END"
    await run_in(a, lambda connection: connection.exec_driver_sql(trigger))


def test_where_nothing_can_be_written_posts_go_on_and_are_marked_later(tmp_path):
    async def test(a: Alerting) -> None:
        [member] = a.members
        await a.fail("ft")
        await forbid_writing(a)
        with capture_logs() as logs:
            await a.turns()
            a.clock.now += MORE_THAN_A_ROUND
            await a.turns()
            assert len(member.alerts.requests) == 2
            assert member.ends() == {"ft": NOW + HOLD}, "hold began with the first 2xx all the same"
            assert (await a.outbox.backlog()).pending == 1
            await run_in(a, lambda connection: connection.exec_driver_sql("DROP TRIGGER no"))
            await a.turns()
        assert [alert.settled_at for alert in await a.owed()] == [NOW]
        said = [line["event"] for line in logs if line["event"].startswith("outbox")]
        assert said == ["outbox unavailable, nothing is lost", "outbox available again"]

    on_bench(tmp_path, test)


def test_what_every_member_refused_is_marked_when_the_store_takes_it(tmp_path):
    async def test(a: Alerting) -> None:
        a.members[0].alerts.refuses = named("ft")
        await a.fail("ft")
        await forbid_writing(a)
        await a.turns()
        tried = len(a.members[0].asked)
        await a.turns()
        assert len(a.members[0].asked) == tried
        await run_in(a, lambda connection: connection.exec_driver_sql("DROP TRIGGER no"))
        await a.turns()
        assert await a.outbox.backlog() == Backlog(0, 1)

    on_bench(tmp_path, test)


def test_an_event_that_cannot_be_made_into_an_alert_stops_no_other(tmp_path, monkeypatch):
    def broken(event, pages, *, minimal=False):
        if event.subject == "bad":
            raise ZeroDivisionError
        return content_of(event, pages, minimal=minimal)

    monkeypatch.setattr("exporter.delivery.alertmanager.content_of", broken)

    async def test(a: Alerting) -> None:
        await a.fail("bad", "good")
        with capture_logs() as logs:
            await a.turns()
            await a.turns()
        assert a.members[0].alerts.names() == ["good"]
        assert await a.outbox.backlog() == Backlog(0, 1)
        assert len([line for line in logs if "cannot be made" in line["event"]]) == 1

    on_bench(tmp_path, test)


def test_good_news_that_was_reassigned_to_it_is_delivered_and_fires_nothing(tmp_path):
    """It has the labels of the trouble that it ends."""

    async def test(a: Alerting) -> None:
        news = Event("evt", "agent.poll_recovered", "default", NOW, facts={"since": "before"})

        def reassign() -> None:
            with a.database.write() as connection:
                record_events(connection, [(news, [AM])])

        await a.database.run(reassign)
        await a.turns()
        [alert] = a.members[0].alerts.held.values()
        assert alert["labels"]["alertname"] == "CartesiaPollFailing"
        assert seconds(alert["endsAt"]) == NOW
        assert (await a.outbox.backlog()).pending == 0

    on_bench(tmp_path, test)


def test_what_is_discarded_is_not_posted_any_more(tmp_path):
    async def test(a: Alerting) -> None:
        a.members[0].answers.append(BUSY)
        await a.fail("ft")
        await a.turns()
        a.clock.now += MORE_THAN_A_ROUND
        discard = "UPDATE deliveries SET state = 'discarded'"
        await run_in(a, lambda connection: connection.exec_driver_sql(discard))
        await a.turns()
        assert len(a.members[0].asked) == 1

    on_bench(tmp_path, test)
