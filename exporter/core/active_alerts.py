"""Which alerts fire, which have ended, and until when: what an Alertmanager is to be told now."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

RESOLVED_SECONDS: Final = 900.0
"""How long an alert that ended early is still posted, as Prometheus does: one lost request, or a
member that was away, must not leave it firing."""


class AlertRow(Struct, frozen=True, gc=False):
    """An event that an Alertmanager is owed, or took not long ago; all times are Unix seconds.

    ``settled_at`` is when the first member took it, None while none has. ``left_at`` is when what
    it tells of was over, None while it is not.
    """

    number: int
    began_at: float
    settled_at: float | None = None
    left_at: float | None = None


class ActiveAlert(Struct, frozen=True, gc=False):
    """One alert to be posted: that of the event ``number``; times are Unix seconds.

    ``left`` says that it ended before its time. ``pending`` are the numbers of all events that are
    delivered once it is taken.
    """

    number: int
    starts_at: float
    ends_at: float
    left: bool
    pending: tuple[int, ...]


def active_alerts(
    owed: Iterable[AlertRow], identity: Callable[[int], Hashable], now: float, hold: float
) -> list[ActiveAlert]:
    """Return the alerts to be posted at ``now``, those that no member has taken yet first.

    ``identity`` returns what Alertmanager tells alerts apart by. Of several events with the same
    one, the newest that goes on stands for all: an older one would end it. An alert fires for
    ``hold`` seconds from when it was first taken, at the most.
    """
    same: dict[Hashable, list[AlertRow]] = {}
    for alert in owed:
        if _is_posted(alert, now, hold):
            same.setdefault(identity(alert.number), []).append(alert)
    found = [_standing_for(alerts, now, hold) for alerts in same.values()]
    found.sort(key=lambda alert: alert.number)
    return [each for each in found if each.pending] + [each for each in found if not each.pending]


def brought_up(
    alert: ActiveAlert, taken: Mapping[int, float], now: float, hold: float
) -> ActiveAlert:
    """Return an alert that ``firing`` returned a short while ago as it is at ``now``.

    ``taken`` says when events were first taken since then, by their numbers.
    """
    if not alert.pending:
        return alert
    ends_at = alert.ends_at
    if not alert.left and alert.number in alert.pending:
        ends_at = max(taken.get(alert.number, now) + hold, alert.starts_at)
    pending = tuple(number for number in alert.pending if number not in taken)
    return replace(alert, ends_at=ends_at, pending=pending)


def _is_posted(alert: AlertRow, now: float, hold: float) -> bool:
    if alert.settled_at is None:
        return True
    until = alert.settled_at + hold
    if alert.left_at is not None and alert.left_at < until:
        # From when it was taken: one that was over by then, the other members have not seen yet.
        until = max(alert.left_at, alert.settled_at) + RESOLVED_SECONDS
    return now < until


def _standing_for(alerts: list[AlertRow], now: float, hold: float) -> ActiveAlert:
    newest = max(alerts, key=lambda alert: (alert.left_at is None, alert.number))
    return ActiveAlert(
        newest.number,
        newest.began_at,
        _ends_at(newest, now, hold),
        newest.left_at is not None,
        tuple(sorted(alert.number for alert in alerts if alert.settled_at is None)),
    )


def _ends_at(alert: AlertRow, now: float, hold: float) -> float:
    until = (now if alert.settled_at is None else alert.settled_at) + hold
    if alert.left_at is not None:
        until = min(until, alert.left_at)
    # A clock that was set back: Alertmanager refuses what ends before it begins.
    return max(until, alert.began_at)
