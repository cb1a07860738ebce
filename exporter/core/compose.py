"""Builds the messages of events: about a fine-tune, about the agent, or a digest."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from exporter.core.digest import complete_digest
from exporter.core.event_context import (
    EventContext,
    agent_phrase,
    dataset_phrase,
    recovery_phrase,
    training_phrase,
)
from exporter.core.events import DIGEST, Event, severity_of
from exporter.core.links import details_url, grafana_url, labelled_links, playground_url
from exporter.core.message import (
    Fact,
    Line,
    Message,
    MessageSettings,
    printable_id,
    status_change,
    title_of,
)
from exporter.core.model import FineTune
from exporter.core.project import runbook_url
from exporter.core.text import capitalized, listed, one_line, readable_time

_NAMED_AT_BASELINE: Final = 5
"""Failed fine-tunes that the message of a baseline names."""

_SHORT: Final = 100
"""Longest value within a line, in characters."""

ALARM: Final = "\U0001f6a8"
WARNING: Final = "\u26a0\ufe0f"
INFORMATION: Final = "\u2139\ufe0f"
SUCCESS: Final = "\u2705"
_SIGNS: Final = (ALARM, WARNING, INFORMATION, SUCCESS)
"""Signs of messages, the gravest first. Slack, Mattermost and mail show them as they are."""

_SIGNS_OF_SEVERITIES: Final = {
    **dict.fromkeys(("critical", "error", "page"), ALARM),
    **dict.fromkeys(("info", "none"), INFORMATION),
}
"""Signs of troubles; that of any other severity is WARNING."""

_WITHOUT_TIME: Final = frozenset({"agent.baseline", "agent.test"})
"""Events that are about the moment at which they are sent."""

_SUBSCRIBED: Final[Mapping[str, str]] = {
    "failed": "fails",
    "stuck": "is stuck",
    "completed": "completes",
    "created": "is created",
    "removed": "is removed",
    "recovered": "recovers from a failure",
}
"""What happens to a fine-tune, by the word of ``events``."""


def build_message(
    events: Sequence[Event],
    settings: MessageSettings,
    contexts: Mapping[str, EventContext] | None = None,
    note: str = "",
) -> Message:
    """Return the message of one event, or the digest of several.

    ``contexts`` are by the ids of events. ``note`` says why the message is sent now.
    """
    signs = {_sign(event, settings) for event in events}
    empty = Message(
        DIGEST if len(events) > 1 else events[0].type,
        "",
        tuple(events),
        settings,
        contexts or {},
        sign=next(sign for sign in _SIGNS if sign in signs),
        note=one_line(note, 300),
    )
    if len(events) > 1:
        return complete_digest(empty)
    if events[0].fine_tune is not None:
        return _fine_tune_message(empty, events[0].fine_tune)
    return _agent_message(empty)


def _sign(event: Event, settings: MessageSettings) -> str:
    if event.traits.is_trouble:
        return _SIGNS_OF_SEVERITIES.get(severity_of(event, settings.severities), WARNING)
    return {"success": SUCCESS, "warning": WARNING}.get(event.traits.apprise_type, INFORMATION)


def _fine_tune_message(empty: Message, fine_tune: FineTune) -> Message:
    [event], templates = empty.events, empty.settings.links
    context = empty.context(event)
    training, dataset = training_phrase(event, context), dataset_phrase(event, context)
    recovery = recovery_phrase(event)
    facts = (
        ("Model", fine_tune.model_id),
        ("Dataset", "" if dataset else fine_tune.dataset),
        ("Language", fine_tune.language),
        ("Status", _status(event, fine_tune, is_said=bool(training or recovery))),
        ("Account", event.account),
    )
    details, playground = details_url(event, templates), playground_url(event, templates)
    grafana = grafana_url(event, templates, context.trained_seconds)
    return replace(
        empty,
        title=f"{event.traits.title}: {one_line(fine_tune.name) or printable_id(fine_tune)}",
        url=details or playground,
        highlights=tuple(map(capitalized, filter(None, (recovery, training, dataset)))),
        facts=(
            *(Fact(name, one_line(value)) for name, value in facts if one_line(value)),
            *_times(event),
        ),
        id=printable_id(fine_tune),
        text=one_line(fine_tune.description),
        links=labelled_links(details=details, playground=playground, grafana=grafana),
    )


def _status(event: Event, fine_tune: FineTune, *, is_said: bool) -> str:
    """Return the status, or its change; empty if the title, or what was said, says the same."""
    word, change = event.type.removeprefix("fine_tune."), status_change(event)
    if fine_tune.status == word and (is_said or change == word):
        return ""
    return "" if is_said and event.type in {"fine_tune.stuck", "fine_tune.recovered"} else change


def _times(event: Event) -> Iterable[Fact]:
    """Return when it began, if that is known, and when it was observed."""
    begin, observed = str(event.facts.get("since", "")), "Observed"
    if begin:
        observed = "Until" if event.traits.resolves else ""
        name = "From" if event.traits.resolves else "Since"
        try:
            at = datetime.fromisoformat(begin).timestamp()
        except ValueError:
            yield Fact(name, one_line(begin, _SHORT))
        else:
            yield Fact(name, readable_time(at), at)
    if observed:
        yield Fact(observed, readable_time(event.observed_at), event.observed_at)


def _agent_message(empty: Message) -> Message:
    [event], templates = empty.events, empty.settings.links
    to_repair = event.traits.is_trouble or event.type == "agent.unknown_status"
    links = labelled_links(
        runbook=runbook_url(event.traits.alertname) if to_repair else None,
        status_page=templates.status_page,
        playground=playground_url(None, templates) if event.type in _WITHOUT_TIME else None,
        grafana=None if event.type in _WITHOUT_TIME else grafana_url(event, templates, None),
    )
    text = one_line(str(event.facts.get("text", "")))
    if event.type == "agent.baseline":
        text = f"{text} {_subscribed(empty.settings)}".strip()
    return replace(
        empty,
        title=title_of(event),
        url=templates.status_page or (links[0].url if links else ""),
        highlights=tuple(map(capitalized, filter(None, (agent_phrase(event),)))),
        facts=() if event.type in _WITHOUT_TIME else tuple(_times(event)),
        text=text,
        lines=tuple(_failed_before(event)),
        links=links,
    )


def _failed_before(event: Event) -> Iterable[Line]:
    named = event.facts.get("failed_ones")
    if not isinstance(named, list) or not named:
        return
    names = [one_line(each["name"], _SHORT) or "(no name)" for each in named[:_NAMED_AT_BASELINE]]
    unnamed = event.facts.get("failed_unnamed")
    more = len(named) - len(names) + (unnamed if isinstance(unnamed, int) else 0)
    names += [f"{more} more"] if more else []
    yield Line(f"Failed before: {' · '.join(names)}")


def _subscribed(settings: MessageSettings) -> str:
    """Return what the receiver is notified of from now on, as a sentence."""
    words = [_SUBSCRIBED[word] for word in settings.subscriptions if word in _SUBSCRIBED]
    occasions = []
    if words:
        which = " that is routed to it" if settings.has_match else ""
        occasions.append(f"a fine-tune{which} {listed(words, 'or')}")
    if "agent" in settings.subscriptions:
        occasions.append("an account cannot be read or another receiver rejects notifications")
    if not occasions:
        return ""
    return f"From now on this receiver is notified when {', and when '.join(occasions)}."
