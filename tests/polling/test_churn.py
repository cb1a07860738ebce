"""A list that changes constantly causes no false event, with the real client and store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from exporter.cartesia.client import CartesiaClient
from exporter.cartesia.listing import Listing
from exporter.cartesia.rate_limit import RateLimits
from exporter.core.events import Event
from exporter.core.model import TrackedFineTune
from exporter.polling.poller import Poller
from exporter.store.accounts import Accounts
from tests.cartesia.churning_list import ChurningApi
from tests.cartesia.client_fixture import REAL_CLOCK, ClientFixture
from tests.polling.poller_fixture import PollerFixture, listing, open_poller


@dataclass
class RecordingSource:
    """Reads with the real client; checks and records the listings."""

    client: CartesiaClient
    api: ChurningApi
    listings: list[Listing] = field(default_factory=list)

    async def list_fine_tunes(
        self, seconds: float, tracked: Mapping[str, TrackedFineTune]
    ) -> Listing:
        self.api.begin()
        found = await self.client.list_fine_tunes(seconds, tracked)
        assert self.api.throughout <= found.fine_tunes.keys() <= self.api.ever
        self.listings.append(found)
        return found

    def key_has_worked(self, *, default: bool) -> bool:
        return self.client.key_has_worked(default=default)

    def key_is_refused(self) -> bool:
        return self.client.key_is_refused()

    def remember(self, cursors: Sequence[str]) -> None:
        self.client.remember(cursors)

    def listed(self) -> set[str]:
        """The ids in any listing."""
        return set().union(*(found.fine_tunes.keys() for found in self.listings))

    def newly_failed(self) -> set[str]:
        """The ids that failed in any listing but the first."""
        first, *others = map(failed, self.listings)
        return set().union(*others) - first


def failed(found: Listing) -> set[str]:
    return {each.id for each in found.fine_tunes.values() if each.status == "failed"}


def poller_of(p: PollerFixture, source: RecordingSource) -> Poller:
    """A poller with this source that routes every event to `slack`."""
    settings = replace(p.poller._settings, route=lambda _: ["slack"], timeout=30)
    return Poller(source, Accounts(p.database), settings, p.poller._metrics, REAL_CLOCK)


async def queued(p: PollerFixture, event_type: str) -> Counter[str]:
    """The number of queued events of a type, by fine-tune."""
    events: list[Event] = await p.queued()
    return Counter(
        event.fine_tune.id for event in events if event.fine_tune and event.type == event_type
    )


@pytest.mark.parametrize(("concurrency", "latency"), [(1, 0.003), (8, 0.02)])
async def test_under_constant_churn_no_removal_is_false_and_no_failure_is_lost(
    tmp_path, concurrency, latency
):
    with ChurningApi(latency) as api:
        account = ClientFixture(
            REAL_CLOCK, api.base_url, limits=RateLimits(concurrency=concurrency)
        )
        source = RecordingSource(account.client, api)
        async with open_poller(tmp_path / "state.db", listing()) as p:
            poller = poller_of(p, source)
            for _ in range(8):
                await poller.poll()
                assert p.status.up, p.status.failure
            assert not (await queued(p, "fine_tune.removed")).keys() & api.ids
            api.still = True
            for _ in range(2):  # a removal is confirmed by a second poll
                await poller.poll()
            gone = source.listed() & api.gone
            assert await queued(p, "fine_tune.removed") == dict.fromkeys(gone, 1)
            assert await queued(p, "fine_tune.failed") == dict.fromkeys(source.newly_failed(), 1)
            assert failed(source.listings[-1]) == api.failed & api.ids
            assert p.status.counts is not None
            assert sum(p.status.counts.values()) == len(api.fine_tunes)
