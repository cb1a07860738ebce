"""People retry, discard and reassign while the deliverer is in the middle of its work."""

import pytest

from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.store.outbox import Backlog, NewMessage, Outbox
from exporter.store.queries import DeliveryFilter
from exporter.store.repairs import discard, reassign, retry
from tests.delivery.delivery_fixture import BUSY, REFUSED, TAKEN, Bench, FakeReceiver, on_bench
from tests.store.sample_polls import NOW

CONFIGURED = frozenset({"slack", "other"})
ALL = DeliveryFilter(CONFIGURED)
GONE = Attempt(Outcome.ENDPOINT, "answered 404")


@pytest.mark.parametrize("answer", [TAKEN, BUSY, REFUSED, GONE])
def test_a_message_that_was_reassigned_while_it_was_sent_is_forgotten_whatever_came_of_it(
    tmp_path, answer: Attempt
):
    receiver = FakeReceiver()

    async def test(b: Bench) -> None:
        def reassigned(_: OutboxMessage) -> Attempt:
            reassign(b.database, "slack", "other", NOW)
            return answer

        receiver.answers.append(reassigned)
        await b.fail("a")
        await b.turns(1)
        await b.settle()
        assert len(receiver.sent) == 1
        owed = [each.event.fine_tune for each in await Outbox(b.database, "other").unsent()]
        assert [found.id for found in owed if found] == ["a"]
        await b.fail("b")
        await b.settle()
        assert receiver.bodies == ["full a", "full b"]

    on_bench(tmp_path / "state.db", test, receiver)


def test_what_was_discarded_or_reassigned_since_it_was_read_becomes_no_message(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b")
        owed = await b.outbox.unsent()
        new = [NewMessage(each.event.id, b"body", (each.number,)) for each in owed]
        one = DeliveryFilter(CONFIGURED, (owed[0].event.id,))
        await b.database.run(discard, b.database, one, NOW)
        await b.database.run(reassign, b.database, "slack", "other", NOW)
        await b.outbox.freeze(new, NOW)
        assert await b.outbox.frozen() == 0
        assert await b.outbox.next() is None
        assert (await Outbox(b.database, "other").backlog()).pending == 1

    on_bench(tmp_path / "state.db", test)


def test_a_digest_carries_what_is_still_owed_of_it(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c")
        owed = await b.outbox.unsent()
        one = DeliveryFilter(CONFIGURED, (owed[0].event.id,))
        await b.database.run(discard, b.database, one, NOW)
        numbers = tuple(each.number for each in owed)
        await b.outbox.freeze([NewMessage("msg", b"body", numbers)], NOW)
        delivery = await b.outbox.next()
        assert delivery is not None
        assert delivery.events == len(await b.outbox.events_of(delivery)) == 2

    on_bench(tmp_path / "state.db", test)


def test_a_retry_does_not_wait_for_an_open_circuit(tmp_path):
    receiver = FakeReceiver()
    receiver.answers.extend([GONE, GONE])

    async def test(b: Bench) -> None:
        await b.fail("a")
        await b.turns(2)
        assert await b.deliverer.deliver_due() == pytest.approx(120)
        await b.database.run(retry, b.database, ALL, b.clock.now)
        await b.deliverer.deliver_due()
        assert len(receiver.sent) == 3
        assert await b.outbox.backlog() == Backlog(0, 0)

    on_bench(tmp_path / "state.db", test, receiver)
