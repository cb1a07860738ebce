"""Comparison of a snapshot with the tracked fine-tunes."""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from exporter.core.model import (
    CREATED,
    FAILED,
    TERMINAL,
    TRAINING,
    FineTune,
    Snapshot,
    TrackedFineTune,
    Transition,
)

Tracked = Mapping[str, TrackedFineTune]
"""Tracked fine-tunes by id."""

_TRANSIENT: Final = frozenset({CREATED, TRAINING})


def baseline(snapshot: Snapshot) -> dict[str, TrackedFineTune]:
    """Return the tracked fine-tunes after an account's first snapshot. It has no transitions."""
    return {
        fine_tune.id: TrackedFineTune(fine_tune, 1, snapshot.read_at, since_seen=False)
        for fine_tune in snapshot.fine_tunes.values()
    }


def diff(
    tracked: Tracked, snapshot: Snapshot
) -> tuple[dict[str, TrackedFineTune], tuple[Transition, ...]]:
    """Return the tracked fine-tunes that a snapshot changes, by id, and the confirmed transitions.

    Entering ``failed``, and any change between statuses that are not terminal, counts at once.
    Leaving ``failed`` or ``completed`` for anything but ``failed``, and absence, count when two
    consecutive snapshots show it: a stale replica of the API must neither re-arm an alert nor
    report a false removal.
    """
    changed: dict[str, TrackedFineTune] = {}
    transitions: list[Transition] = []
    for before, after, transition in _compare(tracked, snapshot):
        if after != before:
            changed[after.fine_tune.id] = after
        if transition is not None:
            transitions.append(transition)
    return changed, tuple(transitions)


def _compare(
    tracked: Tracked, snapshot: Snapshot
) -> Iterator[tuple[TrackedFineTune | None, TrackedFineTune, Transition | None]]:
    for fine_tune in snapshot.fine_tunes.values():
        before = tracked.get(fine_tune.id)
        if before is None:
            after = TrackedFineTune(fine_tune, 1, snapshot.read_at, since_seen=True)
            yield None, after, Transition(fine_tune, sequence=1, previous_status=None)
        elif before.fine_tune != fine_tune or before.exit_pending or before.missed_polls:
            yield before, *_listed(before, fine_tune, snapshot.read_at)
    for fine_tune_id, before in tracked.items():
        if fine_tune_id not in snapshot.fine_tunes and not before.removed:
            yield before, *_missed(before)


def _listed(
    before: TrackedFineTune, read: FineTune, now: float
) -> tuple[TrackedFineTune, Transition | None]:
    confirmed = before.fine_tune.status
    if read.status == confirmed:
        return replace(before, fine_tune=read, exit_pending=False, missed_polls=0), None
    if confirmed in TERMINAL and read.status != FAILED and not before.exit_pending:
        as_confirmed = replace(read, status=confirmed)
        return replace(before, fine_tune=as_confirmed, exit_pending=True, missed_polls=0), None
    # A fine-tune that was removed and returned may have left its status at any time.
    observed = before.since_seen and not before.removed
    seconds = max(0.0, now - before.since) if observed else None
    after = TrackedFineTune(
        read, before.sequence + 1, now, since_seen=True, removals=before.removals
    )
    return after, Transition(read, after.sequence, confirmed, time_in_status=seconds)


def _missed(before: TrackedFineTune) -> tuple[TrackedFineTune, Transition | None]:
    # A snapshot without it does not show it out of its status: the confirmation starts again.
    after = replace(before, exit_pending=False, missed_polls=before.missed_polls + 1)
    if not after.removed:
        return after, None
    after = replace(after, removals=before.removals + 1)
    fine_tune = before.fine_tune
    return after, Transition(fine_tune, before.sequence, fine_tune.status, after.removals)


def newly_stuck(
    tracked: Tracked, snapshot: Snapshot, stuck_after: float
) -> dict[str, TrackedFineTune]:
    """Return the listed fine-tunes that became stuck, marked as such, by id.

    They were observed in ``created`` or ``training`` for more than ``stuck_after`` seconds, and
    have no stuck event yet for this time in the status. ``tracked`` is the state after the diff.
    """
    found: dict[str, TrackedFineTune] = {}
    for fine_tune_id in snapshot.fine_tunes:
        each = tracked[fine_tune_id]
        if each.fine_tune.status not in _TRANSIENT or each.stuck:
            continue
        if snapshot.read_at - each.since > stuck_after:
            found[fine_tune_id] = replace(each, stuck=True)
    return found


def after_clock_jump(tracked: Tracked, snapshot: Snapshot) -> dict[str, TrackedFineTune]:
    """Return the fine-tunes whose ``since`` a jump of the wall clock changes, by id.

    A transient status moves with the clock: its age stays the same. It never begins in the future:
    one stored before a wrong clock was corrected would take years to become stuck. A terminal
    status keeps its time, because it lasts while the machine sleeps; its duration is not observed.
    """
    if not snapshot.clock_jump:
        return {}
    return {
        fine_tune_id: _after_clock_jump(each, snapshot)
        for fine_tune_id, each in tracked.items()
        if each.since_seen or each.fine_tune.status not in TERMINAL
    }


def _after_clock_jump(before: TrackedFineTune, snapshot: Snapshot) -> TrackedFineTune:
    if before.fine_tune.status in TERMINAL:
        return replace(before, since_seen=False)
    return replace(before, since=min(before.since + snapshot.clock_jump, snapshot.read_at))
