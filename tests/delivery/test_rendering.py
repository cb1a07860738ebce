"""A bug of a renderer affects only the message that it cannot render."""

import pytest
from structlog.testing import capture_logs

from exporter.core.message import Message
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from exporter.store.receiver_outbox import Backlog
from tests.delivery.delivery_fixture import BUSY, FakeReceiver, open_delivery
from tests.store.sample_outbox import failure, queue_events


class BrokenReceiver(FakeReceiver):
    """Cannot render messages about the fine-tune `bad`."""

    minimal_too = False

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        if b"bad" in super().render(message) and (self.minimal_too or not minimal):
            raise KeyError("a bug of the renderer")
        return super().render(message, minimal=minimal)


async def test_a_message_that_cannot_be_rendered_is_sent_minimal_and_the_bug_is_logged(tmp_path):
    async with open_delivery(tmp_path, BrokenReceiver()) as delivery:
        await delivery.queue_failures("bad", "good")
        with capture_logs() as logs:
            await delivery.deliver_all()
        assert sorted(delivery.receiver.texts) == ["full good", "minimal bad"]
        assert await delivery.outbox.backlog() == Backlog(0, 0)
        assert delivery.failures("payload") == 1
        assert delivery.metric("cartesia_exporter_notifications_total") == 2
        [bug] = [line for line in logs if line.get("exc_info")]
        assert bug["log_level"] == "error"


async def test_a_message_with_no_renderable_form_is_dead_and_delays_no_other(tmp_path):
    receiver = BrokenReceiver()
    receiver.minimal_too = True
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("bad", "good", "better")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full good", "full better"]
        assert await delivery.outbox.backlog() == Backlog(0, 1)


async def test_a_renderers_bug_does_not_change_the_circuit(tmp_path):
    receiver = BrokenReceiver()
    receiver.answers.extend([BUSY, BUSY])
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures("good")
        await delivery.make_attempts(1)
        await delivery.queue_failures("bad")
        delivery.clock.now += await delivery.deliverer.deliver_due()
        await delivery.deliverer.deliver_due()
        await delivery.make_attempts(1)
        assert await delivery.deliverer.deliver_due() == pytest.approx(
            2
        )  # the second failure in a row


async def test_a_digest_that_cannot_be_rendered_is_sent_minimal(tmp_path):
    async with open_delivery(tmp_path, BrokenReceiver()) as delivery:
        await delivery.queue_failures("bad", "b", "c", "d", "e", "f")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["minimal bad b c d e f"]
        assert await delivery.outbox.backlog() == Backlog(0, 0)


class ReadingReceiver(FakeReceiver):
    """Sends how often the dataset of its events failed."""

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        failures = [message.context(each).failures_of_dataset_7d for each in message.events]
        return " ".join(map(str, failures)).encode()


async def test_a_message_has_what_the_store_knows_about_its_events(tmp_path):
    async with open_delivery(tmp_path, ReadingReceiver()) as delivery:
        events = [failure(n, dataset=f"ds_{n % 2}") for n in range(3)]
        await queue_events(delivery.database, events, delivery.receiver.name)
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["1", "1", "2"]


async def test_a_message_is_sent_although_its_context_cannot_be_read(tmp_path, monkeypatch):
    async def unreadable(self, carried) -> None:
        raise StoreError("the disk is broken")

    monkeypatch.setattr(Outbox, "contexts", unreadable)
    async with open_delivery(tmp_path, ReadingReceiver()) as delivery:
        await queue_events(delivery.database, [failure(1)], delivery.receiver.name)
        with capture_logs() as logs:
            await delivery.deliver_all()
        assert delivery.receiver.texts == ["None"]
        [line] = [line for line in logs if line.get("exc_info")]
        assert line["event"] == "message has no context"
