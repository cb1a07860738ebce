"""Who wants to be told of what."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from exporter.core.model import Event, EventType
from exporter.core.text import LONGEST

EventName = Literal["failed", "completed", "removed", "stuck", "created", "agent"]

TYPES: Final[Mapping[EventName, frozenset[EventType]]] = {
    "failed": frozenset({"fine_tune.failed"}),
    "completed": frozenset({"fine_tune.completed"}),
    "removed": frozenset({"fine_tune.removed"}),
    "stuck": frozenset({"fine_tune.stuck"}),
    "created": frozenset({"fine_tune.created"}),
    "agent": frozenset(
        {
            "agent.baseline",
            "agent.poll_failing",
            "agent.poll_recovered",
            "agent.receiver_unhealthy",
            "agent.receiver_recovered",
        }
    ),
}
"""What each word of a receiver's ``events`` stands for."""


TROUBLES: Final[frozenset[EventType]] = frozenset(
    {
        "fine_tune.failed",
        "fine_tune.stuck",
        "agent.poll_failing",
        "agent.receiver_unhealthy",
    }
)
"""What an Alertmanager is told of: what is wrong for a while. Its end resolves the alert."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What one receiver is told: events of its types that match.

    ``match`` holds patterns for account, model_id, language and name; all that are given must match
    the whole value.
    """

    receiver: str
    types: frozenset[EventType]
    match: Mapping[str, re.Pattern[str]] = field(default_factory=dict)

    def wants(self, event: Event) -> bool:
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


def receivers_of(event: Event, interests: Iterable[Interest]) -> list[str]:
    """Return the names of those that want to be told of ``event``."""
    return [interest.receiver for interest in interests if interest.wants(event)]
