"""Result of a poll: rows to store, events to queue, status to publish."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from exporter.core.counters import Counters, examples
from exporter.core.diff import Tracked, after_clock_jump, baseline, diff, newly_stuck
from exporter.core.events import (
    Event,
    baseline_event,
    recovered_event,
    stuck_event,
    transition_event,
    transition_type,
    unknown_status_event,
)
from exporter.core.facts import baseline_facts, retired_facts, unknown_status_facts
from exporter.core.labels import MODEL, LabelName, Labels
from exporter.core.model import (
    FAILED,
    NONE,
    UNKNOWN,
    AccountKey,
    Snapshot,
    Transition,
    status_label,
)
from exporter.core.status import Canonical, CanonicalStatuses
from exporter.core.view import AccountStatus, SeriesOptions, count, oldest, series

FirstRun = Literal["summary", "silent", "alert"]

Router = Callable[[Event], Sequence[str]]
"""Given an event, returns the names of the receivers to be notified."""

RoutedEvents = Sequence[tuple[Event, Sequence[str]]]
"""Events, each with the names of the receivers to be notified."""

ListKind = Literal["baseline", "known", "undecided"]
"""How a list is compared: not at all, because it is an organisation's first; with the tracked
fine-tunes; or not yet, because it is empty and the next poll must find it empty again."""

MAX_UNKNOWN_STATUSES: Final = 20
"""Unknown statuses that are reported per account: an API could invent one per fine-tune."""


class AccountState(Struct, frozen=True):
    """State of an account between polls and across restarts.

    ``tracked`` is keyed by id. A removed fine-tune may be left out until a snapshot lists it.

    ``key_fingerprint`` identifies the API key that read the account last. ``baselines`` counts the
    baselines: one for each organisation that the account's key belonged to. ``unknown_statuses``
    are the canonical statuses that were reported as unknown.
    """

    tracked: Tracked = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    counters: Counters = field(default_factory=Counters)
    key_fingerprint: str = ""
    baselines: int = 1
    unknown_statuses: tuple[str, ...] = ()

    def without_removed(self) -> "AccountState":
        """Return the state without removed fine-tunes, whose number grows without a bound."""
        listed = {key: each for key, each in self.tracked.items() if not each.removed}
        return self if len(listed) == len(self.tracked) else replace(self, tracked=listed)

    def untracked(self, snapshot: Snapshot) -> list[str]:
        """Return the ids of a snapshot that are not tracked: new ones, and those that returned."""
        return [key for key in snapshot.fine_tunes if key not in self.tracked]


class Rules(Struct, frozen=True):
    """Identity of an account, and how its snapshots are evaluated.

    ``stuck_after`` is in seconds. Of each of the labels ``names`` the first ``max_models`` values
    keep their name. The canonical ``failed_statuses`` count as ``failed``.
    """

    store_id: str
    key: AccountKey
    first_run: FirstRun
    max_models: int
    stuck_after: float
    names: tuple[LabelName, ...] = (MODEL,)
    failed_statuses: frozenset[str] = frozenset()


class PollResult(Struct, frozen=True):
    """Everything that follows from one complete poll; it is stored in one transaction.

    ``before`` is None at the account's first baseline. ``changed`` are the rows to store, by id.
    ``transitions`` are those that were counted. ``folded`` are labels and values counted as
    ``other``. ``kind`` is how the list was compared. ``recovery`` is the end of an outage; it is
    queued before ``events``, if the store has the outage. ``cursors`` are the first ids of the
    list's pages; None when they did not change.
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
    kind: ListKind = "known"
    recovery: RoutedEvents = ()
    cursors: Sequence[str] | None = None

    @property
    def changes(self) -> Mapping[str, int] | None:
        """Numbers of fine-tunes that failed, completed, were created, or are not listed any more.

        None if the list was not compared with an earlier one.
        """
        if self.before is None or self.kind != "known":
            return None
        numbers = Counter(map(transition_type, self.transitions))
        tracked = self.before.tracked
        removed = sum(
            each.missed_polls > tracked[key].missed_polls
            for key, each in self.changed.items()
            if key in tracked
        )
        return {
            "failed": numbers["fine_tune.failed"],
            "completed": numbers["fine_tune.completed"],
            "created": numbers["fine_tune.created"],
            "removed": removed,
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        if self.kind == "undecided":
            return not self.recovery
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
    """Return the result of ``snapshot``; ``before`` is None before the account's first baseline.

    It takes about 2 µs per fine-tune, so it runs in a thread. It changes nothing: a caller that
    stops waiting for it loses nothing.
    """
    canonical = CanonicalStatuses(rules.failed_statuses).__getitem__
    last, kind = before or AccountState(baselines=0), _kind_of_list(before, snapshot)
    found: _Comparison = last.tracked, {}, (), ()
    if kind == "known":
        found = _compare(last, snapshot, rules, canonical)
    elif kind == "baseline":
        found = _baseline(last, snapshot, rules, canonical)
    tracked, changed, transitions, events = found
    reports = _unknown_statuses(last, snapshot, rules, canonical)
    fine_tunes = snapshot.fine_tunes.values()
    fingerprint = last.key_fingerprint
    if kind != "undecided":
        fingerprint = snapshot.key_fingerprint or fingerprint
    labels = last.labels.extended(fine_tunes, rules.max_models, rules.names)
    state = AccountState(
        tracked,
        labels,
        last.counters.after(transitions, labels),
        fingerprint,
        last.baselines + (kind == "baseline"),
        (*last.unknown_statuses, *reports),
    )
    return PollResult(
        rules.key,
        snapshot.read_at,
        before,
        state,
        changed,
        transitions,
        tuple((event, route(event)) for event in (*events, *reports.values())),
        replace(
            _status(state, snapshot, rules, options, canonical),
            examples=examples(transitions, labels, snapshot.read_at),
        ),
        labels.naming(rules.names).folded(fine_tunes),
        kind,
    )


def _kind_of_list(before: AccountState | None, snapshot: Snapshot) -> ListKind:
    """Return how a list is compared.

    A list that another API key read, and that has none of the tracked fine-tunes, is the list of
    another organisation. While none is tracked, those that were removed identify the organisation.
    """
    empty = not snapshot.fine_tunes
    if before is None:
        return "baseline" if snapshot.confirmed else "undecided"
    if not _key_changed(before, snapshot):
        return "known"
    if empty and not snapshot.confirmed:
        return "undecided"
    present = [key for key, each in before.tracked.items() if not each.removed]
    if empty and not present:
        return "known"
    shared = any(fine_tune_id in snapshot.fine_tunes for fine_tune_id in present or before.tracked)
    return "known" if shared else "baseline"


def _key_changed(before: AccountState, snapshot: Snapshot) -> bool:
    known = before.key_fingerprint and snapshot.key_fingerprint
    return bool(known) and before.key_fingerprint != snapshot.key_fingerprint


_Comparison = tuple[Tracked, Tracked, tuple[Transition, ...], tuple[Event, ...]]
"""All tracked fine-tunes, those that changed, the confirmed transitions, and the events."""


def _compare(
    before: AccountState, snapshot: Snapshot, rules: Rules, canonical: Canonical
) -> _Comparison:
    moved = after_clock_jump(before.tracked, snapshot)
    tracked = _merge(before.tracked, moved)
    changed, transitions = diff(tracked, snapshot, canonical)
    tracked = _merge(tracked, changed)
    stuck = newly_stuck(tracked, snapshot, rules.stuck_after, canonical)
    source, now = (rules.store_id, rules.key), snapshot.read_at
    events = (
        *(transition_event(*source, transition, now) for transition in transitions),
        *filter(None, (recovered_event(*source, each, now) for each in transitions)),
        *(stuck_event(*source, each, now) for each in stuck.values()),
    )
    return _merge(tracked, stuck), {**moved, **changed, **stuck}, transitions, events


def _merge(tracked: Tracked, changed: Tracked) -> Tracked:
    return {**tracked, **changed} if changed else tracked


def _baseline(
    before: AccountState, snapshot: Snapshot, rules: Rules, canonical: Canonical
) -> _Comparison:
    changed = baseline(snapshot, before.tracked, canonical)
    tracked = _merge(before.tracked, changed)
    source, now = (rules.store_id, rules.key), snapshot.read_at
    events: tuple[Event, ...] = ()
    if rules.first_run == "summary":
        facts = baseline_facts(snapshot, rules.key.name, canonical)
        if before.baselines:
            retired = sum(not each.removed for each in before.tracked.values())
            facts |= retired_facts(retired)
        events = (baseline_event(*source, facts, before.baselines + 1, now),)
    elif rules.first_run == "alert":
        listed = (tracked[fine_tune_id] for fine_tune_id in snapshot.fine_tunes)
        entered = (
            Transition(each.fine_tune, each.sequence, None, NONE, FAILED)
            for each in listed
            if canonical(each.fine_tune.status) == FAILED
        )
        events = tuple(transition_event(*source, transition, now) for transition in entered)
    return tracked, changed, (), events


def _unknown_statuses(
    before: AccountState, snapshot: Snapshot, rules: Rules, canonical: Canonical
) -> Mapping[str, Event]:
    """Return the events of unknown statuses that were not reported yet, by canonical status."""
    numbers: Counter[str] = Counter()
    for text, number in Counter(map(attrgetter("status"), snapshot.fine_tunes.values())).items():
        status = canonical(text)
        if status_label(status) == UNKNOWN and status not in before.unknown_statuses:
            numbers[status] += number
    room = max(MAX_UNKNOWN_STATUSES - len(before.unknown_statuses), 0)
    source, now = (rules.store_id, rules.key), snapshot.read_at
    return {
        status: unknown_status_event(
            *source, status, unknown_status_facts(status, numbers[status], last=place == room), now
        )
        for place, status in enumerate(sorted(numbers)[:room], 1)
    }


def _status(
    state: AccountState,
    snapshot: Snapshot,
    rules: Rules,
    options: SeriesOptions,
    canonical: Canonical,
) -> AccountStatus:
    fine_tunes, tracked, most = snapshot.fine_tunes.values(), state.tracked, options.most_fine_tunes
    return AccountStatus(
        rules.key.name,
        up=True,
        polled_at=snapshot.read_at,
        succeeded_at=snapshot.read_at,
        duration=snapshot.duration,
        pages=snapshot.pages,
        labels=state.labels,
        counts=count(fine_tunes, state.labels, options.names, canonical),
        counters=state.counters,
        options=options,
        oldest=oldest(snapshot, tracked, canonical),
        series=series(snapshot, tracked, state.labels, most, canonical),
    )
