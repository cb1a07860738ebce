"""What each outcome of an attempt leads to: for the delivery, for the receiver, for the metrics."""

import pytest
from structlog.testing import capture_logs

from exporter.core.retry import Attempt, Outcome
from exporter.store.outbox import Backlog
from tests.delivery.delivery_fixture import (
    BUSY,
    REFUSED,
    TAKEN,
    Bench,
    FakeReceiver,
    on_bench,
    plan_of,
)
from tests.store.sample_polls import NOW

DAY = 86400


def answering(*answers, **fields) -> FakeReceiver:
    receiver = FakeReceiver(**fields)
    receiver.answers.extend(answers)
    return receiver


@pytest.mark.parametrize(
    ("attempt", "pause"),
    [
        (Attempt(Outcome.DELIVERED, ""), 0),
        (Attempt(Outcome.PAYLOAD, ""), 0),
        (Attempt(Outcome.THROTTLED, "", 7), 7),
        (Attempt(Outcome.THROTTLED, "", 0.01), 1),
        (Attempt(Outcome.THROTTLED, "", 10 * DAY), 3600),
        (Attempt(Outcome.THROTTLED, ""), 60),
        (Attempt(Outcome.TRANSIENT, ""), 1),  # half of 2 s: the dice show 0.5
        (Attempt(Outcome.TRANSIENT, "", 20), 20),
    ],
)
def test_each_outcome_has_its_pause(tmp_path, attempt, pause):
    async def test(b: Bench) -> None:
        await b.fail("a", "b")
        await b.deliverer.deliver_due()
        waits = await b.deliverer.deliver_due()
        assert waits == pytest.approx(pause)
        assert len(b.receiver.sent) == (1 if pause else 2)

    on_bench(tmp_path / "state.db", test, answering(attempt))


def test_an_outage_is_tried_ever_less_often_and_a_success_ends_it(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        waits = []
        for _ in range(32):
            await b.turns(1)
            waits.append(await b.deliverer.deliver_due())
        assert waits[:9] == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 150])
        assert waits[-1] == pytest.approx(450)  # after an hour of trouble
        b.receiver.answers.clear()
        await b.settle()
        b.receiver.answers.append(BUSY)
        await b.fail("b")
        await b.turns(1)
        assert await b.deliverer.deliver_due() == pytest.approx(1)

    on_bench(tmp_path / "state.db", test, answering(*[BUSY] * 40))


def test_a_receiver_gets_no_more_than_a_message_per_spacing(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c")
        times = []
        for _ in range(3):
            await b.turns(1)
            times.append(b.clock.now - NOW)
        assert times == pytest.approx([0, 1.2, 2.4])

    on_bench(tmp_path / "state.db", test, answering(spacing=1.2))


def test_a_refused_payload_is_tried_minimal_under_the_same_id_and_then_given_up(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        await b.settle()
        assert b.receiver.bodies == ["full a", "minimal a"]
        assert len({each.id for each in b.receiver.sent}) == 1
        assert await b.outbox.backlog() == Backlog(0, 1)
        assert b.failed("payload") == 2
        assert b.failed("expired") == 0

    on_bench(tmp_path / "state.db", test, answering(REFUSED, REFUSED))


def test_a_minimal_message_that_is_taken_is_delivered(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b")
        await b.settle()
        assert b.receiver.bodies == ["full a b", "minimal a b"]
        assert await b.outbox.backlog() == Backlog(0, 0)

    receiver = answering(REFUSED, TAKEN)
    on_bench(tmp_path / "state.db", test, receiver, plan_of(digest_threshold=1))


@pytest.mark.parametrize("poison", [BUSY, Attempt(Outcome.THROTTLED, "", 5), REFUSED])
def test_a_poisonous_delivery_holds_up_nobody(tmp_path, poison):
    class Picky(FakeReceiver):
        async def send(self, delivery, now):
            attempt = await super().send(delivery, now)
            return poison if b" a" in delivery.body else attempt

    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c")
        await b.turns(4)
        assert b.receiver.bodies[:3] == ["full a", "full b", "full c"]

    on_bench(tmp_path / "state.db", test, Picky())


def test_a_delivery_too_old_is_given_up_at_its_next_failure(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        await b.turns(1)
        b.clock.now = NOW + 3 * DAY
        with capture_logs() as before:
            await b.deliverer.deliver_due()
        assert [line["log_level"] for line in before] == ["warning"]
        b.clock.now += 1000
        with capture_logs() as after:
            await b.deliverer.deliver_due()
        assert [line["log_level"] for line in after] == ["warning", "error"]
        assert (after[1]["event"], after[1]["events"]) == (
            "deliveries given up, they are too old",
            1,
        )
        assert await b.outbox.backlog() == Backlog(0, 1)
        assert b.failed("expired") == 1
        assert b.failed("transient") == 3

    on_bench(tmp_path / "state.db", test, answering(BUSY, BUSY, BUSY))


def test_an_old_delivery_has_its_chance_after_a_long_rest(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        await b.turns(1)
        b.clock.now += 30 * DAY
        await b.deliverer.deliver_due()
        assert await b.outbox.backlog() == Backlog(0, 0)

    on_bench(tmp_path / "state.db", test, answering(BUSY))


def test_metrics_are_there_from_the_start_and_tell_the_requests_and_the_backlog(tmp_path):
    async def test(b: Bench) -> None:
        total = "cartesia_exporter_notifications_total"
        pending, dead = ("cartesia_exporter_deliveries_" + state for state in ("pending", "dead"))
        reasons = ("throttled", "transient", "endpoint", "payload", "expired")
        assert [b.failed(reason) for reason in reasons] == [0] * 5
        assert b.metric(total) == 0
        assert b.metric("cartesia_exporter_notification_duration_seconds_count") == 0
        await b.deliverer.deliver_due()
        assert [b.metric(name) for name in (total, pending, dead)] == [0, 0, 0]
        await b.fail("a", "b")
        await b.deliverer.deliver_due()
        assert [b.metric(name) for name in (total, pending, dead)] == [1, 2, 0]
        await b.fail("c")
        await b.deliverer.deliver_due()  # paused: what came meanwhile is counted all the same
        assert [b.metric(name) for name in (total, pending, dead)] == [1, 3, 0]
        await b.settle()
        await b.deliverer.deliver_due()
        assert [b.metric(name) for name in (total, pending, dead)] == [4, 0, 0]
        assert [b.failed(reason) for reason in reasons] == [0, 0, 1, 0, 0]
        assert b.metric("cartesia_exporter_notification_duration_seconds_count") == 4

    on_bench(tmp_path / "state.db", test, answering(Attempt(Outcome.ENDPOINT, "answered 404")))


def test_the_log_says_what_became_of_each_message_and_names_no_content(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        with capture_logs() as logs:
            await b.settle()
        assert [(line["log_level"], line["event"], line["attempt"]) for line in logs] == [
            ("warning", "delivery failed, will be tried again", 1),
            ("info", "delivered", 2),
        ]
        assert logs[0]["pause"] == "1.0s"
        assert "full" not in repr(logs)

    on_bench(tmp_path / "state.db", test, answering(BUSY))
