"""The loop around deliver_due: it rests, wakes, outlives a sick store and ends when told."""

import asyncio
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.core.retry import Attempt, Outcome
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.store.outbox import Backlog, Outbox
from tests.delivery.delivery_fixture import (
    BUSY,
    REFUSED,
    Bench,
    FakeReceiver,
    fail,
    on_bench,
    plan_of,
    until,
)
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW


class Held(FakeReceiver):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def send(self, delivery, now):
        self.asked.set()
        await self.go.wait()
        return await super().send(delivery, now)


@pytest.fixture(autouse=True)
def looks_only_when_woken(monkeypatch):
    for module in ("loop", "deliverer"):
        monkeypatch.setattr(f"exporter.delivery.{module}.LOOK_SECONDS", 3600.0)


async def ended(b: Bench, stop: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Stop a deliverer as the agent does, and wait for its end."""
    stop.set()
    async with asyncio.timeout(10):
        await running


def has_sent(b: Bench, body: str) -> bool:
    return b.receiver.bodies[-1:] == [body]


def test_a_stop_before_the_start_is_not_lost(tmp_path):
    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        stop.set()
        await b.fail("a")
        await b.deliverer.run(stop)
        assert b.receiver.sent == []

    on_bench(tmp_path / "state.db", test)


def test_it_sends_what_is_owed_when_woken_and_ends_while_it_rests(tmp_path):
    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(b.deliverer.run(stop))
        for name in "abc":
            await b.fail(name)
            b.deliverer.wake()
            await until(partial(has_sent, b, f"full {name}"))
        await ended(b, stop, running)
        assert b.receiver.bodies == ["full a", "full b", "full c"]

    on_bench(tmp_path / "state.db", test)


def test_woken_once_it_looks_once_more_and_rests_again(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        real, turns = b.deliverer.deliver_due, []

        async def counted() -> float:
            turns.append(await real())
            return turns[-1]

        monkeypatch.setattr(b.deliverer, "deliver_due", counted)
        running = asyncio.create_task(b.deliverer.run(stop))
        await until(lambda: len(turns) == 1)
        b.deliverer.wake()
        await until(lambda: len(turns) == 2)
        for _ in range(50):  # one that does not rest would take its turns between these
            await b.outbox.backlog()
        assert len(turns) == 2
        await ended(b, stop, running)

    on_bench(tmp_path / "state.db", test)


def test_it_looks_by_itself_too(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.01)

    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(b.deliverer.run(stop))
        await b.fail("a")
        await until(lambda: b.receiver.bodies == ["full a"])
        await ended(b, stop, running)

    on_bench(tmp_path / "state.db", test)


def test_what_is_owed_between_the_look_and_the_rest_is_not_missed(tmp_path, monkeypatch):
    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        real, turns = b.deliverer.deliver_due, []

        async def then_owe() -> float:
            wait = await real()
            turns.append(wait)
            if len(turns) == 1:
                await b.fail("a")
                b.deliverer.wake()
            return wait

        monkeypatch.setattr(b.deliverer, "deliver_due", then_owe)
        running = asyncio.create_task(b.deliverer.run(stop))
        await until(lambda: b.receiver.bodies == ["full a"])
        assert turns[0] > 0
        await ended(b, stop, running)

    on_bench(tmp_path / "state.db", test)


def test_what_is_in_flight_when_it_is_told_to_stop_is_finished_and_marked(tmp_path):
    async def test(b: Bench) -> None:
        assert isinstance(b.receiver, Held)
        stop = asyncio.Event()
        await b.fail("a", "b")
        running = asyncio.create_task(b.deliverer.run(stop))
        await b.receiver.asked.wait()
        stop.set()
        b.deliverer.wake()
        b.receiver.go.set()
        await ended(b, stop, running)
        assert b.receiver.bodies == ["full a"]
        assert await b.outbox.backlog() == Backlog(1, 0, NOW)

    on_bench(tmp_path / "state.db", test, Held())


def test_a_slow_receiver_does_not_delay_another(tmp_path):
    async def test(b: Bench) -> None:
        assert isinstance(b.receiver, Held)
        quick = FakeReceiver(name="webhook")
        outbox = Outbox(b.database, quick.name)
        metrics = DeliveryMetrics(CollectorRegistry())
        other = Deliverer(quick, outbox, plan_of(), metrics, FakeClock(NOW).clock)
        await fail(b.database, ("a", "b"), NOW, "slack", "webhook")
        slow = asyncio.create_task(b.deliverer.deliver_due())
        await b.receiver.asked.wait()
        await other.deliver_due()
        await other.deliver_due()
        assert quick.bodies == ["full a", "full b"]
        assert not slow.done()
        b.receiver.go.set()
        await slow
        assert b.receiver.bodies == ["full a"]

    on_bench(tmp_path / "state.db", test, Held())


async def forbid(b: Bench, what: str) -> None:
    """Have the store refuse a kind of write, as on a full disk, until `allow`."""
    trigger = f"CREATE TRIGGER no BEFORE {what} BEGIN SELECT RAISE(ABORT, 'no room'); END"
    await b.database.run(execute, b, trigger)


async def allow(b: Bench) -> None:
    await b.database.run(execute, b, "DROP TRIGGER no")


def execute(b: Bench, statement: str) -> None:
    with b.database.write() as connection:
        connection.exec_driver_sql(statement)


def test_nothing_is_sent_that_could_not_be_frozen_and_the_loop_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.delivery.loop.LOOK_SECONDS", 0.01)

    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        await b.fail("a")
        await forbid(b, "INSERT ON messages")
        with capture_logs() as logs:
            running = asyncio.create_task(b.deliverer.run(stop))
            await until(lambda: bool(logs))
            await b.deliverer.deliver_due()
            assert b.receiver.sent == []
            await allow(b)
            await until(lambda: b.receiver.bodies == ["full a"])
        said = [line["event"] for line in logs if line["event"].startswith("outbox")]
        assert said == ["outbox unavailable, nothing is lost", "outbox available again"]
        assert "no room" in logs[0]["error"]
        await ended(b, stop, running)

    on_bench(tmp_path / "state.db", test)


def test_what_was_sent_but_cannot_be_marked_is_marked_later_and_not_sent_again(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        await forbid(b, "UPDATE OF last_result ON messages")
        for _ in range(5):
            await b.deliverer.deliver_due()
        assert b.receiver.bodies == ["full a"]
        assert b.metric("cartesia_exporter_notifications_total") == 1
        assert await b.outbox.backlog() == Backlog(1, 0, NOW)
        await allow(b)
        await b.deliverer.deliver_due()
        assert b.receiver.bodies == ["full a"]
        assert await b.outbox.backlog() == Backlog(0, 0)

    on_bench(tmp_path / "state.db", test)


@pytest.mark.parametrize(("ambiguous", "again"), [(False, "full a"), (True, "full a again")])
def test_what_failed_and_cannot_be_marked_is_tried_again_and_called_a_repeat_only_if_it_may_be(
    tmp_path, ambiguous, again
):
    async def test(b: Bench) -> None:
        await b.fail("a")
        await forbid(b, "UPDATE OF last_result ON messages")
        await b.turns(2)
        assert b.receiver.bodies == ["full a", again]

    receiver = FakeReceiver()
    receiver.answers.append(Attempt(Outcome.TRANSIENT, "timeout", ambiguous=ambiguous))
    on_bench(tmp_path / "state.db", test, receiver)


def test_a_bug_of_a_receiver_ends_the_loop_with_its_error(tmp_path):
    class Buggy(FakeReceiver):
        async def send(self, delivery, now):
            raise KeyError("a bug")

    async def test(b: Bench) -> None:
        await b.fail("a")
        with pytest.raises(KeyError, match="a bug"):
            await b.deliverer.run(asyncio.Event())

    on_bench(tmp_path / "state.db", test, Buggy())


def test_what_was_owed_before_the_start_is_shown_while_the_first_attempt_hangs(tmp_path):
    async def before(b: Bench) -> None:
        b.receiver.answers += [REFUSED, REFUSED]
        await b.fail("a")
        await b.settle()
        b.receiver.answers.append(BUSY)
        await b.fail("b")
        await b.turns(1)

    async def test(b: Bench) -> None:
        held, stop = b.receiver, asyncio.Event()
        assert isinstance(held, Held)
        assert b.metric("cartesia_exporter_deliveries_dead") is None
        running = asyncio.create_task(b.deliverer.run(stop))
        await held.asked.wait()
        assert b.metric("cartesia_exporter_deliveries_dead") == 1
        assert b.metric("cartesia_exporter_deliveries_pending") == 1
        assert b.metric("cartesia_exporter_receiver_up") == 0
        held.go.set()
        await ended(b, stop, running)

    on_bench(tmp_path / "state.db", before)
    on_bench(tmp_path / "state.db", test, Held())
