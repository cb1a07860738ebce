"""State of the accounts: tracked fine-tunes, labels, counters, cursors and outages."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    Connection,
    Result,
    Table,
    and_,
    delete,
    insert,
    select,
    update,
)

from exporter.core.account import AccountState, PollResult, RoutedEvents
from exporter.core.counters import Counters, DurationBucket
from exporter.core.labels import LabelName, Labels
from exporter.core.model import POLLS_UNTIL_REMOVED, AccountKey, FineTune, Outage, TrackedFineTune
from exporter.core.ownership import Claim
from exporter.core.text import searchable, shared
from exporter.store import schema
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import batches, dialect_insert, upsert
from exporter.store.errors import StoreError
from exporter.store.events import record_events
from exporter.store.history import record_outage, record_poll

_LABELS: Final[tuple[LabelName, ...]] = ("model_id", "language", "dataset")

_BASELINE_CHECKPOINT_SECONDS: Final = 1.0

_UNIQUE_FIELDS: Final = 3
"""Number of leading fields (id, name, description) whose texts fine-tunes do not share."""

_Row = dict[str, Any]


class StoredOutage(Struct, frozen=True):
    """Start of an outage, in Unix seconds and on the awake clock, and whether it was reported."""

    since: float
    since_awake: float
    reported: bool


class Accounts:
    """The accounts in the store; ``claim`` is the one under which a poller writes."""

    def __init__(self, database: Database, claim: Claim | None = None) -> None:
        self._database = database
        self._claim = claim

    @property
    def moves(self) -> int:
        """How often the account was taken over from a replica at another address."""
        return 0 if self._claim is None else self._claim.moves

    @in_store_thread
    def load(self, account: AccountKey) -> AccountState | None:
        """Return the state of an account without removed fine-tunes; None before its baseline."""
        with self._database.read() as connection:
            table = schema.accounts
            row = connection.execute(select(table).where(_is_account(table, account))).first()
            if row is None:
                return None
            listed = _load_fine_tunes(connection, account, _IS_LISTED)
            return AccountState(
                {each.fine_tune.id: each for each in listed},
                _load_labels(connection, row.number),
                _load_counters(connection, row.number),
                row.key_fingerprint,
                row.baselines,
                _load_unknown_statuses(connection, row.number),
            )

    @in_store_thread
    def removed(self, account: AccountKey, ids: Sequence[str]) -> dict[str, TrackedFineTune]:
        """Return the removed fine-tunes among ``ids``, by id."""
        table = schema.fine_tunes
        found: dict[str, TrackedFineTune] = {}
        with self._database.read() as connection:
            for batch in batches(ids):
                rows = _load_fine_tunes(connection, account, table.c.id.in_(batch), ~_IS_LISTED)
                found.update((each.fine_tune.id, each) for each in rows)
        return found

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
        with self._database.write(self._claim) as connection:
            if result.kind != "undecided":
                _store_result(connection, result)
            table = schema.poll_outages
            outage = delete(table).where(_is_account(table, result.account))
            columns = table.c.since, table.c.reason, table.c.reported
            ended = connection.execute(outage.returning(*columns)).first()
            if ended is not None:
                record_outage(connection, result.account, ended, result.read_at)
            reported = ended is not None and ended.reported
            record_events(connection, [*(result.recovery if reported else ()), *result.events])
        if result.kind == "baseline":
            self._checkpoint_baseline()

    def _checkpoint_baseline(self) -> None:
        """Make a checkpoint: a copy of the file without its log would begin with a baseline again.

        Not for each of many accounts at the start: it takes longer than the commit.
        """
        database = self._database
        now = database.monotonic()
        if now >= database.baseline_checkpoint_at + _BASELINE_CHECKPOINT_SECONDS:
            database.baseline_checkpoint_at = now
            with suppress(StoreError):
                database.checkpoint()

    def largest(self, account: AccountKey, counters: Counters) -> Counters:
        """Return the largest values of these counters that this process has seen.

        A database that was restored from an older backup has smaller ones. What is found again
        since is counted there once more, and must not be added to what was counted before.
        """
        seen = self._database.counters
        seen[account] = counters.larger(seen.get(account, counters))
        return seen[account]

    def awake_now(self) -> float:
        """Return the time of the awake clock in seconds."""
        return self._database.awake.now()

    @in_store_thread
    def outage(self, account: AccountKey) -> StoredOutage | None:
        """Return the outage of an account, which no later poll has ended; None without one."""
        with self._database.read() as connection:
            return _find_outage(connection, account)

    @in_store_thread
    def store_outage(
        self, account: AccountKey, outage: Outage, events: RoutedEvents
    ) -> StoredOutage:
        """Store an outage, with the events that report it, in one transaction; return it.

        An outage that is stored already keeps its start, and stays reported once it was.
        """
        table = schema.poll_outages
        start = {"since": outage.since, "since_awake": outage.since_awake, "reported": False}
        key = {"name": account.name, "base_url": account.base_url}
        row = {**key, **start, "reason": outage.reason}
        with self._database.write(self._claim) as connection:
            connection.execute(dialect_insert(connection, table).on_conflict_do_nothing(), [row])
            if events:
                reported = update(table).where(_is_account(table, account)).values(reported=True)
                connection.execute(reported)
                record_events(connection, events)
            stored = _find_outage(connection, account)
            assert stored is not None
            return stored

    @in_store_thread
    def delete_outages(self, *, other_than: Collection[AccountKey]) -> None:
        """Delete the outages of all accounts but these."""
        table = schema.poll_outages
        with self._database.read() as connection:
            stored = connection.execute(select(table.c.name, table.c.base_url))
            removed = {AccountKey(*row) for row in stored}.difference(other_than)
        if removed:
            with self._database.write(self._claim) as connection:
                for account in removed:
                    connection.execute(delete(table).where(_is_account(table, account)))


def _find_outage(connection: Connection, account: AccountKey) -> StoredOutage | None:
    table = schema.poll_outages
    query = select(table.c.since, table.c.since_awake, table.c.reported)
    row = connection.execute(query.where(_is_account(table, account))).first()
    return None if row is None else StoredOutage(*row)


def _is_account(table: Table, account: AccountKey) -> ColumnElement[bool]:
    return and_(table.c.name == account.name, table.c.base_url == account.base_url)


def _store_result(connection: Connection, result: PollResult) -> None:
    before, after = result.before or AccountState(), result.state
    number = _store_account(connection, result)
    changed = (_fine_tune_row(number, each) for each in result.changed.values())
    upsert(connection, schema.fine_tunes, changed)
    upsert(connection, schema.label_values, _label_rows(number, before, after))
    _store_counters(connection, number, before.counters, after.counters)
    known = len(before.unknown_statuses)
    statuses = enumerate(after.unknown_statuses[known:], known)
    rows = ({"account": number, "status": text, "position": place} for place, text in statuses)
    upsert(connection, schema.unknown_statuses, rows)
    if result.cursors is not None:
        ids = msgspec.json.encode(result.cursors).decode()
        upsert(connection, schema.cursors, [{"account": number, "ids": ids}])
    record_poll(connection, number, result)


def _store_account(connection: Connection, result: PollResult) -> int:
    """Add the account, or update what changed of it; return its number."""
    table, account, state = schema.accounts, result.account, result.state
    values: _Row = {
        "read_at": result.read_at,
        "baselines": state.baselines,
        "key_fingerprint": state.key_fingerprint,
    }
    if result.kind == "baseline":
        values["baseline_at"] = result.read_at
    known = select(table.c.number).where(_is_account(table, account))
    number = connection.execute(known).scalar()
    if number is None:
        values |= {"name": account.name, "base_url": account.base_url}
        adding = insert(table).values(values).returning(table.c.number)
        return int(connection.execute(adding).scalar_one())
    connection.execute(update(table).where(table.c.number == number).values(values))
    return int(number)


def _fine_tune_row(number: int, tracked: TrackedFineTune) -> _Row:
    row = {"account": number, **asdict(tracked), **asdict(tracked.fine_tune)}
    del row["fine_tune"]
    row["search"] = searchable(tracked.fine_tune.name, tracked.fine_tune.id)
    return row


_IS_LISTED: Final = schema.fine_tunes.c.missed_polls < POLLS_UNTIL_REMOVED


def _load_fine_tunes(
    connection: Connection, account: AccountKey, *conditions: ColumnElement[bool]
) -> Iterator[TrackedFineTune]:
    table = schema.fine_tunes
    api_fields, own_fields = FineTune.__struct_fields__, TrackedFineTune.__struct_fields__[1:]
    columns = (table.c[name] for name in (*api_fields, *own_fields))
    query = select(*columns).join(schema.accounts, schema.accounts.c.number == table.c.account)
    for row in connection.execute(query.where(_is_account(schema.accounts, account), *conditions)):
        texts, others = row[: len(api_fields)], row[len(api_fields) :]
        fine_tune = FineTune(*texts[:_UNIQUE_FIELDS], *map(shared, texts[_UNIQUE_FIELDS:]))
        yield TrackedFineTune(fine_tune, *others)


def _load_unknown_statuses(connection: Connection, number: int) -> tuple[str, ...]:
    table = schema.unknown_statuses
    query = select(table.c.status).where(table.c.account == number).order_by(table.c.position)
    return tuple(connection.execute(query).scalars())


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


def _store_counters(connection: Connection, number: int, before: Counters, after: Counters) -> None:
    transitions = (
        {
            "account": number,
            "model_id": model,
            "from_status": source,
            "to_status": target,
            "total": total,
        }
        for (model, source, target), total in after.transitions.items() - before.transitions.items()
    )
    removals = (
        {"account": number, "status": status, "total": total}
        for status, total in after.removed.items() - before.removed.items()
    )
    durations = (
        {
            "account": number,
            "status": status,
            "bound": bound,
            "total": bucket.total,
            "seconds": bucket.seconds,
        }
        for (status, bound), bucket in after.durations.items() - before.durations.items()
    )
    upsert(connection, schema.transitions, transitions)
    upsert(connection, schema.removals, removals)
    upsert(connection, schema.status_durations, durations)


def _load_counters(connection: Connection, number: int) -> Counters:
    def rows(table: Table) -> Result[Any]:
        return connection.execute(select(table).where(table.c.account == number))

    return Counters(
        {(r.model_id, r.from_status, r.to_status): r.total for r in rows(schema.transitions)},
        {r.status: r.total for r in rows(schema.removals)},
        {
            (r.status, r.bound): DurationBucket(r.total, r.seconds)
            for r in rows(schema.status_durations)
        },
    )
