"""A list that changes while it is read, and lanes that read it in any order the test draws."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page
from exporter.core.model import FineTune

Kind = Literal["insert at the head", "insert", "delete", "delete a cursor", "fail", "move"]


@dataclass(frozen=True)
class Change:
    """What happens to the list: at which place of it, in millionths of its length."""

    kind: Kind
    place: int


@dataclass
class World:
    """The list as the API has it, page by page, and what was in it since ``begin``.

    ``during`` happens while it is read, one change before each request; ``delays`` are for how many
    turns of the loop an answer is under way, so that later requests may be answered before it.
    """

    size: int
    ids: list[str]
    during: list[Change] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    cursors: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._next = len(self.ids)
        self._statuses = dict.fromkeys(self.ids, "created")
        self.begin()

    def begin(self) -> None:
        """A poll begins: forget what was."""
        self.requests = []
        self.throughout = set(self.ids)
        self.seen = {(text, self._statuses[text]) for text in self.ids}

    def change(self, change: Change) -> None:
        index = change.place * len(self.ids) // 10**6
        if change.kind == "insert at the head":
            self._insert(0)
        elif change.kind == "insert":
            self._insert(index)
        elif self.ids and change.kind == "delete":
            self._delete(self.ids[index])
        elif present := [text for text in self.cursors if text in self.ids]:
            if change.kind == "delete a cursor":
                self._delete(present[change.place * len(present) // 10**6])
            elif change.kind == "move":
                self.ids.insert(index, self.ids.pop(self.ids.index(present[index % len(present)])))
        if self.ids and change.kind == "fail":
            self._set(self.ids[index], "failed")

    def _insert(self, index: int) -> None:
        text = f"ft_{self._next}"
        self._next += 1
        self.ids.insert(index, text)
        self._set(text, "created")

    def _delete(self, text: str) -> None:
        self.ids.remove(text)
        self.throughout.discard(text)

    def _set(self, text: str, status: str) -> None:
        self._statuses[text] = status
        self.seen.add((text, status))

    def page(self, cursor: str | None) -> Page:
        """The page behind a cursor as of now; 404 when the cursor's fine-tune is gone."""
        if cursor is not None and cursor not in self.ids:
            raise CartesiaError("client_error", "no such cursor", status=404)
        begin = 0 if cursor is None else self.ids.index(cursor) + 1
        end = begin + self.size
        items = [FineTune(text, status=self._statuses[text]) for text in self.ids[begin:end]]
        return Page(items, end < len(self.ids), 1)

    async def fetch(self, cursor: str | None) -> Page:
        """Answer one request of a lane."""
        self.requests.append(cursor)
        if self.during:
            self.change(self.during.pop(0))
        for _ in range(self.delays.pop(0) if self.delays else 0):
            await asyncio.sleep(0)
        page = self.page(cursor)
        await asyncio.sleep(0)
        return page
