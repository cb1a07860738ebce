"""What is remembered of the accounts: their fine-tunes, labels and counters, and what they owe."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from msgspec.structs import asdict
from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.account import AccountState, Step
from exporter.core.labels import LabelName, Labels
from exporter.core.model import AccountKey, FineTune, Known
from exporter.core.tallies import Stays, Tallies
from exporter.core.text import shared
from exporter.store import schema
from exporter.store.cursors import read_cursors, write_cursors
from exporter.store.database import Database
from exporter.store.events import Told, record_events
from exporter.store.outages import begin_outage, end_outage, outage_since

_LABELS: Final[tuple[LabelName, ...]] = ("model_id", "language", "dataset")

_AT_ONCE: Final = 500
"""How many rows are made ready together: those of a whole baseline would take 200 MB."""

_OWN: Final = 3
"""Id, name and description are a fine-tune's own; it shares the texts behind them with others."""


@dataclass(frozen=True, slots=True)
class PollRecord:
    """What one complete poll changes, and what it owes to whom: one transaction.

    ``before`` is None at the baseline. ``owed`` pairs each event with the receivers to be told.
    ``recovery`` is owed before them if the store has an outage of the account, which ends with it.
    ``cursors`` are where the pages of the list begin now; None when that is as before.
    """

    account: AccountKey
    read_at: float
    before: AccountState | None
    step: Step
    owed: Told
    recovery: Told = ()
    cursors: Sequence[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        if self.before is None or self.recovery or self.cursors is not None:
            return False
        return not self.step.changed and self.step.state == self.before


class Accounts:
    """The accounts' part of the state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, account: AccountKey) -> AccountState | None:
        """Return what is remembered of an account; None before its baseline."""
        return await self._database.run(self._load, account)

    async def cursors(self, account: AccountKey) -> tuple[str, ...]:
        """Return where the pages of an account's list began when it was last read."""
        return await self._database.run(self._cursors, account)

    async def commit(self, record: PollRecord) -> None:
        """Store what a poll changed and what is owed for it, all or nothing."""
        await self._database.run(self._commit, record)

    async def outage_since(self, account: AccountKey) -> float | None:
        """Return since when an account cannot be read (Unix seconds); None if none was told."""
        return await self._database.run(self._outage_since, account)

    async def begin_outage(self, account: AccountKey, since: float, owed: Told) -> None:
        """Store that an account cannot be read, and whom that is owed, all or nothing."""
        await self._database.run(self._begin_outage, account, since, owed)

    def _load(self, account: AccountKey) -> AccountState | None:
        with self._database.read() as connection:
            number = _number(connection, account)
            if number is None:
                return None
            return AccountState(
                {known.fine_tune.id: known for known in _known(connection, number)},
                _labels(connection, number),
                _tallies(connection, number),
            )

    def _cursors(self, account: AccountKey) -> tuple[str, ...]:
        with self._database.read() as connection:
            return read_cursors(connection, account)

    def _commit(self, record: PollRecord) -> None:
        with self._database.write() as connection:
            number = _number(connection, record.account)
            if number is None:
                number = _add_account(connection, record)
            before, after = record.before or AccountState(), record.step.state
            changed = record.step.changed.values()
            _upsert(connection, schema.fine_tunes, (_known_row(number, each) for each in changed))
            _upsert(connection, schema.label_values, _label_rows(number, before, after))
            _upsert(connection, schema.transitions, _transition_rows(number, before, after))
            _upsert(connection, schema.removals, _removal_rows(number, before, after))
            _upsert(connection, schema.stays, _stay_rows(number, before, after))
            if record.cursors is not None:
                write_cursors(connection, number, record.cursors)
            ended = bool(record.recovery) and end_outage(connection, record.account)
            record_events(connection, [*(record.recovery if ended else ()), *record.owed])

    def _outage_since(self, account: AccountKey) -> float | None:
        with self._database.read() as connection:
            return outage_since(connection, account)

    def _begin_outage(self, account: AccountKey, since: float, owed: Told) -> None:
        with self._database.write() as connection:
            begin_outage(connection, account, since)
            record_events(connection, owed)


def _number(connection: Connection, account: AccountKey) -> int | None:
    table = schema.accounts
    query = select(table.c.number).where(
        table.c.name == account.name, table.c.base_url == account.base_url
    )
    return connection.execute(query).scalar()


def _add_account(connection: Connection, record: PollRecord) -> int:
    statement = (
        insert(schema.accounts)
        .values(
            name=record.account.name,
            base_url=record.account.base_url,
            baseline_at=record.read_at,
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


def _known_row(number: int, known: Known) -> dict[str, Any]:
    row = {"account": number, **asdict(known), **asdict(known.fine_tune)}
    del row["fine_tune"]
    return row


def _known(connection: Connection, number: int) -> Iterable[Known]:
    table = schema.fine_tunes
    described, known = FineTune.__struct_fields__, Known.__struct_fields__[1:]
    columns = (table.c[name] for name in (*described, *known))
    for row in connection.execute(select(*columns).where(table.c.account == number)):
        texts, others = row[: len(described)], row[len(described) :]
        yield Known(FineTune(*texts[:_OWN], *map(shared, texts[_OWN:])), *others)


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
    changed = after.tallies.transitions.items() - before.tallies.transitions.items()
    names = ("model_id", "from_status", "to_status")
    return [
        {"account": number, **dict(zip(names, key, strict=True)), "total": total}
        for key, total in changed
    ]


def _removal_rows(number: int, before: AccountState, after: AccountState) -> list[dict[str, Any]]:
    changed = after.tallies.removed.items() - before.tallies.removed.items()
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
        for (status, bound), stays in after.tallies.stays.items()
        if before.tallies.stays.get((status, bound)) != stays
    ]


def _tallies(connection: Connection, number: int) -> Tallies:
    moved, removed, stays = schema.transitions, schema.removals, schema.stays
    transitions = select(moved.c.model_id, moved.c.from_status, moved.c.to_status, moved.c.total)
    removals = select(removed.c.status, removed.c.total)
    buckets = select(stays.c.status, stays.c.bound, stays.c.total, stays.c.seconds)
    rows = connection.execute(transitions.where(moved.c.account == number))
    left = connection.execute(removals.where(removed.c.account == number))
    stayed = connection.execute(buckets.where(stays.c.account == number))
    return Tallies(
        {(row[0], row[1], row[2]): row[3] for row in rows},
        {row[0]: row[1] for row in left},
        {(row[0], row[1]): Stays(row[2], row[3]) for row in stayed},
    )
