"""What each outcome of an attempt does to the delivery, the schedule, the metrics and the log."""

import pytest
from structlog.testing import capture_logs

from exporter.core.retry import Attempt, Outcome
from exporter.store.receiver_outbox import Backlog
from tests.delivery.delivery_fixture import (
    ACCEPTED,
    BUSY,
    EXPIRED,
    REFUSED,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
)
from tests.store.sample_polls import NOW

DAY = 86400


@pytest.mark.parametrize(
    ("attempt", "pause"),
    [
        (Attempt(Outcome.DELIVERED, ""), 0),
        (Attempt(Outcome.PAYLOAD, ""), 0),
        (Attempt(Outcome.THROTTLED, "", 7), 7),
        (Attempt(Outcome.THROTTLED, "", 0.01), 1),
        (Attempt(Outcome.THROTTLED, "", 10 * DAY), 3600),
        (Attempt(Outcome.THROTTLED, ""), 60),
        (Attempt(Outcome.TRANSIENT, ""), 1),  # half of 2 s: the fake chance is 0.5
        (Attempt(Outcome.TRANSIENT, "", 20), 20),
    ],
)
async def test_each_outcome_has_its_pause(tmp_path, attempt, pause):
    async with open_delivery(tmp_path, answering(attempt)) as delivery:
        await delivery.queue_failures("a", "b")
        await delivery.deliverer.deliver_due()
        wait = await delivery.deliverer.deliver_due()
        assert wait == pytest.approx(pause)
        assert len(delivery.receiver.sent) == (1 if pause else 2)


async def test_retries_back_off_during_an_outage_and_a_success_resets_them(tmp_path):
    async with open_delivery(tmp_path, answering(*[BUSY] * 40)) as delivery:
        await delivery.queue_failures("a")
        waits = []
        for _ in range(32):
            await delivery.make_attempts(1)
            waits.append(await delivery.deliverer.deliver_due())
        assert waits[:9] == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 150])
        assert waits[-1] == pytest.approx(450)  # after an hour of trouble
        delivery.receiver.answers.clear()
        await delivery.deliver_all()
        delivery.receiver.answers.append(BUSY)
        await delivery.queue_failures("b")
        await delivery.make_attempts(1)
        assert await delivery.deliverer.deliver_due() == pytest.approx(1)


async def test_messages_are_spaced(tmp_path):
    async with open_delivery(tmp_path, answering(spacing=1.2)) as delivery:
        await delivery.queue_failures("a", "b", "c")
        times = []
        for _ in range(3):
            await delivery.make_attempts(1)
            times.append(delivery.clock.now - NOW)
        assert times == pytest.approx([0, 1.2, 2.4])


async def test_a_refused_message_is_retried_minimal_under_the_same_id_then_dead(tmp_path):
    async with open_delivery(tmp_path, answering(REFUSED, REFUSED)) as delivery:
        await delivery.queue_failures("a")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a", "minimal a"]
        assert len({each.id for each in delivery.receiver.sent}) == 1
        assert await delivery.outbox.backlog() == Backlog(0, 1)
        assert delivery.failures("payload") == 2
        assert delivery.metric(EXPIRED) == 0


async def test_an_accepted_minimal_message_is_delivered(tmp_path):
    receiver = answering(REFUSED, ACCEPTED)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=1)) as delivery:
        await delivery.queue_failures("a", "b")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a b", "minimal a b"]
        assert await delivery.outbox.backlog() == Backlog(0, 0)


@pytest.mark.parametrize("failure", [BUSY, Attempt(Outcome.THROTTLED, "", 5), REFUSED])
async def test_a_message_that_always_fails_does_not_delay_the_others(tmp_path, failure):
    class PickyReceiver(FakeReceiver):
        async def send(self, message, now):
            attempt = await super().send(message, now)
            return failure if b" a" in message.body else attempt

    async with open_delivery(tmp_path, PickyReceiver()) as delivery:
        await delivery.queue_failures("a", "b", "c")
        await delivery.make_attempts(4)
        assert delivery.receiver.texts[:3] == ["full a", "full b", "full c"]


async def test_a_delivery_older_than_max_age_is_dead_after_its_next_failure(tmp_path):
    async with open_delivery(tmp_path, answering(BUSY, BUSY, BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        delivery.clock.now = NOW + 3 * DAY
        with capture_logs() as before:
            await delivery.deliverer.deliver_due()
        assert [line["log_level"] for line in before] == ["warning"]
        delivery.clock.now += 1000
        with capture_logs() as after:
            await delivery.deliverer.deliver_due()
        assert [line["log_level"] for line in after] == ["warning", "error"]
        expired = {"event": "deliveries expired", "events": 1, "max_age": "259200s"}
        assert expired.items() <= after[1].items()
        assert await delivery.outbox.backlog() == Backlog(0, 1)
        assert delivery.metric(EXPIRED) == 1
        assert delivery.failures("transient") == 3


async def test_an_old_delivery_is_tried_once_more_before_it_expires(tmp_path):
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a", "b")
        await delivery.make_attempts(1)
        delivery.clock.now += 30 * DAY
        for _ in range(2):
            await delivery.deliverer.deliver_due()
        assert await delivery.outbox.backlog() == Backlog(0, 0)


async def test_metrics_start_at_zero_and_count_requests_and_backlog(tmp_path):
    async with open_delivery(
        tmp_path, answering(Attempt(Outcome.ENDPOINT, "answered 404"))
    ) as delivery:
        total = "cartesia_exporter_notifications_total"
        pending, dead = ("cartesia_exporter_deliveries_" + state for state in ("pending", "dead"))
        reasons = ("throttled", "transient", "endpoint", "payload")
        assert [delivery.failures(reason) for reason in reasons] == [0] * 4
        assert delivery.metric(total) == delivery.metric(EXPIRED) == 0
        assert delivery.metric("cartesia_exporter_notification_duration_seconds_count") == 0
        await delivery.deliverer.deliver_due()
        assert [delivery.metric(name) for name in (total, pending, dead)] == [0, 0, 0]
        await delivery.queue_failures("a", "b")
        await delivery.deliverer.deliver_due()
        assert [delivery.metric(name) for name in (total, pending, dead)] == [1, 2, 0]
        await delivery.queue_failures("c")
        await delivery.deliverer.deliver_due()  # paused: a new event is counted all the same
        assert [delivery.metric(name) for name in (total, pending, dead)] == [1, 3, 0]
        await delivery.deliver_all()
        await delivery.deliverer.deliver_due()
        assert [delivery.metric(name) for name in (total, pending, dead)] == [4, 0, 0]
        assert [delivery.failures(reason) for reason in reasons] == [0, 0, 1, 0]
        assert delivery.metric("cartesia_exporter_notification_duration_seconds_count") == 4


async def test_each_attempt_is_logged_without_content(tmp_path):
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        with capture_logs() as logs:
            await delivery.deliver_all()
        assert [(line["log_level"], line["event"], line["attempt"]) for line in logs] == [
            ("warning", "delivery failed", 1),
            ("info", "delivered", 2),
        ]
        assert logs[0]["retry_in"] == "1.0s"
        assert "full" not in repr(logs)


async def test_the_log_says_what_was_delivered_to_whom(tmp_path):
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        with capture_logs() as logs:
            await delivery.deliver_all()
        about = {"receiver": "slack", "type": "fine_tune.failed", "fine_tune": "a", "name": ""}
        assert [line["event"] for line in logs] == ["delivery failed", "delivered"]
        for attempt, line in enumerate(logs, start=1):
            assert about.items() <= line.items()
            assert (line["events"], line["attempt"]) == (1, attempt)


async def test_the_log_of_a_digest_names_its_first_events(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await delivery.queue_failures(*(f"f{number}" for number in range(9)))
        with capture_logs() as logs:
            await delivery.deliver_all()
        [line] = logs
        assert (line["event"], line["events"], line["type"]) == ("delivered", 9, "fine_tune.failed")
        assert [name in line["first"] for name in ("f0", "f1", "f2", "f3")] == [True] * 3 + [False]


async def test_the_log_of_a_dead_delivery_names_its_fine_tune(tmp_path):
    async with open_delivery(tmp_path, answering(REFUSED, REFUSED)) as delivery:
        await delivery.queue_failures("a")
        with capture_logs() as logs:
            await delivery.deliver_all()
        assert (logs[-1]["event"], logs[-1]["fine_tune"]) == ("delivery dead", "a")
