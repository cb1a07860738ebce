"""When what is owed goes out, in how many messages, and that a message never changes again."""

import asyncio
from dataclasses import replace

import pytest

from exporter.core.message import Message
from exporter.store.outbox import Backlog, Outbox
from tests.delivery.delivery_fixture import BUSY, Bench, FakeReceiver, bench, on_bench, plan_of


def test_up_to_the_threshold_each_event_is_a_message_oldest_first(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c")
        await b.settle()
        assert b.receiver.bodies == ["full a", "full b", "full c"]
        assert len({delivery.id for delivery in b.receiver.sent}) == 3
        assert [delivery.events for delivery in b.receiver.sent] == [1, 1, 1]

    on_bench(tmp_path / "state.db", test, plan=plan_of(digest_threshold=3))


def test_above_the_threshold_they_are_one_digest(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c", "d")
        await b.settle()
        assert b.receiver.bodies == ["full a b c d"]
        assert b.receiver.sent[0].events == 4

    on_bench(tmp_path / "state.db", test, plan=plan_of(digest_threshold=3))


def test_a_digest_larger_than_the_receiver_takes_is_several(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b", "c", "d", "e")
        await b.settle()
        assert b.receiver.bodies == ["full a b", "full c d", "full e"]

    receiver = FakeReceiver(most_events=2)
    on_bench(tmp_path / "state.db", test, receiver, plan_of(digest_threshold=3))


def test_the_loop_goes_on_between_the_messages_of_a_storm(tmp_path):
    turns, seen = [0], []

    class Noting(FakeReceiver):
        def render(self, message: Message, *, minimal: bool = False) -> bytes:
            seen.append(turns[0])
            return super().render(message, minimal=minimal)

    async def tick() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def test(b: Bench) -> None:
        await b.fail(*(f"ft_{n}" for n in range(20)))
        ticking = asyncio.create_task(tick())
        await b.deliverer.deliver_due()
        ticking.cancel()
        assert len(seen) == len(set(seen)) == 10

    receiver = Noting(most_events=2)
    on_bench(tmp_path / "state.db", test, receiver, plan_of(digest_threshold=3))


def test_the_oldest_event_waits_for_company_no_longer_than_group_wait(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        assert await b.deliverer.deliver_due() == 30
        b.clock.now += 29
        await b.fail("b")
        assert await b.deliverer.deliver_due() == 1
        assert b.receiver.sent == []
        b.clock.now += 1
        await b.settle()
        assert b.receiver.bodies == ["full a b"]
        assert b.clock.now < b.receiver.sent[0].created_at + 1

    on_bench(tmp_path / "state.db", test, plan=plan_of(group_wait=30, digest_threshold=1))


def test_a_clock_that_was_set_back_does_not_hold_events(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        b.clock.now -= 86400
        assert await b.deliverer.deliver_due() == 0
        assert b.receiver.bodies == ["full a"]

    on_bench(tmp_path / "state.db", test, plan=plan_of(group_wait=30))


def test_what_waits_for_company_does_not_hold_up_a_retry(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a")
        b.clock.now += 30
        await b.turns(1)
        await b.fail("b")
        b.clock.now += 1
        await b.deliverer.deliver_due()
        assert b.receiver.bodies == ["full a", "full a"]

    receiver = FakeReceiver()
    receiver.answers.append(BUSY)
    on_bench(tmp_path / "state.db", test, receiver, plan_of(group_wait=30))


def test_events_that_come_during_an_outage_do_not_join_a_message_that_was_tried(tmp_path):
    async def test(b: Bench) -> None:
        await b.fail("a", "b")
        await b.turns(1)
        await b.fail("c", "d")
        await b.settle()
        assert b.receiver.bodies == ["full a b", "full c d", "full a b"]
        first, _, again = b.receiver.sent
        assert (first.id, first.body, first.attempts) == (again.id, again.body, 0)
        assert again.attempts == 1

    receiver = FakeReceiver()
    receiver.answers.append(BUSY)
    on_bench(tmp_path / "state.db", test, receiver, plan_of(digest_threshold=1))


def test_what_is_frozen_is_stored_before_it_is_sent(tmp_path):
    class Looks(FakeReceiver):
        outbox: Outbox

        async def send(self, delivery, now):
            stored = await self.outbox.next()
            assert stored == replace(delivery, repeat=True)  # it may arrive from here on
            return await super().send(delivery, now)

    async def test(b: Bench) -> None:
        receiver.outbox = b.outbox
        await b.fail("a", "b")
        await b.settle()
        assert b.receiver.bodies == ["full a", "full b"]

    receiver = Looks()
    on_bench(tmp_path / "state.db", test, receiver)


def test_a_crash_between_sending_and_marking_repeats_the_same_bytes_under_the_same_id(tmp_path):
    class Dies(FakeReceiver):
        async def send(self, delivery, now):
            await super().send(delivery, now)
            raise asyncio.CancelledError

    async def crash() -> None:
        async with bench(tmp_path / "state.db", receiver) as b:
            await b.fail("a", "b")
            with pytest.raises(asyncio.CancelledError):
                await b.deliverer.deliver_due()

    async def after() -> FakeReceiver:
        async with bench(tmp_path / "state.db", plan=plan_of(digest_threshold=1)) as b:
            await b.fail("c", "d")
            await b.settle()
            assert await b.outbox.backlog() == Backlog(0, 0)
            return b.receiver

    receiver = Dies()
    asyncio.run(crash())
    sent = asyncio.run(after()).sent
    assert receiver.bodies == ["full a"]
    [repeat] = [each for each in sent if each.id == receiver.sent[0].id]
    assert repeat.body == receiver.sent[0].body + b" again"
    assert sorted(each.body.decode() for each in sent) == ["full a again", "full b c d"]
