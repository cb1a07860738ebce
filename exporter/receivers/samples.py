"""Messages at their extremes: what a template renders once before it is taken into service."""

from collections.abc import Iterator
from typing import Final, get_args

from exporter.core.message import Message, Pages, baseline_facts, message, timestamp
from exporter.core.model import FAILED, Event, EventType, FineTune, Snapshot
from exporter.core.text import LONGEST
from exporter.receivers.standard import MOST_EVENTS

_AT: Final = 253_402_300_799.0  # the last second of the year 9999

# Emoji take most bytes of all characters, in UTF-8 and in JSON.
_LONG: Final = "\"'\\{{ }} {% %} <!channel> &\n".ljust(LONGEST, "\U0001f5e3")
_LONG_WORD: Final = "x" * 64

_PLAIN: Final = Pages("https://play.example/")
_LINKED: Final = Pages("https://play.example/tunes/{id}", "https://watch.example/")

_EMPTY: Final = FineTune("x", model_id="", status="")
_FULL: Final = FineTune(_LONG, _LONG, _LONG, _LONG, _LONG, _LONG, _LONG)


def extremes() -> Iterator[tuple[str, Message]]:
    """Yield messages that nothing real exceeds in length, or in what it lacks, and their names."""
    for kind in get_args(EventType):
        yield f"{kind} with short texts", message([_event(kind, _EMPTY, "")], _PLAIN)
        yield f"{kind} with long texts", message([_event(kind, _FULL, _LONG)], _LINKED)
    many = [_event("fine_tune.failed", _FULL, _LONG)] * MOST_EVENTS
    yield f"a digest of {MOST_EVENTS} with long texts", message(many, _LINKED)
    agent = [_event(kind, _EMPTY, "") for kind in get_args(EventType) if kind.startswith("agent.")]
    yield "a digest without a fine-tune", message(agent, _PLAIN)


def _event(kind: EventType, fine_tune: FineTune, text: str) -> Event:
    facts: dict[str, object] = {"since": timestamp(_AT)} if kind == "fine_tune.stuck" else {}
    if not kind.startswith("agent."):
        return Event("evt", kind, _LONG_WORD, _AT, fine_tune, text or None, facts)
    if kind == "agent.baseline":
        failed = FineTune(fine_tune.id, text, text, text, text, text, FAILED)
        facts = baseline_facts(Snapshot({str(n): failed for n in range(MOST_EVENTS)}, _AT))
    elif text:
        facts = {"reason": text, "receiver": _LONG_WORD, "text": text, "since": timestamp(_AT)}
    return Event("evt", kind, _LONG_WORD, _AT, None, None, facts)
