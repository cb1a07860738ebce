"""Records written for people as a table, for programs as JSON or CSV."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import Any, Final, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.core.events import Event
from exporter.core.text import one_line, timestamp
from exporter.store.queries import DeliveryDetails, DeliverySummary, RecordedEvent

Output = Literal["table", "json", "csv"]
Record = Mapping[str, Any]
"""A row by the names of its columns, its values in JSON's types."""

_LONGEST_CELL: Final = 80
_SHORTEST_CELL: Final = 4
_GAP: Final = 2
_NOT_A_TERMINAL: Final = 1000  # a line for each, so that grep finds all of it


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table of records looks like; ``noun`` is what they are, many of them.

    ``columns`` are shown in this order, those in ``whole`` are never cut short. ``more`` are for
    programs alone. ``styles`` colour a row by the value of its column ``styled``.
    """

    noun: str
    columns: tuple[str, ...]
    whole: frozenset[str]
    more: tuple[str, ...] = ()
    styled: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)


def write(records: Sequence[Record], layout: Layout, output: Output, stream: TextIO) -> None:
    """Write records to ``stream``: a table for people, JSON or CSV for programs.

    CSV holds what the API sent, character by character, as what psql, sqlite3 or gh write does: a
    cell that begins with ``=``, ``+``, ``-`` or ``@`` gets no apostrophe in front, which would
    falsify ids and names for every program to protect those spreadsheets that run formulas from a
    file without asking. Only a terminal gets texts without control characters.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # where the locale is not UTF-8
    if output == "json":
        names = (*layout.columns, *layout.more)
        json.dump([{name: record[name] for name in names} for record in records], stream, indent=2)
        stream.write("\n")
    elif output == "csv":
        _write_csv(records, layout, stream)
    else:
        _write_table(records, layout, stream)
    stream.flush()  # here, where the reader's end of a pipe being closed is a quiet end


def _write_csv(records: Sequence[Record], layout: Layout, stream: TextIO) -> None:
    names = (*layout.columns, *layout.more)
    writer = csv.writer(stream)
    writer.writerow(names)
    for record in records:
        texts = (_text(record[name]) for name in names)
        writer.writerow([one_line(text) for text in texts] if stream.isatty() else list(texts))


def _write_table(records: Sequence[Record], layout: Layout, stream: TextIO) -> None:
    columns, whole = layout.columns, layout.whole
    rows = [_shown(record, columns) for record in records]
    header = {name: name for name in columns}
    longest = {name: max(len(text[name]) for text in (*rows, header)) for name in columns}
    # An id that is cut short is of no use; a name still is, where the terminal is narrow.
    least = {name: longest[name] if name in whole else _SHORTEST_CELL for name in columns}
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in whole, min_width=least[name])
    for row in rows:
        # As Text: what people wrote is no markup.
        cells = (Text(row[name], no_wrap=True, overflow="ellipsis") for name in columns)
        table.add_row(*cells, style=layout.styles.get(row.get(layout.styled, "")))
    console = Console(file=stream, highlight=False)
    wide = console.width if stream.isatty() else _NOT_A_TERMINAL
    console.width = max(wide, sum(least.values()) + _GAP * len(columns))
    console.print(table)
    console.print(f"{len(rows)} {layout.noun}")


def _shown(record: Record, columns: Sequence[str]) -> dict[str, str]:
    """Return texts without control characters, for people and their terminals."""
    return {name: one_line(_text(record[name]), _LONGEST_CELL) for name in columns}


def _text(value: Any) -> str:
    """Return a value as one cell: nothing for None, what a list or a map holds in a row."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


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


def delivery_record(entry: DeliverySummary) -> Record:
    """Return what is printed of an entry; times as RFC 3339."""
    return {
        "receiver": entry.receiver,
        "id": entry.id,
        "state": entry.state,
        "types": list(entry.types),
        "events": entry.events,
        "owed_since": timestamp(entry.queued_at),
        "attempts": entry.attempts,
        "last_attempt_at": _time(entry.last_attempt_at),
        "last_result": entry.last_result,
        "minimal": entry.minimal,
        "in_flight": entry.in_flight,
    }


def event_record(happened: RecordedEvent) -> Record:
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
        "receivers": dict(happened.states),
        "id": event.id,
    }


def delivery_lines(detail: DeliveryDetails, *, terminal: bool) -> Iterator[str]:
    """Yield all about a delivery; the body is cleaned for a terminal."""
    for name, value in delivery_record(detail.summary).items():
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
