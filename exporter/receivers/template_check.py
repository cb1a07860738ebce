"""Check of configured templates: each is rendered once with extreme sample messages."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any, Final

from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import EVENT_TYPES, Event, EventType
from exporter.core.facts import baseline_facts, retired_facts
from exporter.core.links import LinkTemplates
from exporter.core.message import Message, MessageSettings
from exporter.core.model import FAILED, FineTune, Snapshot
from exporter.core.text import LONGEST, timestamp
from exporter.receivers.payload import ABSENT, MOST_EVENTS, Clean, cleaned, variables
from exporter.receivers.template import Path, Template, TemplateBody, TemplateError

Fault = tuple[Path, str]
"""A place in a template, and what is wrong there: it starts with a line or with a verb."""

_Samples = Sequence[tuple[str, Mapping[str, Any]]]

_MOST_VALUES: Final = 500
_DEEPEST: Final = 20


def body_faults(template: Mapping[str, Any], secrets: Collection[str] = ()) -> list[Fault]:
    """Return what is wrong with the template of a body, tried with all sample messages."""
    # YAML's aliases turn a few lines into very many values, or into a cycle.
    values = list(islice(_each_value(template), _MOST_VALUES + 1))
    if len(values) > _MOST_VALUES or any(len(path) > _DEEPEST for path, _ in values):
        return [((), f"must have at most {_MOST_VALUES} values, at most {_DEEPEST} levels deep")]
    placeholders = {"secrets": dict.fromkeys(secrets, "")}
    samples = [(name, sample | placeholders) for name, sample in _samples()]
    compile_text = partial(Template, secrets=secrets)
    compile_body = partial(TemplateBody, secrets=secrets)
    faults = [
        (path, fault) for path, value in values if (fault := _fault(value, samples, compile_text))
    ]
    if not faults and (fault := _rendering_fault(compile_body, template, samples)):
        faults.append(((), fault))
    return faults


def line_fault(text: str, clean: Clean) -> str | None:
    """Return what is wrong with a single text, or None; ``clean`` is that of its receiver."""
    samples = [(name, cleaned(sample, clean)) for name, sample in _samples()]
    return _fault(text, samples, Template)


def _each_value(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each value in a map with its path, down to one level more than is allowed."""
    yield path, value
    if len(path) > _DEEPEST:
        return
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        yield from _each_value(item, (*path, key))


def _fault(value: Any, samples: _Samples, compiled: Callable[[str], Template]) -> str | None:
    if isinstance(value, str):
        valid = _is_text(value)
        return _rendering_fault(compiled, value, samples) if valid else "must be valid Unicode text"
    if isinstance(value, dict):
        return None if all(map(_is_text, value)) else "must have text as its keys"
    if isinstance(value, float):
        return None if abs(value) < float("inf") else "must be a finite number"
    if isinstance(value, int):
        return None if abs(value) < 2**63 else "must be a smaller number"
    if value is None or isinstance(value, list):
        return None
    return "must be text, a number, true, false, null, a list or a map"


def _is_text(value: object) -> bool:
    """Return whether it is text that can be sent; YAML's escapes can make half a character."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _rendering_fault(
    compiled: Callable[[Any], Template | TemplateBody], source: Any, samples: _Samples
) -> str | None:
    try:
        template = compiled(source)
    except TemplateError as error:
        return str(error)
    for name, sample in samples:
        try:
            template.render(sample)
        except TemplateError as error:
            hint = ""
            if "'None' has no attribute" in str(error):
                hint = "; guard it, as in {% if data.fine_tune %}…{% endif %}"
            elif "has no attribute" in str(error):
                known = ", ".join(ABSENT)
                hint = f"; the names in data are account, observed_at, severity, links, {known}"
            return f"{error}{hint} (tried with {name})"
    return None


_YEAR_9999: Final = 253_402_300_799.0  # its last second, the latest that datetime can format

# Emoji take most bytes of all characters, in UTF-8 and in JSON.
_LONG_TEXT: Final = "\"'\\{{ }} {% %} <!channel> &\n".ljust(LONGEST, "\U0001f5e3")
_LONG_NAME: Final = "x" * 64

_SHORT_LINKS: Final = MessageSettings(LinkTemplates("https://play.example/"))
_ALL_LINKS: Final = MessageSettings(
    LinkTemplates(
        "https://play.example/tunes/{id}",
        "https://watch.example/",
        "https://grafana.example/d/voices?from={from_ms}&to={to_ms}",
    )
)
_CONTEXTS: Final = {"evt": EventContext(1e9, 1e9, 10**6)}

_EMPTY: Final = FineTune("x", model_id="", status="")
_FULL: Final = FineTune(*[_LONG_TEXT] * 7)


@cache  # 0.5 MiB; building them takes longer than all else of a check
def _samples() -> Sequence[tuple[str, dict[str, Any]]]:
    """Return a name and the variables of each sample message."""
    return tuple((name, variables(message)) for name, message in _sample_messages())


def _sample_messages() -> Iterator[tuple[str, Message]]:
    """Yield a name and a message; no real message has longer texts, or fewer values."""
    for event_type in EVENT_TYPES:
        short, long = _event(event_type, _EMPTY, ""), _event(event_type, _FULL, _LONG_TEXT)
        yield f"{event_type} with short texts", build_message([short], _SHORT_LINKS)
        full = build_message([long], _ALL_LINKS, _CONTEXTS, _LONG_TEXT)
        yield f"{event_type} with long texts", full
    many = [_event("fine_tune.failed", _FULL, _LONG_TEXT)] * MOST_EVENTS
    digest = build_message(many, _ALL_LINKS, _CONTEXTS, _LONG_TEXT)
    yield f"a digest of {MOST_EVENTS} with long texts", digest
    agent = [_event(each, _EMPTY, "") for each in EVENT_TYPES if each.startswith("agent.")]
    yield "a digest without a fine-tune", build_message(agent, _SHORT_LINKS)


def _event(event_type: EventType, fine_tune: FineTune, text: str) -> Event:
    since = timestamp(_YEAR_9999)
    facts: dict[str, object] = {"since": since, "seconds": 10**9}
    if event_type != "fine_tune.stuck":
        facts = {}
    if not event_type.startswith("agent."):
        return Event("evt", event_type, _LONG_NAME, _YEAR_9999, fine_tune, text or None, facts)
    if event_type == "agent.baseline":
        failed = FineTune(fine_tune.id, text, text, text, text, text, FAILED)
        snapshot = Snapshot({str(n): failed for n in range(MOST_EVENTS)}, _YEAR_9999)
        facts = baseline_facts(snapshot, _LONG_NAME)
        if text:
            facts |= retired_facts(MOST_EVENTS)
    elif event_type == "agent.unknown_status":
        facts = {"status": text, "total": MOST_EVENTS, "text": text}
    elif text:
        facts = {"reason": text, "receiver": _LONG_NAME, "text": text, "since": since}
    if text and event_type == "agent.poll_recovered":
        facts |= dict.fromkeys(("seconds", "failed", "completed", "created", "removed"), 10**9)
    return Event("evt", event_type, _LONG_NAME, _YEAR_9999, facts=facts)
