"""A list of fine-tunes that changes while it is read, with answers in any order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune

Action = Literal["insert at the head", "insert", "delete", "delete a cursor", "fail", "move"]


@dataclass(frozen=True)
class Change:
    """A change of the list, at a position in millionths of its length."""

    action: Action
    position: int


@dataclass
class ChangingList:
    """The API's list, in pages of ``size``, and what it contained since ``start_poll``.

    Before each request the next of ``changes`` is applied. ``delays`` are the numbers of event loop
    turns that answers take, so that a later request may be answered first. ``cursors`` are those
    that "delete a cursor" and "move" choose from.
    """

    size: int
    ids: list[str]
    changes: list[Change] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    cursors: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._next_number = len(self.ids)
        self._statuses = dict.fromkeys(self.ids, "created")
        self.start_poll()

    def start_poll(self) -> None:
        """Forget the requests and the history.

        ``always_present`` are the ids that were never absent since, ``observable`` all pairs of id
        and status that the list contained.
        """
        self.requests = []
        self.always_present = set(self.ids)
        self.observable = {(text, self._statuses[text]) for text in self.ids}

    def change(self, change: Change) -> None:
        index = change.position * len(self.ids) // 10**6
        if change.action == "insert at the head":
            self._insert(0)
        elif change.action == "insert":
            self._insert(index)
        elif self.ids and change.action == "delete":
            self._delete(self.ids[index])
        elif present := [text for text in self.cursors if text in self.ids]:
            if change.action == "delete a cursor":
                self._delete(present[change.position * len(present) // 10**6])
            elif change.action == "move":
                self.ids.insert(index, self.ids.pop(self.ids.index(present[index % len(present)])))
        if self.ids and change.action == "fail":
            self._set_status(self.ids[index], "failed")

    def _insert(self, index: int) -> None:
        text = f"ft_{self._next_number}"
        self._next_number += 1
        self.ids.insert(index, text)
        self._set_status(text, "created")

    def _delete(self, text: str) -> None:
        self.ids.remove(text)
        self.always_present.discard(text)

    def _set_status(self, text: str, status: str) -> None:
        self._statuses[text] = status
        self.observable.add((text, status))

    def page(self, cursor: str | None) -> Page:
        """Return the current page after a cursor; 404 if the cursor's fine-tune was deleted."""
        if cursor is not None and cursor not in self.ids:
            raise CartesiaError("client_error", "no such cursor", status=404)
        begin = 0 if cursor is None else self.ids.index(cursor) + 1
        end = begin + self.size
        items = [FineTune(text, status=self._statuses[text]) for text in self.ids[begin:end]]
        return Page(items, end < len(self.ids), 1)

    async def fetch(self, cursor: str | None) -> Page:
        """Answer one request."""
        self.requests.append(cursor)
        if self.changes:
            self.change(self.changes.pop(0))
        for _ in range(self.delays.pop(0) if self.delays else 0):
            await asyncio.sleep(0)
        page = self.page(cursor)
        await asyncio.sleep(0)
        return page
