"""Changes to deliveries on request: retry, discard, reassign; also beside a running agent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    or_,
    select,
    update,
)

from exporter.store.database import Database
from exporter.store.events import DEAD, DISCARDED, PENDING
from exporter.store.outbox import request_retry
from exporter.store.queries import UNSETTLED, DeliveryFilter, belongs_to, find_deliveries
from exporter.store.schema import deliveries, messages

_RECEIVER: Final[BindParameter[str]] = bindparam("of_receiver", type_=deliveries.c.receiver.type)
_ID: Final[BindParameter[str]] = bindparam("of_id", type_=messages.c.id.type)
_UNFINISHED: Final = (PENDING, DEAD)


@dataclass(frozen=True, slots=True)
class ReassignCounts:
    """Number of events queued for the other receiver, and of those it already had."""

    moved: int
    discarded: int


def retry(database: Database, criteria: DeliveryFilter, now: float) -> Mapping[str, int]:
    """Let the agent attempt pending and dead deliveries at once; return their number by receiver.

    Ids and bodies stay; only an empty body, which could not be rendered, is rendered again. A dead
    delivery counts as queued at ``now`` (Unix seconds), so that it does not expire again. Raises
    UnknownIdError, StoreError.
    """
    with database.write() as connection:
        chosen = _choose(connection, criteria, _UNFINISHED)
        values = {"state": PENDING, "queued_at": now, "settled_at": None}
        _update_deliveries(connection, chosen, (DEAD,), values)
        minimal = case((messages.c.body == b"", False), else_=messages.c.minimal)
        _update_messages(connection, chosen, {"state": PENDING, "minimal": minimal})
        counts = _count_by_receiver(chosen)
        for receiver in counts:
            request_retry(connection, receiver)
        return counts


def discard(database: Database, criteria: DeliveryFilter, now: float) -> Mapping[str, int]:
    """Discard pending and dead deliveries; return their number by receiver.

    They stay in the store. An attempt in flight may succeed nevertheless: its delivery becomes
    delivered. Raises UnknownIdError, StoreError.
    """
    with database.write() as connection:
        chosen = _choose(connection, criteria, UNSETTLED)
        values = {"state": DISCARDED, "settled_at": now}
        _update_deliveries(connection, chosen, _UNFINISHED, values)
        _update_messages(connection, chosen, {"state": DISCARDED})
        return _count_by_receiver(chosen)


def reassign(database: Database, source: str, target: str, now: float) -> ReassignCounts:
    """Move the pending and dead deliveries of ``source`` to ``target``, queued at ``now``.

    They go out in new messages. Events for which ``target`` has a delivery are discarded instead.
    A message in flight meanwhile may reach both receivers. ``now`` is Unix seconds. Raises
    StoreError.
    """
    of_target = select(deliveries.c.event).where(deliveries.c.receiver == target)
    unfinished = and_(deliveries.c.receiver == source, deliveries.c.state.in_(_UNFINISHED))
    with database.write() as connection:
        discarded = connection.execute(
            update(deliveries)
            .where(unfinished, deliveries.c.event.in_(of_target))
            .values(state=DISCARDED, settled_at=now)
        )
        moved = connection.execute(
            update(deliveries)
            .where(unfinished)
            .values(receiver=target, state=PENDING, queued_at=now, message=None, settled_at=None)
        )
        _settle_messages(connection, source, target)
        request_retry(connection, target)
        return ReassignCounts(moved.rowcount, discarded.rowcount)


def _settle_messages(connection: Connection, source: str, target: str) -> None:
    """Delete messages without deliveries and mark the other open ones of ``source`` as discarded.

    An empty message of ``target`` would block a new one with the same id.
    """
    carried = select(deliveries.c.event).where(
        deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
    )
    connection.execute(
        delete(messages).where(messages.c.receiver.in_((source, target)), ~carried.exists())
    )
    connection.execute(
        update(messages)
        .where(messages.c.receiver == source, messages.c.state.in_(_UNFINISHED))
        .values(state=DISCARDED)
    )


def _choose(
    connection: Connection, criteria: DeliveryFilter, allowed: tuple[str, ...]
) -> list[dict[str, str]]:
    """Return receiver and id of the matching deliveries in the allowed states, as parameters."""
    states = tuple(state for state in criteria.states if state in allowed)
    found, _ = find_deliveries(connection, replace(criteria, states=states))
    return [{_RECEIVER.key: each.receiver, _ID.key: each.id} for each in found]


def _count_by_receiver(chosen: list[dict[str, str]]) -> Mapping[str, int]:
    return dict(sorted(Counter(each[_RECEIVER.key] for each in chosen).items()))


def _update_deliveries(
    connection: Connection,
    chosen: list[dict[str, str]],
    states: tuple[str, ...],
    values: dict[str, Any],
) -> None:
    if chosen:
        condition = and_(belongs_to(_RECEIVER, _ID), _is_any(deliveries.c.state, states))
        connection.execute(update(deliveries).where(condition).values(**values), chosen)


def _update_messages(
    connection: Connection, chosen: list[dict[str, str]], values: dict[str, Any]
) -> None:
    if chosen:
        condition = and_(
            messages.c.receiver == _RECEIVER,
            messages.c.id == _ID,
            _is_any(messages.c.state, _UNFINISHED),
        )
        connection.execute(update(messages).where(condition).values(**values), chosen)


def _is_any(column: ColumnElement[str], states: tuple[str, ...]) -> ColumnElement[bool]:
    # SQLAlchemy cannot execute in_() for many sets of parameters at once.
    return or_(*(column == state for state in states))
