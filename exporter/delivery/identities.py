"""What tells an Alertmanager's alerts apart, made out of each event once."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

import structlog
from msgspec import Struct

from exporter.core.firing import OwedAlert
from exporter.core.model import Event
from exporter.core.routing import TROUBLES
from exporter.receivers.receiver import encoded
from exporter.store.firing import AlertOutbox

_READ_AT_ONCE: Final = 100
"""How many events are read at a time: others must have their turn in the store."""

log = structlog.get_logger()


class Identity(Struct, frozen=True, gc=False):
    """What is kept of an event: not its alert, which is many times as large.

    ``trouble`` says whether it tells of one. ``digest`` is of its alert's labels, None when it
    cannot be made into an alert.
    """

    event_id: str
    trouble: bool
    digest: bytes | None


class Identities:
    """The identities of what one Alertmanager is owed, by the numbers of the events.

    ``labels`` returns an event's; one for which it raises is no alert, and ``give_up`` is told its
    number, once. What takes long is done in a thread, one ``keep`` after the other.
    """

    def __init__(
        self,
        receiver: str,
        outbox: AlertOutbox,
        labels: Callable[[Event], Mapping[str, str]],
        give_up: Callable[[int], None],
    ) -> None:
        self._outbox = outbox
        self._labels = labels
        self._give_up = give_up
        self._known: dict[int, Identity] = {}
        self._log = log.bind(receiver=receiver)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __getitem__(self, number: int) -> Identity:
        return self._known[number]

    async def keep(self, owed: Sequence[OwedAlert]) -> None:
        """Know all of ``owed`` and nothing else, as far as it is still there; raise StoreError."""
        missing = await asyncio.to_thread(self._missing, owed)
        for begin in range(0, len(missing), _READ_AT_ONCE):
            found = await self._outbox.events(missing[begin : begin + _READ_AT_ONCE])
            new = await asyncio.to_thread(self._of, found)
            self._known.update(new)
            for number, identity in new.items():
                if identity.digest is None:
                    self._give_up(number)

    def _missing(self, owed: Iterable[OwedAlert]) -> list[int]:
        numbers = {alert.number for alert in owed}
        self._known = {n: each for n, each in self._known.items() if n in numbers}
        return sorted(numbers - self._known.keys())

    def _of(self, events: Mapping[int, Event]) -> dict[int, Identity]:
        return {
            number: Identity(event.id, event.type in TROUBLES, self._digest(event))
            for number, event in events.items()
        }

    def _digest(self, event: Event) -> bytes | None:
        try:
            return sha256(encoded(sorted(self._labels(event).items()))).digest()
        except Exception:  # noqa: BLE001 - as in Deliverer: it must not stop the other alerts
            self._log.exception("an alert cannot be made of an event", event_id=event.id)
            return None
