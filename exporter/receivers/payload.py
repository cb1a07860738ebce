"""Standard body of a webhook, and the variables of templates (docs/webhook.md)."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from exporter.core.events import Event, severity_of
from exporter.core.links import grafana_url, links
from exporter.core.message import Message
from exporter.core.model import STATUSES
from exporter.core.text import LONGEST, cut, timestamp
from exporter.receivers.receiver import encoded

MOST_EVENTS: Final = 100
"""How many events one request carries."""

NAMES: Final = ("type", "timestamp", "title", "text", "data", "events", "count")
"""The variables of a template."""

ABSENT: Final = dict.fromkeys(
    (
        *("previous_status", "fine_tune", "trained_seconds", "usual_seconds"),
        *("failures_of_dataset_7d", "details_url", "grafana_url", "note"),
        *("since", "seconds", "reason", "receiver", "text", "total", *STATUSES, "removed"),
        *("failed_ones", "failed_unnamed", "retired", "status"),
    )
)
"""Null where an event has none, so that ``{% if data.fine_tune %}`` can ask."""

Clean = Callable[[str], str]


class Body(Protocol):
    """A function that renders a message as the JSON body of a webhook."""

    def __call__(self, message: Message, *, minimal: bool) -> bytes:
        """Return the body; the minimal form leaves out user-written text."""


def standard_body(message: Message, *, minimal: bool) -> bytes:
    """Return the event of a message, or the digest of its events, as JSON."""
    bodies = [event_body(event, message, minimal=minimal) for event in message.events]
    note = {"note": message.note} if message.note and not minimal else {}
    if message.type != "fine_tune.digest":
        bodies[0]["data"] |= note
        return encoded(bodies[0])
    data = {"title": message.title, **note, "events": bodies}
    return encoded({"type": message.type, "timestamp": _last_timestamp(message), "data": data})


def variables(
    message: Message, clean: Clean | None = None, *, minimal: bool = False
) -> dict[str, Any]:
    """Return what a template can use of a message; ``clean`` is applied to each text in it.

    A text that came from outside has at most 1,000 characters. The minimal form leaves out
    user-written text.
    """
    facts = (*message.highlights, *message.facts, message.id and f"Id: {message.id}")
    more = (f"and {len(message.rest)} more",) if message.rest else ()
    lines = (message.note, *facts, message.text, *message.lines, *more)
    text = "\n".join(str(line) for line in lines if line)
    events = [
        _complete(event_body(event, message, minimal=minimal), "" if minimal else message.note)
        for event in message.events[:MOST_EVENTS]
    ]
    found = {
        "type": message.type,
        "timestamp": _last_timestamp(message),
        "title": message.type if minimal else cut(message.title),
        "text": "" if minimal else cut(text, 8_000),
        "data": events[0]["data"],
        "events": events,
        "count": len(message.events),
    }
    return found if clean is None else cleaned(found, clean)


def event_body(event: Event, message: Message, *, minimal: bool = False) -> dict[str, Any]:
    """Return an event of a message in JSON's types; each text is cut at 1,000 characters."""
    observed, context = timestamp(event.observed_at), message.context(event)
    templates = message.settings.links
    data: dict[str, Any] = {"account": event.account or None}
    if event.fine_tune is not None:
        data["previous_status"] = event.previous_status and cut(event.previous_status)
    data |= {"observed_at": observed, "severity": severity_of(event, message.settings.severities)}
    if event.fine_tune is not None:
        written = () if minimal else ("name", "description")
        names = ("id", *written, "language", "model_id", "dataset", "status")
        data["fine_tune"] = {name: cut(getattr(event.fine_tune, name)) for name in names}
        data |= {
            "trained_seconds": _whole(context.trained_seconds),
            "usual_seconds": _whole(context.usual_seconds),
            "failures_of_dataset_7d": context.failures_of_dataset_7d,
        }
    data |= {
        name: cut(fact) if isinstance(fact, str) else fact
        for name, fact in event.facts.items()
        if not (minimal and isinstance(fact, list))
    }
    urls = {"details": None, "playground": None, "status_page": None} | links(event, templates)
    data["details_url"] = urls["details"]
    data["grafana_url"] = grafana_url(event, templates, context.trained_seconds)
    data["links"] = urls
    return {"type": event.type, "timestamp": observed, "data": data}


def _last_timestamp(message: Message) -> str:
    return timestamp(max(event.observed_at for event in message.events))


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _complete(body: dict[str, Any], note: str) -> dict[str, Any]:
    """Return the body of an event with each name that a template may use of it."""
    data = ABSENT | body["data"] | {"note": note or None}
    for name in ("details_url", "grafana_url"):
        data[name] = _short(data[name])
    links = data["links"].items()
    data["links"] = {name: _short(url) for name, url in links}
    if data["fine_tune"] is not None:
        data["fine_tune"] = {"name": "", "description": ""} | data["fine_tune"]
    return body | {"data": data}


def _short(url: str | None) -> str | None:
    return url if url and len(url) <= LONGEST else None


def cleaned(value: Any, clean: Clean) -> Any:
    """Return a value in JSON's types with ``clean`` applied to each text in it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {name: cleaned(item, clean) for name, item in value.items()}
    return [cleaned(item, clean) for item in value] if isinstance(value, list) else value
