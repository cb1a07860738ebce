"""A refused digest is split until the refused events are alone; the others are delivered."""

import asyncio
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.core.events import stable_id
from exporter.core.retry import Attempt, Outcome
from exporter.store.queries import DeliveryFilter
from exporter.store.receiver_outbox import Backlog
from exporter.store.repairs import discard, reassign
from tests.delivery.delivery_fixture import (
    ACCEPTED,
    REFUSED,
    DeliveryFixture,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
)
from tests.store.raw_sqlite import state_path
from tests.store.sample_polls import NOW

LOST = Attempt(Outcome.TRANSIENT, "timeout", ambiguous=True)


class PickyReceiver(FakeReceiver):
    """Refuses each message with one of ``bad``, and each with more than ``most`` events."""

    bad: frozenset[str] = frozenset()
    most = 10**9

    def accepts(self, body: bytes) -> bool:
        ids = body.decode().removesuffix(" again").split()[1:]
        return self.bad.isdisjoint(ids) and len(ids) <= self.most

    async def send(self, message, now):
        await super().send(message, now)
        return ACCEPTED if self.accepts(message.body) else REFUSED

    def accepted(self) -> list[str]:
        """Return the fine-tunes of all accepted messages."""
        bodies = [each.body for each in self.sent if self.accepts(each.body)]
        return [name for body in bodies for name in body.decode().split()[1:]]


def picky(*bad: str, most: int = 10**9) -> PickyReceiver:
    receiver = PickyReceiver()
    receiver.bad, receiver.most = frozenset(bad), most
    return receiver


async def states(delivery: DeliveryFixture) -> dict[str, str]:
    """Return the state of the delivery of each fine-tune."""
    query = "SELECT subject, state FROM deliveries JOIN events ON number = event"
    connection = sqlite3.connect(state_path(delivery.database))
    try:
        return dict(connection.execute(query).fetchall())
    finally:
        connection.close()


async def test_only_the_refused_event_of_a_digest_is_dead(tmp_path):
    names = [f"f{number}" for number in range(9)]
    async with open_delivery(tmp_path, picky("f3")) as delivery:
        await delivery.queue_failures(*names)
        await delivery.deliver_all()
        assert delivery.receiver.texts == [
            "full f0 f1 f2 f3 f4 f5 f6 f7 f8",
            "minimal f0 f1 f2 f3 f4 f5 f6 f7 f8",
            "minimal f0 f1 f2 f3 f4",
            "minimal f5 f6 f7 f8",
            "minimal f0 f1 f2",
            "minimal f3 f4",
            "full f3",
            "full f4",
            "minimal f3",
        ]
        assert await states(delivery) == dict.fromkeys(names, "delivered") | {"f3": "dead"}


async def test_a_receiver_that_refuses_every_digest_gets_each_event_in_full(tmp_path):
    names = [f"f{number}" for number in range(7)]
    receiver = picky(most=1)
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures(*names)
        await delivery.deliver_all()
        assert sorted(receiver.accepted()) == names
        assert delivery.receiver.texts[-7:] == [f"full {name}" for name in names]
        assert await delivery.outbox.backlog() == Backlog(0, 0)


@settings(max_examples=10, deadline=None)
@given(number=st.integers(2, 24), data=st.data())
def test_requests_are_bounded_and_each_event_is_delivered_once_or_dead(
    tmp_path_factory, number, data
):
    names = [f"f{each}" for each in range(number)]
    bad = data.draw(st.sets(st.sampled_from(names)))

    async def run() -> None:
        receiver, folder = picky(*bad), tmp_path_factory.mktemp("split")
        config = delivery_settings(digest_threshold=1)
        async with open_delivery(folder, receiver, config) as delivery:
            await delivery.queue_failures(*names)
            await delivery.deliver_all()
            assert sorted(receiver.accepted()) == sorted({*names} - bad)
            found = await states(delivery)
            assert {name for name, state in found.items() if state == "dead"} == bad
            assert len(delivery.receiver.sent) <= 3 * number
            assert len(delivery.receiver.sent) < 3 * number or number == 2

    asyncio.run(run())


async def test_the_ids_of_parts_depend_on_their_events_alone(tmp_path):
    async with open_delivery(tmp_path, picky("f0", "f7")) as delivery:
        await delivery.queue_failures(*(f"f{number}" for number in range(8)))
        queued = [each.event.id for each in await delivery.outbox.unsent()]
        await delivery.deliver_all()
        ids = [message.id for message in delivery.receiver.sent]
        half = [stable_id("msg", *queued[:4]), stable_id("msg", *queued[4:])]
        assert ids[2:4] == half
        assert {*ids[4:]} == {*queued}


async def test_a_part_says_that_it_may_be_a_repeat_if_the_whole_may_have_arrived(tmp_path):
    receiver = answering(LOST, REFUSED, REFUSED)
    async with open_delivery(tmp_path, receiver, delivery_settings(digest_threshold=1)) as delivery:
        await delivery.queue_failures("a", "b")
        await delivery.deliver_all()
        assert delivery.receiver.texts[-2:] == ["full a again", "full b again"]


async def test_a_message_discarded_during_its_attempt_is_not_split(tmp_path):
    class Discarding(PickyReceiver):
        async def send(self, message, now):
            if message.minimal:
                await delivery.database.run(
                    discard, delivery.database, DeliveryFilter(frozenset({"slack"})), NOW
                )
            return await super().send(message, now)

    receiver = Discarding()
    receiver.most = 0
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures(*"abcdefg")
        await delivery.deliver_all()
        await delivery.deliverer.deliver_due()
        assert len(receiver.sent) == 2
        assert {*(await states(delivery)).values()} == {"discarded"}


async def test_events_reassigned_during_the_attempt_stay_with_their_new_receiver(tmp_path):
    class Reassigning(PickyReceiver):
        async def send(self, message, now):
            if message.minimal:
                database = delivery.database
                await database.run(reassign, database, "slack", "other", NOW)
            return await super().send(message, now)

    receiver = Reassigning()
    receiver.most = 0
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures(*"abcdefg")
        await delivery.deliver_all()
        await delivery.deliverer.deliver_due()
        assert len(receiver.sent) == 2
        assert {*(await states(delivery)).values()} == {"pending"}


async def test_while_the_parts_cannot_be_stored_the_refused_message_is_not_sent_again(tmp_path):
    receiver = picky("f3")
    async with open_delivery(tmp_path, receiver) as delivery:
        await delivery.queue_failures(*(f"f{number}" for number in range(8)))
        await delivery.make_attempts(1)
        with delivery.database.write() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with capture_logs() as logs:
            for _ in range(20):
                await delivery.deliverer.deliver_due()
                delivery.clock.now += 60
        assert len(delivery.receiver.sent) == 2
        assert [line["event"] for line in logs].count("outbox unavailable") == 1
        with delivery.database.write() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        await delivery.deliver_all()
        assert sorted(receiver.accepted()) == [f"f{n}" for n in (0, 1, 2, 4, 5, 6, 7)]


@pytest.mark.parametrize("bad", ["f0", "f9"])
async def test_a_digest_with_an_event_that_cannot_be_rendered_delivers_the_others(tmp_path, bad):
    class Broken(FakeReceiver):
        def render(self, message, *, minimal=False):
            body = super().render(message, minimal=minimal)
            if bad.encode() in body.split():
                raise KeyError(bad)
            return body

    async with open_delivery(tmp_path, Broken()) as delivery:
        await delivery.queue_failures(*(f"f{number}" for number in range(10)))
        await delivery.deliver_all()
        assert await delivery.outbox.backlog() == Backlog(0, 1)
        assert (await states(delivery))[bad] == "dead"
