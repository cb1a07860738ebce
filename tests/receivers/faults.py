"""Receivers on their real exchange, against a server that misbehaves."""

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

Kind = Literal["slack", "webhook"]
KINDS: tuple[Kind, ...] = ("slack", "webhook")
BODY = b'{"text":"Fine-tune failed"}'


@dataclass(frozen=True)
class Way:
    """How a receiver gets to its server, and for how long it waits."""

    seconds: float = 10
    ca_file: Path | None = None
    proxy: Secret | None = None


def told(kind: Kind, url: str, way: Way | None = None) -> Attempt:
    """Tell a receiver of this kind once."""
    [attempt] = told_at_once([(kind, url)], way)
    return attempt


def told_each_kind(url: str, way: Way | None = None) -> list[Attempt]:
    """Tell a receiver of each kind behind the same URL, at the same time."""
    return told_at_once([(kind, url) for kind in KINDS], way)


def told_at_once(receivers: Iterable[tuple[Kind, str]], way: Way | None = None) -> list[Attempt]:
    """Tell receivers, each a kind and a URL, all at the same time."""

    async def tell(kind: Kind, url: str) -> Attempt:
        chosen = way or Way()
        async with HttpClient(ca_file=chosen.ca_file, proxy=chosen.proxy) as http_client:
            endpoint = Endpoint(http_client, FakeSecret(url), chosen.seconds)
            return await _receiver(kind, endpoint).send(delivery(BODY), AT)

    async def run() -> list[Attempt]:
        return await asyncio.gather(*(tell(kind, url) for kind, url in receivers))

    return asyncio.run(run())


def _receiver(kind: Kind, endpoint: Endpoint) -> Receiver:
    return Slack("team", endpoint) if kind == "slack" else Webhook("ops", endpoint)
