"""Who wants to be told of what."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from exporter.core.events import Event, EventType
from exporter.core.text import LONGEST


@dataclass(frozen=True, slots=True)
class Route:
    """What one receiver is told: events of its types that match.

    ``match`` holds patterns for account, model_id, language and name; all that are given must match
    the whole value.
    """

    receiver: str
    types: frozenset[EventType]
    match: Mapping[str, re.Pattern[str]] = field(default_factory=dict)

    def matches(self, event: Event) -> bool:
        """Return whether the receiver is to be told of ``event``.

        Of an event that is about no fine-tune only the account is compared, and of one that is
        about no account either, nothing.
        """
        if event.type not in self.types or self._is_about_itself(event):
            return False
        compared = {"account": event.account} if event.account else {}
        if event.fine_tune is not None:
            found = event.fine_tune
            compared |= {"model_id": found.model_id, "language": found.language, "name": found.name}
        return all(
            # Cut: a pattern may take very long for a text that is long and made for it.
            pattern.fullmatch(compared[key][:LONGEST])
            for key, pattern in self.match.items()
            if key in compared
        )

    def _is_about_itself(self, event: Event) -> bool:
        # It could not hear it, and a fine-tune may be called as it is.
        return event.fine_tune is None and event.subject == self.receiver


def receivers_of(event: Event, routes: Iterable[Route]) -> list[str]:
    """Return the names of those that want to be told of ``event``."""
    return [interest.receiver for interest in routes if interest.matches(event)]
