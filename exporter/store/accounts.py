"""What is remembered of the accounts: their fine-tunes, labels and counters, and what they owe."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.account import AccountState, PollResult, RoutedEvents
from exporter.core.counters import Counters, DurationBucket
from exporter.core.labels import LabelName, Labels
from exporter.core.model import AccountKey, FineTune, TrackedFineTune
from exporter.core.text import shared
from exporter.store import schema
from exporter.store.database import Database, in_store_thread
from exporter.store.events import record_events
from exporter.store.schema import accounts, cursors, poll_outages


def read_cursors(connection: Connection, account: AccountKey) -> tuple[str, ...]:
    """Return an account's cursors in the order of the list; none when they can't be read."""
    query = (
        select(cursors.c.ids)
        .join(accounts, accounts.c.number == cursors.c.account)
        .where(accounts.c.name == account.name, accounts.c.base_url == account.base_url)
    )
    found = connection.execute(query).scalar()
    try:
        return () if found is None else msgspec.json.decode(found, type=tuple[str, ...])
    except msgspec.MsgspecError:
        return ()  # without them a poll takes longer, and nothing else


def write_cursors(connection: Connection, number: int, ids: Sequence[str]) -> None:
    """Put these in the place of the cursors of the account ``number``."""
    row = {"account": number, "ids": msgspec.json.encode(ids).decode()}
    statement = insert(cursors)
    changed = {"ids": statement.excluded.ids}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["account"], set_=changed), [row]
    )


def outage_since(connection: Connection, account: AccountKey) -> float | None:
    """Return since when an account cannot be read (Unix seconds); None if none was told."""
    query = select(poll_outages.c.since).where(_of(account))
    return connection.execute(query).scalar()


def begin_outage(connection: Connection, account: AccountKey, since: float) -> None:
    """Keep that an outage is told; one that is there already stays."""
    row = {"name": account.name, "base_url": account.base_url, "since": since}
    connection.execute(insert(poll_outages).on_conflict_do_nothing(), [row])


def end_outage(connection: Connection, account: AccountKey) -> bool:
    """Forget an account's outage; return whether one had been told."""
    return connection.execute(delete(poll_outages).where(_of(account))).rowcount > 0


def _of(account: AccountKey) -> ColumnElement[bool]:
    return and_(poll_outages.c.name == account.name, poll_outages.c.base_url == account.base_url)


_LABELS: Final[tuple[LabelName, ...]] = ("model_id", "language", "dataset")

_AT_ONCE: Final = 500
"""How many rows are made ready together: those of a whole baseline would take 200 MB."""

_OWN: Final = 3
"""Id, name and description are a fine-tune's own; it shares the texts behind them with others."""


class Accounts:
    """The accounts' part of the state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @in_store_thread
    def load(self, account: AccountKey) -> AccountState | None:
        """Return what is remembered of an account; None before its baseline."""
        with self._database.read() as connection:
            number = _number(connection, account)
            if number is None:
                return None
            return AccountState(
                {known.fine_tune.id: known for known in _known(connection, number)},
                _labels(connection, number),
                _tallies(connection, number),
            )

    @in_store_thread
    def cursors(self, account: AccountKey) -> tuple[str, ...]:
        """Return where the pages of an account's list began when it was last read."""
        with self._database.read() as connection:
            return read_cursors(connection, account)

    @in_store_thread
    def commit(self, result: PollResult) -> None:
        """Store what a poll changed and what is owed for it, all or nothing."""
        with self._database.write() as connection:
            number = _number(connection, result.account)
            if number is None:
                number = _add_account(connection, result)
            before, after = result.before or AccountState(), result.state
            changed = result.changed.values()
            _upsert(connection, schema.fine_tunes, (_known_row(number, each) for each in changed))
            _upsert(connection, schema.label_values, _label_rows(number, before, after))
            _upsert(connection, schema.transitions, _transition_rows(number, before, after))
            _upsert(connection, schema.removals, _removal_rows(number, before, after))
            _upsert(connection, schema.stays, _stay_rows(number, before, after))
            if result.cursors is not None:
                write_cursors(connection, number, result.cursors)
            ended = bool(result.recovery) and end_outage(connection, result.account)
            record_events(connection, [*(result.recovery if ended else ()), *result.events])

    @in_store_thread
    def outage_since(self, account: AccountKey) -> float | None:
        """Return since when an account cannot be read (Unix seconds); None if none was told."""
        with self._database.read() as connection:
            return outage_since(connection, account)

    @in_store_thread
    def begin_outage(self, account: AccountKey, since: float, owed: RoutedEvents) -> None:
        """Store that an account cannot be read, and whom that is owed, all or nothing."""
        with self._database.write() as connection:
            begin_outage(connection, account, since)
            record_events(connection, owed)


def _number(connection: Connection, account: AccountKey) -> int | None:
    table = schema.accounts
    query = select(table.c.number).where(
        table.c.name == account.name, table.c.base_url == account.base_url
    )
    return connection.execute(query).scalar()


def _add_account(connection: Connection, result: PollResult) -> int:
    statement = (
        insert(schema.accounts)
        .values(
            name=result.account.name,
            base_url=result.account.base_url,
            baseline_at=result.read_at,
        )
        .returning(schema.accounts.c.number)
    )
    number: int = connection.execute(statement).scalar_one()
    return number


def _upsert(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    values = {c.name: c for c in statement.excluded if c.name not in keys}
    upsert = statement.on_conflict_do_update(index_elements=keys, set_=values)
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        connection.execute(upsert, some)


def _known_row(number: int, known: TrackedFineTune) -> dict[str, Any]:
    row = {"account": number, **asdict(known), **asdict(known.fine_tune)}
    del row["fine_tune"]
    return row


def _known(connection: Connection, number: int) -> Iterable[TrackedFineTune]:
    table = schema.fine_tunes
    described, known = FineTune.__struct_fields__, TrackedFineTune.__struct_fields__[1:]
    columns = (table.c[name] for name in (*described, *known))
    for row in connection.execute(select(*columns).where(table.c.account == number)):
        texts, others = row[: len(described)], row[len(described) :]
        yield TrackedFineTune(FineTune(*texts[:_OWN], *map(shared, texts[_OWN:])), *others)


def _label_rows(number: int, before: AccountState, after: AccountState) -> list[dict[str, Any]]:
    return [
        {"account": number, "label": label, "value": value, "position": position}
        for label in _LABELS
        for position, value in enumerate(after.labels.values(label))
        if position >= len(before.labels.values(label))
    ]


def _labels(connection: Connection, number: int) -> Labels:
    table = schema.label_values
    query = select(table.c.label, table.c.value).where(table.c.account == number)
    found: dict[str, list[str]] = {label: [] for label in _LABELS}
    for label, value in connection.execute(query.order_by(table.c.position)):
        found[label].append(value)
    return Labels(*(tuple(found[label]) for label in _LABELS))


def _transition_rows(
    number: int, before: AccountState, after: AccountState
) -> list[dict[str, Any]]:
    changed = after.counters.transitions.items() - before.counters.transitions.items()
    names = ("model_id", "from_status", "to_status")
    return [
        {"account": number, **dict(zip(names, key, strict=True)), "total": total}
        for key, total in changed
    ]


def _removal_rows(number: int, before: AccountState, after: AccountState) -> list[dict[str, Any]]:
    changed = after.counters.removed.items() - before.counters.removed.items()
    return [{"account": number, "status": status, "total": total} for status, total in changed]


def _stay_rows(number: int, before: AccountState, after: AccountState) -> list[dict[str, Any]]:
    return [
        {
            "account": number,
            "status": status,
            "bound": bound,
            "total": stays.total,
            "seconds": stays.seconds,
        }
        for (status, bound), stays in after.counters.durations.items()
        if before.counters.durations.get((status, bound)) != stays
    ]


def _tallies(connection: Connection, number: int) -> Counters:
    moved, removed, stays = schema.transitions, schema.removals, schema.stays
    transitions = select(moved.c.model_id, moved.c.from_status, moved.c.to_status, moved.c.total)
    removals = select(removed.c.status, removed.c.total)
    buckets = select(stays.c.status, stays.c.bound, stays.c.total, stays.c.seconds)
    rows = connection.execute(transitions.where(moved.c.account == number))
    left = connection.execute(removals.where(removed.c.account == number))
    stayed = connection.execute(buckets.where(stays.c.account == number))
    return Counters(
        {(row[0], row[1], row[2]): row[3] for row in rows},
        {row[0]: row[1] for row in left},
        {(row[0], row[1]): DurationBucket(row[2], row[3]) for row in stayed},
    )
