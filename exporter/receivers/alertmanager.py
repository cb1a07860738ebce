"""Receiver type alertmanager: alerts POSTed to the members of a cluster by API v2."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final

from exporter.core.events import Event
from exporter.core.message import Message, MessageSettings
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.receivers.alerts import AlertLabels, annotations, generator_url
from exporter.receivers.receiver import Endpoint, answered, encoded, is_page

MOST_ALERTS: Final = 64
"""Alerts per request. A 400 for one of them does not say for which."""

ALERTS_PATH: Final = "/api/v2/alerts"
"""The path behind a member's URL (Alertmanager's api/v2/openapi.yaml, postAlerts)."""

_DELIVERED_THEN_WORST: Final = (
    *(Outcome.DELIVERED, Outcome.ENDPOINT, Outcome.PAYLOAD, Outcome.THROTTLED, Outcome.TRANSIENT),
)


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
class Alertmanager:
    """A cluster of Alertmanagers; an alert fires for at most ``hold`` seconds.

    Members do not exchange alerts, so each gets all of them. With a payload outcome a member still
    accepted the alerts that are valid. Only test messages use the Receiver methods.
    """

    name: str
    members: Sequence[Endpoint]
    hold: float
    labels: AlertLabels = field(default_factory=AlertLabels)

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
                content_of(event, message.settings, self.labels, minimal=minimal),
                starts_at=event.observed_at,
                ends_at=event.observed_at + 300.0,
            )
            for event in message.events
        )

    def repeated(self, body: bytes) -> bytes:
        """Return the bytes unchanged: the labels identify an alert."""
        return body

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Post the bytes to each member once; return the first 2xx, else the worst outcome."""
        attempts = await asyncio.gather(
            *(each.attempt(delivery.body, {}, now) for each in self.members)
        )
        return min(attempts, key=lambda attempt: _DELIVERED_THEN_WORST.index(attempt.outcome))


@dataclass(frozen=True, slots=True)
class Member(Endpoint):
    """The API of one member, which answers in JSON or not at all."""

    async def attempt(self, body: bytes, headers: Mapping[str, str], now: float) -> Attempt:
        """Post alerts; a page in place of the member's own answer says nothing about them."""
        response = await self.post(body, headers)
        if isinstance(response, Attempt):
            return response
        found = answered(response, now)
        if found.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD} and is_page(response):
            reason = f"{found.reason} with a page of HTML, as an intermediary does"
            return Attempt(Outcome.TRANSIENT, reason)
        return found


def content_of(
    event: Event, settings: MessageSettings, labels: AlertLabels, *, minimal: bool = False
) -> Content:
    """Return the alert of an event; the minimal form has the same labels: it is the same alert."""
    return Content(
        labels.of(event),
        annotations(event, settings, minimal=minimal),
        generator_url(event, settings.links),
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
