"""Polls of a list that changes with every request, over real sockets."""

from exporter.cartesia.client import RateLimits
from tests.cartesia.churning_list import ChurningApi
from tests.cartesia.client_fixture import REAL_CLOCK, ClientFixture


async def test_polls_of_a_churning_list_miss_nothing():
    with ChurningApi(latency=0.005) as api:
        fixture = ClientFixture(REAL_CLOCK, api.base_url, limits=RateLimits(concurrency=8))
        for _ in range(8):
            api.begin()
            before = len(api.requests)
            ids = (await fixture.poll()).fine_tunes.keys()
            assert api.throughout <= ids <= api.ever
            # The list is read twice if the deleted cursor is needed.
            assert len(api.requests) - before < 3 * len(api.fine_tunes) / 100
