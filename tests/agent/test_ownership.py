"""When a replica renews its lease."""

import asyncio
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
    """The lease of the only replica of a server, which is restarted when ``server`` changes."""

    seconds = 15.0
    is_lost = False

    def __init__(self) -> None:
        self.server = "first"
        self.replica = "0"
        self.renewals: list[tuple[str, float]] = []

    async def renew(self, configuration: str, _: Claim | None) -> Renewal:
        self.renewals.append((self.replica, asyncio.get_running_loop().time()))
        return Renewal(Owners({self.replica: configuration}, {}), self.server, 0, {})

    async def take(self, items: list[Item]) -> dict[Item, Claim]:
        return {item: Claim(item, self.replica, 1) for item in items}

    def begin_again(self) -> None:
        self.replica = str(int(self.replica) + 1)


async def test_after_a_restart_of_the_database_the_new_lease_begins_at_once():
    lease, services = FakeLease(), Mock(Services, items=frozenset({AGENT}), replace=AsyncMock())
    observers = ReplicaObservers(Mock(), AsyncMock())
    ownership = Ownership(cast("Lease", lease), services, loop_clock(), observers)
    await ownership.join()
    lease.server = "second"
    stop = asyncio.Event()
    task = asyncio.create_task(ownership.run(stop))
    await asyncio.sleep(10)
    stop.set()
    await task
    times = [round(at - lease.renewals[0][1], 3) for _, at in lease.renewals]
    assert times == [0, 0, 0, 3, 6, 9]
    assert [replica for replica, _ in lease.renewals] == ["0", "0", "1", "1", "1", "1"]
