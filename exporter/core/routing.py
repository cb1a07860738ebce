"""Routing of events to receivers."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from exporter.core.events import EVENT_TYPES, TROUBLES, Event, EventType
from exporter.core.match import AccountLabels, Match, match_values

_TROUBLES: Final = {EVENT_TYPES[trouble].alertname: trouble for trouble in TROUBLES}
"""Troubles by the name of their alert, which the event that resolves it has, too."""

OnMatchError = Callable[[str, str, Exception], None]
"""Called with the receiver, the key of ``match`` and the error when a pattern fails."""


def _ignore(receiver: str, key: str, error: Exception) -> None: ...


class Route(Struct, frozen=True):
    """The events that one receiver gets: those of its types that match.

    ``otherwise``: only those of them that no other receiver gets.
    """

    receiver: str
    types: frozenset[EventType]
    match: Match = field(default_factory=Match)
    labels: AccountLabels = field(default_factory=dict)
    otherwise: bool = False

    def matches(self, event: Event, on_error: OnMatchError = _ignore) -> bool:
        """Return whether the receiver gets ``event``, if no other receiver precedes it.

        An event without a fine-tune is compared by its account and the account's labels only, an
        event without an account by nothing. A value that cannot be compared counts as a match: a
        needless notification is better than a lost one.
        """
        if event.type not in self.types or self._is_about_itself(event):
            return False
        match = self.match
        if event.fine_tune is None:
            if not event.account:
                return True
            match = match.of_account()

        def count_as_match(key: str, error: Exception) -> bool:
            on_error(self.receiver, key, error)
            return True

        values = match_values(event.account, self.labels, event.fine_tune)
        return match.matches(values, count_as_match)

    def _is_about_itself(self, event: Event) -> bool:
        # It could not receive it. A fine-tune may have the same id as a receiver.
        return event.fine_tune is None and event.subject == self.receiver


def receivers_of(
    event: Event, routes: Sequence[Route], on_error: OnMatchError = _ignore
) -> list[str]:
    """Return the names of the receivers that get ``event``.

    Those with ``otherwise`` get it if none of the others does. They get the end of a trouble if
    none of the others got the trouble: an Alertmanager, which gets no such event, resolves its
    alert.
    """
    decisive = event
    if event.traits.resolves:
        decisive = replace(event, type=_TROUBLES[event.traits.alertname])
    is_taken = any(route.otherwise for route in routes) and any(
        route.matches(decisive, on_error) for route in routes if not route.otherwise
    )
    return [
        route.receiver
        for route in routes
        if not (route.otherwise and is_taken) and route.matches(event, on_error)
    ]
