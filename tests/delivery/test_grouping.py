"""When queued events are sent, in how many messages, and that a message never changes."""

import asyncio

import pytest
from msgspec.structs import replace

from exporter.core.message import Message
from exporter.store.outbox import Outbox
from exporter.store.receiver_outbox import Backlog
from tests.delivery.delivery_fixture import (
    BUSY,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
)


async def test_up_to_the_threshold_each_event_is_a_message_oldest_first(tmp_path):
    async with open_delivery(tmp_path, settings=delivery_settings(digest_threshold=3)) as delivery:
        await delivery.queue_failures("a", "b", "c")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a", "full b", "full c"]
        assert len({message.id for message in delivery.receiver.sent}) == 3
        assert [message.events for message in delivery.receiver.sent] == [1, 1, 1]


async def test_above_the_threshold_all_events_are_one_digest(tmp_path):
    async with open_delivery(tmp_path, settings=delivery_settings(digest_threshold=3)) as delivery:
        await delivery.queue_failures("a", "b", "c", "d")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a b c d"]
        assert delivery.receiver.sent[0].events == 4


async def test_a_digest_larger_than_the_receivers_limit_is_split(tmp_path):
    receiver = FakeReceiver(most_events=2)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=3)) as delivery:
        await delivery.queue_failures("a", "b", "c", "d", "e")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a b", "full c d", "full e"]


async def test_the_event_loop_runs_between_the_rendering_of_many_messages(tmp_path):
    turns, seen = [0], []

    class RecordingReceiver(FakeReceiver):
        def render(self, message: Message, *, minimal: bool = False) -> bytes:
            seen.append(turns[0])
            return super().render(message, minimal=minimal)

    async def tick() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    receiver = RecordingReceiver(most_events=2)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=3)) as delivery:
        await delivery.queue_failures(*(f"ft_{n}" for n in range(20)))
        ticking = asyncio.create_task(tick())
        await delivery.deliverer.deliver_due()
        ticking.cancel()
        assert len(seen) == len(set(seen)) == 10


async def test_the_oldest_event_waits_no_longer_than_group_wait(tmp_path):
    async with open_delivery(
        tmp_path, settings=delivery_settings(group_wait=30, digest_threshold=1)
    ) as delivery:
        await delivery.queue_failures("a")
        assert await delivery.deliverer.deliver_due() == 30
        delivery.clock.now += 29
        await delivery.queue_failures("b")
        assert await delivery.deliverer.deliver_due() == 1
        assert delivery.receiver.sent == []
        delivery.clock.now += 1
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a b"]
        assert delivery.clock.now < delivery.receiver.sent[0].created_at + 1


@pytest.mark.parametrize("jump", [-86400, 86400])
async def test_setting_the_wall_clock_does_not_change_group_wait(tmp_path, jump):
    async with open_delivery(tmp_path, settings=delivery_settings(group_wait=30)) as delivery:
        await delivery.queue_failures("a")
        delivery.clock.set_by = jump
        assert await delivery.deliverer.deliver_due() == 30
        delivery.clock.now += 30
        assert await delivery.deliverer.deliver_due() == 0
        assert delivery.receiver.texts == ["full a"]


async def test_group_wait_does_not_delay_a_retry(tmp_path):
    receiver = answering(BUSY)
    async with open_delivery(tmp_path, receiver, delivery_settings(group_wait=30)) as delivery:
        await delivery.queue_failures("a")
        delivery.clock.now += 30
        await delivery.make_attempts(1)
        await delivery.queue_failures("b")
        delivery.clock.now += 1
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts == ["full a", "full a"]


async def test_events_during_an_outage_do_not_join_a_message_that_was_tried(tmp_path):
    receiver = answering(BUSY)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=1)) as delivery:
        await delivery.queue_failures("a", "b")
        await delivery.make_attempts(1)
        await delivery.queue_failures("c", "d")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a b", "full c d", "full a b"]
        first, _, again = delivery.receiver.sent
        assert (first.id, first.body, first.attempts) == (again.id, again.body, 0)
        assert again.attempts == 1


async def test_events_that_are_queued_during_an_outage_become_few_messages(tmp_path):
    """Their number grows with the logarithm of the failures, not with their number."""
    receiver = answering(*[BUSY] * 16)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=1)) as delivery:
        for number in range(16):
            await delivery.queue_failures(f"ft_{number}")
            await delivery.make_attempts(1)
        await delivery.deliver_all()
        assert len({message.id for message in receiver.sent}) <= 6


async def test_a_message_is_stored_before_it_is_sent(tmp_path):
    class ReadingReceiver(FakeReceiver):
        outbox: Outbox

        async def send(self, message, now):
            stored = await self.outbox.next()
            assert stored == replace(message, repeat=True)  # it may arrive from here on
            return await super().send(message, now)

    receiver = ReadingReceiver()
    async with open_delivery(tmp_path, receiver) as delivery:
        receiver.outbox = delivery.outbox
        await delivery.queue_failures("a", "b")
        await delivery.deliver_all()
        assert delivery.receiver.texts == ["full a", "full b"]


async def test_a_crash_after_sending_repeats_the_same_bytes_under_the_same_id(tmp_path):
    class CrashingReceiver(FakeReceiver):
        async def send(self, message, now):
            await super().send(message, now)
            raise asyncio.CancelledError

    crashing = CrashingReceiver()
    async with open_delivery(tmp_path, crashing) as delivery:
        await delivery.queue_failures("a", "b")
        with pytest.raises(asyncio.CancelledError):
            await delivery.deliverer.deliver_due()
    async with open_delivery(tmp_path, settings=delivery_settings(digest_threshold=1)) as delivery:
        await delivery.queue_failures("c", "d")
        await delivery.deliver_all()
        assert await delivery.outbox.backlog() == Backlog(0, 0)
    [first] = crashing.sent
    assert first.body == b"full a"
    sent = delivery.receiver.sent
    [repeat] = [message for message in sent if message.id == first.id]
    assert repeat.body == first.body + b" again"
    assert sorted(message.body.decode() for message in sent) == ["full a again", "full b c d"]
