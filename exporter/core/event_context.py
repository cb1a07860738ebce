"""What the store knows about an event beyond the event itself, and how messages say it."""

from typing import Final

from msgspec import Struct

from exporter.core.events import Event
from exporter.core.model import COMPLETED, STATUSES, TRAINING
from exporter.core.status import canonical_status
from exporter.core.text import one_line, ordinal, rounded_duration

_LONGEST_NAME: Final = 100
_LONGEST_REASON: Final = 300


class EventContext(Struct, frozen=True):
    """Facts about the fine-tune of an event; None where the store does not know one.

    ``trained_seconds`` is the length of the training that ended with the event; of a fine-tune
    stuck in training, of the training under way. ``usual_seconds`` is the median of the model's
    last completed trainings. ``failures_of_dataset_7d`` counts the failures of its dataset in the
    7 days up to the message, those in the message included.
    """

    trained_seconds: float | None = None
    usual_seconds: float | None = None
    failures_of_dataset_7d: int | None = None


NO_CONTEXT = EventContext()


def training_phrase(event: Event, context: EventContext) -> str:
    """Return how long a fine-tune trained, or was stuck, and what is usual; empty if unknown."""
    seconds, began = context.trained_seconds, "trained"
    if event.type == "fine_tune.stuck" and event.fine_tune is not None:
        stuck = event.facts.get("seconds")
        seconds = stuck if isinstance(stuck, int) else None
        began = f"in {one_line(event.fine_tune.status, _LONGEST_NAME)} for"
    if seconds is None:
        return ""
    phrase = f"{began} {rounded_duration(seconds)}"
    if context.trained_seconds is None or context.usual_seconds is None:
        return phrase
    return f"{phrase}, usually {rounded_duration(context.usual_seconds)}"


def recovery_phrase(event: Event) -> str:
    """Return how a fine-tune that had failed recovered; empty for another event."""
    if event.type != "fine_tune.recovered" or event.fine_tune is None:
        return ""
    status = canonical_status(event.fine_tune.status)
    begin = {COMPLETED: "completed", TRAINING: "trains again"}.get(status, "starts again")
    return f"{begin} after it had failed"


def dataset_phrase(event: Event, context: EventContext) -> str:
    """Return which failure of its dataset this is, from the second on; else an empty text."""
    number = context.failures_of_dataset_7d or 0
    if event.type != "fine_tune.failed" or event.fine_tune is None or number < 2:  # noqa: PLR2004
        return ""
    dataset = one_line(event.fine_tune.dataset, _LONGEST_NAME)
    return f"{ordinal(number)} failure of dataset {dataset} in 7 days"


def agent_phrase(event: Event) -> str:
    """Return what an event about the agent found, in a few words; empty if its title says it."""
    facts = event.facts
    total = facts.get("total")
    if event.type == "agent.baseline":
        counts = [f"{facts[status]} {status}" for status in STATUSES if facts.get(status)]
        return f"{_fine_tunes(total)}: {', '.join(counts)}" if counts else _fine_tunes(total)
    if event.type == "agent.unknown_status":
        status = one_line(str(facts.get("status", "")), _LONGEST_NAME)
        return f"{_fine_tunes(total)} with the status {status}" if status else _fine_tunes(total)
    # The text of an account that cannot be read has its error, in words.
    return one_line(str(facts.get("reason", "")), _LONGEST_REASON) if event.subject else ""


def _fine_tunes(number: object) -> str:
    return f"{number or 'no'} fine-tune{'' if number == 1 else 's'}"
