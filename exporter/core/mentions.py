"""Who is mentioned in a message."""

from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct, field

from exporter.core.events import SUBSCRIPTIONS, TROUBLES, Event, EventType, Subscription
from exporter.core.match import AccountLabels, Match, match_values

LONGEST_MENTION: Final = 500
"""Most characters of the mentions of a message."""

_MOST_MENTIONS: Final = 5


def mentioning_types(words: Collection[Subscription]) -> frozenset[EventType]:
    """Return the event types of the words of ``mention_events``; of the agent's, the troubles."""
    types: frozenset[EventType] = frozenset()
    for word in words:
        types |= SUBSCRIPTIONS[word] & TROUBLES if word == "agent" else SUBSCRIPTIONS[word]
    return types


class Mentions(Struct, frozen=True):
    """Whom messages mention, as texts of the operator.

    ``types`` are those of the events for which someone is mentioned: by the first of the ``rules``
    that matches the event, else by ``default``.
    """

    types: frozenset[EventType] = frozenset()
    default: str = ""
    rules: Sequence[tuple[Match, str]] = ()
    labels: AccountLabels = field(default_factory=dict)

    def of(self, events: Sequence[Event]) -> str:
        """Return the distinct mentions of a message's events, in order, as far as they fit."""
        found: list[str] = []
        for mention in dict.fromkeys(self._of(each) for each in events if each.type in self.types):
            fits = len(" ".join((*found, mention))) <= LONGEST_MENTION
            if mention and fits and len(found) < _MOST_MENTIONS:
                found.append(mention)
        return " ".join(found)

    def _of(self, event: Event) -> str:
        values = match_values(event.account, self.labels, event.fine_tune)
        for match, mention in self.rules:
            # A value that cannot be compared counts as a match, as in the routes of receivers.
            if match.matches(values, lambda *_: True):
                return mention
        return self.default
