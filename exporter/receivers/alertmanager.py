"""Alerts POSTed to the members of an Alertmanager, API v2."""

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
from exporter.receivers.receiver import Endpoint, attempt, encoded

MOST_ALERTS: Final = 64
"""How many alerts one request carries; a 400 for one of them says nothing of which."""

ALERTS_PATH: Final = "/api/v2/alerts"
"""What a member's URL is extended by (Alertmanager's api/v2/openapi.yaml, postAlerts)."""

_TEST_SECONDS: Final = 300.0
"""For how long an alert fires that is only a test."""

_NAMING: Final = frozenset({"alertname", "severity", "account", "receiver", "fine_tune_id"})

_WORST: Final = (Outcome.ENDPOINT, Outcome.PAYLOAD, Outcome.THROTTLED, Outcome.TRANSIENT)


@dataclass(frozen=True, slots=True)
class Content:
    """An alert's labels, which are its identity, what is to be read about it, where it leads."""

    labels: dict[str, str]
    annotations: dict[str, str]
    url: str


def content_of(event: Event, link_templates: LinkTemplates, *, minimal: bool = False) -> Content:
    """Return what an event is as an alert; the minimal one names it and says no more."""
    found = labels(event)
    if minimal:
        found = {name: text for name, text in found.items() if name in _NAMING}
    said = annotations(event, link_templates, minimal=minimal)
    return Content(found, said, generator_url(event, link_templates))


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert and from when to when it fires, in Unix seconds; it has ended if that is past."""

    content: Content
    starts_at: float
    ends_at: float


def render(alerts: Iterable[Alert]) -> bytes:
    """Return the body that tells Alertmanager of ``alerts``."""
    body = [
        {
            "labels": alert.content.labels,
            "annotations": alert.content.annotations,
            "startsAt": _time(alert.starts_at),
            "endsAt": _time(alert.ends_at),
            "generatorURL": alert.content.url,
        }
        for alert in alerts
    ]
    return encoded(body)


def _time(at: float) -> str:
    # In milliseconds, as the API keeps them: to the second, two ends could not be told apart.
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


@dataclass(frozen=True, slots=True)
class Member:
    """One Alertmanager of a cluster; each is posted to, they tell each other nothing of alerts."""

    endpoint: Endpoint

    @property
    def seconds(self) -> float:
        """The longest that one post takes."""
        return self.endpoint.seconds

    async def post(self, body: bytes, now: float) -> Attempt:
        """Post alerts once, at ``now`` (Unix seconds), and say what came of it.

        A payload outcome is partial: the alerts that are valid were taken all the same.
        """
        answer = await self.endpoint.post(body, {})
        return answer if isinstance(answer, Attempt) else attempt(answer, now)


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """The members of one Alertmanager; an alert fires for ``hold`` seconds at the most.

    It does what a Receiver does only to be tried out: what it is owed is told by its level.
    """

    name: str
    members: Sequence[Member]
    hold: float

    spacing: ClassVar[float] = 0.0
    most_events: ClassVar[int] = MOST_ALERTS

    @property
    def seconds(self) -> float:
        """The longest that one attempt takes: the members are posted to side by side."""
        return max(member.seconds for member in self.members)

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        """Return the body of a message as alerts, one for each event, that fire for 5 minutes."""
        return render(
            Alert(
                content_of(event, message.link_templates, minimal=minimal),
                event.observed_at,
                event.observed_at + _TEST_SECONDS,
            )
            for event in message.events
        )

    def repeated(self, body: bytes) -> bytes:
        """Return the bytes as they are: an alert is told by its labels."""
        return body

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        """Post the bytes to each member once; return the first 2xx, else the worst outcome."""
        attempts = await asyncio.gather(*(m.post(delivery.body, now) for m in self.members))
        for found in attempts:
            if found.outcome is Outcome.DELIVERED:
                return found
        return min(attempts, key=lambda found: _WORST.index(found.outcome))
