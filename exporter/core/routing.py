"""Routing of events to receivers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from exporter.core.events import Event, EventType
from exporter.core.text import LONGEST


@dataclass(frozen=True, slots=True)
class Route:
    """The events that one receiver gets: those of its types that match.

    ``match`` has patterns for account, model_id, language and name; each must match the whole
    value.
    """

    receiver: str
    types: frozenset[EventType]
    match: Mapping[str, re.Pattern[str]] = field(default_factory=dict)

    def matches(self, event: Event) -> bool:
        """Return whether the receiver gets ``event``.

        An event without a fine-tune is compared by its account only, an event without an account
        by nothing.
        """
        if event.type not in self.types or self._is_about_itself(event):
            return False
        compared = {"account": event.account} if event.account else {}
        if event.fine_tune is not None:
            found = event.fine_tune
            compared |= {"model_id": found.model_id, "language": found.language, "name": found.name}
        return all(
            # Cut: a long text can make a pattern take very long.
            pattern.fullmatch(compared[key][:LONGEST])
            for key, pattern in self.match.items()
            if key in compared
        )

    def _is_about_itself(self, event: Event) -> bool:
        # It could not receive it. A fine-tune may have the same id as a receiver.
        return event.fine_tune is None and event.subject == self.receiver


def receivers_of(event: Event, routes: Iterable[Route]) -> list[str]:
    """Return the names of the receivers that get ``event``."""
    return [route.receiver for route in routes if route.matches(event)]
