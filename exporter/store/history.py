"""History for the pages: trainings, hourly counts, outages and attempts."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select

from exporter.core.account import PollResult
from exporter.core.model import STATUSES, TRAINING, AccountKey
from exporter.core.view import by_status
from exporter.store.engines import upsert
from exporter.store.schema import attempts, hourly_counts, outages, trainings

HOUR_SECONDS: Final = 3600

_Row = dict[str, Any]


def record_poll(connection: Connection, number: int, result: PollResult) -> None:
    """Store the trainings that a poll saw end, and the account's counts if they changed.

    ``number`` is that of the account. Part of the caller's transaction.
    """
    if rows := list(_ended_trainings(number, result)):
        upsert(connection, trainings, rows)
    counts = by_status(result.status.counts or {})
    columns = [hourly_counts.c[status] for status in STATUSES]
    newest = (
        select(*columns)
        .where(hourly_counts.c.account == number)
        .order_by(hourly_counts.c.hour.desc())
        .limit(1)
    )
    stored = connection.execute(newest).first()
    if stored is None or stored._asdict() != counts:
        hour = int(result.read_at // HOUR_SECONDS)
        upsert(connection, hourly_counts, [{"account": number, "hour": hour, **counts}])


def record_outage(connection: Connection, account: AccountKey, outage: Any, until: float) -> None:
    """Store an outage that ended, within the caller's transaction.

    ``outage`` is its row with ``since`` and ``reason``; times are Unix seconds.
    """
    connection.execute(
        insert(outages).values(
            account=account.name,
            base_url=account.base_url,
            since=outage.since,
            until=until,
            reason=outage.reason,
        )
    )


def delete_history(connection: Connection, before: float) -> None:
    """Delete what ended before ``before`` (Unix seconds), within the caller's transaction.

    The newest counts of an account stay: they hold until the next change.
    """
    for table, column in ((trainings, "ended_at"), (outages, "until"), (attempts, "at")):
        connection.execute(delete(table).where(table.c[column] < before))
    _delete_hours(connection, int(before // HOUR_SECONDS))


def _delete_hours(connection: Connection, before: int) -> None:
    later: Table = hourly_counts.alias("later")  # type: ignore[assignment]  # an Alias
    superseded = (
        select(later.c.hour)
        .where(later.c.account == hourly_counts.c.account, later.c.hour > hourly_counts.c.hour)
        .where(later.c.hour <= before)
        .exists()
    )
    connection.execute(delete(hourly_counts).where(hourly_counts.c.hour < before, superseded))


def _ended_trainings(number: int, result: PollResult) -> Iterator[_Row]:
    before = {} if result.before is None else result.before.tracked
    for each in result.transitions:
        if each.from_status != TRAINING or each.removed:
            continue
        if (tracked := before.get(each.fine_tune.id)) is None:
            continue
        yield {
            "account": number,
            "fine_tune": each.fine_tune.id,
            "sequence": each.sequence,
            "model_id": each.fine_tune.model_id,
            "began_at": tracked.since,
            "ended_at": result.read_at,
            "seconds": each.time_in_status,
            "ended_as": each.to_status,
        }
