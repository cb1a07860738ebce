"""What one more complete reading of an account leads to: new state, and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from exporter.core.diff import Diff, baseline, diff, event
from exporter.core.labels import MODEL, LabelName, Labels
from exporter.core.message import baseline_facts
from exporter.core.model import (
    FAILED,
    AccountKey,
    Event,
    Known,
    Snapshot,
    Transition,
    stable_id,
)
from exporter.core.stuck import after_jump, newly_stuck, stuck_event
from exporter.core.tallies import Tallies

FirstRun = Literal["summary", "silent", "alert"]


@dataclass(frozen=True, slots=True)
class AccountState:
    """What is remembered of an account from poll to poll, and over restarts."""

    known: Mapping[str, Known] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    tallies: Tallies = field(default_factory=Tallies)


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides the consequences of a reading: whose it is, and how it is to be taken.

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
class Step:
    """The consequences of one reading: the rows that changed, the events, the state after it.

    ``transitions`` are those that were counted.
    """

    changed: Mapping[str, Known]
    events: tuple[Event, ...]
    state: AccountState
    transitions: tuple[Transition, ...] = ()


def advance(state: AccountState | None, snapshot: Snapshot, rules: Rules) -> Step:
    """Return what ``snapshot`` leads to; ``state`` is None before the account's baseline."""
    if state is None:
        found = baseline(snapshot)
        return _step(AccountState(found.changed), snapshot, rules, found, _first(snapshot, rules))
    moved = after_jump(state.known, snapshot)
    known = _with(state.known, moved)
    found = diff(known, snapshot)
    known = _with(known, found.changed)
    stuck = newly_stuck(known, snapshot, rules.stuck_after)
    identity = (rules.store_id, rules.key)
    events = (
        *(event(*identity, transition, snapshot.read_at) for transition in found.transitions),
        *(stuck_event(*identity, each, snapshot.read_at) for each in stuck.values()),
    )
    after = replace(state, known=_with(known, stuck))
    changed = {**moved, **found.changed, **stuck}
    return _step(after, snapshot, rules, Diff(changed, found.transitions), events)


def _step(
    state: AccountState, snapshot: Snapshot, rules: Rules, found: Diff, events: tuple[Event, ...]
) -> Step:
    """Return the step to a state that knows what was found, but has counted nothing of it yet."""
    fine_tunes = snapshot.fine_tunes.values()
    labels = state.labels.seeing(fine_tunes, rules.max_models, rules.names)
    tallies = state.tallies.adding(found.transitions, labels)
    after = AccountState(state.known, labels, tallies)
    return Step(found.changed, events, after, found.transitions)


def _with(known: Mapping[str, Known], changed: Mapping[str, Known]) -> Mapping[str, Known]:
    return {**known, **changed} if changed else known


def _first(snapshot: Snapshot, rules: Rules) -> tuple[Event, ...]:
    if rules.first_run == "silent":
        return ()
    if rules.first_run == "alert":
        failed = (f for f in snapshot.fine_tunes.values() if f.status == FAILED)
        found = (Transition(fine_tune, 1, previous_status=None) for fine_tune in failed)
        return tuple(event(rules.store_id, rules.key, t, snapshot.read_at) for t in found)
    identity = (rules.store_id, rules.key.name, rules.key.base_url)
    return (
        Event(
            id=stable_id("evt", *identity, "baseline"),
            type="agent.baseline",
            account=rules.key.name,
            observed_at=snapshot.read_at,
            facts=baseline_facts(snapshot),
        ),
    )
