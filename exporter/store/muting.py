"""Application of mutes to the deliveries of one receiver."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from msgspec import Struct
from sqlalchemy import BindParameter, Connection, Row, and_, bindparam, or_, select, update

from exporter.core.events import TROUBLES
from exporter.core.grouping import QueuedEvent
from exporter.core.match import AccountLabels
from exporter.core.mutes import Mute
from exporter.store.events import DISCARDED, MUTED, PENDING, event_of, later_end
from exporter.store.mutes import load_mutes
from exporter.store.schema import deliveries, events, mutes


class MuteChanges(Struct, frozen=True):
    """What the mutes change for a receiver at one moment.

    ``ended`` are the mutes that are over but not marked as such, with what ended them;
    ``until_awake`` are the ends of those that are seen for the first time; both by number. Events
    are given by number: ``muted`` with the number of the mute that covers them, ``settled`` with
    the id of the mute that held them. ``released`` are the events to send, by the mute that held
    them. The first of the mutes that are active ends in ``first_end`` seconds.
    """

    ended: Mapping[int, str]
    until_awake: Mapping[int, float]
    muted: Mapping[int, int]
    settled: Mapping[int, str]
    released: Sequence[tuple[Mute, Sequence[QueuedEvent]]]
    first_end: float

    @property
    def must_be_stored(self) -> bool:
        """Whether there is something to write; released events are stored with their message."""
        return bool(self.ended or self.until_awake or self.muted or self.settled)


def find_changes(
    connection: Connection, receiver: str, labels: AccountLabels, now: float, awake: float
) -> MuteChanges:
    """Return what the mutes change for a receiver at ``now`` (Unix seconds).

    ``awake`` is the same on the awake clock, in seconds. Events of fine-tunes that no message
    carries are muted. When a mute ends, another mute that covers its event takes it over; else the
    event is released if the trouble that it reports is still in force, and settled if not.
    """
    found = load_mutes(connection, of_receiver=receiver)
    ends = {mute.number: mute.end(now, awake) for mute in found}
    active = [mute for mute in found if not ends[mute.number]]
    over = {mute.number: mute for mute in found if ends[mute.number]}
    muted, settled, released = dict[int, int](), dict[int, str](), dict[int, list[QueuedEvent]]()
    for row in _rows(connection, receiver, over, unsent=bool(active)):
        event = event_of(row)
        mute = next((each.number for each in active if each.covers(event, labels)), None)
        if mute is not None:
            muted[row.number] = mute
        elif row.state == MUTED and row.in_force:
            released.setdefault(row.mute, []).append(QueuedEvent(row.number, event, 0.0))
        elif row.state == MUTED:
            settled[row.number] = over[row.mute].id
    return MuteChanges(
        {number: ends[number] for number, mute in over.items() if mute.ended_at is None},
        {m.number: m.last_awake(now, awake) for m in active if m.until_awake is None},
        muted,
        settled,
        [(over[number], carried) for number, carried in released.items()],
        min((each.seconds_left(now, awake) for each in active), default=inf),
    )


def _rows(
    connection: Connection, receiver: str, over: Mapping[int, Mute], *, unsent: bool
) -> Sequence[Row[Any]]:
    """Return the events that mutes which are over hold, and the unsent ones, oldest first."""
    in_force = and_(events.c.type.in_(TROUBLES), later_end().is_(None)).label("in_force")
    query = select(events, deliveries.c.state, deliveries.c.mute, in_force).join(deliveries)
    mine = deliveries.c.receiver == receiver
    rows: list[Row[Any]] = []
    if over:
        held = and_(mine, deliveries.c.state == MUTED, deliveries.c.mute.in_(over))
        rows += connection.execute(query.where(held))
    if unsent:
        may_be_muted = and_(deliveries.c.message.is_(None), deliveries.c.groupable)
        rows += connection.execute(query.where(mine, deliveries.c.state == PENDING, may_be_muted))
    return sorted(rows, key=lambda row: row.number)


def store_changes(
    connection: Connection, receiver: str, changes: MuteChanges, now: float, awake: float
) -> None:
    """Store what ``find_changes`` found, within the caller's transaction.

    A delivery or a mute that a command changed in the meantime stays as it is.
    """
    number: BindParameter[int] = bindparam("of_number")
    value: BindParameter[Any] = bindparam("new_value")
    mute, delivery = mutes.c.number == number, deliveries.c.event == number
    is_held = and_(deliveries.c.receiver == receiver, deliveries.c.state == MUTED, delivery)
    is_unsent = and_(
        deliveries.c.receiver == receiver,
        deliveries.c.state == PENDING,
        deliveries.c.message.is_(None),
        delivery,
    )
    settled = {"state": DISCARDED, "settled_at": now, "settled_awake": awake}
    statements = (
        (
            update(mutes)
            .where(mute, mutes.c.ended_at.is_(None))
            .values(ended_at=now, ended_by=value),
            changes.ended,
        ),
        (
            update(mutes).where(mute, mutes.c.until_awake.is_(None)).values(until_awake=value),
            changes.until_awake,
        ),
        (
            update(deliveries).where(or_(is_held, is_unsent)).values(state=MUTED, mute=value),
            changes.muted,
        ),
        (
            update(deliveries).where(is_held).values(**settled, settled_by=value),
            changes.settled,
        ),
    )
    for statement, values in statements:
        if values:
            parameters = [{"of_number": each, "new_value": new} for each, new in values.items()]
            connection.execute(statement, parameters)
