"""Where the pages of a list begin: a hint, by which the first poll after a start is a fast one."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.model import AccountKey
from exporter.store.schema import accounts, cursors


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
