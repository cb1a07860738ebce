"""Result of a poll: rows to store, events to queue, status to publish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from exporter.core.counters import Counters, examples
from exporter.core.diff import Tracked, after_clock_jump, baseline, diff, newly_stuck
from exporter.core.events import Event, baseline_event, stuck_event, transition_event
from exporter.core.labels import MODEL, LabelName, Labels
from exporter.core.model import FAILED, AccountKey, Snapshot, Transition
from exporter.core.view import AccountStatus, SeriesOptions, count, oldest, series

FirstRun = Literal["summary", "silent", "alert"]

Router = Callable[[Event], Sequence[str]]
"""Given an event, returns the names of the receivers to be notified."""

RoutedEvents = Sequence[tuple[Event, Sequence[str]]]
"""Events, each with the names of the receivers to be notified."""


@dataclass(frozen=True, slots=True)
class AccountState:
    """State of an account between polls and across restarts. ``tracked`` is keyed by id."""

    tracked: Tracked = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Rules:
    """Identity of an account, and how its snapshots are evaluated.

    ``stuck_after`` is in seconds. Of each of the labels ``names`` the first ``max_models`` values
    keep their name.
    """

    store_id: str
    key: AccountKey
    first_run: FirstRun
    max_models: int
    stuck_after: float
    names: tuple[LabelName, ...] = (MODEL,)


@dataclass(frozen=True, slots=True)
class PollResult:
    """Everything that follows from one complete poll; it is stored in one transaction.

    ``before`` is None at the baseline. ``changed`` are the rows to store, by id. ``transitions``
    are those that were counted. ``folded`` are labels and values counted as ``other``.
    ``recovery`` is the end of an outage; it is queued before ``events``, if the store has the
    outage. ``cursors`` are the first ids of the list's pages; None when they did not change.
    """

    account: AccountKey
    read_at: float
    before: AccountState | None
    state: AccountState
    changed: Tracked
    transitions: tuple[Transition, ...]
    events: RoutedEvents
    status: AccountStatus
    folded: frozenset[tuple[str, str]]
    recovery: RoutedEvents = ()
    cursors: Sequence[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        if self.before is None or self.recovery or self.cursors is not None:
            return False
        return not self.changed and self.state == self.before


def apply_snapshot(
    before: AccountState | None,
    snapshot: Snapshot,
    rules: Rules,
    options: SeriesOptions,
    route: Router,
) -> PollResult:
    """Return the result of ``snapshot``; ``before`` is None before the account's baseline.

    It takes about 2 µs per fine-tune, so it runs in a thread. It changes nothing: a caller that
    stops waiting for it loses nothing.
    """
    if before is None:
        first = baseline(snapshot)
        found: _Comparison = first, first, (), _first_events(snapshot, rules)
    else:
        found = _compare(before, snapshot, rules)
    tracked, changed, transitions, events = found
    fine_tunes, last = snapshot.fine_tunes.values(), before or AccountState()
    labels = last.labels.extended(fine_tunes, rules.max_models, rules.names)
    counters = last.counters.after(transitions, labels)
    state = AccountState(tracked, labels, counters)
    return PollResult(
        rules.key,
        snapshot.read_at,
        before,
        state,
        changed,
        transitions,
        tuple((event, route(event)) for event in events),
        _status(state, transitions, snapshot, rules.key.name, options),
        labels.naming(rules.names).folded(fine_tunes),
    )


_Comparison = tuple[Tracked, Tracked, tuple[Transition, ...], tuple[Event, ...]]
"""All tracked fine-tunes, those that changed, the confirmed transitions, and the events."""


def _compare(before: AccountState, snapshot: Snapshot, rules: Rules) -> _Comparison:
    moved = after_clock_jump(before.tracked, snapshot)
    tracked = _merge(before.tracked, moved)
    changed, transitions = diff(tracked, snapshot)
    tracked = _merge(tracked, changed)
    stuck = newly_stuck(tracked, snapshot, rules.stuck_after)
    source, now = (rules.store_id, rules.key), snapshot.read_at
    events = (
        *(transition_event(*source, transition, now) for transition in transitions),
        *(stuck_event(*source, each, now) for each in stuck.values()),
    )
    return _merge(tracked, stuck), {**moved, **changed, **stuck}, transitions, events


def _merge(tracked: Tracked, changed: Tracked) -> Tracked:
    return {**tracked, **changed} if changed else tracked


def _first_events(snapshot: Snapshot, rules: Rules) -> tuple[Event, ...]:
    if rules.first_run == "silent":
        return ()
    if rules.first_run == "summary":
        return (baseline_event(rules.store_id, rules.key, snapshot),)
    failed = (f for f in snapshot.fine_tunes.values() if f.status == FAILED)
    entered = (Transition(fine_tune, 1, previous_status=None) for fine_tune in failed)
    return tuple(transition_event(rules.store_id, rules.key, t, snapshot.read_at) for t in entered)


def _status(
    state: AccountState,
    transitions: Sequence[Transition],
    snapshot: Snapshot,
    account: str,
    options: SeriesOptions,
) -> AccountStatus:
    return AccountStatus(
        account,
        up=True,
        polled_at=snapshot.read_at,
        succeeded_at=snapshot.read_at,
        duration=snapshot.duration,
        pages=snapshot.pages,
        labels=state.labels,
        counts=count(snapshot.fine_tunes.values(), state.labels, options.names),
        counters=state.counters,
        options=options,
        oldest=oldest(snapshot, state.tracked),
        series=series(snapshot, state.tracked, state.labels, options.most_fine_tunes),
        examples=examples(transitions, state.labels, snapshot.read_at),
    )
