"""Query of the contexts of events: what messages say beyond the events themselves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select

from exporter.core.event_context import EventContext
from exporter.core.events import Event
from exporter.core.message import failures_first
from exporter.core.model import TRAINING
from exporter.core.status import canonical_status
from exporter.store.engines import batches
from exporter.store.fine_tunes import usual_seconds
from exporter.store.overview import WEEK_SECONDS
from exporter.store.schema import accounts, events, trainings

_MOST_EVENTS: Final = 1_000
"""Events of a message that have a context; a chat names far fewer, a webhook gets at most 100."""

_MOST_MODELS: Final = 50
"""Models of a message whose usual training time is read, by a query each."""

_Key = tuple[str, str]  # the name of an account, and the id of a fine-tune or a dataset


def event_contexts(
    connection: Connection, reported: Sequence[Event], last_number: int
) -> dict[str, EventContext]:
    """Return the contexts of the events of one message, by id; those about the agent have none.

    ``last_number`` is the highest number of an event in the message: later failures of a dataset
    are not counted. A thousand events of a few models take about ten queries.
    """
    chosen = [each for each in failures_first(reported) if each.fine_tune is not None]
    chosen = chosen[:_MOST_EVENTS]
    if not chosen:
        return {}
    trained = _trained_seconds(connection, chosen)
    usual = _usual_seconds(connection, chosen)
    failures = _dataset_failures(connection, chosen, last_number)
    return {
        event.id: EventContext(
            trained.get(event.id),
            usual.get(event.fine_tune.model_id),
            failures[event.account, event.fine_tune.dataset] if event.fine_tune.dataset else None,
        )
        for event in chosen
        if event.fine_tune is not None
    }


def _trained_seconds(connection: Connection, chosen: Sequence[Event]) -> Mapping[str, float]:
    """Return the lengths of the trainings that ended with an event, or that are stuck."""
    found: dict[str, float] = {}
    ends: dict[tuple[str, str, float], str] = {}
    for event in chosen:
        stuck = event.facts.get("seconds")
        if event.type != "fine_tune.stuck":
            # A training is stored with the time of the poll that saw its end, as the event is.
            ends[event.account, event.subject, event.observed_at] = event.id
        elif (
            event.fine_tune
            and isinstance(stuck, int)
            and canonical_status(event.fine_tune.status) == TRAINING
        ):
            found[event.id] = stuck
    times = [each.observed_at for each in chosen]
    query = (
        select(accounts.c.name, trainings.c.fine_tune, trainings.c.ended_at, trainings.c.seconds)
        .join(accounts, accounts.c.number == trainings.c.account)
        .where(accounts.c.name.in_(sorted({each.account for each in chosen})))
        .where(trainings.c.ended_at.between(min(times), max(times)))
        .where(trainings.c.seconds.is_not(None))
    )
    for ids in batches(sorted({fine_tune for _, fine_tune, _ in ends})):
        for *key, seconds in connection.execute(query.where(trainings.c.fine_tune.in_(ids))):
            if (event_id := ends.get(tuple(key))) is not None:
                found[event_id] = seconds
    return found


def _usual_seconds(connection: Connection, chosen: Sequence[Event]) -> Mapping[str, float | None]:
    """Return the usual training time of the most frequent models, without what is reported."""
    models = Counter(each.fine_tune.model_id for each in chosen if each.fine_tune)
    completed: dict[str, float] = {}
    for each in chosen:
        if each.fine_tune is not None and each.type == "fine_tune.completed":
            model = each.fine_tune.model_id
            completed[model] = min(each.observed_at, completed.get(model, each.observed_at))
    return {
        model: usual_seconds(connection, model, before=completed.get(model))
        for model, _ in models.most_common(_MOST_MODELS)
    }


def _dataset_failures(
    connection: Connection, chosen: Sequence[Event], last_number: int
) -> Counter[_Key]:
    """Return the numbers of failures in the 7 days up to the last event, by account and dataset."""
    since = max(each.observed_at for each in chosen) - WEEK_SECONDS
    query: Select[Any] = (
        select(events.c.account, events.c.dataset, func.count())
        .where(events.c.type == "fine_tune.failed", events.c.number <= last_number)
        .where(events.c.observed_at >= since)
        .group_by(events.c.account, events.c.dataset)
    )
    datasets = {each.fine_tune.dataset for each in chosen if each.fine_tune}
    found: Counter[_Key] = Counter()
    for batch in batches(sorted(datasets - {""})):
        for account, dataset, number in connection.execute(
            query.where(events.c.dataset.in_(batch))
        ):
            found[account, dataset] = number
    return found
