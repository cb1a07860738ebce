"""Receiver type alertmanager: alerts POSTed to the members of a cluster by API v2."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Final

from exporter.core.events import Event
from exporter.core.message import LinkTemplates, Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.receivers.alerts import annotations, generator_url, labels
from exporter.receivers.receiver import Endpoint, encoded

MOST_ALERTS: Final = 64
"""Alerts per request. A 400 for one of them does not say for which."""

ALERTS_PATH: Final = "/api/v2/alerts"
"""The path behind a member's URL (Alertmanager's api/v2/openapi.yaml, postAlerts)."""

_TEST_SECONDS: Final = 300.0
"""How long the alert of a test message fires."""

_MINIMAL_LABELS: Final = frozenset({"alertname", "severity", "account", "receiver", "fine_tune_id"})

_WORST_FIRST: Final = (Outcome.ENDPOINT, Outcome.PAYLOAD, Outcome.THROTTLED, Outcome.TRANSIENT)


@dataclass(frozen=True, slots=True)
class Content:
    """An alert without its times. The labels are its identity; ``url`` is its generatorURL."""

    labels: dict[str, str]
    annotations: dict[str, str]
    url: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert with its start and its end in Unix seconds; it is resolved once the end is past."""

    content: Content
    starts_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Member:
    """One Alertmanager of a cluster. Members do not exchange alerts, so each gets all of them."""

    endpoint: Endpoint

    @property
    def seconds(self) -> float:
        """The timeout of one post."""
        return self.endpoint.seconds

    async def post(self, body: bytes, now: float) -> Attempt:
        """Post alerts once, at ``now`` (Unix seconds).

        With a payload outcome Alertmanager still accepted the alerts that are valid.
        """
        return await self.endpoint.attempt(body, {}, now)


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """A cluster of Alertmanagers; an alert fires for at most ``hold`` seconds.

    Only test messages use the Receiver methods. Deliveries post to the members.
    """

    name: str
    members: Sequence[Member]
    hold: float

    spacing: ClassVar[float] = 0.0
    most_events: ClassVar[int] = MOST_ALERTS

    @property
    def seconds(self) -> float:
        """The timeout of one attempt: the posts to the members run concurrently."""
        return max(member.seconds for member in self.members)

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the body of a message: one alert for each event, which fires for 5 minutes."""
        return render(
            Alert(
                content_of(event, message.link_templates, minimal=minimal),
                event.observed_at,
                event.observed_at + _TEST_SECONDS,
            )
            for event in message.events
        )

    def repeated(self, body: bytes) -> bytes:
        """Return the bytes unchanged: the labels identify an alert."""
        return body

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Post the bytes to each member once; return the first 2xx, else the worst outcome."""
        attempts = await asyncio.gather(*(m.post(delivery.body, now) for m in self.members))
        for attempt in attempts:
            if attempt.outcome is Outcome.DELIVERED:
                return attempt
        return min(attempts, key=lambda attempt: _WORST_FIRST.index(attempt.outcome))


def content_of(event: Event, link_templates: LinkTemplates, *, minimal: bool = False) -> Content:
    """Return the alert of an event; the minimal one has only the labels that identify it."""
    found = labels(event)
    if minimal:
        found = {name: text for name, text in found.items() if name in _MINIMAL_LABELS}
    return Content(
        found,
        annotations(event, link_templates, minimal=minimal),
        generator_url(event, link_templates),
    )


def render(alerts: Iterable[Alert]) -> bytes:
    """Return the body of a request that posts ``alerts``."""
    return encoded(
        [
            {
                "labels": alert.content.labels,
                "annotations": alert.content.annotations,
                "startsAt": _rfc3339(alert.starts_at),
                "endsAt": _rfc3339(alert.ends_at),
                "generatorURL": alert.content.url,
            }
            for alert in alerts
        ]
    )


def _rfc3339(at: float) -> str:
    # Milliseconds, as the API keeps them: with seconds two ends could be equal.
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
