"""Digests: what several events have in common, and one line for each."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from exporter.core.event_context import agent_phrase, recovery_phrase, training_phrase
from exporter.core.events import EVENT_TYPES, Event, EventType
from exporter.core.links import Link, details_url, failures_url, labelled_links, playground_url
from exporter.core.message import Fact, Line, Message, failures_first, printable_id, title_of
from exporter.core.project import DOCUMENTATION_URL
from exporter.core.text import one_line, readable_time, rounded_duration

_LONGEST_LIST: Final = 40
"""Events of a digest that has a line for each."""

_LINES: Final = 20
"""Lines of a digest of more events: so there is more room for the ids of the others."""

_LEAST_SHARE: Final = 3
"""Failures of one dataset or model that a digest points out, if they are two thirds of all."""

_SHORT: Final = 100
"""Longest value in characters."""

_USUAL: Final = "Usual training"


def complete_digest(empty: Message) -> Message:
    """Return a message of several events with its content."""
    ranked = failures_first(empty.events)
    types = Counter(event.type for event in ranked)
    failures = [event for event in ranked if event.type == "fine_tune.failed" and event.fine_tune]
    shared, frequent = _shared_values(empty), _frequent_values(failures)
    if "Model" in shared:  # as it usually is
        frequent.pop("Model", None)
    links = _links(empty)
    listing = failures_url(empty.settings.links) if failures else None
    texts = {name: one_line(value, _SHORT) for name, value in shared.items()}
    facts = (Fact(name, text) for name, text in texts.items() if text and name not in frequent)
    said = frequent | shared
    named = len(ranked) if len(ranked) <= _LONGEST_LIST else _LINES
    return replace(
        empty,
        title="; ".join(_counted(event_type, number) for event_type, number in types.items()),
        url=listing or (links[0].url if links else ""),
        highlights=tuple(_share(*each, failures, empty) for each in frequent.items()),
        facts=(*facts, *_period(ranked)),
        lines=tuple(
            _line(event, empty, said, with_type=len(types) > 1) for event in ranked[:named]
        ),
        rest=tuple(
            printable_id(event.fine_tune) if event.fine_tune else title_of(event)
            for event in ranked[named:]
        ),
        links=links,
    )


def _links(message: Message) -> tuple[Link, ...]:
    templates = message.settings.links
    of_fine_tunes = any(event.fine_tune for event in message.events)
    of_troubles = any(event.traits.is_trouble and not event.fine_tune for event in message.events)
    return labelled_links(
        runbook=f"{DOCUMENTATION_URL}/runbooks.md" if of_troubles else None,
        status_page=templates.status_page,
        playground=playground_url(None, templates) if of_fine_tunes else None,
    )


def _counted(event_type: EventType, number: int) -> str:
    noun, predicate = EVENT_TYPES[event_type].counted
    return f"{number} {noun}{'' if number == 1 else 's'} {predicate}".strip()


def _values(event: Event) -> dict[str, str]:
    """Return what fine-tunes are compared by, verbatim, by its name."""
    if event.fine_tune is None:
        return {}
    of_fine_tune = {"Dataset": event.fine_tune.dataset, "Model": event.fine_tune.model_id}
    return of_fine_tune | {"Account": event.account}


def _shared_values(message: Message) -> dict[str, str]:
    """Return the values that all fine-tunes have in common, by name."""
    found: dict[str, set[str]] = {}
    for event in message.events:
        context, values = message.context(event), _values(event)
        if context.trained_seconds is not None and context.usual_seconds is not None:
            values[_USUAL] = rounded_duration(context.usual_seconds)
        for name, value in values.items():
            found.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _frequent_values(failures: Sequence[Event]) -> dict[str, str]:
    """Return the dataset and the model of most failures, by name; without those of a few."""
    found: dict[str, str] = {}
    for name in ("Dataset", "Model"):
        counts = Counter(_values(event)[name] for event in failures)
        for value, number in counts.most_common(1):
            is_frequent = number >= _LEAST_SHARE and 3 * number >= 2 * len(failures)
            if is_frequent and one_line(value, _SHORT):
                found[name] = value
    return found


def _share(name: str, value: str, failures: Sequence[Event], message: Message) -> str:
    """Return how many of the failures have a value."""
    having = [event for event in failures if _values(event)[name] == value]
    share = "All" if len(having) == len(failures) else f"{len(having)} of"
    phrase = f"{share} {len(failures)} failures: {name.lower()} {one_line(value, _SHORT)}"
    week = max(message.context(event).failures_of_dataset_7d or 0 for event in having)
    return f"{phrase}, {week} in 7 days" if name == "Dataset" and week > len(having) else phrase


def _period(events: Sequence[Event]) -> Iterable[Fact]:
    times = [event.observed_at for event in events]
    first, last = min(times), max(times)
    if readable_time(first) == readable_time(last):
        yield Fact("Observed", readable_time(last), last)
    else:
        yield Fact("First", readable_time(first), first)
        yield Fact("Last", readable_time(last), last)


def _line(event: Event, message: Message, said: Mapping[str, str], *, with_type: bool) -> Line:
    """Return an event in one line, without the values that are ``said`` of the whole message."""
    if event.fine_tune is None:
        detail = agent_phrase(event) or one_line(str(event.facts.get("reason", "")), _SHORT)
        return Line(title_of(event), details=(detail,) if detail else ())
    context = message.context(event)
    word, status = event.type.removeprefix("fine_tune."), one_line(event.fine_tune.status, _SHORT)
    others = (
        one_line(value, _SHORT) for name, value in _values(event).items() if value != said.get(name)
    )
    if _USUAL in said:
        context = replace(context, usual_seconds=None)
    details = (
        word if with_type else "",
        training_phrase(event, context)
        or recovery_phrase(event)
        or (status if status != word else ""),
        *others,
    )
    return Line(
        one_line(event.fine_tune.name, _SHORT) or "(no name)",
        printable_id(event.fine_tune, _SHORT),
        tuple(filter(None, details)),
        details_url(event, message.settings.links) or "",
    )
