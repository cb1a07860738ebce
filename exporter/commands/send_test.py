"""`send-test`: one message to one receiver, once, and what came of it."""

import secrets
import time
from dataclasses import dataclass

from exporter.config import Config
from exporter.core.message import Pages, message
from exporter.core.model import Delivery, Event, stable_id
from exporter.core.retry import Attempt
from exporter.parts import SYSTEM_CLOCK, BuiltReceiver, exchange_of, receiver_of


@dataclass(frozen=True, slots=True)
class Sent:
    """The body of the test message, the attempt (None for a dry run) and its time in seconds."""

    body: bytes
    attempt: Attempt | None
    seconds: float


async def send_test(config: Config, section: BuiltReceiver, *, dry_run: bool) -> Sent:
    """Send a test message to a receiver once, without a retry; a dry run only renders it.

    Raises OSError when its ca_file can't be used.
    """
    now = SYSTEM_CLOCK.now()
    event = Event(
        stable_id("evt", "test", secrets.token_hex(16)),
        "agent.test",
        config.accounts[0].name,
        now,
        facts={"text": "If you can read this, alerts of failed fine-tunes will arrive here."},
    )
    async with exchange_of(section) as exchange:
        receiver = receiver_of(section, exchange)
        body = receiver.render(message([event], Pages(config.alerts.playground_url)))
        if dry_run:
            return Sent(body, None, 0.0)
        delivery = Delivery(event.id, receiver.name, body, events=1, created_at=now)
        started = time.monotonic()
        attempt = await receiver.send(delivery, now)
        return Sent(body, attempt, time.monotonic() - started)
