"""Events to the neutral message that each receiver turns into its own bytes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from exporter.core.events import (
    DIGEST,
    EVENT_TYPES,
    Event,
    EventType,
    MessageType,
    describe_fine_tune,
    printable_id,
)
from exporter.core.model import STATUSES, FineTune
from exporter.core.text import cut, one_line, timestamp

_NAMED: Final = 20
"""How many fine-tunes a summary names in full."""

_MODELS: Final = 9
"""How many models a digest counts by name; with the others they make ten facts."""


@dataclass(frozen=True, slots=True)
class LinkTemplates:
    """Where a message can lead: the Playground (``{id}`` is replaced) and our own status page."""

    playground: str
    status_page: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A place to go to; ``name`` is its key in JSON, ``text`` what a person reads."""

    name: str
    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be told, most important first, before any receiver's format and limits.

    ``facts`` are pairs of name and value, ``text`` may be long, ``lines`` name one thing each and
    ``rest`` holds the ids of the fine-tunes that no line names; all of them are text to be shown,
    clean of control characters. ``events`` are as they happened. ``link_templates`` are what ``links`` come
    from, for a receiver that links each event by itself.
    """

    type: MessageType
    title: str
    events: tuple[Event, ...]
    link_templates: LinkTemplates
    facts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    lines: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @property
    def links(self) -> tuple[Link, ...]:
        """Where to go from here: to the fine-tune when the message is about a single one."""
        return links(self.events[0] if len(self.events) == 1 else None, self.link_templates)


def group_events(events: Sequence[Event], threshold: int, most: int) -> list[tuple[Event, ...]]:
    """Return which events go into which message now, out of all that one receiver is owed.

    More than ``threshold`` become digests of at most ``most`` events each. Otherwise it is the
    oldest alone: by its next turn more may be owed, and a digest be the better form.
    """
    if len(events) <= threshold:
        return [(event,) for event in events[:1]]
    return [tuple(events[i : i + most]) for i in range(0, len(events), most)]


def build_message(events: Sequence[Event], link_templates: LinkTemplates) -> Message:
    """Return the message of one event, or the digest of several."""
    if len(events) > 1:
        return _digest(tuple(events), link_templates)
    event = events[0]
    if event.fine_tune is not None:
        return _of_fine_tune(event, event.fine_tune, link_templates)
    return _of_agent(event, link_templates)


def _of_fine_tune(event: Event, fine_tune: FineTune, link_templates: LinkTemplates) -> Message:
    facts = (
        ("Account", event.account),
        ("Model", fine_tune.model_id),
        ("Status", _status(event, fine_tune)),
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
        link_templates,
        facts=tuple((name, one_line(value)) for name, value in facts if value),
        text=one_line(fine_tune.description),
    )


def _status(event: Event, fine_tune: FineTune) -> str:
    # A fine-tune that was removed keeps the status that it had.
    if event.previous_status in {None, fine_tune.status}:
        return fine_tune.status
    return f"{event.previous_status} → {fine_tune.status}"


def _of_agent(event: Event, link_templates: LinkTemplates) -> Message:
    facts = tuple(
        (name.capitalize(), one_line(str(event.facts[name])))
        for name in ("total", *STATUSES, "reason", "since")
        if name in event.facts
    )
    named = event.facts.get("failed_ones")
    lines = tuple(one_line(str(line)) for line in named) if isinstance(named, list) else ()
    unnamed = event.facts.get("failed_unnamed")
    if unnamed:
        lines += (f"and {unnamed} more",)
    return Message(
        event.type,
        _agent_title(event),
        (event,),
        link_templates,
        facts=(*facts, ("Observed", timestamp(event.observed_at))),
        text=one_line(str(event.facts.get("text", ""))),
        lines=(("Failed before the watch began:", *lines) if lines else ()),
    )


def _agent_title(event: Event) -> str:
    return event.traits.title.format(account=event.account, subject=event.subject)


def _digest(events: tuple[Event, ...], link_templates: LinkTemplates) -> Message:
    # Whatever a receiver has to leave out, it is not a failure while anything else is shown.
    ranked = sorted(events, key=lambda event: event.type != "fine_tune.failed")
    types = Counter(event.type for event in ranked)
    return Message(
        DIGEST,
        "; ".join(_counted(kind, number) for kind, number in types.items()),
        events,
        link_templates,
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
    if event.fine_tune is None:
        reason = one_line(str(event.facts.get("reason", "")), 100)
        return f"{_agent_title(event)}: {reason}" if reason else _agent_title(event)
    if event.type == "fine_tune.stuck":
        since = f"{event.fine_tune.status} since {event.facts.get('since')}"
        return f"{describe_fine_tune(event.fine_tune)} {one_line(since, 100)}"
    kind = "" if event.type == "fine_tune.failed" else f" {event.type.removeprefix('fine_tune.')}"
    return f"{describe_fine_tune(event.fine_tune)}{kind}"


def links(event: Event | None, link_templates: LinkTemplates) -> tuple[Link, ...]:
    """Return where to go from an event, or from a message about several."""
    fine_tune_id = event.fine_tune.id if event is not None and event.fine_tune is not None else ""
    url = link_templates.playground.replace("{id}", quote(cut(fine_tune_id), safe=""))
    playground = Link("playground", "Open the Playground", url)
    if link_templates.status_page is None:
        return (playground,)
    return playground, Link("status_page", "Status page", link_templates.status_page)
