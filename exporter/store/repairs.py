"""What a person does about deliveries, also beside a running agent: try again, give up, hand on."""

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
from exporter.store.queries import UNSETTLED, Selection, carried, newest_entries
from exporter.store.schema import deliveries, messages

_RECEIVER: Final[BindParameter[str]] = bindparam("of_receiver")
_ENTRY: Final[BindParameter[str]] = bindparam("of_entry")
_OPEN: Final = (PENDING, DEAD)


@dataclass(frozen=True, slots=True)
class Reassigned:
    """How many events are owed to the other receiver now, and how many were its own already."""

    moved: int
    discarded: int


def retry(database: Database, selection: Selection, now: float) -> Mapping[str, int]:
    """Have what is pending or dead tried at once; return how many entries of which receivers.

    They keep their ids and bytes; only what could never be rendered is rendered again. What was
    dead is owed since ``now`` (Unix seconds): it would be too old again otherwise. Raises
    UnknownIdError, StoreError.
    """
    with database.write() as connection:
        chosen = _chosen(connection, selection, _OPEN)
        again = {"state": PENDING, "owed_since": now, "settled_at": None}
        _update_deliveries(connection, chosen, (DEAD,), again)
        minimal = case((messages.c.body == b"", False), else_=messages.c.minimal)
        _update_messages(connection, chosen, {"state": PENDING, "minimal": minimal})
        counts = _counted(chosen)
        for receiver in counts:
            request_retry(connection, receiver)
        return counts


def discard(database: Database, selection: Selection, now: float) -> Mapping[str, int]:
    """Give up what is pending or dead, for good; return how many entries of which receivers.

    It stays in the store. What is in flight may arrive all the same, and is delivered then. Raises
    UnknownIdError, StoreError.
    """
    with database.write() as connection:
        chosen = _chosen(connection, selection, UNSETTLED)
        _update_deliveries(connection, chosen, _OPEN, {"state": DISCARDED, "settled_at": now})
        _update_messages(connection, chosen, {"state": DISCARDED})
        return _counted(chosen)


def reassign(database: Database, source: str, target: str, now: float) -> Reassigned:
    """Make what is pending or dead for ``source`` owed to ``target``, since ``now`` (Unix seconds).

    It goes in new messages. An event that ``target`` was to be told anyway is not told it twice.
    A message that is in flight meanwhile may arrive at both. Raises StoreError.
    """
    theirs = select(deliveries.c.event).where(deliveries.c.receiver == target)
    owed = and_(deliveries.c.receiver == source, deliveries.c.state.in_(_OPEN))
    with database.write() as connection:
        discarded = connection.execute(
            update(deliveries)
            .where(owed, deliveries.c.event.in_(theirs))
            .values(state=DISCARDED, settled_at=now)
        )
        moved = connection.execute(
            update(deliveries)
            .where(owed)
            .values(receiver=target, state=PENDING, owed_since=now, message=None, settled_at=None)
        )
        _drop_empty(connection, source, target)
        request_retry(connection, target)
        return Reassigned(moved.rowcount, discarded.rowcount)


def _drop_empty(connection: Connection, source: str, target: str) -> None:
    """Delete the messages that carry nothing now, and settle those of what was discarded.

    An empty one of ``target`` would bar the way of a new one with the same id.
    """
    carries = select(deliveries.c.event).where(
        deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
    )
    connection.execute(
        delete(messages).where(messages.c.receiver.in_((source, target)), ~carries.exists())
    )
    connection.execute(
        update(messages)
        .where(messages.c.receiver == source, messages.c.state.in_(_OPEN))
        .values(state=DISCARDED)
    )


def _chosen(
    connection: Connection, selection: Selection, allowed: tuple[str, ...]
) -> list[dict[str, str]]:
    states = tuple(state for state in selection.states if state in allowed)
    found, _ = newest_entries(connection, replace(selection, states=states), -1)
    return [{_RECEIVER.key: entry.receiver, _ENTRY.key: entry.id} for entry in found]


def _counted(chosen: list[dict[str, str]]) -> Mapping[str, int]:
    return dict(sorted(Counter(each[_RECEIVER.key] for each in chosen).items()))


def _update_deliveries(
    connection: Connection,
    chosen: list[dict[str, str]],
    states: tuple[str, ...],
    values: dict[str, Any],
) -> None:
    if chosen:
        here = and_(carried(_RECEIVER, _ENTRY), _in(deliveries.c.state, states))
        connection.execute(update(deliveries).where(here).values(**values), chosen)


def _update_messages(
    connection: Connection, chosen: list[dict[str, str]], values: dict[str, Any]
) -> None:
    if chosen:
        here = and_(
            messages.c.receiver == _RECEIVER,
            messages.c.id == _ENTRY,
            _in(messages.c.state, _OPEN),
        )
        connection.execute(update(messages).where(here).values(**values), chosen)


def _in(column: ColumnElement[str], states: tuple[str, ...]) -> ColumnElement[bool]:
    # Not in_(): SQLAlchemy cannot run that for many rows at once.
    return or_(*(column == state for state in states))
