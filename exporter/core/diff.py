"""Comparison of a snapshot with the tracked fine-tunes."""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from exporter.core.model import (
    CREATED,
    FAILED,
    NONE,
    POLLS_UNTIL_REMOVED,
    TERMINAL,
    TRAINING,
    FineTune,
    Snapshot,
    TrackedFineTune,
    Transition,
    status_label,
)
from exporter.core.status import Canonical, canonical_status, confirmed_status

Tracked = Mapping[str, TrackedFineTune]
"""Tracked fine-tunes by id."""

NOTHING_TRACKED: Final[Tracked] = MappingProxyType({})

_TRANSIENT: Final = frozenset({CREATED, TRAINING})


def baseline(
    snapshot: Snapshot, tracked: Tracked = NOTHING_TRACKED, canonical: Canonical = canonical_status
) -> dict[str, TrackedFineTune]:
    """Return the rows to store after the first snapshot of an organisation; no transitions.

    ``tracked`` are the fine-tunes of the organisation that the account had before. They count as
    removed, without a removal. An id that both have continues its sequence: a repeated sequence
    would repeat the id of an earlier event, and the store drops such an event.
    """
    retired = {
        fine_tune_id: replace(each, missed_polls=POLLS_UNTIL_REMOVED, exit_pending=False)
        for fine_tune_id, each in tracked.items()
        if not each.removed
    }
    return retired | {
        fine_tune.id: _tracked(fine_tune, tracked.get(fine_tune.id), snapshot, canonical)
        for fine_tune in snapshot.fine_tunes.values()
    }


def _tracked(
    read: FineTune, before: TrackedFineTune | None, snapshot: Snapshot, canonical: Canonical
) -> TrackedFineTune:
    return TrackedFineTune(
        read,
        1 if before is None else before.sequence + 1,
        snapshot.read_at,
        since_seen=False,
        removals=0 if before is None else before.removals,
        configured_failure=_is_configured(read.status, canonical),
    )


def diff(
    tracked: Tracked, snapshot: Snapshot, canonical: Canonical = canonical_status
) -> tuple[dict[str, TrackedFineTune], tuple[Transition, ...]]:
    """Return the tracked fine-tunes that a snapshot changes, by id, and the confirmed transitions.

    Statuses are compared in their canonical form. Entering ``failed``, and any change between
    statuses that are not terminal, counts at once; a status that the configuration now counts as
    failed is entered at once, too. Leaving ``failed`` or ``completed`` for anything but ``failed``,
    and absence, count when two consecutive snapshots show it: a stale replica of the API must
    neither re-arm an alert nor report a false removal.
    """
    changed: dict[str, TrackedFineTune] = {}
    transitions: list[Transition] = []
    for before, after, transition in _compare(tracked, snapshot, canonical):
        if after != before:
            changed[after.fine_tune.id] = after
        if transition is not None:
            transitions.append(transition)
    return changed, tuple(transitions)


def _compare(
    tracked: Tracked, snapshot: Snapshot, canonical: Canonical
) -> Iterator[tuple[TrackedFineTune | None, TrackedFineTune, Transition | None]]:
    statuses = set(map(attrgetter("status"), snapshot.fine_tunes.values()))
    configured = {status for status in statuses if _is_configured(status, canonical)}
    for fine_tune in snapshot.fine_tunes.values():
        before = tracked.get(fine_tune.id)
        if before is None:
            after = replace(_tracked(fine_tune, None, snapshot, canonical), since_seen=True)
            label = status_label(canonical(fine_tune.status))
            yield None, after, Transition(fine_tune, 1, None, NONE, label)
        elif (
            before.fine_tune != fine_tune
            or before.exit_pending
            or before.missed_polls
            or before.configured_failure != (fine_tune.status in configured)
        ):
            yield before, *_listed(before, fine_tune, snapshot.read_at, canonical)
    for fine_tune_id, before in tracked.items():
        if fine_tune_id not in snapshot.fine_tunes and not before.removed:
            yield before, *_missed(before)


def _is_configured(status: str, canonical: Canonical) -> bool:
    """Return whether a status counts as failed only because the configuration says so."""
    if status == FAILED or canonical(status) != FAILED:
        return False
    return canonical_status(status) != FAILED


def _listed(
    before: TrackedFineTune, read: FineTune, now: float, canonical: Canonical
) -> tuple[TrackedFineTune, Transition | None]:
    if before.removed:
        # Its time away is not time in a status: what is observed begins with its return.
        before = replace(before, since=now, since_seen=False, returned=True)
    confirmed, status = confirmed_status(before), canonical(read.status)
    kept = replace(before, exit_pending=False, missed_polls=0)
    configured = _is_configured(read.status, canonical)
    if status == confirmed:
        return replace(kept, fine_tune=read, configured_failure=configured, returned=False), None
    if confirmed in TERMINAL and status != FAILED and not before.exit_pending:
        as_confirmed = replace(read, status=before.fine_tune.status)
        return replace(kept, fine_tune=as_confirmed, exit_pending=True), None
    after = TrackedFineTune(
        read,
        before.sequence + 1,
        now,
        since_seen=not before.returned,
        removals=before.removals,
        configured_failure=configured,
    )
    transition = Transition(
        read,
        after.sequence,
        before.fine_tune.status,
        status_label(confirmed),
        status_label(status),
        time_in_status=max(0.0, now - before.since) if before.since_seen else None,
    )
    return after, transition


def _missed(before: TrackedFineTune) -> tuple[TrackedFineTune, Transition | None]:
    # A snapshot without it does not show it out of its status: the confirmation starts again.
    after = replace(before, exit_pending=False, missed_polls=before.missed_polls + 1)
    if not after.removed:
        return after, None
    after = replace(after, removals=before.removals + 1)
    fine_tune, label = before.fine_tune, status_label(confirmed_status(before))
    status = fine_tune.status
    return after, Transition(fine_tune, before.sequence, status, label, label, after.removals)


def newly_stuck(
    tracked: Tracked,
    snapshot: Snapshot,
    stuck_after: float,
    canonical: Canonical = canonical_status,
) -> dict[str, TrackedFineTune]:
    """Return the listed fine-tunes that became stuck, marked as such, by id.

    They were observed in ``created`` or ``training`` for more than ``stuck_after`` seconds, and
    have no stuck event yet for this time in the status. ``tracked`` is the state after the diff.
    """
    found: dict[str, TrackedFineTune] = {}
    for fine_tune_id in snapshot.fine_tunes:
        each = tracked[fine_tune_id]
        if each.stuck or canonical(each.fine_tune.status) not in _TRANSIENT:
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
        if each.since_seen or confirmed_status(each) not in TERMINAL
    }


def _after_clock_jump(before: TrackedFineTune, snapshot: Snapshot) -> TrackedFineTune:
    if confirmed_status(before) in TERMINAL:
        return replace(before, since_seen=False)
    return replace(before, since=min(before.since + snapshot.clock_jump, snapshot.read_at))
