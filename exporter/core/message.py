"""Content of notifications, independent of the receiver's format."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from exporter.core.event_context import NO_CONTEXT, EventContext
from exporter.core.events import DEFAULT_SEVERITIES, Event, MessageType, Subscription
from exporter.core.links import Link, LinkTemplates
from exporter.core.model import FineTune
from exporter.core.text import LONGEST, one_line


class MessageSettings(Struct, frozen=True):
    """What the configuration says about the messages of a receiver.

    ``severities`` are by subscription. ``subscriptions`` are the words of the receiver's events,
    and ``has_match`` is whether it gets only some of these events.
    """

    links: LinkTemplates
    severities: Mapping[str, str] = field(default_factory=lambda: DEFAULT_SEVERITIES)
    subscriptions: tuple[Subscription, ...] = ()
    has_match: bool = False


class Fact(Struct, frozen=True):
    """A named value. ``at`` is the same in Unix seconds if it is a time."""

    name: str
    value: str
    at: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


class Line(Struct, frozen=True):
    """One event of several: its name, the id of its fine-tune, more about it, and a link."""

    name: str
    id: str = ""
    details: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return " · ".join(filter(None, (self.name, self.id, *self.details)))


class Message(Struct, frozen=True):
    """Content of a notification, most important first, without a receiver's format and limits.

    ``sign`` is a character for the severity, ``url`` is what the title leads to. ``note`` says why
    the message is sent now, ``highlights`` are phrases, ``id`` is that of the only fine-tune,
    ``text`` consists of sentences, each of ``lines`` describes one event, and ``rest`` has the ids
    of the fine-tunes without a line. All of these are text to be shown, without control characters.
    ``events`` are in order of occurrence, ``contexts`` are by their ids. ``links`` are for people;
    a receiver that links each event by itself uses ``settings.links``.
    """

    type: MessageType
    title: str
    events: tuple[Event, ...]
    settings: MessageSettings
    contexts: Mapping[str, EventContext] = field(default_factory=dict)
    sign: str = ""
    url: str = ""
    note: str = ""
    highlights: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    id: str = ""
    text: str = ""
    lines: tuple[Line, ...] = ()
    rest: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()

    def context(self, event: Event) -> EventContext:
        """Return the context of one of the events."""
        return self.contexts.get(event.id, NO_CONTEXT)


def log_facts(events: Sequence[Event]) -> dict[str, str]:
    """Return the facts of a log line that name these events, by their first three."""
    if len(events) == 1 and (fine_tune := events[0].fine_tune) is not None:
        name = one_line(fine_tune.name, 100)
        return {"type": events[0].type, "fine_tune": printable_id(fine_tune, 100), "name": name}
    types = " ".join(dict.fromkeys(event.type for event in events))
    about = ", ".join(
        describe_fine_tune(event.fine_tune) if event.fine_tune else event.subject or event.account
        for event in events[:3]
    )
    return {"type": types, "first" if len(events) > 1 else "about": about}


def describe_fine_tune(fine_tune: FineTune) -> str:
    """Return name, model and id in one line."""
    name = one_line(fine_tune.name, 100) or "(no name)"
    return f"{name} ({one_line(fine_tune.model_id, 60)}, {printable_id(fine_tune, 100)})"


def printable_id(fine_tune: FineTune, longest: int = LONGEST) -> str:
    """Return the id as text to be shown; it is never empty."""
    return one_line(fine_tune.id, longest) or "(unprintable id)"


def failures_first(events: Sequence[Event]) -> list[Event]:
    """Return events in the order of their importance: receivers leave out the last of many."""
    return sorted(events, key=lambda event: event.type != "fine_tune.failed")


def status_change(event: Event) -> str:
    """Return the status of an event's fine-tune, after the one before if it changed."""
    if event.fine_tune is None:
        return ""
    # The event of a removal has no new status.
    if event.previous_status in {None, event.fine_tune.status}:
        return event.fine_tune.status
    return f"{event.previous_status} → {event.fine_tune.status}"


def title_of(event: Event) -> str:
    """Return what happened, in words, without the name of a fine-tune."""
    return event.traits.title.format(account=event.account, subject=event.subject)
