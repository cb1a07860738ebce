"""When a replica renews its lease."""

import asyncio
from math import inf
from typing import cast
from unittest.mock import AsyncMock, Mock

import pytest

from exporter.agent.ownership import Ownership, ReplicaObservers
from exporter.agent.services import Services
from exporter.core.ownership import AGENT, Claim, Item, Owners
from exporter.store.ownership import Lease, Renewal
from tests.polling.virtual_time import VIRTUAL_TIME, loop_clock


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


class FakeLease:
    """The lease of a replica of a server, which is restarted when ``server`` changes.

    The lease of another replica ends ``other_ends`` seconds after the first renewal.
    """

    seconds = 15.0
    is_lost = False
    url = ""

    def __init__(self, other_ends: float = inf) -> None:
        self.server = "first"
        self.replica = "0"
        self.other_ends = other_ends
        self.renewals: list[tuple[str, float]] = []

    async def renew(self, configuration: str, _: Claim | None) -> Renewal:
        now = asyncio.get_running_loop().time()
        self.renewals.append((self.replica, now))
        left = self.other_ends - (now - self.renewals[0][1])
        owners = Owners({self.replica: configuration}, {})
        return Renewal(owners, self.server, 0, {}, left if left > 0 else inf)

    async def take(self, items: list[Item]) -> dict[Item, Claim]:
        return {item: Claim(item, self.replica, 1) for item in items}

    def begin_again(self) -> None:
        self.replica = str(int(self.replica) + 1)


async def renewals_of(lease: FakeLease, server: str = "first") -> list[tuple[str, float]]:
    """The renewals within 10 s, by replica and seconds; it is another server after the first."""
    services = Mock(Services, items=frozenset({AGENT}), replace=AsyncMock())
    observers = ReplicaObservers(Mock(), AsyncMock())
    ownership = Ownership(cast("Lease", lease), services, loop_clock(), observers)
    await ownership.join("http://localhost:1")
    lease.server = server
    stop = asyncio.Event()
    task = asyncio.create_task(ownership.run(stop))
    await asyncio.sleep(10)
    stop.set()
    await task
    return [(replica, round(at - lease.renewals[0][1], 3)) for replica, at in lease.renewals]


async def test_after_a_restart_of_the_database_the_new_lease_begins_at_once():
    renewals = await renewals_of(FakeLease(), "second")
    assert renewals == [("0", 0), ("0", 0), ("1", 0), ("1", 3), ("1", 6), ("1", 9)]


async def test_a_lease_that_ends_between_two_renewals_is_noticed_at_once():
    renewals = await renewals_of(FakeLease(other_ends=7))
    assert [at for _, at in renewals] == [0, 0, 3, 6, 7.05]
