"""The outages that were told: what keeps them from being told twice, or ending untold."""

from sqlalchemy import ColumnElement, Connection, and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.model import AccountKey
from exporter.store.schema import poll_outages


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
