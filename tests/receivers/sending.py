"""Slack and webhook receivers that send over real connections."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.core.retry import Attempt
from exporter.core.secret import Secret
from exporter.http_client import HttpClient
from exporter.receivers.receiver import Endpoint, Receiver
from exporter.receivers.slack import Slack
from exporter.receivers.webhook import Webhook
from tests.fakes.secret import FakeSecret
from tests.receivers.sample_events import AT, delivery

ReceiverType = Literal["slack", "webhook"]
RECEIVER_TYPES: tuple[ReceiverType, ...] = ("slack", "webhook")
BODY = b'{"text":"Fine-tune failed"}'


class LeakySecret(FakeSecret):
    """A secret with its value in its repr, as any wrapper might have."""

    def __repr__(self) -> str:
        return f"LeakySecret({self.value})"


@dataclass(frozen=True)
class Connection:
    """How a receiver connects to its server; ``seconds`` is its timeout."""

    seconds: float = 10
    ca_file: Path | None = None
    proxy: Secret | None = None


async def send(
    receiver_type: ReceiverType, url: str, connection: Connection | None = None
) -> Attempt:
    """Send one message to a URL."""
    [attempt] = await send_concurrently([(receiver_type, url)], connection)
    return attempt


async def send_by_each_type(url: str, connection: Connection | None = None) -> list[Attempt]:
    """Send one message by a receiver of each type to the same URL, concurrently."""
    return await send_concurrently([(each, url) for each in RECEIVER_TYPES], connection)


async def send_concurrently(
    receivers: Iterable[tuple[ReceiverType, str]], connection: Connection | None = None
) -> list[Attempt]:
    """Send one message by each receiver, given by its type and URL, all concurrently."""
    chosen = connection or Connection()

    async def send_one(receiver_type: ReceiverType, url: str) -> Attempt:
        async with HttpClient(ca_file=chosen.ca_file, proxy=chosen.proxy) as http_client:
            endpoint = Endpoint(http_client, FakeSecret(url), chosen.seconds)
            return await _receiver(receiver_type, endpoint).send(delivery(BODY), AT)

    return await asyncio.gather(*(send_one(each, url) for each, url in receivers))


def _receiver(receiver_type: ReceiverType, endpoint: Endpoint) -> Receiver:
    return Slack("team", endpoint) if receiver_type == "slack" else Webhook("ops", endpoint)
