"""Receiver-independent messages built from events."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.core.events import (
    DEFAULT_SEVERITIES,
    DIGEST,
    EVENT_TYPES,
    Event,
    EventType,
    MessageType,
    Subscription,
)
from exporter.core.links import Link, LinkTemplates, links
from exporter.core.model import STATUSES, FineTune
from exporter.core.text import LONGEST, one_line, timestamp

_NAMED: Final = 20
"""Fine-tunes that a digest names in full."""

_MODELS: Final = 9
"""Models that a digest counts by name; with "other models" they are ten facts."""


@dataclass(frozen=True, slots=True)
class MessageSettings:
    """What the configuration says about the messages of a receiver.

    ``severities`` are by subscription. ``subscriptions`` are the words of the receiver's events,
    and ``has_match`` is whether it gets only some of these events.
    """

    links: LinkTemplates
    severities: Mapping[str, str] = field(default_factory=lambda: DEFAULT_SEVERITIES)
    subscriptions: tuple[Subscription, ...] = ()
    has_match: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """Content of a notification, most important first, without a receiver's format and limits.

    ``facts`` are pairs of name and value, ``text`` may be long, each of ``lines`` describes one
    event and ``rest`` has the ids of the fine-tunes without a line; all of these are text to be
    shown, without control characters. ``events`` are in order of occurrence. A receiver that links
    each event by itself uses ``settings.links``, others ``links``.
    """

    type: MessageType
    title: str
    events: tuple[Event, ...]
    settings: MessageSettings
    facts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    lines: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @property
    def links(self) -> tuple[Link, ...]:
        """Links of the message; to the fine-tune if it is about a single one."""
        return links(self.events[0] if len(self.events) == 1 else None, self.settings.links)


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


def build_message(events: Sequence[Event], settings: MessageSettings) -> Message:
    """Return the message of one event, or the digest of several."""
    if len(events) > 1:
        return _digest(tuple(events), settings)
    event = events[0]
    if event.fine_tune is not None:
        return _fine_tune_message(event, event.fine_tune, settings)
    return _agent_message(event, settings)


def _fine_tune_message(event: Event, fine_tune: FineTune, settings: MessageSettings) -> Message:
    facts = (
        ("Account", event.account),
        ("Model", fine_tune.model_id),
        ("Status", _status_change(event, fine_tune)),
        ("Since", str(event.facts.get("since", ""))),
        ("Language", fine_tune.language),
        ("Dataset", fine_tune.dataset),
        ("Id", fine_tune.id),
        ("Observed", timestamp(event.observed_at)),
    )
    return Message(
        event.type,
        f"{event.traits.title}: {one_line(fine_tune.name) or printable_id(fine_tune)}",
        (event,),
        settings,
        facts=tuple((name, one_line(value)) for name, value in facts if value),
        text=one_line(fine_tune.description),
    )


def _status_change(event: Event, fine_tune: FineTune) -> str:
    # The event of a removal has no new status.
    if event.previous_status in {None, fine_tune.status}:
        return fine_tune.status
    return f"{event.previous_status} → {fine_tune.status}"


def _agent_message(event: Event, settings: MessageSettings) -> Message:
    facts = tuple(
        (name.capitalize(), one_line(str(event.facts[name])))
        for name in ("status", "total", *STATUSES, "reason", "since")
        if name in event.facts
    )
    named = event.facts.get("failed_ones")
    lines = tuple(map(_failed_line, named)) if isinstance(named, list) else ()
    unnamed = event.facts.get("failed_unnamed")
    if unnamed:
        lines += (f"and {unnamed} more",)
    return Message(
        event.type,
        title_of(event),
        (event,),
        settings,
        facts=(*facts, ("Observed", timestamp(event.observed_at))),
        text=one_line(str(event.facts.get("text", ""))),
        lines=(("Failed before the watch began:", *lines) if lines else ()),
    )


def _failed_line(failed: Mapping[str, str]) -> str:
    return describe_fine_tune(FineTune(failed["id"], failed["name"], model_id=failed["model_id"]))


def title_of(event: Event) -> str:
    """Return what happened, in words, without the name of a fine-tune."""
    return event.traits.title.format(account=event.account, subject=event.subject)


def _digest(events: tuple[Event, ...], settings: MessageSettings) -> Message:
    # Failures first: a receiver with little room leaves out the last events.
    ranked = sorted(events, key=lambda event: event.type != "fine_tune.failed")
    types = Counter(event.type for event in ranked)
    return Message(
        DIGEST,
        "; ".join(_counted(event_type, number) for event_type, number in types.items()),
        events,
        settings,
        facts=_by_model(events),
        lines=tuple(_event_line(event) for event in ranked[:_NAMED]),
        rest=tuple(
            printable_id(event.fine_tune) if event.fine_tune else _event_line(event)
            for event in ranked[_NAMED:]
        ),
    )


def _by_model(events: Sequence[Event]) -> tuple[tuple[str, str], ...]:
    ranked = Counter(event.fine_tune.model_id for event in events if event.fine_tune).most_common()
    others = sum(number for _, number in ranked[_MODELS:])
    named = ((one_line(model), str(number)) for model, number in ranked[:_MODELS])
    return (*named, *((("other models", str(others)),) if others else ()))


def _counted(event_type: EventType, number: int) -> str:
    noun, predicate = EVENT_TYPES[event_type].counted
    return f"{number} {noun}{'' if number == 1 else 's'} {predicate}".strip()


def _event_line(event: Event) -> str:
    if event.type == "agent.baseline":
        total, failed = event.facts.get("total"), event.facts.get("failed")
        return f"Account {event.account}: {total} fine-tunes, {failed} failed already"
    if event.type == "agent.unknown_status":
        status = one_line(str(event.facts.get("status", "")), 100)
        return f"{title_of(event)}: {status} ({event.facts.get('total')})"
    if event.fine_tune is None:
        reason = one_line(str(event.facts.get("reason", "")), 100)
        return f"{title_of(event)}: {reason}" if reason else title_of(event)
    if event.type == "fine_tune.stuck":
        since = f"{event.fine_tune.status} since {event.facts.get('since')}"
        return f"{describe_fine_tune(event.fine_tune)} {one_line(since, 100)}"
    if event.type == "fine_tune.failed":
        return describe_fine_tune(event.fine_tune)
    return f"{describe_fine_tune(event.fine_tune)} {event.type.removeprefix('fine_tune.')}"
