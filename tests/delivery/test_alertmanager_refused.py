"""Alerts that members refuse: found by halving, retried in their minimal form, then dead."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.core.active_alerts import AlertRow
from exporter.core.events import Event
from exporter.delivery.alertmanager import ROUND_SECONDS, AlertDeliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.receivers.alertmanager import Alertmanager, content_of
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.errors import StoreError
from exporter.store.events import DEAD, DELIVERED
from exporter.store.receiver_outbox import AttemptResult, Backlog, ReceiverState, request_retry
from tests.delivery.alertmanager_fixture import AM, BUSY, HOLD, PENDING_AGAIN, FakeMember
from tests.delivery.delivery_fixture import delivery_settings
from tests.fakes.alertmanager import seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW, fine_tune

Rule = Callable[[dict[str, Any]], bool]


def about(*names: str) -> Rule:
    """Return a rule that refuses the alerts of these fine-tunes in any form."""
    return lambda alert: alert["labels"].get("fine_tune_id") in names


def is_full(alert: dict[str, Any]) -> bool:
    """Return whether an alert does not have its minimal form."""
    return bool(alert["annotations"]["summary"].startswith("Fine-tune failed"))


async def test_the_end_of_an_alert_ends_the_one_that_was_accepted_in_its_minimal_form(single):
    """With fewer labels it was another alert, and kept firing."""
    [member] = single.members
    member.alerts.refuses = is_full
    await single.queue_failures("ft")
    await single.post_all()
    member.alerts.refuses = lambda alert: False
    await single.record_event(Event("end", "fine_tune.completed", "default", NOW, fine_tune("ft")))
    single.clock.now += 1
    await single.post_all()
    [alert] = member.alerts.held.values()
    assert seconds(alert["endsAt"]) <= single.clock.now


async def test_of_a_refused_request_the_valid_alerts_are_delivered_and_the_invalid_one_dead(single):
    [member] = single.members
    member.alerts.refuses = about("ft7")
    await single.queue_failures(*(f"ft{n}" for n in range(40)))
    with capture_logs() as logs:
        await single.post_all()
    assert len(member.alerts.names()) == 39
    assert await single.outbox.backlog() == Backlog(dead=1)
    assert len(member.requests) <= 2 * 6 + 3
    [error] = [line for line in logs if line["log_level"] == "error"]
    assert error["event"] == "alert dead, refused by every member"
    assert error["member"] == 1
    assert error["event_id"].startswith("evt_")
    assert (single.failures("payload") or 0) > 2
    before = len(member.requests)
    single.clock.now += ROUND_SECONDS
    await single.post_all()
    assert len(member.requests) == before + 1, "the refused alert is not posted again"


async def test_a_refused_alert_is_posted_once_more_in_its_minimal_form(single):
    [member] = single.members
    member.alerts.refuses = is_full
    await single.queue_failures("ft")
    await single.post_all()
    assert [len(request) for request in member.alerts.requests] == [1, 1]
    [alert] = member.alerts.held.values()
    assert alert["labels"] == {
        "alertname": "CartesiaFineTuneFailed",
        "severity": "warning",
        "account": "default",
        "fine_tune_id": "ft",
        "model_id": "sonic-3",
    }
    assert "description" not in alert["annotations"]
    assert await single.outbox.backlog() == Backlog()


async def test_a_refused_alert_is_pending_while_another_member_may_accept_it(cluster):
    refusing, busy = cluster.members
    refusing.alerts.refuses = about("ft")
    busy.answers += [BUSY]
    await cluster.queue_failures("ft")
    await cluster.post_all()
    assert await cluster.outbox.backlog() == Backlog(1, 0, 0)
    cluster.clock.now += ROUND_SECONDS
    await cluster.post_all()
    assert busy.alerts.names() == ["ft"]
    assert await cluster.outbox.backlog() == Backlog()


async def test_an_alert_refused_by_every_member_is_dead_and_a_retry_posts_it_to_all(cluster):
    for member in cluster.members:
        member.alerts.refuses = about("ft")
    await cluster.queue_failures("ft")
    await cluster.post_all(0)
    assert await cluster.outbox.backlog() == Backlog(1, 0, 0)
    await cluster.post_all(1)
    assert await cluster.outbox.backlog() == Backlog(0, 1)
    before = [len(member.requests) for member in cluster.members]
    cluster.clock.now += ROUND_SECONDS
    await cluster.post_all()
    assert [len(member.requests) for member in cluster.members] == before
    for member in cluster.members:
        member.alerts.refuses = about()
    await cluster.execute(PENDING_AGAIN)
    await cluster.write(lambda connection: request_retry(connection, AM))
    await cluster.post_all()
    assert [member.alerts.names() for member in cluster.members] == [["ft"], ["ft"]]
    assert await cluster.outbox.backlog() == Backlog()


async def test_a_delivered_alert_that_is_refused_later_is_not_dead(single):
    await single.queue_failures("ft")
    await single.post_all()
    single.members[0].alerts.refuses = about("ft")
    single.clock.now += ROUND_SECONDS
    with capture_logs() as logs:
        await single.post_all()
    assert await single.outbox.backlog() == Backlog()
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["alert refused"]


async def test_a_retry_makes_a_member_forget_its_refusals(cluster):
    fixed, refusing = cluster.members
    fixed.alerts.refuses = refusing.alerts.refuses = about("ft")
    await cluster.queue_failures("ft")
    await cluster.post_all(0)
    fixed.alerts.refuses = about()
    await cluster.write(lambda connection: request_retry(connection, AM))
    fixed.answers.append(BUSY)
    await cluster.post_all(0)
    await cluster.post_all(1)
    assert await cluster.outbox.backlog() == Backlog(1, 0, 0), "one refusal since the retry"
    cluster.clock.now += ROUND_SECONDS
    await cluster.post_all(0)
    assert fixed.alerts.names() == ["ft"]
    assert await cluster.outbox.backlog() == Backlog()


async def test_a_refused_alert_is_posted_again_when_it_has_ended(single):
    [member] = single.members
    await single.queue_failures("ft")
    await single.post_all()
    member.alerts.refuses = about("ft")
    single.clock.now += ROUND_SECONDS
    await single.post_all()
    member.alerts.refuses = about()
    single.clock.now += 1
    left = Event("left", "fine_tune.changed", "default", single.clock.now, fine_tune("ft"))
    await single.record_event(left)
    await single.post_all()
    assert member.ends() == {"ft": NOW + ROUND_SECONDS + 1}


async def test_halving_goes_on_with_what_is_left_when_alerts_are_discarded(single):
    [member] = single.members
    member.alerts.refuses = about("d")
    await single.queue_failures("a", "b", "c", "d")
    await single.deliverer.members[0].deliver_due()
    discard = "UPDATE deliveries SET state = 'discarded' WHERE event IN (1, 2)"
    await single.execute(discard)
    await single.queue_failures("e")
    await single.post_all()
    requests = [
        [alert["labels"]["fine_tune_id"] for alert in request] for request in member.alerts.requests
    ]
    assert requests == [["a", "b", "c", "d"], ["c", "d"], ["c"], ["d"], ["d"], ["e"]]


async def test_a_refusal_is_stored_once_the_store_can_be_written(single):
    single.members[0].alerts.refuses = about("ft")
    await single.queue_failures("ft")
    await single.execute(
        "CREATE TRIGGER no BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    await single.post_all()
    before = len(single.members[0].requests)
    await single.post_all()
    assert len(single.members[0].requests) == before
    await single.execute("DROP TRIGGER no")
    await single.post_all()
    assert await single.outbox.backlog() == Backlog(0, 1)


def break_rendering(monkeypatch: Any) -> None:
    """Raise an error for the alert of the fine-tune `bad`."""

    def broken(event: Event, *arguments: Any, **options: Any) -> Any:
        if event.subject == "bad":
            raise ZeroDivisionError
        return content_of(event, *arguments, **options)

    monkeypatch.setattr("exporter.delivery.alertmanager.content_of", broken)


async def test_an_event_that_cannot_be_rendered_is_dead_and_stops_no_other(single, monkeypatch):
    break_rendering(monkeypatch)
    await single.queue_failures("bad", "good")
    with capture_logs() as logs:
        await single.post_all()
        await single.post_all()
    assert single.members[0].alerts.names() == ["good"]
    assert await single.outbox.backlog() == Backlog(0, 1)
    assert len([line for line in logs if "cannot be rendered" in line["event"]]) == 1


async def test_an_event_that_cannot_be_rendered_is_dead_although_the_store_fails_next(
    single, monkeypatch
):
    break_rendering(monkeypatch)
    monkeypatch.setattr("exporter.delivery.alertmanager._EVENTS_PER_READ", 1)
    events, calls = AlertOutbox.events, []

    async def fail_once(self: AlertOutbox, numbers: Collection[int]) -> Any:
        calls.append(numbers)
        if len(calls) == 2:
            raise StoreError("no disk")
        return await events(self, numbers)

    monkeypatch.setattr(AlertOutbox, "events", fail_once)
    await single.queue_failures("bad", "good")
    with pytest.raises(StoreError):
        await single.post_all()
    await single.post_all()
    assert single.members[0].alerts.names() == ["good"]
    await single.post_all()
    assert await single.outbox.backlog() == Backlog(dead=1)


class MemoryOutbox:
    """An outbox in memory: so many failures, f0, f1, …, and the state of each."""

    def __init__(self, number: int) -> None:
        self._events = {
            n: Event(f"evt{n}", "fine_tune.failed", "default", NOW, fine_tune(f"f{n}", "failed"))
            for n in range(number)
        }
        self.states = dict.fromkeys(range(number), "pending")
        self.receiver = AM
        self.is_shared = False

    def awake_now(self) -> float:
        return 0.0

    def check_owner(self) -> None:
        pass

    async def receiver_state(self) -> ReceiverState:
        return ReceiverState()

    async def version(self) -> int:
        return 0

    async def backlog(self) -> Backlog:
        return Backlog()

    async def alert_rows(self, since: float) -> list[AlertRow]:
        return [AlertRow(number, NOW, 0) for number in self._events]

    async def events(self, numbers: Collection[int]) -> dict[int, Event]:
        return {number: self._events[number] for number in numbers}

    async def record(self, numbers: Collection[int], result: AttemptResult) -> list[float]:
        self.states.update(dict.fromkeys(numbers, result.state))
        return []

    async def expire(self, max_age: float, now: float) -> int:
        return 0


async def post_to(member: Any, outbox: Any) -> None:
    metrics, clock = DeliveryMetrics(CollectorRegistry()), FakeClock(NOW).clock
    receiver = Alertmanager(AM, [member], HOLD)
    deliverer = AlertDeliverer(receiver, outbox, delivery_settings(), metrics, clock)
    while await deliverer.members[0].deliver_due() == 0:
        pass


@settings(max_examples=settings().max_examples // 3)
@given(st.integers(1, 100), st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_valid_alerts_are_delivered_and_invalid_ones_found_in_few_requests(
    total, only_minimal, invalid
):
    def refuses(alert: dict[str, Any]) -> bool:
        number = int(alert["labels"]["fine_tune_id"][1:])
        return number in invalid or (number in only_minimal and is_full(alert))

    member, outbox = FakeMember(), MemoryOutbox(total)
    member.alerts.refuses = refuses
    asyncio.run(post_to(member, outbox))
    assert outbox.states == {n: DEAD if n in invalid else DELIVERED for n in range(total)}
    assert len(member.requests) <= 3 * total
    held = {alert["labels"]["fine_tune_id"]: alert for alert in member.alerts.held.values()}
    assert held.keys() == {f"f{n}" for n in range(total) if n not in invalid}
    minimal = {int(name[1:]) for name, alert in held.items() if not is_full(alert)}
    assert minimal == {n for n in only_minimal - invalid if n < total}
