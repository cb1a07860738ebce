"""Deliveries and events as they are printed."""

import json
from collections.abc import Iterator
from typing import Any, Final

from exporter.commands.output import Layout, Record
from exporter.core.message import timestamp
from exporter.core.model import Event
from exporter.core.text import one_line
from exporter.store.history import Happened
from exporter.store.ledger import Detail, Entry

DELIVERIES: Final = Layout(
    "deliveries",
    (
        *("receiver", "id", "state", "types", "events", "owed_since"),
        *("attempts", "last_attempt_at", "last_result"),
    ),
    whole=frozenset({"receiver", "id", "state", "owed_since", "last_attempt_at"}),
    more=("minimal", "in_flight"),
    styled="state",
    styles={"dead": "red", "orphaned": "yellow", "delivered": "green", "discarded": "dim"},
)
EVENTS: Final = Layout(
    "events",
    (
        *("observed_at", "type", "account", "subject", "name"),
        *("previous_status", "status", "receivers"),
    ),
    whole=frozenset({"observed_at", "type", "subject"}),
    more=("id",),
    styled="status",
    styles={"failed": "red", "completed": "green"},
)
_NO_MESSAGE: Final = "(no message carries it yet)"
_NOT_RENDERED: Final = "(none: it could not be rendered, the agent's log says why)"


def delivery_record(entry: Entry) -> Record:
    """Return what is printed of an entry; times as RFC 3339."""
    return {
        "receiver": entry.receiver,
        "id": entry.id,
        "state": entry.state,
        "types": list(entry.types),
        "events": entry.events,
        "owed_since": timestamp(entry.owed_since),
        "attempts": entry.attempts,
        "last_attempt_at": _time(entry.last_attempt_at),
        "last_result": entry.last_result,
        "minimal": entry.minimal,
        "in_flight": entry.in_flight,
    }


def event_record(happened: Happened) -> Record:
    """Return what is printed of an event and of who was told."""
    event = happened.event
    return {
        "observed_at": timestamp(event.observed_at),
        "type": event.type,
        "account": event.account,
        "subject": event.subject,
        "name": event.fine_tune.name if event.fine_tune else "",
        "previous_status": event.previous_status,
        "status": event.fine_tune.status if event.fine_tune else None,
        "receivers": dict(happened.receivers),
        "id": event.id,
    }


def delivery_lines(detail: Detail, *, terminal: bool) -> Iterator[str]:
    """Yield all about a delivery; the body is cleaned for a terminal."""
    for name, value in delivery_record(detail.entry).items():
        yield f"{name}: {one_line(_field(value))}".rstrip()
    yield "contents:"
    for event in detail.events:
        yield f"  {_event_line(event)}"
    yield "body:"
    yield from body_lines(detail.body, terminal=terminal)


def body_lines(body: bytes | None, *, terminal: bool) -> list[str]:
    """Return the text of a message's body, JSON indented; cleaned for a terminal."""
    if not body:
        return [_NO_MESSAGE if body is None else _NOT_RENDERED]
    text = body.decode(errors="backslashreplace")
    try:
        # All but ASCII is escaped: no text in it moves a cursor or turns the reading order.
        return json.dumps(json.loads(text), indent=2).splitlines()
    except ValueError:
        lines = text.splitlines()
    return [one_line(line, len(line) + 1) for line in lines] if terminal else lines


def _event_line(event: Event) -> str:
    if event.fine_tune is None:
        parts = [event.account, event.subject, str(event.facts.get("text", ""))]
    else:
        status = f"{event.previous_status or 'none'} → {event.fine_tune.status}"
        parts = [event.account, event.fine_tune.id, event.fine_tune.name, status]
    shown = (one_line(part) for part in (event.type, *parts, event.id))
    return "  ".join(part for part in shown if part)


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    return "" if value is None else str(value)


def _time(at: float | None) -> str | None:
    return None if at is None else timestamp(at)
