"""Lease of one replica in PostgreSQL, and what it owns. Imports psycopg."""

import asyncio
import secrets
from collections.abc import Callable, Collection, Hashable, Iterable
from math import inf
from typing import Any, Final, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, select

from exporter.core.model import AccountKey
from exporter.core.ownership import Claim, Item, Owners
from exporter.store.database import Database
from exporter.store.engines import postgres_ownership
from exporter.store.engines.postgres import PostgresEngine
from exporter.store.engines.postgres_ownership import (
    CLAIMS,
    LIVE_REPLICAS,
    STATE,
    advance_awake_clock,
    expire_lease,
    renew_lease,
    to_claim,
)
from exporter.store.errors import StoreError, StoreLostError
from exporter.store.schema import accounts, poll_outages
from exporter.threads import start_executor

_Result = TypeVar("_Result")

_ID_BYTES: Final = 16


class StoredPoll(Struct, frozen=True):
    """When an account was last read completely, and its outage: Unix seconds and the reason."""

    read_at: float
    failing_since: float | None
    reason: str


class Renewal(Struct, frozen=True):
    """What a renewal of the lease found.

    ``server`` is another value after the database was restarted or replaced by another server: what
    was read before may not be stored any more. ``changes`` is another value after another process
    wrote. ``polls`` are those of all accounts with a baseline. The first lease of another replica
    ends in ``next_end`` seconds unless it is renewed.
    """

    owners: Owners
    server: Hashable
    changes: Hashable
    polls: dict[AccountKey, StoredPoll]
    next_end: float = inf


class Lease:
    """The lease of this process in a database that replicas share. Methods raise StoreError.

    Everything runs in one thread and on one connection, in the order of the calls. ``replica`` is a
    random id: a name may be used again while the lease of its last user has not ended. The process
    runs on the machine ``name`` and has its pages at ``url`` there.
    """

    url = ""

    def __init__(self, database: Database, name: str, version: str) -> None:
        assert isinstance(database.engine, PostgresEngine), "a state file has one agent"
        self.replica = secrets.token_hex(_ID_BYTES)
        self._left: list[str] = []
        self.seconds = database.engine.lease
        self._database = database
        self._engine = database.engine
        self._values = {"name": name, "version": version}
        self._thread = start_executor("lease")

    @property
    def is_lost(self) -> bool:
        """Whether the database is not the state of this agent any more."""
        return self._database.lost is not None

    async def renew(self, configuration: str, agent: Claim | None) -> Renewal:
        """Renew the lease; if ``agent`` is given, advance the awake clock.

        Raises StoreLostError if the database is not the same any more.
        """
        try:
            left = [*self._left]
            values = {**self._values, "id": self.replica, "configuration": configuration}
            renewal, awake = await self._run(self._renew, values, left, agent)
            self._left = [each for each in self._left if each not in left]
        except StoreLostError as error:
            self._database.lose(error)
            raise
        except StoreError as error:
            self._database.note_write(str(error))
            self._database.errors += 1
            raise
        self._database.note_write("")
        self._database.awake.follow(awake)
        return renewal

    def begin_again(self) -> None:
        """Use another id from the next renewal on, which ends the lease of the old one."""
        self._left.append(self.replica)
        self.replica = secrets.token_hex(_ID_BYTES)

    async def take(self, items: Collection[Item]) -> dict[Item, Claim]:
        """Take what has no live owner; return the claims that were taken."""
        replica, address = self.replica, f"{self._values['name']} {self.url}"

        def take() -> dict[Item, Claim]:
            with self._engine.leasing(changes_owners=True) as connection:
                taken = postgres_ownership.take(connection, replica, address, items)
            return {claim.item: claim for claim in taken}

        return await self._run(take)

    async def release(self, claims: Iterable[Claim]) -> None:
        """Leave what is claimed to others."""

        def release() -> None:
            with self._engine.leasing(changes_owners=True) as connection:
                postgres_ownership.release(connection, claims)

        await self._run(release)

    async def end(self) -> None:
        """End the lease now, so that others need not wait for its end."""

        def end() -> None:
            with self._engine.leasing(changes_owners=True) as connection:
                expire_lease(connection, self.replica)

        await self._run(end)

    def close(self) -> None:
        """Accept no more work."""
        self._thread.shutdown(wait=False)

    def _renew(
        self, values: dict[str, str], left: list[str], agent: Claim | None
    ) -> tuple[Renewal, float]:
        with self._engine.leasing(changes_owners=False) as connection:
            for replica in left:
                expire_lease(connection, replica)
            renew_lease(connection, values, self.seconds)
            if agent is not None:
                advance_awake_clock(connection, agent, self.seconds)
            state = connection.execute(STATE).one()
            live = connection.execute(LIVE_REPLICAS).all()
            claims = list(map(to_claim, connection.execute(CLAIMS)))
            changes = self._engine.external_changes(connection)
            polls = _stored_polls(connection)
            if state.store_id != self._database.store_id or state.awake is None:
                how = "emptied" if state.store_id is None else "replaced by another state"
                raise StoreLostError(f"{self._engine.description} was {how} while in use")
        configurations = {each.id: each.configuration for each in live}
        owners = Owners(configurations, {claim.item: claim for claim in claims})
        ends = (float(each.seconds_left) for each in live if each.id != values["id"])
        return Renewal(owners, state.server, changes, polls, min(ends, default=inf)), state.awake

    async def _run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _stored_polls(connection: Connection) -> dict[AccountKey, StoredPoll]:
    outage = (poll_outages.c.name == accounts.c.name) & (
        poll_outages.c.base_url == accounts.c.base_url
    )
    columns = accounts.c.name, accounts.c.base_url, accounts.c.read_at
    query = select(*columns, poll_outages.c.since, poll_outages.c.reason)
    rows = connection.execute(query.select_from(accounts.outerjoin(poll_outages, outage)))
    return {
        AccountKey(row.name, row.base_url): StoredPoll(row.read_at, row.since, row.reason or "")
        for row in rows
    }
