"""Mutes: what they hold, what is released when they end, and that nothing is out of sight."""

from typing import Any

import pytest
from sqlalchemy import select

from exporter.core.message import Message
from exporter.core.mutes import MuteRequest
from exporter.core.text import timestamp
from exporter.delivery.loop import LOOK_SECONDS
from exporter.store.accounts import Accounts
from exporter.store.mutes import UnknownMuteError, add_mute, end_mute
from exporter.store.schema import deliveries, events
from tests.delivery.delivery_fixture import (
    BUSY,
    DeliveryFixture,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
    queue_trouble,
)
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, snapshot_of

HOUR = 3600.0
MUTED = "cartesia_exporter_deliveries_muted"


async def mute(delivery: DeliveryFixture, seconds: float | None = HOUR, **what: Any) -> str:
    request = MuteRequest(seconds, "alice", "known", **(what or {"match": {"dataset": "x"}}))
    return await delivery.database.run(
        add_mute, delivery.database, request, delivery.clock.clock.now()
    )


async def poll(delivery: DeliveryFixture, **statuses: str) -> None:
    """Commit a poll that lists these fine-tunes of dataset x with these statuses, twice.

    Twice because leaving ``failed`` takes two polls.
    """
    for _ in range(2):
        before = await Accounts(delivery.database).load(KEY)
        if before is None:
            before = await commit_snapshot(
                delivery.database, None, snapshot_of(at=delivery.clock.clock.now())
            )
        tracked = {key: each.fine_tune for key, each in before.tracked.items()}
        tracked |= {key: fine_tune(key, each, dataset="x") for key, each in statuses.items()}
        now = snapshot_of(*tracked.values(), at=delivery.clock.clock.now())
        await commit_snapshot(delivery.database, before, now, [delivery.receiver.name])


async def states(delivery: DeliveryFixture) -> dict[str, str]:
    """Return the state of the delivery of each fine-tune's failure."""

    def read() -> dict[str, str]:
        with delivery.database.read() as connection:
            query = (
                select(events.c.subject, deliveries.c.state, deliveries.c.settled_by)
                .join(deliveries)
                .where(events.c.type == "fine_tune.failed")
                .order_by(events.c.number)
            )
            return {
                row.subject: f"{row.state} by {row.settled_by}" if row.settled_by else row.state
                for row in connection.execute(query)
            }

    return await delivery.database.run(read)


async def test_a_mute_of_an_hour_holds_ten_failures_and_releases_the_rest_as_one_digest(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        mute_id = await mute(delivery)
        names = [f"ft_{n}" for n in range(10)]
        await poll(delivery, **dict.fromkeys(names, "failed"))
        await delivery.run_for(60)
        assert delivery.receiver.texts == []
        assert delivery.metric(MUTED) == 10
        assert delivery.metric("cartesia_exporter_deliveries_pending") == 0
        assert (
            delivery.metric("cartesia_exporter_delivery_oldest_pending_timestamp_seconds") is None
        )
        await poll(delivery, **dict.fromkeys(names[:3], "completed"))
    clock = FakeClock(NOW + HOUR - 10)
    async with open_delivery(tmp_path, clock=clock) as delivery:
        await delivery.run_for(5)
        assert delivery.receiver.texts == []
        await delivery.run_for(30)
        assert sorted(delivery.receiver.texts[0].split()[1:]) == names[3:]
        found = await states(delivery)
        assert [found[name] for name in names[:3]] == [f"discarded by {mute_id}"] * 3
        assert {found[name] for name in names[3:]} == {"delivered"}
        assert delivery.metric(MUTED) == 0


async def test_the_end_of_a_mute_is_not_noticed_at_the_next_look_only(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery)
        await poll(delivery, ft_1="failed")
        assert await delivery.deliverer.deliver_due() == LOOK_SECONDS
        await delivery.clock.sleep(HOUR - 3)
        assert await delivery.deliverer.deliver_due() == pytest.approx(3)


async def test_what_is_queued_and_held_back_is_muted_too(tmp_path):
    settings = delivery_settings(group_interval=300.0)
    async with open_delivery(tmp_path, settings=settings) as delivery:
        await poll(delivery, first="failed")
        await delivery.run_for(1)
        await poll(delivery, second="failed")
        await delivery.run_for(60)
        await mute(delivery)
        await delivery.run_for(600)
        assert delivery.receiver.texts == ["full first"]
        assert await states(delivery) == {"first": "delivered", "second": "muted"}


async def test_an_event_that_the_mute_does_not_match_is_sent(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery, match={"dataset": "x", "name": "other"})
        await poll(delivery, one="failed")
        await delivery.run_for(1)
        assert delivery.receiver.texts == ["full one"]


async def test_a_value_that_cannot_be_compared_is_not_muted(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery, match={"dataset": ".*"})
        before = await commit_snapshot(delivery.database, None, snapshot_of())
        long = snapshot_of(fine_tune("one", "failed", dataset="x" * 10_001))
        await commit_snapshot(delivery.database, before, long, [delivery.receiver.name])
        await delivery.run_for(1)
        assert delivery.receiver.texts == ["full one"]


async def test_a_mute_matches_the_labels_of_the_account(tmp_path):
    labels = {KEY.name: {"team": "voices"}}
    settings = delivery_settings(account_labels=lambda: labels)
    async with open_delivery(tmp_path, settings=settings) as delivery:
        await mute(delivery, match={"label.team": "voic.*"})
        await poll(delivery, one="failed")
        await delivery.run_for(1)
        assert delivery.receiver.texts == []


async def test_events_of_the_agent_are_not_muted(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery, match={"account": ".*"})
        await queue_trouble(delivery, "evt_1")
        await delivery.run_for(1)
        assert len(delivery.receiver.sent) == 1


async def test_ending_a_mute_releases_at_once_also_within_a_group_interval(tmp_path):
    settings = delivery_settings(group_interval=300.0)
    async with open_delivery(tmp_path, settings=settings) as delivery:
        await poll(delivery, before="failed")
        await delivery.run_for(1)
        mute_id = await mute(delivery)
        await poll(delivery, one="failed", two="failed")
        await delivery.run_for(10)
        await delivery.database.run(
            end_mute, delivery.database, mute_id, "bob", delivery.clock.clock.now()
        )
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts == ["full before", "full one two"]
        with pytest.raises(UnknownMuteError):
            await delivery.database.run(end_mute, delivery.database, mute_id, "bob", NOW + 20)


async def test_the_digest_of_what_is_released_says_that_it_was_muted(tmp_path):
    notes = []

    class RecordingReceiver(FakeReceiver):
        def render(self, message: Message, *, minimal: bool = False) -> bytes:
            notes.append(message.note)
            return super().render(message, minimal=minimal)

    async with open_delivery(tmp_path, RecordingReceiver()) as delivery:
        await mute(delivery)
        await poll(delivery, one="failed")
        await delivery.run_for(HOUR + 10, look=300)
        await poll(delivery, two="failed")
        await delivery.run_for(10)
    until = timestamp(NOW + HOUR)
    assert notes == [f"Muted by alice until {until} (known); not recovered since.", ""]


async def test_a_fine_tune_that_failed_twice_is_released_once(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery)
        await poll(delivery, one="failed")
        await poll(delivery, one="training")
        await poll(delivery, one="failed")
        await delivery.run_for(HOUR + 10, look=300)
        assert delivery.receiver.texts == ["full one"]


async def test_an_event_goes_on_to_another_mute_that_covers_it(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery)
        await mute(delivery, 2 * HOUR, match={"name": ".*"})
        await poll(delivery, one="failed")
        await delivery.run_for(HOUR + 60, look=300)
        assert delivery.receiver.texts == []
        assert delivery.metric(MUTED) == 1
        await delivery.run_for(HOUR, look=300)
        assert delivery.receiver.texts == ["full one"]


async def test_until_it_recovers(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await poll(delivery, one="failed")
        await delivery.run_for(1)
        await mute(delivery, None, account=KEY.name, fine_tune="one")
        await delivery.run_for(10)
        await poll(delivery, one="training")
        await delivery.run_for(10)
        await poll(delivery, one="failed")
        await delivery.run_for(10)
        assert delivery.receiver.texts[0] == delivery.receiver.texts[-1] == "full one"
        assert await states(delivery) == {"one": "delivered"}


async def test_until_it_recovers_holds_a_stuck_report_and_ends_with_the_failure(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await poll(delivery, one="training")
        await delivery.run_for(1)
        await mute(delivery, None, account=KEY.name, fine_tune="one")
        await poll(delivery, one="failed")
        await delivery.run_for(10)
        assert delivery.receiver.texts[-1] == "full one"


@pytest.mark.parametrize("jump", [-30 * 86_400.0, 30 * 86_400.0])
async def test_setting_the_clock_neither_prolongs_a_mute_nor_loses_an_event(tmp_path, jump):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery)
        await poll(delivery, one="failed")
        await delivery.run_for(10)
        delivery.clock.set_by += jump
        await delivery.run_for(HOUR + 10, look=300)
        assert delivery.receiver.texts == ["full one"]


async def test_a_mute_that_was_added_while_the_agent_was_stopped_ends_by_the_wall_clock(tmp_path):
    async with open_delivery(tmp_path) as delivery:
        await mute(delivery)
        await poll(delivery, one="failed")
    clock = FakeClock(NOW + HOUR - 60)
    async with open_delivery(tmp_path, clock=clock) as delivery:
        await delivery.run_for(59)
        assert delivery.receiver.texts == []
        await delivery.run_for(10)
        assert delivery.receiver.texts == ["full one"]


async def test_a_released_event_is_not_late(tmp_path):
    settings = delivery_settings(max_age=600.0)
    async with open_delivery(tmp_path, answering(BUSY, BUSY), settings) as delivery:
        await mute(delivery)
        await poll(delivery, one="failed")
        await delivery.run_for(HOUR + 60, look=300)
        assert delivery.receiver.texts == ["full one"] * 3
