"""Grouping of the queued events of one receiver into messages."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from exporter.core.events import Event


class QueuedEvent(Struct, frozen=True):
    """An event queued for a receiver, which may be sent since ``age`` awake seconds.

    ``number`` is that of the stored event.
    """

    number: int
    event: Event
    age: float


class Grouping(Struct, frozen=True):
    """How the events of a receiver are grouped; times are in seconds.

    Events wait for ``group_wait``, so that those that follow join them. With a ``group_interval``,
    all events of fine-tunes that are due go out in one message; those that follow are held back
    until the interval ends. Without one, more than ``digest_threshold`` events become a digest.
    Events of the agent are never held back. A message has at most ``most_events``.
    """

    group_wait: float
    group_interval: float
    digest_threshold: int
    most_events: int

    def digests(self, events: Sequence[QueuedEvent]) -> list[Sequence[QueuedEvent]]:
        """Return the events of each message that carries all of these together."""
        most = self.most_events
        return [events[begin : begin + most] for begin in range(0, len(events), most)]


def due_groups(
    queued: Sequence[QueuedEvent], grouping: Grouping, held_for: float
) -> tuple[list[Sequence[QueuedEvent]], float]:
    """Return the events of each message to create now, and the seconds until more are due.

    ``queued`` are all events that no message carries, oldest first. The group interval that is
    under way lasts for ``held_for`` more seconds.
    """
    groups: list[Sequence[QueuedEvent]] = []
    waits: list[float] = []
    for events, threshold, held in _separately_grouped(queued, grouping, held_for):
        wait = max(grouping.group_wait - events[0].age, held)
        if wait > 0:
            waits.append(wait)
        elif len(events) > threshold:
            groups += grouping.digests(events)
        else:
            # With more events at the next turn, a digest may be better.
            groups.append(events[:1])
    return groups, min(waits, default=0.0)


def _separately_grouped(
    queued: Sequence[QueuedEvent], grouping: Grouping, held_for: float
) -> Iterator[tuple[Sequence[QueuedEvent], int, float]]:
    """Yield events, the threshold for a digest of them, and for how long they are held back."""
    if not grouping.group_interval:
        parts = [(queued, grouping.digest_threshold, 0.0)]
    else:
        of_agent = [each for each in queued if each.event.fine_tune is None]
        of_fine_tunes = [each for each in queued if each.event.fine_tune is not None]
        parts = [(of_agent, grouping.digest_threshold, 0.0), (of_fine_tunes, 0, held_for)]
    return (part for part in parts if part[0])
