"""Mutes in the store: how they are added, ended and listed."""

import secrets
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from exporter.core.events import ENDS
from exporter.core.mutes import LONGEST_SECONDS, InvalidMuteError, Mute, MuteRequest
from exporter.core.records import MuteRecord, at, at_or_none
from exporter.core.text import one_line
from exporter.store.awake import read_awake
from exporter.store.database import Database
from exporter.store.events import MUTED
from exporter.store.schema import deliveries, events, mutes

MAX_MUTES: Final = 1_000
"""Mutes that may be active at a time: each event is compared with all of them."""


class UnknownMuteError(Exception):
    """There is no mute with the given id, or it has ended."""


def add_mute(database: Database, request: MuteRequest, now: float) -> str:
    """Add a mute that begins at ``now`` (Unix seconds); return its id.

    Deliveries that no message carries yet are muted, too, when the agent sees it. Raises
    InvalidMuteError, StoreError.
    """
    request.check()
    mute_id = f"mute_{secrets.token_hex(4)}"
    with database.write() as connection:
        is_active = and_(mutes.c.ended_at.is_(None), mutes.c.until_at > now)
        active = connection.scalars(select(func.count()).where(is_active)).one()
        if active >= MAX_MUTES:
            raise InvalidMuteError(f"{MAX_MUTES} mutes are active; end some of them first")
        of_fine_tune = and_(
            events.c.account == request.account, events.c.subject == request.fine_tune
        )
        last = connection.scalars(select(func.max(events.c.number)).where(of_fine_tune)).one()
        lasts = LONGEST_SECONDS if request.seconds is None else request.seconds
        connection.execute(
            insert(mutes).values(
                id=mute_id,
                match=msgspec.json.encode(dict(request.match)).decode(),
                account=request.account,
                fine_tune=request.fine_tune,
                until_recovered=request.seconds is None,
                author=one_line(request.author),
                reason=one_line(request.reason),
                created_at=now,
                after_event=last or 0,
                until_at=now + lasts,
            )
        )
    return mute_id


def end_mute(database: Database, mute_id: str, by: str, now: float) -> None:
    """End a mute at ``now`` (Unix seconds); the agent then settles what it held.

    Raises UnknownMuteError, StoreError.
    """
    open_one = and_(mutes.c.id == mute_id, mutes.c.ended_at.is_(None))
    with database.write() as connection:
        ended = connection.execute(
            update(mutes).where(open_one, mutes.c.until_at > now).values(ended_at=now, ended_by=by)
        )
    if not ended.rowcount:
        raise UnknownMuteError(f"no mute that has not ended has the id {mute_id}")


def delete_ended(connection: Connection, before: float) -> None:
    """Delete the mutes that ended before ``before`` (Unix seconds) and that no delivery names."""
    named = select(deliveries.c.event).where(deliveries.c.mute == mutes.c.number).exists()
    connection.execute(
        delete(mutes).where(func.coalesce(mutes.c.ended_at, mutes.c.until_at) < before, ~named)
    )


def load_mutes(connection: Connection, *, of_receiver: str | None = None) -> list[Mute]:
    """Return the mutes, oldest first: all, or those that concern a receiver.

    These have not ended, or still hold deliveries of the receiver.
    """
    query = _all_mutes() if of_receiver is None else _mutes_of_receiver()
    return [
        Mute(
            row.number,
            row.id,
            msgspec.json.decode(row.match, type=dict[str, str]),
            row.account,
            row.fine_tune,
            row.author,
            row.reason,
            row.created_at,
            row.until_at,
            row.until_awake,
            row.until_recovered,
            row.recovered,
            row.ended_at,
            row.ended_by,
        )
        for row in connection.execute(query, {"receiver": of_receiver})
    ]


@cache
def _all_mutes() -> Select[Any]:
    later = events.alias("later")
    recovered = (
        select(later.c.number)
        .where(
            later.c.account == mutes.c.account,
            later.c.subject == mutes.c.fine_tune,
            later.c.number > mutes.c.after_event,
            later.c.type.in_(ENDS),
        )
        .correlate(mutes)
        .exists()
    )
    has_recovered = and_(mutes.c.until_recovered, recovered).label("recovered")
    return select(mutes, has_recovered).order_by(mutes.c.number)


@cache
def _mutes_of_receiver() -> Select[Any]:
    mine = deliveries.c.receiver == bindparam("receiver")
    holding = select(deliveries.c.mute).where(mine, deliveries.c.state == MUTED)
    return _all_mutes().where(or_(mutes.c.ended_at.is_(None), mutes.c.number.in_(holding)))


def mute_records(connection: Connection, now: float) -> list[MuteRecord]:
    """Return all mutes at ``now`` (Unix seconds), newest first."""
    held = (
        select(deliveries.c.mute, func.count().label("held"))
        .where(deliveries.c.mute.is_not(None), deliveries.c.state == MUTED)
        .group_by(deliveries.c.mute)
    )
    numbers = {row.mute: row.held for row in connection.execute(held)}
    awake = read_awake(connection)
    return [
        MuteRecord(
            id=mute.id,
            active=not mute.end(now, awake),
            match=dict(mute.match),
            account=mute.account or None,
            fine_tune=mute.fine_tune or None,
            until=at(mute.until_at),
            until_recovered=mute.until_recovered,
            author=mute.author,
            reason=mute.reason,
            created_at=at(mute.created_at),
            ended_at=at_or_none(mute.ended_at),
            ended_by=mute.ended_by,
            deliveries=numbers.get(mute.number, 0),
        )
        for mute in reversed(load_mutes(connection))
    ]
