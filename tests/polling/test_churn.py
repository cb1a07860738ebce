"""A list that never stands still leads to no wrong news: read, compared and stored as always."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from exporter.cartesia.client import CartesiaClient, RateLimits
from exporter.cartesia.listing import Listing
from exporter.core.events import Event
from exporter.core.model import TrackedFineTune
from exporter.polling.poller import Poller
from exporter.store.accounts import Accounts
from tests.cartesia.churning_list import ChurningApi
from tests.cartesia.client_fixture import REAL_CLOCK, ClientFixture
from tests.polling.poller_fixture import Bench, bench, listing


@dataclass
class Witness:
    """The API's client, and whether it returned what was there."""

    client: CartesiaClient
    api: ChurningApi
    listings: list[Listing] = field(default_factory=list)

    async def list_fine_tunes(
        self, seconds: float, known: Mapping[str, TrackedFineTune]
    ) -> Listing:
        self.api.begin()
        found = await self.client.list_fine_tunes(seconds, known)
        assert self.api.throughout <= found.fine_tunes.keys() <= self.api.ever
        self.listings.append(found)
        return found

    def key_is_refused(self) -> bool:
        return self.client.key_is_refused()

    def remember(self, cursors: Sequence[str]) -> None:
        self.client.remember(cursors)

    def read(self) -> set[str]:
        """The ids that some listing had."""
        return set().union(*(found.fine_tunes.keys() for found in self.listings))

    def read_as_failed(self) -> set[str]:
        """The ids that some listing had as failed, but not already the first one."""
        first, *others = map(failed, self.listings)
        return set().union(*others) - first


def failed(found: Listing) -> set[str]:
    return {each.id for each in found.fine_tunes.values() if each.status == "failed"}


def poller_of(b: Bench, witness: Witness) -> Poller:
    """The bench's poller, with everything told to `slack` and a real source."""
    plan = replace(b.poller._plan, route=lambda _: ["slack"], timeout=30)
    return Poller(witness, Accounts(b.database), plan, b.poller._metrics, REAL_CLOCK)


async def told(b: Bench, kind: str) -> Counter[str]:
    """How often it was told of each fine-tune."""
    owed: list[Event] = await b.owed()
    return Counter(event.fine_tune.id for event in owed if event.fine_tune and event.type == kind)


@pytest.mark.parametrize(("concurrency", "latency"), [(1, 0.003), (8, 0.02)])
def test_under_constant_churn_no_removal_is_false_and_no_failure_is_lost(
    tmp_path, concurrency, latency
):
    async def test(api: ChurningApi) -> None:
        account = ClientFixture(REAL_CLOCK, api.base_url, limits=RateLimits(concurrency))
        witness = Witness(account.client, api)
        async with asyncio.timeout(60), bench(tmp_path / "state.db", listing()) as b:
            poller = poller_of(b, witness)
            for _ in range(8):
                await poller.poll()
                assert b.view.up, b.view.failure
            assert not (await told(b, "fine_tune.removed")).keys() & api.ids
            api.still = True
            for _ in range(2):  # a removal is confirmed by a second poll
                await poller.poll()
            gone = witness.read() & api.gone
            assert await told(b, "fine_tune.removed") == dict.fromkeys(gone, 1)
            assert await told(b, "fine_tune.failed") == dict.fromkeys(witness.read_as_failed(), 1)
            assert failed(witness.listings[-1]) == api.failed & api.ids
            assert b.view.counts is not None
            assert sum(b.view.counts.values()) == len(api.fine_tunes)

    with ChurningApi(latency) as api:
        asyncio.run(test(api))
