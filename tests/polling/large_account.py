"""A large account: its list in memory, read by the real client without sockets."""

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
from tests.polling.poller_fixture import PollerFixture, open_poller

PAGE = 100


class LargeList(HttpClient):
    """Answers with the pages of a list, as the API does. The pages are rendered in advance."""

    def __init__(self, number: int) -> None:
        self._fine_tunes = [
            fine_tune(f"ft_{n}", name=f"Voice {n}", dataset=f"set_{n % 50}") for n in range(number)
        ]
        self._pages: dict[str | None, bytes] = {}
        self._render(range(0, number, PAGE))

    def change(self, positions: Sequence[int], suffix: str, **fields: Any) -> None:
        """Change the names, and these fields, of the fine-tunes at these positions."""
        for position in positions:
            name = f"Voice {position}, {suffix}"
            self._fine_tunes[position] = {**self._fine_tunes[position], "name": name, **fields}
        self._render({position // PAGE * PAGE for position in positions})

    def _render(self, starts: Iterable[int]) -> None:
        for start in starts:
            cursor = self._fine_tunes[start - 1]["id"] if start else None
            has_more = start + PAGE < len(self._fine_tunes)
            body = page(self._fine_tunes[start : start + PAGE], has_more=has_more)
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
async def open_large_account(path: Path, pages: LargeList) -> AsyncIterator[PollerFixture]:
    """Open a poller that reads the list with the real client."""
    api = ApiSettings("default", BASE_URL, "2026-03-01", FakeSecret(KEY))
    client = CartesiaClient(pages, api, ClientMetrics(CollectorRegistry()), REAL_CLOCK)

    async def read() -> Listing:
        return await client.list_fine_tunes(60, p.source.tracked)

    async with open_poller(path, read) as p:
        yield p


@dataclass
class WatchedLoop:
    """Measurements of an event loop.

    ``longest_turn`` is the longest time without a turn in seconds of processor time, which does not
    depend on other processes; ``latest_turn`` the longest delay of a turn in seconds.
    ``turns_per_comparison`` counts the turns during each comparison of snapshots.
    """

    turns: int = 0
    longest_turn: float = 0.0
    latest_turn: float = 0.0

    def __post_init__(self) -> None:
        self.turns_per_comparison: list[int] = []

    def compare(self, *arguments: Any) -> PollResult:
        before = self.turns
        result = apply_snapshot(*arguments)
        self.turns_per_comparison.append(self.turns - before)
        return result

    async def watch(self) -> None:
        while True:
            started, due = time.thread_time(), time.monotonic() + 0.001
            await asyncio.sleep(0.001)
            self.longest_turn = max(self.longest_turn, time.thread_time() - started)
            self.latest_turn = max(self.latest_turn, time.monotonic() - due)
            self.turns += 1


@asynccontextmanager
async def watched_loop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WatchedLoop]:
    """Measure the running loop."""
    loop = WatchedLoop()
    monkeypatch.setattr(poller, "apply_snapshot", loop.compare)
    watching = asyncio.create_task(loop.watch())
    try:
        yield loop
    finally:
        watching.cancel()
