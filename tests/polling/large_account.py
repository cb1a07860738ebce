"""A large account: its list in memory, read by the real client over lanes without a socket."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry

from exporter.cartesia.client import ApiSettings, CartesiaClient, ClientMetrics
from exporter.cartesia.listing import Listing
from exporter.core.account import PollResult, apply_snapshot
from exporter.http_client import Bounds, HttpClient, Request, Response
from exporter.polling import poller
from tests.cartesia.client_fixture import BASE_URL, KEY, REAL_CLOCK
from tests.fakes.api import fine_tune, page
from tests.fakes.secret import FakeSecret
from tests.polling.poller_fixture import Bench, bench

PAGE = 100


class LargeList(HttpClient):
    """Answers with the pages of a list, as the API does; they are there before it is asked."""

    def __init__(self, number: int) -> None:
        self._fine_tunes = [
            fine_tune(f"ft_{n}", name=f"Voice {n}", dataset=f"set_{n % 50}") for n in range(number)
        ]
        self._pages: dict[str | None, bytes] = {}
        self._write(range(0, number, PAGE))

    def change(self, places: Sequence[int], word: str, **fields: Any) -> None:
        """Give the fine-tunes at these places of the list other names, and other fields."""
        for place in places:
            name = f"Voice {place}, {word}"
            self._fine_tunes[place] = {**self._fine_tunes[place], "name": name, **fields}
        self._write({place // PAGE * PAGE for place in places})

    def _write(self, begins: Iterable[int]) -> None:
        for begin in begins:
            cursor = self._fine_tunes[begin - 1]["id"] if begin else None
            more = begin + PAGE < len(self._fine_tunes)
            body = page(self._fine_tunes[begin : begin + PAGE], has_more=more)
            self._pages[cursor] = json.dumps(body).encode()

    def clone(self) -> HttpClient:
        return self

    async def aclose(self) -> None:
        pass

    async def send(self, request: Request, bounds: Bounds) -> Response:
        await asyncio.sleep(0)
        cursor = parse_qs(urlsplit(request.url).query).get("starting_after", [None])[0]
        return Response("memory", 200, httpx.Headers(), self._pages[cursor])


@asynccontextmanager
async def large(path: Path, pages: LargeList) -> AsyncIterator[Bench]:
    """A bench whose poller reads the list by a client of its own."""
    api = ApiSettings("default", BASE_URL, "2026-03-01", FakeSecret(KEY))
    client = CartesiaClient(pages, api, ClientMetrics(CollectorRegistry()), REAL_CLOCK)

    async def read() -> Listing:
        return await client.list_fine_tunes(60, made.source.known)

    async with bench(path, read) as made:
        yield made


@dataclass
class Loop:
    """What became of a loop while it was watched.

    ``longest`` is how many seconds its thread worked without a turn at most: processor time, which
    a busy machine makes no longer; ``latest`` is by how many seconds a turn was late at most.
    ``beside`` is how many turns there were while readings were compared, by each of them.
    """

    turns: int = 0
    longest: float = 0.0
    latest: float = 0.0

    def __post_init__(self) -> None:
        self.beside: list[int] = []

    def compare(self, *arguments: Any) -> PollResult:
        before = self.turns
        found = apply_snapshot(*arguments)
        self.beside.append(self.turns - before)
        return found

    async def watch(self) -> None:
        while True:
            began, due = time.thread_time(), time.monotonic() + 0.001
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - began)
            self.latest = max(self.latest, time.monotonic() - due)
            self.turns += 1


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loop]:
    """Watch the loop of this context."""
    loop = Loop()
    monkeypatch.setattr(poller, "apply_snapshot", loop.compare)
    watching = asyncio.create_task(loop.watch())
    try:
        yield loop
    finally:
        watching.cancel()
