"""`send-test`: one message to one receiver, once, and what came of it."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from exporter.commands.samples import Sample, sample_events, word_of_the_agent
from exporter.config import Config
from exporter.config import Receiver as ReceiverSection
from exporter.core.message import Message, Pages, message
from exporter.core.model import Delivery, stable_id
from exporter.core.retry import Attempt
from exporter.parts import SYSTEM_CLOCK, open_receiver
from exporter.receivers.receiver import Receiver


@dataclass(frozen=True, slots=True)
class Sent:
    """The body of the test message, the attempt (None for a dry run) and its time in seconds."""

    body: bytes
    attempt: Attempt | None
    seconds: float


async def send_test(
    config: Config, section: ReceiverSection, sample: Sample | None, *, dry_run: bool
) -> Sent:
    """Send a test message to a receiver once, without a retry; a dry run only renders it.

    Raises OSError when its ca_file can't be used.
    """
    async with AsyncExitStack() as resources:
        receiver = await open_receiver(section, resources)
        told = _message(config, sample, receiver.most_events)
        if dry_run:
            return Sent(receiver.render(told), None, 0.0)
        return await _send(receiver, told)


def _message(config: Config, sample: Sample | None, most: int) -> Message:
    account, now = config.accounts[0].name, SYSTEM_CLOCK.now()
    pages = Pages(config.alerts.playground_url)
    if sample is None:
        return message([word_of_the_agent(account, now)], pages)
    told = message(sample_events(sample, account, now)[:most], pages)
    # A digest's title names no fine-tune, and may be all that a telephone shows.
    return replace(told, title=f"TEST: {told.title}")


async def _send(receiver: Receiver, told: Message) -> Sent:
    ids = [event.id for event in told.events]
    message_id = ids[0] if len(ids) == 1 else stable_id("test", *ids)
    now = SYSTEM_CLOCK.now()
    delivery = Delivery(message_id, receiver.name, receiver.render(told), len(ids), created_at=now)
    started = time.monotonic()
    attempt = await receiver.send(delivery, now)
    return Sent(delivery.body, attempt, time.monotonic() - started)
