"""Changes to deliveries on request: retry, discard, reassign; also beside a running agent."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Update, and_, bindparam, case, delete, or_, select, update

from exporter.store.awake import read_awake
from exporter.store.database import Database
from exporter.store.events import DEAD, DISCARDED, PENDING, UNFINISHED
from exporter.store.queries import UNSETTLED, DeliveryFilter, belongs_to, find_deliveries
from exporter.store.receiver_outbox import lock_receivers, request_retry
from exporter.store.schema import CARRIES_NOTHING, deliveries, messages

_QUEUED: Final = (PENDING, DEAD)
"""States of messages, and of the deliveries that a retry concerns."""

# The delivery and the message of one set of parameters. SQLAlchemy cannot execute in_() for many.
_RECEIVER: Final = bindparam("of_receiver", type_=deliveries.c.receiver.type)
_ID: Final = bindparam("of_id", type_=messages.c.id.type)
_DELIVERY: Final = belongs_to(_RECEIVER, _ID)
_UNFINISHED_MESSAGE: Final = and_(
    messages.c.receiver == _RECEIVER,
    messages.c.id == _ID,
    or_(*(messages.c.state == state for state in _QUEUED)),
)


class ReassignCounts(Struct, frozen=True):
    """Number of events queued for the other receiver, and of those it has already."""

    moved: int
    discarded: int


def retry(database: Database, criteria: DeliveryFilter, now: float) -> Mapping[str, int]:
    """Let the agent attempt pending and dead deliveries at once; return their number by receiver.

    Ids and bodies stay; only an empty body, which could not be rendered, is rendered again. A dead
    delivery counts as queued at ``now`` (Unix seconds), so that it does not expire again. The group
    interval of the receivers ends, so that nothing is held back. Raises UnknownIdError, StoreError.
    """
    minimal = case((messages.c.body == b"", False), else_=messages.c.minimal)
    with database.write() as connection:
        lock_receivers(connection)
        queued = {"queued_at": now, "due_awake": read_awake(connection)}
        counts = _update(
            connection,
            criteria,
            _QUEUED,
            update(deliveries)
            .where(_DELIVERY, deliveries.c.state == DEAD)
            .values(state=PENDING, settled_at=None, settled_awake=None, **queued),
            update(messages).where(_UNFINISHED_MESSAGE).values(state=PENDING, minimal=minimal),
        )
        for receiver in counts:
            request_retry(connection, receiver)
        return counts


def discard(
    database: Database, criteria: DeliveryFilter, now: float, by: str = "command"
) -> Mapping[str, int]:
    """Discard pending, muted and dead deliveries; return their number by receiver.

    They stay in the store, with the name ``by`` of who discarded them. An attempt in flight may
    succeed nevertheless: its delivery becomes delivered. Raises UnknownIdError, StoreError.
    """
    unfinished = or_(*(deliveries.c.state == state for state in UNFINISHED))
    with database.write() as connection:
        lock_receivers(connection)
        settled = {"settled_at": now, "settled_awake": read_awake(connection), "settled_by": by}
        return _update(
            connection,
            criteria,
            UNSETTLED,
            update(deliveries).where(_DELIVERY, unfinished).values(state=DISCARDED, **settled),
            update(messages).where(_UNFINISHED_MESSAGE).values(state=DISCARDED),
        )


def reassign(database: Database, source: str, target: str, now: float) -> ReassignCounts:
    """Move the unfinished deliveries of ``source`` to ``target``, queued at ``now``.

    They go out in new messages; a muted one becomes pending, and is muted again if ``target`` can
    be muted. Where ``target`` has the same event, pending, muted, dead or delivered, that of
    ``source`` is discarded instead. A discarded one of ``target`` is replaced: otherwise the event
    would be discarded for both. A message in flight meanwhile may reach both receivers. ``now`` is
    Unix seconds. Raises StoreError.
    """
    unfinished = and_(deliveries.c.receiver == source, deliveries.c.state.in_(UNFINISHED))
    replaced = and_(deliveries.c.receiver == target, deliveries.c.state == DISCARDED)
    of_source = select(deliveries.c.event).where(unfinished)
    of_target = select(deliveries.c.event).where(deliveries.c.receiver == target)
    with database.write() as connection:
        request_retry(connection, target)
        lock_receivers(connection)
        awake = read_awake(connection)
        connection.execute(delete(deliveries).where(replaced, deliveries.c.event.in_(of_source)))
        discarded = connection.execute(
            update(deliveries)
            .where(unfinished, deliveries.c.event.in_(of_target))
            .values(state=DISCARDED, settled_at=now, settled_awake=awake, settled_by="reassign")
        )
        moved = connection.execute(
            update(deliveries)
            .where(unfinished)
            .values(
                receiver=target,
                state=PENDING,
                queued_at=now,
                due_awake=awake,
                message=None,
                mute=None,
                settled_at=None,
                settled_awake=None,
            )
        )
        # An empty message of ``target`` would block a new one with the same id.
        connection.execute(
            delete(messages).where(messages.c.receiver.in_((source, target)), CARRIES_NOTHING)
        )
        connection.execute(
            update(messages)
            .where(messages.c.receiver == source, messages.c.state.in_(_QUEUED))
            .values(state=DISCARDED)
        )
        return ReassignCounts(moved.rowcount, discarded.rowcount)


def _update(
    connection: Connection, criteria: DeliveryFilter, allowed: tuple[str, ...], *statements: Update
) -> Mapping[str, int]:
    """Execute the statements for each matching delivery in the allowed states.

    Returns the number of these deliveries by receiver.
    """
    states = tuple(state for state in criteria.states if state in allowed)
    found, _ = find_deliveries(connection, replace(criteria, states=states))
    chosen = [{_RECEIVER.key: each.receiver, _ID.key: each.id} for each in found]
    for statement in statements if chosen else ():
        connection.execute(statement, chosen)
    return dict(sorted(Counter(each.receiver for each in found).items()))
