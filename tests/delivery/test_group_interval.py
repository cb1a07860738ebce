"""The group interval: one message at its begin and one at its end, and nothing late or lost."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from exporter.core.mentions import Mentions, mentioning_types
from exporter.core.message import Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint
from exporter.receivers.slack import Slack
from exporter.store.queries import DeliveryFilter
from exporter.store.receiver_outbox import Backlog
from exporter.store.repairs import retry
from tests.delivery.delivery_fixture import (
    ACCEPTED,
    BUSY,
    DeliveryFixture,
    FakeReceiver,
    answering,
    delivery_settings,
    open_delivery,
    queue_trouble,
)
from tests.fakes.clock import FakeClock
from tests.fakes.secret import FakeSecret
from tests.store.sample_polls import NOW

WAIT, INTERVAL = 5.0, 300.0
OLDEST = "cartesia_exporter_delivery_oldest_pending_timestamp_seconds"
HELD = "cartesia_exporter_deliveries_held"
PENDING = "cartesia_exporter_deliveries_pending"


@asynccontextmanager
async def grouped(
    folder: Path, receiver: FakeReceiver | None = None, interval: float = INTERVAL
) -> AsyncIterator[DeliveryFixture]:
    settings = delivery_settings(group_wait=WAIT, group_interval=interval)
    async with open_delivery(folder, receiver, settings) as delivery:
        yield delivery


async def run_until(delivery: DeliveryFixture, moment: float) -> None:
    """Run the deliverer as its loop does, until ``moment`` seconds after the begin of the test."""
    await delivery.run_for(NOW + moment - delivery.clock.now)


def held(delivery: DeliveryFixture) -> float | None:
    return delivery.metric(HELD, reason="group_interval")


async def test_the_first_failure_is_sent_after_the_group_wait_and_the_rest_at_the_intervals_end(
    tmp_path,
):
    async with grouped(tmp_path) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, WAIT)
        assert delivery.receiver.texts == ["full a"]
        for name, moment in (("b", 60.0), ("c", 120.0), ("d", 299.0)):
            delivery.clock.now = NOW + moment
            await delivery.queue_failures(name)
            await run_until(delivery, moment + 1)
        assert (held(delivery), delivery.metric(PENDING)) == (3, 3)
        assert delivery.metric(OLDEST) is None
        await run_until(delivery, WAIT + INTERVAL - 0.1)
        assert delivery.receiver.texts == ["full a"]
        await run_until(delivery, WAIT + INTERVAL)
        assert delivery.receiver.texts == ["full a", "full b c d"]
        assert (held(delivery), delivery.metric(PENDING)) == (0, 0)


class SlackReceiver(FakeReceiver):
    """Renders as Slack does, with a mention for each failure."""

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        endpoint = Endpoint(HttpClient(), FakeSecret("https://hooks.slack.com/x"), 15.0)
        mentions = Mentions(mentioning_types(("failed", "stuck", "agent")), "<!here>")
        return Slack("slack", endpoint, mentions).render(message, minimal=minimal)


async def test_36_failures_over_12_polls_are_at_most_4_slack_messages_and_mentions(tmp_path):
    async with grouped(tmp_path, SlackReceiver(most_events=Slack.most_events)) as delivery:
        for poll in range(12):
            delivery.clock.now = NOW + 60.0 * poll
            await delivery.queue_failures(*(f"ft_{poll}_{n}" for n in range(3)))
            await run_until(delivery, 60.0 * poll + 59)
        await run_until(delivery, 60.0 * 30)
        shown = [json.dumps(json.loads(text)["blocks"]) for text in delivery.receiver.texts]
    assert len(shown) <= 4
    assert sum(each.count("<!here>") for each in shown) <= 4
    everything = " ".join(shown)
    assert all(f"ft_{poll}_{n}" in everything for poll in range(12) for n in range(3))


async def test_a_retry_is_not_held_back(tmp_path):
    async with grouped(tmp_path, answering(BUSY, BUSY)) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, 60)
        assert delivery.receiver.texts == ["full a"] * 3


async def test_the_interval_begins_with_the_first_attempt_whatever_its_outcome(tmp_path):
    async with grouped(tmp_path, answering(BUSY)) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, 60)
        await delivery.queue_failures("b")
        await run_until(delivery, WAIT + INTERVAL - 1)
        assert delivery.receiver.texts == ["full a"] * 2
        await run_until(delivery, WAIT + INTERVAL)
        assert delivery.receiver.texts[2:] == ["full b"]


async def test_the_agents_own_events_are_never_held_back_and_begin_no_interval(tmp_path):
    async with grouped(tmp_path) as delivery:
        await queue_trouble(delivery, "evt_1")
        await run_until(delivery, WAIT)
        assert delivery.receiver.texts == ["full "]
        await delivery.queue_failures("a")
        await run_until(delivery, 2 * WAIT + 60)
        assert delivery.receiver.texts[-1] == "full a"
        await queue_trouble(delivery, "evt_2")
        await delivery.queue_failures("b")
        await run_until(delivery, 2 * WAIT + 70)
        assert delivery.receiver.texts[-1] == "full "
        assert held(delivery) == 1


async def test_a_restart_goes_on_with_the_interval(tmp_path):
    async with grouped(tmp_path) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, WAIT)
    clock = FakeClock(NOW + 100)
    settings = delivery_settings(group_wait=WAIT, group_interval=INTERVAL)
    async with open_delivery(tmp_path, settings=settings, clock=clock) as delivery:
        await delivery.queue_failures("b")
        await run_until(delivery, 100 + INTERVAL - 1)
        assert delivery.receiver.texts == []
        await run_until(delivery, 100 + INTERVAL + 1)
        assert delivery.receiver.texts == ["full b"]


async def test_a_changed_interval_takes_effect_at_once(tmp_path):
    async with grouped(tmp_path, interval=86_400.0) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, WAIT)
        await delivery.queue_failures("b")
        await run_until(delivery, 60)
        assert held(delivery) == 1
        shorter = delivery_settings(group_wait=WAIT, group_interval=10.0)
        delivery.deliverer = delivery.rebuilt(shorter)
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts == ["full a", "full b"]


async def test_a_requested_retry_ends_the_interval(tmp_path):
    async with grouped(tmp_path) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, WAIT)
        await delivery.queue_failures("b")
        await run_until(delivery, 60)
        criteria = DeliveryFilter(frozenset({"slack"}))
        await delivery.database.run(retry, delivery.database, criteria, NOW + 60)
        await delivery.deliverer.deliver_due()
        assert delivery.receiver.texts == ["full a", "full b"]


async def test_an_event_that_was_held_back_expires_max_age_after_it_could_be_sent(tmp_path):
    settings = delivery_settings(group_wait=0.0, group_interval=300.0, max_age=60.0)
    async with open_delivery(tmp_path, answering(*[BUSY] * 100), settings) as delivery:
        await delivery.queue_failures("a")
        await run_until(delivery, 100)
        await delivery.queue_failures("b")
        await run_until(delivery, 300 + 50)
        assert await delivery.outbox.backlog(300.0) == Backlog(1, 1, 50.0)
        await run_until(delivery, 300 + 160)
        assert (await delivery.outbox.backlog(300.0)).dead == 2


async def test_a_digest_that_exceeds_the_receivers_limit_is_sent_at_once_as_several(tmp_path):
    async with grouped(tmp_path, FakeReceiver(most_events=2)) as delivery:
        await delivery.queue_failures("a", "b", "c", "d", "e")
        await run_until(delivery, WAIT + 1)
        assert delivery.receiver.texts == ["full a b", "full c d", "full e"]


@given(st.lists(st.tuples(st.floats(0.5, 200), st.integers(1, 4)), min_size=1, max_size=8))
@hypothesis_settings(max_examples=3)
async def test_no_event_waits_longer_than_group_wait_and_interval(history):
    with TemporaryDirectory() as folder:
        async with grouped(Path(folder)) as delivery:
            queued, moment = dict[str, float](), 0.0
            sent_at = dict[str, float]()

            def note(message: OutboxMessage) -> Attempt:
                for name in message.body.decode().split()[1:]:
                    assert name not in sent_at
                    sent_at[name] = delivery.clock.now
                return ACCEPTED

            delivery.receiver.answers.extend([note] * 100)
            for pause, number in history:
                moment += pause
                await run_until(delivery, moment)
                names = [f"ft_{len(queued) + n}" for n in range(number)]
                await delivery.queue_failures(*names)
                queued |= dict.fromkeys(names, delivery.clock.now)
            await run_until(delivery, moment + WAIT + INTERVAL)
    assert queued.keys() == sent_at.keys()
    # Sent times are noted at the begin of a request; floats of 1.8e9 have a grain of 2e-7.
    assert all(sent_at[each] - at <= WAIT + INTERVAL + 1e-5 for each, at in queued.items())
