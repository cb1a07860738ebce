"""Routing of events to receivers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from exporter.core.events import Event, EventType
from exporter.core.pattern import Pattern

OnMatchError = Callable[[str, str, Exception], None]
"""Called with the receiver, the key of ``match`` and the error when a pattern fails."""


def _ignore(receiver: str, key: str, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class Route:
    """The events that one receiver gets: those of its types that match.

    ``match`` has patterns for account, model_id, language and name; each must match the whole
    value.
    """

    receiver: str
    types: frozenset[EventType]
    match: Mapping[str, Pattern] = field(default_factory=dict)

    def matches(self, event: Event, on_error: OnMatchError = _ignore) -> bool:
        """Return whether the receiver gets ``event``.

        An event without a fine-tune is compared by its account only, an event without an account
        by nothing. A pattern that cannot be evaluated counts as a match: a needless notification
        is better than a lost one.
        """
        if event.type not in self.types or self._is_about_itself(event):
            return False
        compared = {"account": event.account} if event.account else {}
        if event.fine_tune is not None:
            found = event.fine_tune
            compared |= {"model_id": found.model_id, "language": found.language, "name": found.name}
        return all(
            self._matches(key, compared[key], on_error) for key in self.match if key in compared
        )

    def _matches(self, key: str, text: str, on_error: OnMatchError) -> bool:
        try:
            return self.match[key].matches(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event must not be lost
            on_error(self.receiver, key, error)
            return True

    def _is_about_itself(self, event: Event) -> bool:
        # It could not receive it. A fine-tune may have the same id as a receiver.
        return event.fine_tune is None and event.subject == self.receiver


def receivers_of(
    event: Event, routes: Iterable[Route], on_error: OnMatchError = _ignore
) -> list[str]:
    """Return the names of the receivers that get ``event``."""
    return [route.receiver for route in routes if route.matches(event, on_error)]
