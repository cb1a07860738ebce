"""A list that never stands still, read over real sockets as fast as it can be."""

from exporter.cartesia.client import Limits
from tests.cartesia.churning_list import ChurningApi
from tests.cartesia.client_fixture import REAL_CLOCK, Account


def test_under_constant_churn_eight_polls_in_a_row_miss_nothing():
    with ChurningApi(latency=0.005) as api:
        account = Account(REAL_CLOCK, api.base_url, limits=Limits(concurrency=8))
        for _ in range(8):
            api.begin()
            begun = len(api.requests)
            read = account.list().fine_tunes.keys()
            assert api.throughout <= read <= api.ever
            # It is read twice when the cursor that goes is needed.
            assert len(api.requests) - begun < 3 * len(api.fine_tunes) / 100
