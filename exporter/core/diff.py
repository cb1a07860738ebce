"""A snapshot against what is known: what to remember, and what happened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from exporter.core.model import (
    COMPLETED,
    FAILED,
    TERMINAL,
    AccountKey,
    Event,
    EventType,
    FineTune,
    Known,
    Snapshot,
    Transition,
    stable_id,
)


@dataclass(frozen=True, slots=True)
class Diff:
    """What one snapshot changes: rows that differ now, by id, and the confirmed transitions."""

    changed: Mapping[str, Known]
    transitions: tuple[Transition, ...]


def baseline(snapshot: Snapshot) -> Diff:
    """Return what an account's first complete reading makes known. Nothing happened yet."""
    return Diff(
        {
            fine_tune.id: Known(fine_tune, sequence=1, since=snapshot.read_at, since_seen=False)
            for fine_tune in snapshot.fine_tunes.values()
        },
        (),
    )


def diff(known: Mapping[str, Known], snapshot: Snapshot) -> Diff:
    """Compare a complete reading with what is known.

    Entering ``failed``, and any change between statuses that are not terminal, counts at once.
    Leaving ``failed`` or ``completed`` for anything but ``failed`` counts when two readings in a
    row saw it, and so does absence: a stale replica of the API must neither re-arm an alert nor
    tell a false removal.
    """
    changed: dict[str, Known] = {}
    transitions: list[Transition] = []
    for before, after, transition in _steps(known, snapshot):
        if after != before:
            changed[after.fine_tune.id] = after
        if transition is not None:
            transitions.append(transition)
    return Diff(changed, tuple(transitions))


_Step = tuple[Known | None, Known, Transition | None]


def _steps(known: Mapping[str, Known], snapshot: Snapshot) -> Iterator[_Step]:
    for fine_tune in snapshot.fine_tunes.values():
        before = known.get(fine_tune.id)
        if before is None:
            after = Known(fine_tune, sequence=1, since=snapshot.read_at, since_seen=True)
            yield None, after, Transition(fine_tune, sequence=1, previous_status=None)
        elif before.fine_tune != fine_tune or before.leaving or before.absences:
            yield before, *_seen(before, fine_tune, snapshot.read_at)
    for fine_tune_id, before in known.items():
        if fine_tune_id not in snapshot.fine_tunes and not before.removed:
            yield before, *_missed(before)


def _seen(before: Known, read: FineTune, now: float) -> tuple[Known, Transition | None]:
    confirmed = before.fine_tune.status
    if read.status == confirmed:
        return replace(before, fine_tune=read, leaving=False, absences=0), None
    unconfirmed = confirmed in TERMINAL and read.status != FAILED and not before.leaving
    if unconfirmed:
        as_confirmed = replace(read, status=confirmed)
        return replace(before, fine_tune=as_confirmed, leaving=True, absences=0), None
    after = Known(read, before.sequence + 1, now, since_seen=True, removals=before.removals)
    return after, Transition(read, after.sequence, confirmed, stayed=_stayed(before, now))


def _stayed(before: Known, now: float) -> float | None:
    # One that was removed and is back may have left its status long ago.
    seen = before.since_seen and not before.removed
    return max(0.0, now - before.since) if seen else None


def _missed(before: Known) -> tuple[Known, Transition | None]:
    # A reading that missed it did not see it out of its status: the confirmation starts again.
    after = replace(before, leaving=False, absences=before.absences + 1)
    if not after.removed:
        return after, None
    after = replace(after, removals=before.removals + 1)
    gone = Transition(
        before.fine_tune, before.sequence, before.fine_tune.status, removal=after.removals
    )
    return after, gone


def event(store_id: str, account: AccountKey, transition: Transition, now: float) -> Event:
    """Return the event of a transition observed at ``now`` (Unix seconds).

    Its id follows from the store, the account, the fine-tune, the sequence and the status (or the
    number of the removal) alone: a transition detected again after a crash is the same event.
    """
    identity = (store_id, account.name, account.base_url, transition.fine_tune.id)
    # One part more, not one text: a status may be called anything, also "removed 1".
    removal = ("removed", transition.removal)
    target = removal if transition.removed else (transition.fine_tune.status,)
    return Event(
        id=stable_id("evt", *identity, transition.sequence, *target),
        type=event_type(transition),
        account=account.name,
        observed_at=now,
        fine_tune=transition.fine_tune,
        previous_status=transition.previous_status,
    )


def event_type(transition: Transition) -> EventType:
    """Return which kind of event a transition is; ``changed`` is what no receiver asks for."""
    if transition.removed:
        return "fine_tune.removed"
    if transition.fine_tune.status == FAILED:
        return "fine_tune.failed"
    if transition.fine_tune.status == COMPLETED:
        return "fine_tune.completed"
    if transition.previous_status is None:
        return "fine_tune.created"
    return "fine_tune.changed"
