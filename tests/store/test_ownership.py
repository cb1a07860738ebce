"""Leases, takeovers and the fence in PostgreSQL, and the clock that replicas share."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from exporter.core.ownership import ACCOUNT, AGENT, Claim, Item
from exporter.store.awake import read_awake
from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreFencedError, StoreLostError
from exporter.store.ownership import Lease
from tests.postgres_server import location_of
from tests.store.raw_sql import execute

LEASE = 3.0
ITEM = Item(ACCOUNT, "main")


@dataclass
class Replica:
    """A process with a lease, as far as the store knows one."""

    database: Database
    lease: Lease

    async def renew(self, claim: Claim | None = None) -> dict[Item, Claim]:
        """Renew the lease; return the stored claims."""
        return dict((await self.lease.renew("digest", claim)).owners.claims)

    async def take(self, *items: Item) -> dict[Item, Claim]:
        return await self.lease.take(items)

    async def claims(self, *items: Item) -> list[Claim]:
        taken = await self.take(*items)
        return [taken[item] for item in items]

    def write(self, claim: Claim) -> None:
        with self.database.write(claim) as connection:
            connection.execute(text("UPDATE meta SET value = 'written' WHERE name = 'form_key'"))


@pytest.fixture
async def replicas(postgres) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        location = location_of(postgres.url(postgres.emptied_database()), lease=LEASE)
        databases = [await stack.enter_async_context(Database(location)) for _ in range(2)]
        yield [Replica(each, Lease(each, "host", "1.0")) for each in databases]


async def has_written(replica: Replica) -> bool:
    query = "SELECT value FROM meta WHERE name = 'form_key'"
    return bool(await execute(replica.database, query) == [("written",)])


async def test_one_of_two_replicas_takes_what_nobody_owns(replicas):
    first, second = replicas
    await asyncio.gather(first.renew(), second.renew())
    taken = await asyncio.gather(first.take(ITEM, AGENT), second.take(ITEM, AGENT))
    assert sorted([*taken[0], *taken[1]]) == [ITEM, AGENT]
    assert await first.renew() == {**taken[0], **taken[1]}


async def test_an_owner_is_replaced_when_its_lease_has_ended_and_not_before(replicas):
    first, second = replicas
    await first.renew()
    [claim] = await first.claims(ITEM)
    await second.renew()
    assert await second.take(ITEM) == {}
    await asyncio.sleep(LEASE + 0.1)
    await second.renew()
    [other] = await second.claims(ITEM)
    assert (other.holder, other.term) == (second.lease.replica, claim.term + 1)
    with pytest.raises(StoreFencedError, match="another replica owns the account main"):
        await first.database.run(first.write, claim)
    await second.database.run(second.write, other)
    assert first.database.trouble == "", "the database can be written"


async def test_a_lease_that_was_ended_or_released_is_free_at_once(replicas):
    first, second = replicas
    await first.renew()
    released, ended = await first.claims(ITEM, AGENT)
    await second.renew()
    await first.lease.release([released])
    assert [*await second.take(ITEM, AGENT)] == [ITEM]
    await first.lease.end()
    [taken] = await second.claims(AGENT)
    assert taken.term == ended.term + 1, "the term only grows"


async def test_a_takeover_from_another_address_is_a_move_and_a_restart_is_none(replicas):
    first, second = replicas
    first.lease.url, second.lease.url = "http://localhost:1", "http://localhost:2"
    moves = []
    for owner in (first, first, second, first):
        owner.lease.begin_again()
        await owner.renew()
        [claim] = await owner.claims(ITEM)
        assert (await owner.renew())[ITEM] == claim
        moves.append(claim.moves)
        await owner.lease.release([claim])
    assert moves == [0, 0, 1, 2]


async def test_the_owner_that_begins_again_is_another_replica(replicas):
    first, _ = replicas
    await first.renew()
    [claim] = await first.claims(ITEM)
    first.lease.begin_again()
    await first.renew()
    with pytest.raises(StoreFencedError):
        await first.database.run(first.write, claim)
    [again] = await first.claims(ITEM)
    assert again.term == claim.term + 1


async def test_a_claim_of_before_an_owner_that_expired_cannot_write(replicas):
    first, _ = replicas
    await first.renew()
    [claim] = await first.claims(ITEM)
    await asyncio.sleep(LEASE + 0.1)
    fenced: list[Claim] = []
    first.database.on_fenced = fenced.append
    with pytest.raises(StoreFencedError):
        await first.database.run(first.write, claim)
    assert fenced == [claim]
    assert await first.renew() == {ITEM: claim}
    await first.database.run(first.write, claim)


async def test_a_takeover_waits_for_a_transaction_and_not_for_one_that_is_paused(replicas):
    """The fence locks: a commit after the takeover would be lost or store twice."""
    first, second = replicas
    await first.renew()
    [claim] = await first.claims(ITEM)
    began, goes_on = threading.Event(), threading.Event()

    def pause_within() -> None:
        with first.database.write(claim) as connection:
            connection.execute(text("UPDATE meta SET value = 'written' WHERE name = 'form_key'"))
            began.set()
            goes_on.wait(10)

    await second.renew()
    writing = asyncio.create_task(first.database.run(pause_within))
    await asyncio.to_thread(began.wait)
    await first.lease.end()
    assert await second.take(ITEM) == {}, "its owner may still commit"
    async with asyncio.timeout(10):
        while not await second.take(ITEM):
            await asyncio.sleep(0.1)
            await second.renew()
    goes_on.set()
    with pytest.raises(StoreError):
        await writing
    assert not await has_written(second)


async def test_all_replicas_read_one_awake_clock_that_its_owner_advances(replicas):
    first, second = replicas
    await asyncio.gather(first.renew(), second.renew())
    [agent] = await first.claims(AGENT)
    await first.renew(agent)
    before = first.database.awake.now()
    for _ in range(3):
        await asyncio.sleep(0.3)
        await first.renew(agent)
        await second.renew()
    assert 0.9 < first.database.awake.now() - before < 5
    assert abs(first.database.awake.now() - second.database.awake.now()) < 0.3

    def stored() -> float:
        with second.database.read() as connection:
            return read_awake(connection)

    assert abs(await second.database.run(stored) - second.database.awake.now()) < 0.3


async def test_time_without_an_owner_counts_for_one_lease_at_most(replicas):
    first, second = replicas
    await first.renew()
    [agent] = await first.claims(AGENT)
    await first.renew(agent)
    before = first.database.awake.now()
    await asyncio.sleep(2 * LEASE)
    await second.renew()
    [agent] = await second.claims(AGENT)
    await second.renew(agent)
    assert LEASE - 0.1 < second.database.awake.now() - before < LEASE + 0.6


async def test_a_renewal_in_a_replaced_database_changes_nothing_and_says_so(replicas):
    first, second = replicas
    await execute(first.database, "UPDATE meta SET value = 'other' WHERE name = 'store_id'")
    with pytest.raises(StoreLostError, match="was replaced by another state while in use"):
        await first.renew()
    assert isinstance(first.database.lost, StoreLostError)
    assert await execute(second.database, "SELECT count(*) FROM replicas") == [(0,)]
