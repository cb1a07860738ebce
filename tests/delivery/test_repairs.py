"""Retry, discard and reassign while the deliverer works."""

import pytest

from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.queries import DeliveryFilter
from exporter.store.receiver_outbox import Backlog
from exporter.store.repairs import discard, reassign, retry
from tests.delivery.delivery_fixture import ACCEPTED, BUSY, REFUSED, answering, open_delivery
from tests.store.sample_polls import NOW

CONFIGURED = frozenset({"slack", "other"})
ALL = DeliveryFilter(CONFIGURED)
GONE = Attempt(Outcome.ENDPOINT, "answered 404")


@pytest.mark.parametrize("answer", [ACCEPTED, BUSY, REFUSED, GONE])
async def test_a_message_reassigned_during_its_attempt_is_dropped_whatever_the_outcome(
    tmp_path, answer: Attempt
):
    async with open_delivery(tmp_path) as delivery:
        receiver = delivery.receiver

        def reassign_and_answer(_: OutboxMessage) -> Attempt:
            reassign(delivery.database, "slack", "other", NOW)
            return answer

        receiver.answers.append(reassign_and_answer)
        await delivery.queue_failures("a")
        await delivery.make_attempts(1)
        await delivery.deliver_all()
        assert len(receiver.sent) == 1
        queued = await Outbox(delivery.database, "other").unsent()
        assert [each.event.subject for each in queued if each.event.fine_tune] == ["a"]
        await delivery.queue_failures("b")
        await delivery.deliver_all()
        assert receiver.texts == ["full a", "full b"]


async def test_events_discarded_or_reassigned_since_they_were_read_become_no_message(delivery):
    await delivery.queue_failures("a", "b")
    queued = await delivery.outbox.unsent()
    new = [NewMessage(each.event.id, b"body", (each.number,)) for each in queued]
    one = DeliveryFilter(CONFIGURED, (queued[0].event.id,))
    await delivery.database.run(discard, delivery.database, one, NOW)
    await delivery.database.run(reassign, delivery.database, "slack", "other", NOW)
    await delivery.outbox.create_messages(new, NOW)
    assert await delivery.outbox.count_pending_messages() == 0
    assert await delivery.outbox.next() is None
    assert (await Outbox(delivery.database, "other").backlog()).pending == 1


async def test_a_digest_carries_only_events_that_are_still_pending(delivery):
    await delivery.queue_failures("a", "b", "c")
    queued = await delivery.outbox.unsent()
    one = DeliveryFilter(CONFIGURED, (queued[0].event.id,))
    await delivery.database.run(discard, delivery.database, one, NOW)
    numbers = tuple(each.number for each in queued)
    await delivery.outbox.create_messages([NewMessage("msg", b"body", numbers)], NOW)
    message = await delivery.outbox.next()
    assert message is not None
    assert message.events == len(await delivery.outbox.events_of(message)) == 2


async def test_a_retry_does_not_wait_for_an_open_circuit(tmp_path):
    receiver = answering(GONE, GONE)
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("a")
        await delivery.make_attempts(2)
        assert await delivery.deliverer.deliver_due() == pytest.approx(120)
        await delivery.database.run(retry, delivery.database, ALL, delivery.clock.now)
        await delivery.deliverer.deliver_due()
        assert len(receiver.sent) == 3
        assert await delivery.outbox.backlog() == Backlog(0, 0)
