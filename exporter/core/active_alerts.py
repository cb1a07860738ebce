"""Alerts that an Alertmanager must know now: which are active, which have ended, and until when."""

from collections.abc import Callable, Hashable, Iterable
from typing import Final

from msgspec import Struct

RESOLVED_SECONDS: Final = 900.0
"""How long an alert that ended early is still posted, as Prometheus does.

Otherwise a lost request, or a member that was down, would leave it firing."""

LASTING_SECONDS: Final = 300.0
"""How far ahead the end of an alert that lasts is set at least, as Alertmanager's resolve_timeout.

Each post sets it again; a shorter time would let the alert resolve between two posts."""


class AlertRow(Struct, frozen=True, gc=False):
    """A stored event whose alert may be active; all times are Unix seconds.

    ``settled_at`` is when the first member accepted it, None while none has. ``left_at`` is when
    the trouble ended, None while it lasts; an event that is no trouble ends when it begins.
    ``lasting``: another event will end the trouble, so ``hold`` does not.
    """

    number: int
    began_at: float
    settled_at: float | None = None
    left_at: float | None = None
    lasting: bool = False

    def ends_at(self, now: float, hold: float) -> float:
        """Return the end of the alert: ``hold`` seconds after it was first accepted, or earlier.

        A lasting one has no end yet: it is set anew with each post.
        """
        if self.lasting and self.left_at is None:
            return max(now, self.began_at) + max(hold, LASTING_SECONDS)
        until = (now if self.settled_at is None else self.settled_at) + hold
        if self.left_at is not None:
            until = min(until, self.left_at)
        # After the clock was set back: Alertmanager refuses an end before the start.
        return max(until, self.began_at)

    def is_active(self, now: float, hold: float) -> bool:
        """Return whether the alert must be posted at ``now``."""
        if self.settled_at is None:
            return True
        if self.lasting and self.left_at is None:
            return True
        until = self.settled_at + hold
        if self.left_at is not None and (self.lasting or self.left_at < until):
            # Not from ``left_at`` alone: if it was accepted later, other members need it longer.
            until = max(self.left_at, self.settled_at) + RESOLVED_SECONDS
        return now < until


class ActiveAlert(Struct, frozen=True, gc=False):
    """One alert to post, made of one event.

    ``pending`` are the numbers of all events that are delivered once a member accepts it.
    """

    row: AlertRow
    pending: tuple[int, ...]

    @property
    def version(self) -> tuple[int, bool]:
        """What differs between two posts that both matter: the event, and whether it has ended."""
        return self.row.number, self.row.left_at is not None


def active_alerts(
    rows: Iterable[AlertRow], identity: Callable[[int], Hashable | None], now: float, hold: float
) -> list[ActiveAlert]:
    """Return the alerts to post at ``now``, those that no member has accepted yet first.

    ``identity`` returns the labels of an event's alert, or a digest of them; None leaves the event
    out. Events with the same labels are one alert to Alertmanager: the newest that lasts is posted
    for all of them, because an older one would end it.
    """
    rows_by_identity: dict[Hashable, list[AlertRow]] = {}
    for row in rows:
        if row.is_active(now, hold) and (key := identity(row.number)) is not None:
            rows_by_identity.setdefault(key, []).append(row)
    alerts = [
        ActiveAlert(
            max(same, key=lambda row: (row.left_at is None, row.number)),
            tuple(sorted(row.number for row in same if row.settled_at is None)),
        )
        for same in rows_by_identity.values()
    ]
    return sorted(alerts, key=lambda alert: (not alert.pending, alert.row.number))
