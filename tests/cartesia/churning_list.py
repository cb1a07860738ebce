"""A list that never stands still, on real sockets, and what is true of it."""

import random
import threading
from typing import Any

from tests.fakes.api import FakeApi, fine_tune
from tests.fakes.server import Peer


class ChurningApi(FakeApi):
    """With each request a fine-tune comes or goes, and now and then one fails.

    More often than 20 and 10 times a second: 26 pages take a fraction of one. They come at the
    head of the list and in between, some of them failed. In each poll the last one that goes is a
    cursor, when it is asked for: a second one that is needed would end the poll, as it should.
    Nothing depends on how fast the API is asked. ``latency`` is in seconds.
    """

    def __init__(self, latency: float, size: int = 2_500) -> None:
        super().__init__([fine_tune(f"ft_{n}") for n in range(size)])
        self.otherwise = self._churn
        self.still = False
        self._latency = latency
        self.failed: set[str] = set()
        self.gone: set[str] = set()
        self._chance = random.Random(1)
        self._lock = threading.RLock()
        self._born = size
        self._turns = 0
        self.begin()

    @property
    def ids(self) -> set[str]:
        with self._lock:
            return {item["id"] for item in self.fine_tunes}

    def begin(self) -> None:
        """A poll begins."""
        with self._lock:
            self.throughout = self.ids
            self.ever = set(self.throughout)
            self._may_delete = True

    def _churn(self, peer: Peer) -> None:
        peer.wait(self._latency)
        cursor = peer.request.query.get("starting_after")
        with self._lock:
            if not self.still:
                self._turns += 1
                self._change(self._turns, cursor)
            self._list(peer)

    def _change(self, turn: int, cursor: str | None) -> None:
        if turn % 2:
            self._insert(0 if turn % 4 == 1 else self._chance.randrange(len(self.fine_tunes)))
        if turn % 5 == 0:
            self._fail(self._chance.choice(self.fine_tunes))
        if cursor is not None and cursor not in self.ids:
            self._may_delete = False
        elif cursor is not None and self._may_delete and turn % 16 == 0:
            self._delete(cursor)
            self._may_delete = False
        elif self._may_delete and turn % 2 == 0:
            self._delete(self._chance.choice(self.fine_tunes)["id"])

    def _insert(self, index: int) -> None:
        made = fine_tune(f"ft_{self._born}", status="created")
        self.fine_tunes.insert(index, made)
        self.ever.add(made["id"])
        self._born += 1
        if self._born % 7 == 0:
            self._fail(made)

    def _delete(self, fine_tune_id: str) -> None:
        self.fine_tunes = [item for item in self.fine_tunes if item["id"] != fine_tune_id]
        self.throughout.discard(fine_tune_id)
        self.gone.add(fine_tune_id)

    def _fail(self, item: dict[str, Any]) -> None:
        item["status"] = "failed"
        self.failed.add(item["id"])
