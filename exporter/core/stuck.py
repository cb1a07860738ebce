"""Fine-tunes that stay where they should only pass through."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from exporter.core.message import timestamp
from exporter.core.model import (
    CREATED,
    TERMINAL,
    TRAINING,
    AccountKey,
    Event,
    Known,
    Snapshot,
    stable_id,
)

_PASSING: Final = frozenset({CREATED, TRAINING})


def newly_stuck(
    known: Mapping[str, Known], snapshot: Snapshot, stuck_after: float
) -> dict[str, Known]:
    """Return, marked as stuck and by id, the ones in ``snapshot`` to be told as that now.

    They are in ``created`` or ``training`` for longer than ``stuck_after`` seconds, as observed,
    and were not told yet in this stay. ``known`` is what is known after ``snapshot``.
    """
    found: dict[str, Known] = {}
    for fine_tune_id in snapshot.fine_tunes:
        each = known[fine_tune_id]
        if each.fine_tune.status not in _PASSING or each.stuck:
            continue
        if snapshot.read_at - each.since > stuck_after:
            found[fine_tune_id] = replace(each, stuck=True)
    return found


def stuck_event(store_id: str, account: AccountKey, known: Known, now: float) -> Event:
    """Return the event of a fine-tune that was found stuck at ``now`` (Unix seconds).

    Nothing changed: ``previous_status`` is the status that it has.
    """
    identity = (store_id, account.name, account.base_url, known.fine_tune.id, known.sequence)
    return Event(
        # One part more than a status, as a removal has, whose first is another.
        id=stable_id("evt", *identity, "stuck", ""),
        type="fine_tune.stuck",
        account=account.name,
        observed_at=now,
        fine_tune=known.fine_tune,
        previous_status=known.fine_tune.status,
        facts={"since": timestamp(known.since)},
    )


def after_jump(known: Mapping[str, Known], snapshot: Snapshot) -> dict[str, Known]:
    """Return the stays that a jump of the wall clock changes, by id.

    One that should pass moves along: it gets no older. It never begins later than now: one that was
    stored before a wrong clock was set right would have to wait for years. A completed or failed
    one stays where it is, for it lasts while the machine sleeps; how long it took is not observed.
    """
    if not snapshot.clock_jump:
        return {}
    return {
        fine_tune_id: _after_jump(each, snapshot)
        for fine_tune_id, each in known.items()
        if each.since_seen or each.fine_tune.status not in TERMINAL
    }


def _after_jump(known: Known, snapshot: Snapshot) -> Known:
    if known.fine_tune.status in TERMINAL:
        return replace(known, since_seen=False)
    return replace(known, since=min(known.since + snapshot.clock_jump, snapshot.read_at))
