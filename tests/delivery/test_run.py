"""The loop around deliver_due: it waits, wakes, survives store errors and stops."""

import asyncio
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.core.retry import Attempt, Outcome
from exporter.delivery import deliverer
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from exporter.store.receiver_outbox import Backlog
from tests.delivery.delivery_fixture import (
    BUSY,
    REFUSED,
    BlockedReceiver,
    DeliveryFixture,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
    queue_failures,
    until,
)
from tests.fakes.clock import FakeClock
from tests.store.raw_sqlite import query_file, state_path
from tests.store.sample_polls import NOW


@pytest.fixture(autouse=True)
def no_look_without_wakeup(monkeypatch):
    for module in ("loop", "deliverer"):
        monkeypatch.setattr(f"exporter.delivery.{module}.LOOK_SECONDS", 3600.0)


class Running:
    """A deliverer whose loop runs."""

    def __init__(self, delivery: DeliveryFixture) -> None:
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(delivery.deliverer.run(self._stop))

    async def stop(self) -> None:
        """Stop it as the agent does, and wait for its end."""
        self._stop.set()
        async with asyncio.timeout(10):
            await self._task


def has_sent(receiver: FakeReceiver, number: int) -> bool:
    return len(receiver.sent) == number


async def test_a_stop_before_the_start_is_not_lost(delivery):
    stop = asyncio.Event()
    stop.set()
    await delivery.queue_failures("a")
    await delivery.deliverer.run(stop)
    assert delivery.receiver.sent == []


async def test_it_sends_when_woken_and_stops_while_it_waits(delivery):
    running = Running(delivery)
    for number, name in enumerate("abc", 1):
        await delivery.queue_failures(name)
        delivery.deliverer.wake()
        await until(partial(has_sent, delivery.receiver, number))
    await running.stop()
    assert delivery.receiver.texts == ["full a", "full b", "full c"]


async def test_one_wakeup_causes_one_turn(delivery, monkeypatch):
    deliver_due = delivery.deliverer.deliver_due
    waits: list[float] = []

    async def count_turn() -> float:
        waits.append(await deliver_due())
        return waits[-1]

    monkeypatch.setattr(delivery.deliverer, "deliver_due", count_turn)
    running = Running(delivery)
    await until(lambda: len(waits) == 1)
    delivery.deliverer.wake()
    await until(lambda: len(waits) == 2)
    for _ in range(50):  # a loop that does not wait would run turns between these
        await delivery.outbox.backlog()
    assert len(waits) == 2
    await running.stop()


async def test_it_looks_without_a_wakeup_too(delivery, monkeypatch):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.01)
    running = Running(delivery)
    await delivery.queue_failures("a")
    await until(lambda: delivery.receiver.texts == ["full a"])
    await running.stop()


async def test_an_event_queued_between_look_and_wait_is_not_missed(delivery, monkeypatch):
    deliver_due = delivery.deliverer.deliver_due
    waits: list[float] = []

    async def then_queue() -> float:
        waits.append(await deliver_due())
        if len(waits) == 1:
            await delivery.queue_failures("a")
            delivery.deliverer.wake()
        return waits[-1]

    monkeypatch.setattr(delivery.deliverer, "deliver_due", then_queue)
    running = Running(delivery)
    await until(lambda: delivery.receiver.texts == ["full a"])
    assert waits[0] > 0
    await running.stop()


async def test_a_request_in_flight_at_the_stop_is_finished_and_stored(tmp_path):
    receiver = BlockedReceiver()
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("a", "b")
        running = Running(delivery)
        await receiver.requested.wait()
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        delivery.deliverer.wake()
        receiver.released.set()
        await stopping
        assert receiver.texts == ["full a"]
        assert await delivery.outbox.backlog() == Backlog(1, 0, 0)


async def test_a_slow_receiver_does_not_delay_another(tmp_path):
    slow, quick = BlockedReceiver(), FakeReceiver(name="webhook")
    async with open_delivery(tmp_path, slow) as delivery:
        outbox = Outbox(delivery.database, quick.name)
        metrics, clock = DeliveryMetrics(CollectorRegistry()), FakeClock(NOW).clock
        other = Deliverer(quick, outbox, delivery_settings(), metrics, clock)
        await queue_failures(delivery.database, ("a", "b"), NOW, "slack", "webhook")
        attempt = asyncio.create_task(delivery.deliverer.deliver_due())
        await slow.requested.wait()
        await other.deliver_due()
        await other.deliver_due()
        assert quick.texts == ["full a", "full b"]
        assert not attempt.done()
        slow.released.set()
        await attempt
        assert slow.texts == ["full a"]


async def refuse_writes(delivery: DeliveryFixture, what: str) -> None:
    """Make the store refuse a kind of write, as on a full disk, until `allow_writes`."""
    trigger = f"CREATE TRIGGER no BEFORE {what} BEGIN SELECT RAISE(ABORT, 'no room'); END"
    await delivery.database.run(execute, delivery, trigger)


async def allow_writes(delivery: DeliveryFixture) -> None:
    await delivery.database.run(execute, delivery, "DROP TRIGGER no")


def execute(delivery: DeliveryFixture, statement: str) -> None:
    with delivery.database.write() as connection:
        connection.exec_driver_sql(statement)


async def test_a_message_that_cannot_be_stored_is_not_sent_and_the_loop_goes_on(
    delivery, monkeypatch
):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.01)
    await delivery.queue_failures("a")
    await refuse_writes(delivery, "INSERT ON messages")
    with capture_logs() as logs:
        running = Running(delivery)
        await until(lambda: bool(logs))
        assert await delivery.deliverer.deliver_due() > 0, "it must not try without a pause"
        assert delivery.receiver.sent == []
        await allow_writes(delivery)
        await until(lambda: delivery.receiver.texts == ["full a"])
    events = [line["event"] for line in logs if line["event"].startswith("outbox")]
    assert events == ["outbox unavailable", "outbox available again"]
    assert "no room" in logs[0]["error"]
    await running.stop()


async def test_a_result_that_cannot_be_stored_is_stored_later_and_the_message_not_sent_again(
    delivery,
):
    await delivery.queue_failures("a")
    await refuse_writes(delivery, "UPDATE OF last_result ON messages")
    for _ in range(5):
        await delivery.deliverer.deliver_due()
    assert delivery.receiver.texts == ["full a"]
    assert delivery.metric("cartesia_exporter_notifications_total") == 1
    assert await delivery.outbox.backlog() == Backlog(1, 0, 0)
    await allow_writes(delivery)
    await delivery.deliverer.deliver_due()
    assert delivery.receiver.texts == ["full a"]
    assert await delivery.outbox.backlog() == Backlog(0, 0)


async def test_nothing_more_is_sent_when_many_results_wait_for_the_store(tmp_path, monkeypatch):
    """Or a store that stays unwritable would fill the memory."""
    monkeypatch.setattr(deliverer, "_MOST_UNSTORED", 3)
    settings = delivery_settings(digest_threshold=100)
    async with open_delivery(tmp_path, settings=settings) as delivery:
        await delivery.queue_failures(*"abcdefg")
        await refuse_writes(delivery, "UPDATE OF last_result ON messages")
        waits = [await delivery.deliverer.deliver_due() for _ in range(10)]
        assert delivery.receiver.texts == ["full a", "full b", "full c"]
        assert [wait > 0 for wait in waits] == [False] * 3 + [True] * 7
        await allow_writes(delivery)
        await delivery.deliver_all()
        assert delivery.receiver.texts == [f"full {text}" for text in "abcdefg"]


@pytest.mark.parametrize(("ambiguous", "again"), [(False, "full a"), (True, "full a again")])
async def test_a_retry_before_the_failure_is_stored_is_a_repeat_only_if_the_attempt_was_ambiguous(
    tmp_path, ambiguous, again
):
    receiver = answering(Attempt(Outcome.TRANSIENT, "timeout", ambiguous=ambiguous))
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("a")
        await refuse_writes(delivery, "UPDATE OF last_result ON messages")
        await delivery.make_attempts(2)
        assert receiver.texts == ["full a", again]


async def test_an_attempt_after_an_unanswered_and_a_refused_one_is_still_a_repeat(tmp_path):
    """The first may have arrived, whatever the answer to the second was."""
    unanswered = Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True)
    async with open_delivery(tmp_path, answering(unanswered, BUSY, BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(4)
        assert delivery.receiver.texts == ["full a", *["full a again"] * 3]


async def test_a_message_discarded_before_its_failure_is_stored_is_not_sent_again(tmp_path):
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        await refuse_writes(delivery, "UPDATE OF last_result ON messages")
        await delivery.make_attempts(1)
        query_file(state_path(delivery.database), "UPDATE messages SET state = 'discarded'")
        delivery.clock.now += 3600
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts == ["full a"]


async def test_a_message_retried_while_another_result_is_not_stored_is_sent(tmp_path, monkeypatch):
    """It becomes pending between the two looks for a message."""
    async with open_delivery(tmp_path, answering(REFUSED, REFUSED, BUSY)) as delivery:
        await delivery.queue_failures("dead")
        await delivery.deliver_all()
        await delivery.queue_failures("a")
        await refuse_writes(delivery, "UPDATE OF last_result ON messages")
        await delivery.make_attempts(1)
        find = delivery.deliverer._outbox.next

        async def find_and_retry(**arguments):
            found = await find(**arguments)
            retried = "UPDATE messages SET state = 'pending', attempts = 0, turn = 0 WHERE minimal"
            query_file(state_path(delivery.database), retried)
            return found

        monkeypatch.setattr(delivery.deliverer._outbox, "next", find_and_retry)
        delivery.clock.now += 3600
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts[2:] == ["full a", "minimal dead"]


async def test_a_bug_of_a_receiver_ends_the_loop_with_its_error(tmp_path):
    class BrokenReceiver(FakeReceiver):
        async def send(self, message, now):
            raise KeyError("a bug")

    async with open_delivery(tmp_path, BrokenReceiver()) as delivery:
        await delivery.queue_failures("a")
        with pytest.raises(KeyError, match="a bug"):
            await delivery.deliverer.run(asyncio.Event())


async def test_the_backlog_from_before_a_start_is_served_while_the_first_attempt_hangs(tmp_path):
    async with open_delivery(tmp_path, answering(REFUSED, REFUSED, BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.deliver_all()
        await delivery.queue_failures("b")
        await delivery.make_attempts(1)
    receiver = BlockedReceiver()
    async with open_delivery(tmp_path, receiver) as delivery:
        assert delivery.metric("cartesia_exporter_deliveries_dead") is None
        running = Running(delivery)
        await receiver.requested.wait()
        assert delivery.metric("cartesia_exporter_deliveries_dead") == 1
        assert delivery.metric("cartesia_exporter_deliveries_pending") == 1
        assert delivery.metric("cartesia_exporter_receiver_up") == 0
        receiver.released.set()
        await running.stop()


async def test_forget_removes_the_receivers_series(delivery):
    await delivery.queue_failures("a")
    await delivery.deliver_all()
    delivery.deliverer.forget()
    samples = [each for metric in delivery.registry.collect() for each in metric.samples]
    assert [each for each in samples if each.labels.get("receiver") == "slack"] == []


async def test_an_agent_whose_state_another_one_took_over_sends_nothing(tmp_path, monkeypatch):
    """The other agent sends what is pending; this one cannot store that it does."""
    monkeypatch.setattr("exporter.store.lock.fcntl.flock", lambda *_: None)
    async with open_delivery(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        async with Database(tmp_path / "state.db"):
            delivery.clock.now += 3600
            running = Running(delivery)
            await until(lambda: delivery.database.lost is not None)
            await running.stop()
            assert has_sent(delivery.receiver, 1)
