"""State of the accounts: tracked fine-tunes, labels, counters, cursors and outages."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, select

from exporter.core.account import AccountState, PollResult, RoutedEvents
from exporter.core.counters import Counters, DurationBucket
from exporter.core.labels import LabelName, Labels
from exporter.core.model import AccountKey, FineTune, TrackedFineTune
from exporter.core.text import shared
from exporter.store import schema
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import dialect_insert, upsert
from exporter.store.events import record_events

_LABELS: Final[tuple[LabelName, ...]] = ("model_id", "language", "dataset")

_UNIQUE_FIELDS: Final = 3
"""Number of leading fields (id, name, description) whose texts fine-tunes do not share."""

_Row = dict[str, Any]


class Accounts:
    """The accounts in the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @in_store_thread
    def load(self, account: AccountKey) -> AccountState | None:
        """Return the state of an account; None before its baseline."""
        with self._database.read() as connection:
            number = _find_number(connection, account)
            if number is None:
                return None
            return AccountState(
                {each.fine_tune.id: each for each in _load_fine_tunes(connection, number)},
                _load_labels(connection, number),
                _load_counters(connection, number),
            )

    @in_store_thread
    def cursors(self, account: AccountKey) -> tuple[str, ...]:
        """Return the first ids of the list's pages at the last poll; none if they are damaged."""
        table = schema.cursors
        query = (
            select(table.c.ids)
            .join(schema.accounts, schema.accounts.c.number == table.c.account)
            .where(_is_account(schema.accounts, account))
        )
        with self._database.read() as connection:
            ids = connection.execute(query).scalar()
        try:
            return () if ids is None else msgspec.json.decode(ids, type=tuple[str, ...])
        except msgspec.MsgspecError:
            return ()  # the next poll takes longer, nothing else

    @in_store_thread
    def commit(self, result: PollResult) -> None:
        """Store the changes and the events of a poll in one transaction."""
        with self._database.write() as connection:
            number = _find_number(connection, result.account)
            if number is None:
                number = _add_account(connection, result)
            before, after = result.before or AccountState(), result.state
            changed = (_fine_tune_row(number, each) for each in result.changed.values())
            upsert(connection, schema.fine_tunes, changed)
            upsert(connection, schema.label_values, _label_rows(number, before, after))
            upsert(connection, schema.transitions, _transition_rows(number, before, after))
            upsert(connection, schema.removals, _removal_rows(number, before, after))
            upsert(connection, schema.status_durations, _duration_rows(number, before, after))
            if result.cursors is not None:
                ids = msgspec.json.encode(result.cursors).decode()
                upsert(connection, schema.cursors, [{"account": number, "ids": ids}])
            ended = bool(result.recovery) and _delete_outage(connection, result.account)
            record_events(connection, [*(result.recovery if ended else ()), *result.events])

    @in_store_thread
    def outage_since(self, account: AccountKey) -> float | None:
        """Return the start of the reported outage as Unix seconds, or None."""
        table = schema.poll_outages
        with self._database.read() as connection:
            query = select(table.c.since).where(_is_account(table, account))
            return connection.execute(query).scalar()

    @in_store_thread
    def begin_outage(self, account: AccountKey, since: float, events: RoutedEvents) -> None:
        """Store an outage and its events in one transaction; a stored outage keeps its start."""
        row = {"name": account.name, "base_url": account.base_url, "since": since}
        with self._database.write() as connection:
            statement = dialect_insert(connection, schema.poll_outages)
            connection.execute(statement.on_conflict_do_nothing(), [row])
            record_events(connection, events)


def _is_account(table: Table, account: AccountKey) -> ColumnElement[bool]:
    return and_(table.c.name == account.name, table.c.base_url == account.base_url)


def _find_number(connection: Connection, account: AccountKey) -> int | None:
    table = schema.accounts
    return connection.execute(select(table.c.number).where(_is_account(table, account))).scalar()


def _add_account(connection: Connection, result: PollResult) -> int:
    table, account = schema.accounts, result.account
    statement = insert(table).values(
        name=account.name, base_url=account.base_url, baseline_at=result.read_at
    )
    number: int = connection.execute(statement.returning(table.c.number)).scalar_one()
    return number


def _delete_outage(connection: Connection, account: AccountKey) -> bool:
    """Delete an account's outage; return whether there was one."""
    table = schema.poll_outages
    return connection.execute(delete(table).where(_is_account(table, account))).rowcount > 0


def _fine_tune_row(number: int, tracked: TrackedFineTune) -> _Row:
    row = {"account": number, **asdict(tracked), **asdict(tracked.fine_tune)}
    del row["fine_tune"]
    return row


def _load_fine_tunes(connection: Connection, number: int) -> Iterator[TrackedFineTune]:
    table = schema.fine_tunes
    api_fields, own_fields = FineTune.__struct_fields__, TrackedFineTune.__struct_fields__[1:]
    columns = (table.c[name] for name in (*api_fields, *own_fields))
    for row in connection.execute(select(*columns).where(table.c.account == number)):
        texts, others = row[: len(api_fields)], row[len(api_fields) :]
        fine_tune = FineTune(*texts[:_UNIQUE_FIELDS], *map(shared, texts[_UNIQUE_FIELDS:]))
        yield TrackedFineTune(fine_tune, *others)


def _label_rows(number: int, before: AccountState, after: AccountState) -> list[_Row]:
    return [
        {"account": number, "label": label, "value": value, "position": position}
        for label in _LABELS
        for position, value in enumerate(after.labels.values(label))
        if position >= len(before.labels.values(label))
    ]


def _load_labels(connection: Connection, number: int) -> Labels:
    table = schema.label_values
    query = select(table.c.label, table.c.value).where(table.c.account == number)
    values: dict[str, list[str]] = {label: [] for label in _LABELS}
    for label, value in connection.execute(query.order_by(table.c.position)):
        values[label].append(value)
    return Labels(*(tuple(values[label]) for label in _LABELS))


def _transition_rows(number: int, before: AccountState, after: AccountState) -> list[_Row]:
    changed = after.counters.transitions.items() - before.counters.transitions.items()
    names = ("model_id", "from_status", "to_status")
    return [
        {"account": number, **dict(zip(names, key, strict=True)), "total": total}
        for key, total in changed
    ]


def _removal_rows(number: int, before: AccountState, after: AccountState) -> list[_Row]:
    changed = after.counters.removed.items() - before.counters.removed.items()
    return [{"account": number, "status": status, "total": total} for status, total in changed]


def _duration_rows(number: int, before: AccountState, after: AccountState) -> list[_Row]:
    return [
        {
            "account": number,
            "status": status,
            "bound": bound,
            "total": bucket.total,
            "seconds": bucket.seconds,
        }
        for (status, bound), bucket in after.counters.durations.items()
        if before.counters.durations.get((status, bound)) != bucket
    ]


def _load_counters(connection: Connection, number: int) -> Counters:
    def rows(table: Table, *names: str) -> Iterator[Any]:
        columns = (table.c[name] for name in names)
        return iter(connection.execute(select(*columns).where(table.c.account == number)))

    transitions = rows(schema.transitions, "model_id", "from_status", "to_status", "total")
    removals = rows(schema.removals, "status", "total")
    durations = rows(schema.status_durations, "status", "bound", "total", "seconds")
    return Counters(
        {(row[0], row[1], row[2]): row[3] for row in transitions},
        {row[0]: row[1] for row in removals},
        {(row[0], row[1]): DurationBucket(row[2], row[3]) for row in durations},
    )
