"""SQL of leases, ownership, the fence and the shared awake clock. Times are the server's."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Interval,
    Row,
    and_,
    cast,
    delete,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from exporter.core.ownership import AGENT, Claim, Item
from exporter.store.engines import batches
from exporter.store.schema import awake_clock, meta, ownership, replicas

_NOW: Final[ColumnElement[datetime]] = func.clock_timestamp()
_IS_LIVE: Final = replicas.c.until > _NOW
_KEPT: Final = timedelta(days=1)
"""How long the row of a replica is kept after its lease ended."""

_NOBODY: Final = ""


def _ran() -> ColumnElement[float]:
    """Return for how many seconds the awake clock has run since its last advance."""
    ran = extract("epoch", func.least(_NOW, awake_clock.c.runs_until) - awake_clock.c.advanced_at)
    return func.greatest(func.coalesce(ran, 0.0), 0.0)


AWAKE_SECONDS: Final = select(awake_clock.c.seconds + _ran()).where(
    awake_clock.c.name == AGENT.name
)
"""Select the awake clock in seconds: it runs between two renewals, too."""

STATE: Final = select(
    select(meta.c.value).where(meta.c.name == "store_id").scalar_subquery().label("store_id"),
    # Another one after a restart and after a failover.
    func.pg_postmaster_start_time().label("server"),
    AWAKE_SECONDS.scalar_subquery().label("awake"),
)

LIVE_REPLICAS: Final = select(
    replicas.c.id,
    replicas.c.configuration,
    extract("epoch", replicas.c.until - _NOW).label("seconds_left"),
).where(_IS_LIVE)
LIVE_NAMES: Final = select(replicas.c.name).where(_IS_LIVE)
_CLAIM: Final = tuple(ownership.c[n] for n in ("kind", "name", "holder", "term", "moves"))
CLAIMS: Final = select(*_CLAIM)


def renew_lease(connection: Connection, values: dict[str, str], lease: float) -> None:
    """Begin or prolong the lease of a replica by ``lease`` seconds from now."""
    times = {"renewed_at": _NOW, "until": _NOW + _interval(lease)}
    statement = insert(replicas).values(**values, **times)
    renewed = {"configuration": statement.excluded.configuration, **times}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=renewed))


def expire_lease(connection: Connection, replica: str) -> None:
    """End the lease of a replica now: others may take what it holds."""
    connection.execute(update(replicas).where(replicas.c.id == replica).values(until=_NOW))


def advance_awake_clock(connection: Connection, claim: Claim, lease: float) -> None:
    """Advance the awake clock by the time since its last advance, at most one lease.

    Without effect if ``claim`` is not the owner's any more.
    """
    connection.execute(
        update(awake_clock)
        .where(awake_clock.c.name == AGENT.name, exists().where(_is_held(claim)))
        .values(
            seconds=awake_clock.c.seconds + _ran(),
            advanced_at=_NOW,
            runs_until=_NOW + _interval(lease),
        )
    )


def holds(connection: Connection, claim: Claim) -> bool:
    """Return whether a claim is valid, and keep it so until the end of the transaction.

    A takeover waits for the lock; without it, a replica that was paused in its transaction could
    commit after the takeover. The lock does not delay renewals.
    """
    query = (
        select(ownership.c.term)
        .join(replicas, replicas.c.id == ownership.c.holder)
        .where(_is_held(claim), _IS_LIVE)
        .with_for_update(read=True, of=ownership)
    )
    return connection.scalar(query) is not None


def to_claim(row: Row[Any]) -> Claim:
    """Return the claim of a row of CLAIMS."""
    return Claim(Item(row.kind, row.name), row.holder, row.term, row.moves)


def take(
    connection: Connection, replica: str, address: str, items: Collection[Item]
) -> list[Claim]:
    """Make a live replica the owner of those items that have no live owner, or it as owner.

    ``address`` is where it is scraped. Returns the new claims. Items whose owner is in a
    transaction are left out.
    """
    connection.execute(delete(replicas).where(replicas.c.until < _NOW - literal(_KEPT, Interval)))
    live = select(replicas.c.id).where(_IS_LIVE)
    is_free = or_(ownership.c.holder == replica, ownership.c.holder.not_in(live))
    moved = ownership.c.address.not_in((address, _NOBODY))
    new = {
        "holder": replica,
        "term": ownership.c.term + 1,
        "address": address,
        "moves": ownership.c.moves + cast(moved, Integer),
    }
    taken: list[Claim] = []
    for batch in batches(sorted(items)):
        unowned = {"holder": _NOBODY, "term": 0, "address": _NOBODY, "moves": 0}
        rows = [{**each._asdict(), **unowned} for each in batch]
        connection.execute(insert(ownership).values(rows).on_conflict_do_nothing())
        free = (
            select(ownership.c.kind, ownership.c.name)
            .where(_is_one_of(batch), is_free, live.where(replicas.c.id == replica).exists())
            .order_by(ownership.c.kind, ownership.c.name)
            .with_for_update(skip_locked=True)
        )
        found = [Item(*row) for row in connection.execute(free)]
        if found:
            taking = update(ownership).where(_is_one_of(found)).values(**new).returning(*_CLAIM)
            taken += map(to_claim, connection.execute(taking))
    return taken


def release(connection: Connection, claims: Iterable[Claim]) -> None:
    """Leave what is claimed without an owner; the terms stay."""
    for batch in batches(claims):
        held = or_(*map(_is_held, batch))
        connection.execute(update(ownership).where(held).values(holder=_NOBODY))


def _is_one_of(items: Collection[Item]) -> ColumnElement[bool]:
    return tuple_(ownership.c.kind, ownership.c.name).in_([tuple(item) for item in items])


def _is_held(claim: Claim) -> ColumnElement[bool]:
    return and_(
        ownership.c.kind == claim.item.kind,
        ownership.c.name == claim.item.name,
        ownership.c.holder == claim.holder,
        ownership.c.term == claim.term,
    )


def _interval(seconds: float) -> ColumnElement[timedelta]:
    return literal(timedelta(seconds=seconds), Interval)
