"""A list whose fine-tunes move while it is read, by a schedule in time, and a sequential reader."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune

Order = Literal["created first", "created last", "changed first", "changed last", "none"]
"""Where a fine-tune is placed that is created, and one that changes. With "none", anywhere."""

Action = Literal["change", "change a cursor", "insert", "delete"]


@dataclass(frozen=True)
class Change:
    """A change ``at`` a time after the start of the poll, in seconds.

    ``position`` says which fine-tune, ``target`` where it goes if the list has no order; both are
    in millionths. "change a cursor" chooses among the list's ``cursors``.
    """

    at: float
    action: Action
    position: int
    target: int = 0


@dataclass
class MovingList:
    """The API's list, in pages of ``size``; answers take ``delays`` (seconds) in turn.

    Half of a delay passes before the list is looked at. ``steady`` are the ids that were in the
    list and did not move since ``start``.
    """

    order: Order
    ids: list[str]
    size: int
    delays: Sequence[float] = (0.1,)
    cursors: Sequence[str] = ()
    requests: list[str | None] = field(default_factory=list)
    schedule: list[tuple[float, Change]] = field(default_factory=list)

    def copy(self) -> "MovingList":
        return replace(self, ids=list(self.ids), requests=[], schedule=[])

    def start(self, changes: Sequence[Change] = ()) -> None:
        """Start a poll, during which the changes happen."""
        now = asyncio.get_running_loop().time()
        self.schedule = sorted(((now + each.at, each) for each in changes), key=lambda e: e[0])
        self.requests = []
        self.steady = set(self.ids)
        self.ever = set(self.ids)
        self._next_delay = itertools.cycle(self.delays).__next__
        self._next_number = itertools.count().__next__

    def change(self, change: Change) -> None:
        if change.action == "insert":
            self._place(f"new_{len(self.ids)}_{self._next_number()}_{change.at}", change)
            return
        if change.action == "change a cursor":
            candidates = [text for text in self.cursors if text in self.ids]
        else:
            candidates = self.ids
        if not candidates:
            return
        text = candidates[change.position * len(candidates) // 10**6]
        if change.action == "delete" or not self.order.startswith("created"):
            self.ids.remove(text)
            self.steady.discard(text)
        if change.action != "delete" and not self.order.startswith("created"):
            self._place(text, change)

    def _place(self, text: str, change: Change) -> None:
        ends = {"first": 0, "last": len(self.ids)}
        anywhere = change.target * (len(self.ids) + 1) // 10**6
        self.ids.insert(ends.get(self.order.rpartition(" ")[2], anywhere), text)
        self.ever.add(text)

    async def fetch(self, cursor: str | None) -> Page:
        """Answer one request; 404 if the cursor's fine-tune was deleted."""
        self.requests.append(cursor)
        delay = self._next_delay() / 2
        await asyncio.sleep(delay)
        while self.schedule and self.schedule[0][0] <= asyncio.get_running_loop().time():
            self.change(self.schedule.pop(0)[1])
        is_known = cursor is None or cursor in self.ids
        begin = self.ids.index(cursor) + 1 if cursor is not None and is_known else 0
        end = begin + self.size
        page = Page([FineTune(text) for text in self.ids[begin:end]], end < len(self.ids), 1)
        await asyncio.sleep(delay)
        if not is_known:
            raise CartesiaError("client_error", "no such cursor", status=404)
        return page


async def read_in_sequence(api: MovingList) -> set[str]:
    """Return the ids that a reader finds who requests one page after the other.

    It starts again when a cursor is gone.
    """
    for _ in range(5):
        found: set[str] = set()
        cursor: str | None = None
        try:
            while True:
                page = await api.fetch(cursor)
                found |= {each.id for each in page.fine_tunes}
                if not page.has_more:
                    return found
                cursor = page.fine_tunes[-1].id
        except CartesiaError:
            continue
    raise AssertionError("a cursor was gone in each of five readings")
