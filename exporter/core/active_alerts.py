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
    """A stored event whose alert may be active; times are in awake seconds.

    ``observed_at`` is ``observed`` as Unix time of the wall clock at that moment. ``settled`` is
    when the first member accepted it, None while none has. ``left`` is when the trouble ended, None
    while it lasts; an event that is no trouble ends when it begins. ``lasting``: another event will
    end the trouble, so ``hold`` does not.
    """

    number: int
    observed_at: float
    observed: float
    settled: float | None = None
    left: float | None = None
    lasting: bool = False

    def starts_at(self, awake: float, now: float) -> float:
        """Return the start of the alert as Unix time, at ``awake``, which is ``now``.

        An alert observed while the wall clock was ahead does not start in the future.
        """
        return min(self.observed_at, now - (awake - self.observed))

    def ends_at(self, awake: float, now: float, hold: float) -> float:
        """Return the end of the alert as Unix time, at ``awake``, which is ``now``.

        It is ``hold`` seconds after it was first accepted, or earlier. A lasting one has no end
        yet: it is set anew with each post.
        """
        if self.lasting and self.left is None:
            return max(now, self.starts_at(awake, now)) + max(hold, LASTING_SECONDS)
        until = (awake if self.settled is None else self.settled) + hold
        if self.left is not None:
            until = min(until, self.left)
        # Alertmanager refuses an end before the start.
        return max(now + (until - awake), self.starts_at(awake, now))

    def is_active(self, awake: float, hold: float) -> bool:
        """Return whether the alert must be posted at ``awake``."""
        if self.settled is None:
            return True
        if self.lasting and self.left is None:
            return True
        until = self.settled + hold
        if self.left is not None and (self.lasting or self.left < until):
            # Not from ``left`` alone: if it was accepted later, other members need it longer.
            until = max(self.left, self.settled) + RESOLVED_SECONDS
        return awake < until


class ActiveAlert(Struct, frozen=True, gc=False):
    """One alert to post, made of one event.

    ``pending`` are the numbers of all events that are delivered once a member accepts it.
    """

    row: AlertRow
    pending: tuple[int, ...]

    @property
    def version(self) -> tuple[int, bool]:
        """What differs between two posts that both matter: the event, and whether it has ended."""
        return self.row.number, self.row.left is not None


def active_alerts(
    rows: Iterable[AlertRow], identity: Callable[[int], Hashable | None], awake: float, hold: float
) -> list[ActiveAlert]:
    """Return the alerts to post at ``awake``, those that no member has accepted yet first.

    ``identity`` returns the labels of an event's alert, or a digest of them; None leaves the event
    out. Events with the same labels are one alert to Alertmanager: the newest that lasts is posted
    for all of them, because an older one would end it.
    """
    rows_by_identity: dict[Hashable, list[AlertRow]] = {}
    for row in rows:
        if row.is_active(awake, hold) and (key := identity(row.number)) is not None:
            rows_by_identity.setdefault(key, []).append(row)
    alerts = [
        ActiveAlert(
            max(same, key=lambda row: (row.left is None, row.number)),
            tuple(sorted(row.number for row in same if row.settled is None)),
        )
        for same in rows_by_identity.values()
    ]
    return sorted(alerts, key=lambda alert: (not alert.pending, alert.row.number))
