"""An API on real sockets whose list changes with every request."""

import random
import threading
from typing import Any

from tests.fakes.api import FakeApi, fine_tune
from tests.fakes.server import Peer


class ChurningApi(FakeApi):
    """With each request a fine-tune is added or deleted, and sometimes one fails.

    That is more often than 20 and 10 times a second: 26 pages take a fraction of a second. Some of
    the added fine-tunes are failed already. In each poll the last deletion is that of a cursor,
    when it is requested: the deletion of a second cursor that is needed would rightly fail the
    poll. The changes depend on the number of requests, not on time. ``latency`` is in seconds.

    ``throughout`` are the ids that were in the list for the whole poll, ``ever`` those that were in
    it at some time of the poll, ``gone`` and ``failed`` those of all time.
    """

    def __init__(self, latency: float, size: int = 2_500) -> None:
        super().__init__([fine_tune(f"ft_{n}") for n in range(size)])
        self.otherwise = self._answer
        self.still = False
        self._latency = latency
        self.failed: set[str] = set()
        self.gone: set[str] = set()
        self._random = random.Random(1)
        self._lock = threading.RLock()
        self._next_number = size
        self._requests = 0
        self.begin()

    @property
    def ids(self) -> set[str]:
        with self._lock:
            return {item["id"] for item in self.fine_tunes}

    def begin(self) -> None:
        """Start a poll."""
        with self._lock:
            self.throughout = self.ids
            self.ever = set(self.throughout)
            self._may_delete = True

    def _answer(self, peer: Peer) -> None:
        peer.wait(self._latency)
        cursor = peer.request.query.get("starting_after")
        with self._lock:
            if not self.still:
                self._requests += 1
                self._change(self._requests, cursor)
            self._list(peer)

    def _change(self, number: int, cursor: str | None) -> None:
        if number % 2:
            self._insert(0 if number % 4 == 1 else self._random.randrange(len(self.fine_tunes)))
        if number % 5 == 0:
            self._fail(self._random.choice(self.fine_tunes))
        if cursor is not None and cursor not in self.ids:
            self._may_delete = False
        elif cursor is not None and self._may_delete and number % 16 == 0:
            self._delete(cursor)
            self._may_delete = False
        elif self._may_delete and number % 2 == 0:
            self._delete(self._random.choice(self.fine_tunes)["id"])

    def _insert(self, index: int) -> None:
        new = fine_tune(f"ft_{self._next_number}", status="created")
        self.fine_tunes.insert(index, new)
        self.ever.add(new["id"])
        self._next_number += 1
        if self._next_number % 7 == 0:
            self._fail(new)

    def _delete(self, fine_tune_id: str) -> None:
        self.fine_tunes = [item for item in self.fine_tunes if item["id"] != fine_tune_id]
        self.throughout.discard(fine_tune_id)
        self.gone.add(fine_tune_id)

    def _fail(self, item: dict[str, Any]) -> None:
        item["status"] = "failed"
        self.failed.add(item["id"])
