"""All that a complete reading leads to: what is to be stored, who is to be told, what is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.core.account import AccountState, Rules, Step, advance
from exporter.core.model import Event, Snapshot
from exporter.core.tallies import examples
from exporter.core.view import AccountView, Shape, count, oldest, series

Route = Callable[[Event], Sequence[str]]
"""Given an event, returns the names of the receivers that are to be told."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """The step to the new state, its events with the receivers to be told, and what is shown.

    ``folded`` are label and value of what has no name of its own, to be counted when it is new.
    """

    step: Step
    owed: tuple[tuple[Event, Sequence[str]], ...]
    view: AccountView
    folded: frozenset[tuple[str, str]]


def consequences(
    state: AccountState | None, snapshot: Snapshot, rules: Rules, shape: Shape, route: Route
) -> Consequences:
    """Return what ``snapshot`` leads to; ``state`` is None before the account's baseline.

    It takes some 2 µs for each fine-tune, so it is for a thread; who gives up waiting has lost
    nothing, for nothing is changed here.
    """
    step = advance(state, snapshot, rules)
    owed = tuple((event, route(event)) for event in step.events)
    folded = step.state.labels.naming(rules.names).folded(snapshot.fine_tunes.values())
    return Consequences(step, owed, _view(step, snapshot, rules.key.name, shape), folded)


def _view(step: Step, snapshot: Snapshot, account: str, shape: Shape) -> AccountView:
    labels, known = step.state.labels, step.state.known
    return AccountView(
        account,
        up=True,
        polled_at=snapshot.read_at,
        succeeded_at=snapshot.read_at,
        duration=snapshot.duration,
        pages=snapshot.pages,
        labels=labels,
        counts=count(snapshot.fine_tunes.values(), labels, shape.names),
        tallies=step.state.tallies,
        shape=shape,
        oldest=oldest(snapshot, known),
        series=series(snapshot, known, labels, shape.most_fine_tunes),
        examples=examples(step.transitions, labels, snapshot.read_at),
    )
