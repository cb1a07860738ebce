"""Queries for an overview: receivers, hourly counts, outages and the failures of datasets."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, Select, and_, bindparam, func, select

from exporter.core.model import STATUSES
from exporter.core.ownership import ACCOUNT, AGENT, RECEIVER, Item
from exporter.core.records import (
    HourRecord,
    OutageRecord,
    ReceiverCondition,
    ReceiverRecord,
    ReplicaRecord,
    StatusCounts,
    at,
    at_or_none,
)
from exporter.store.events import DEAD, DELIVERED, MUTED, PENDING
from exporter.store.history import HOUR_SECONDS
from exporter.store.schema import (
    accounts,
    deliveries,
    events,
    hourly_counts,
    outages,
    ownership,
    poll_outages,
    receivers,
    replicas,
)

WEEK_SECONDS = 7 * 86_400.0


class ReceiverSummary(Struct, frozen=True):
    """What the configuration says of a receiver: name, type and the words of its events.

    ``group_interval`` is in seconds.
    """

    name: str
    type: str
    events: tuple[str, ...] = ()
    group_interval: float = 0.0


class StoredAccount(Struct, frozen=True):
    """What is stored of an account; times are Unix seconds.

    ``read_at`` is its last complete poll, at most a minute behind. ``failing_since`` is the first
    failed poll of an outage.
    """

    number: int
    name: str
    base_url: str
    baseline_at: float
    read_at: float
    failing_since: float | None


def replica_records(connection: Connection) -> list[ReplicaRecord]:
    """Return the replicas that use the database or did so lately, live ones first.

    The time is that of the newest renewal: this process renews its lease, too.
    """
    owned = {(row.holder, row.kind): row.items for row in connection.execute(_OWNED)}
    rows = connection.execute(select(replicas)).all()
    now = max((row.renewed_at for row in rows), default=None)
    found = [
        ReplicaRecord(
            id=row.id,
            name=row.name,
            version=row.version,
            live=now is not None and row.until > now,
            renewed_at=row.renewed_at.astimezone(UTC),
            accounts=owned.get((row.id, ACCOUNT), 0),
            receivers=owned.get((row.id, RECEIVER), 0),
            agent=(row.id, AGENT.kind) in owned,
        )
        for row in rows
    ]
    return sorted(found, key=lambda each: (not each.live, each.name, each.id))


def owner_names(connection: Connection) -> dict[Item, str]:
    """Return the name of the replica that owns each account and receiver."""
    return {Item(row.kind, row.name): row.owner for row in connection.execute(_owners_query())}


# Each page runs these statements: they are built once.
@cache
def _owners_query() -> Select[Any]:
    columns = ownership.c.kind, ownership.c.name, replicas.c.name.label("owner")
    return select(*columns).join(replicas, replicas.c.id == ownership.c.holder)


_OWNED: Final = select(ownership.c.holder, ownership.c.kind, func.count().label("items")).group_by(
    ownership.c.holder, ownership.c.kind
)


def stored_counts(connection: Connection) -> dict[int, StatusCounts]:
    """Return the counts of each account as of its last change, by its number."""
    newest = (
        select(hourly_counts.c.account, func.max(hourly_counts.c.hour).label("hour"))
        .group_by(hourly_counts.c.account)
        .subquery()
    )
    in_force = (hourly_counts.c.account == newest.c.account) & (
        hourly_counts.c.hour == newest.c.hour
    )
    rows = connection.execute(select(hourly_counts).join(newest, in_force))
    return {
        row.account: StatusCounts(**{status: getattr(row, status) for status in STATUSES})
        for row in rows
    }


def stored_accounts(connection: Connection) -> list[StoredAccount]:
    """Return all accounts with a baseline, by name."""
    return [StoredAccount(*row) for row in connection.execute(_accounts_query())]


@cache
def _accounts_query() -> Select[Any]:
    outage = (poll_outages.c.name == accounts.c.name) & (
        poll_outages.c.base_url == accounts.c.base_url
    )
    return (
        select(
            accounts.c.number,
            accounts.c.name,
            accounts.c.base_url,
            accounts.c.baseline_at,
            accounts.c.read_at,
            poll_outages.c.since,
        )
        .select_from(accounts.outerjoin(poll_outages, outage))
        .order_by(accounts.c.name, accounts.c.number)
    )


def receiver_records(
    connection: Connection, configured: Sequence[ReceiverSummary], now: float
) -> list[ReceiverRecord]:
    """Return the configured receivers in their order, then those with unfinished deliveries."""
    rows = connection.execute(_counts_query(), {"since": now - WEEK_SECONDS}).all()
    pending = {"names": [row.receiver for row in rows if row.pending]}
    unsent = {row.receiver: row.unsent for row in connection.execute(_unsent_query(), pending)}
    counts = {row.receiver: (row, unsent.get(row.receiver, 0)) for row in rows}
    circuits = {row.name: row for row in connection.execute(select(receivers))}
    owners = owner_names(connection)
    known = {each.name for each in configured}
    others = (
        ReceiverSummary(name, "")
        for name, (row, _) in sorted(counts.items())
        if name not in known and (row.pending or row.muted or row.dead)
    )
    records = (
        _receiver_record(
            each, counts.get(each.name), circuits.get(each.name), now, known=each.name in known
        )
        for each in (*configured, *others)
    )
    return [
        msgspec.structs.replace(each, owner=owners.get(Item(RECEIVER, each.id), ""))
        for each in records
    ]


@cache
def _counts_query() -> Select[Any]:
    state = deliveries.c.state
    # Of columns of one index only: the table may have tens of thousands of delivered rows.
    lately = and_(state == DELIVERED, deliveries.c.settled_at >= bindparam("since"))
    last_success = func.max(deliveries.c.settled_at).filter(state == DELIVERED)
    return select(
        deliveries.c.receiver,
        func.count().filter(state == PENDING).label("pending"),
        func.count().filter(state == MUTED).label("muted"),
        func.count().filter(state == DEAD).label("dead"),
        func.count().filter(lately).label("delivered"),
        last_success.label("last_success"),
    ).group_by(deliveries.c.receiver)


@cache
def _unsent_query() -> Select[Any]:
    """Select the numbers of deliveries of the receivers ``names`` that no message carries yet."""
    is_named = deliveries.c.receiver.in_(bindparam("names", expanding=True))
    is_unsent = and_(
        deliveries.c.state == PENDING, deliveries.c.groupable, deliveries.c.message.is_(None)
    )
    return (
        select(deliveries.c.receiver, func.count().label("unsent"))
        .where(is_named, is_unsent)
        .group_by(deliveries.c.receiver)
    )


def _receiver_record(
    summary: ReceiverSummary,
    counts: tuple[Row[Any], int] | None,
    circuit: Row[Any] | None,
    now: float,
    *,
    known: bool,
) -> ReceiverRecord:
    row, unsent = (None, 0) if counts is None else counts
    failures = 0 if circuit is None else circuit.failures
    pending = 0 if row is None else row.pending
    held_until = None
    if unsent and circuit is not None and circuit.grouped_at is not None:
        until = circuit.grouped_at + summary.group_interval
        held_until = at(until) if until > now else None
    return ReceiverRecord(
        id=summary.name,
        type=summary.type,
        state=_condition(circuit, used=row is not None),
        configured=known,
        pending=pending,
        held=0 if held_until is None else unsent,
        held_until=held_until,
        group_interval=summary.group_interval,
        muted=0 if row is None else row.muted,
        dead=0 if row is None else row.dead,
        delivered_7d=0 if row is None else row.delivered,
        last_success_at=None if row is None else at_or_none(row.last_success),
        failing_since=at(circuit.since) if circuit is not None and failures else None,
        failures=failures,
        reason=circuit.reason if circuit is not None and failures else "",
        next_attempt_at=_next_attempt(circuit, pending),
        events=list(summary.events),
    )


def _condition(circuit: Row[Any] | None, *, used: bool) -> ReceiverCondition:
    if circuit is not None and circuit.open:
        return "unhealthy"
    if circuit is not None and circuit.failures:
        return "retrying"
    return "delivering" if used else "unused"


def _next_attempt(circuit: Row[Any] | None, pending: int) -> datetime | None:
    if circuit is None or not (circuit.failures and pending):
        return None
    return at(circuit.resume_at)


def hour_records(
    connection: Connection, names: Mapping[int, str], since: float
) -> list[HourRecord]:
    """Return the hourly counts from the hour of ``since`` (Unix seconds) on, oldest first.

    Each account's first record is the one in force at ``since``, if there is one.
    """
    first_hour = int(since // HOUR_SECONDS)
    before = (
        select(hourly_counts.c.account, func.max(hourly_counts.c.hour).label("hour"))
        .where(hourly_counts.c.hour <= first_hour, hourly_counts.c.account.in_(names))
        .group_by(hourly_counts.c.account)
        .subquery()
    )
    in_force = (hourly_counts.c.account == before.c.account) & (
        hourly_counts.c.hour == before.c.hour
    )
    earlier = select(hourly_counts).select_from(hourly_counts.join(before, in_force))
    later = select(hourly_counts).where(
        hourly_counts.c.hour > first_hour, hourly_counts.c.account.in_(names)
    )
    rows = [
        *connection.execute(earlier),
        *connection.execute(later.order_by(hourly_counts.c.hour, hourly_counts.c.account)),
    ]
    return [
        HourRecord(
            account=names[row.account],
            hour=at(row.hour * HOUR_SECONDS),
            counts=StatusCounts(**{status: getattr(row, status) for status in STATUSES}),
        )
        for row in rows
    ]


def outage_records(
    connection: Connection, keys: Iterable[tuple[str, str]], since: float
) -> list[OutageRecord]:
    """Return the outages of accounts that ended after ``since`` (Unix seconds), oldest first.

    ``keys`` are their names and base URLs.
    """
    shown = frozenset(keys)
    query = select(outages).where(outages.c.until >= since).order_by(outages.c.since)
    return [
        OutageRecord(
            account=row.account, since=at(row.since), until=at(row.until), reason=row.reason
        )
        for row in connection.execute(query)
        if (row.account, row.base_url) in shown
    ]


def dataset_failures(connection: Connection, account: str, dataset: str, since: float) -> int:
    """Return the number of failures of a dataset observed from ``since`` (Unix seconds) on."""
    if not dataset:
        return 0
    query = select(func.count()).where(
        events.c.type == "fine_tune.failed",
        events.c.account == account,
        events.c.dataset == dataset,
        events.c.observed_at >= since,
    )
    return connection.scalars(query).one()
