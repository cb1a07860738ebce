"""A list that never stands still, read over real sockets as fast as it can be."""

import random
import threading

from exporter.cartesia.client import Limits
from tests.cartesia.account import REAL_CLOCK, Account
from tests.fakes.api import FakeApi, fine_tune
from tests.fakes.server import Peer


class ChurningApi(FakeApi):
    """Two fine-tunes come and one goes with every other request, some at the head, some between.

    Far more than 20 and 10 a second: a poll of 26 pages takes a fraction of one.
    """

    def __init__(self) -> None:
        super().__init__([fine_tune(f"ft_{n}") for n in range(2_500)])
        self._chance = random.Random(1)
        self._lock = threading.Lock()
        self._born = len(self.fine_tunes)
        self._requests = 0
        self.begin()
        self.otherwise = self._churn

    def begin(self) -> None:
        self.throughout = {item["id"] for item in self.fine_tunes}
        self.ever = set(self.throughout)

    def _churn(self, peer: Peer) -> None:
        peer.wait(0.005)
        with self._lock:
            self._requests += 1
            if self._requests % 2 == 0:
                self._insert(0)
                self._insert(self._chance.randrange(len(self.fine_tunes)))
                gone = self.fine_tunes.pop(self._chance.randrange(len(self.fine_tunes)))
                self.throughout.discard(gone["id"])
            self._list(peer)

    def _insert(self, index: int) -> None:
        self.fine_tunes.insert(index, fine_tune(f"ft_{self._born}"))
        self.ever.add(f"ft_{self._born}")
        self._born += 1


def test_under_constant_churn_eight_polls_in_a_row_miss_nothing():
    with ChurningApi() as api:
        account = Account(REAL_CLOCK, api.base_url, limits=Limits(concurrency=8))
        for _ in range(8):
            api.begin()
            begun = len(api.requests)
            read = account.list().fine_tunes.keys()
            assert api.throughout <= read <= api.ever
            assert len(api.requests) - begun < 2 * 26
