"""The standard body of a webhook (docs/webhook.md), and what every kind of body is."""

from typing import Any, Final, Protocol

from exporter.core.events import Event
from exporter.core.message import LinkTemplates, Message, links
from exporter.core.model import FineTune
from exporter.core.text import cut, timestamp
from exporter.receivers.receiver import encoded

MOST_EVENTS: Final = 100
"""How many events a request carries."""


class Body(Protocol):
    """A kind of body: how a webhook says a message."""

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return a message as JSON; the minimal form leaves out what people wrote."""
        ...


def standard_body(message: Message, *, minimal: bool) -> bytes:
    """Return the event of a message, or the digest of its events, as JSON."""
    bodies = [
        event_body(event, message.link_templates, minimal=minimal) for event in message.events
    ]
    if message.type != "fine_tune.digest":
        return encoded(bodies[0])
    data = {"title": message.title, "events": bodies}
    return encoded({"type": message.type, "timestamp": last_timestamp(message), "data": data})


def last_timestamp(message: Message) -> str:
    """Return when the latest of a message's events was observed."""
    return timestamp(max(event.observed_at for event in message.events))


def event_body(
    event: Event, link_templates: LinkTemplates, *, minimal: bool = False
) -> dict[str, Any]:
    """Return an event as it stands alone; each text is cut at 1,000 characters."""
    data: dict[str, Any] = {"account": event.account or None}
    if event.fine_tune is not None:
        data["previous_status"] = _bounded(event.previous_status)
    data["observed_at"] = timestamp(event.observed_at)
    if event.fine_tune is not None:
        data["fine_tune"] = _fine_tune(event.fine_tune, minimal=minimal)
    facts = event.facts.items()
    data |= {n: _bounded(f) for n, f in facts if not (minimal and isinstance(f, list))}
    found = {link.name: link.url for link in links(event, link_templates)}
    data["links"] = {"playground": None, "status_page": None} | found
    return {"type": event.type, "timestamp": timestamp(event.observed_at), "data": data}


def _bounded(value: object) -> object:
    return cut(value) if isinstance(value, str) else value


def _fine_tune(fine_tune: FineTune, *, minimal: bool) -> dict[str, str]:
    written = () if minimal else ("name", "description")
    names = ("id", *written, "language", "model_id", "dataset", "status")
    return {name: cut(getattr(fine_tune, name)) for name in names}
