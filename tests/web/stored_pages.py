"""Pages and JSON API over a store with a failure, its notifications and a past."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from exporter.core.account import AccountState, Rules, apply_snapshot
from exporter.core.health import Readiness
from exporter.core.model import AccountKey, FineTune, Snapshot
from exporter.core.mutes import MuteRequest
from exporter.core.retry import Attempt, CircuitState, Outcome
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.exposition.page import Page, Renderer
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DELIVERED, PENDING
from exporter.store.mutes import add_mute
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.overview import ReceiverSummary
from exporter.store.reader import Reader
from exporter.store.receiver_outbox import AttemptResult
from exporter.web.actions import Actions
from exporter.web.application import Application, WebContext
from exporter.web.pages import PagesContext
from exporter.web.view import ViewSettings, WatchedAccount

NOW = 1_800_000_000.0
"""Friday, 15 January 2027, 08:00:00 UTC."""

BASE_URL = "https://api.cartesia.ai"
RECEIVERS = (
    ReceiverSummary("slack", "slack", ("failed", "agent")),
    ReceiverSummary("ops", "webhook", ("failed",)),
)


def fine_tune(fine_tune_id: str, status: str, **fields: str) -> FineTune:
    defaults = {"name": fine_tune_id.title(), "model_id": "sonic-3", "dataset": "calls"}
    return FineTune(fine_tune_id, status=status, **defaults | fields)


@dataclass
class StoredPages:
    """A store, the statuses and the clock of the pages, and what they answer."""

    database: Database
    reader: Reader
    now: float = NOW
    accounts: list[str] = field(default_factory=lambda: ["main"])
    receivers: Sequence[ReceiverSummary] = RECEIVERS
    with_actions: bool = False
    failed_statuses: frozenset[str] = frozenset()
    states: dict[str, AccountState] = field(default_factory=dict)
    statuses: dict[str, AccountStatus] = field(default_factory=dict)
    woken: int = 0

    async def poll(self, *fine_tunes: FineTune, at: float, account: str = "main") -> None:
        """Store a poll of an account at a time; all receivers get failures and recoveries."""
        key = AccountKey(account, BASE_URL)
        rules = Rules(
            self.database.store_id,
            key,
            "summary",
            50,
            3600.0,
            failed_statuses=self.failed_statuses,
        )
        names = [each.name for each in self.receivers]

        def route(event: Any) -> Sequence[str]:
            return names if event.type in {"fine_tune.failed", "fine_tune.recovered"} else ()

        snapshot = Snapshot({each.id: each for each in fine_tunes}, at)
        before = self.states.get(account)
        result = apply_snapshot(before, snapshot, rules, SeriesOptions(), route)
        if not result.is_empty:
            await Accounts(self.database).commit(result)
        self.states[account] = result.state
        self.statuses[account] = result.status

    async def attempt(self, receiver: str, answer: str, outcome: Outcome, at: float) -> None:
        """Attempt the oldest unsent event of a receiver, with this answer."""
        outbox = Outbox(self.database, receiver)
        for item in (await outbox.unsent())[:1]:
            await outbox.create_messages([NewMessage(item.event.id, b"{}", (item.number,))], at)
        message = await outbox.next()
        assert message is not None
        delivered = outcome is Outcome.DELIVERED
        circuit = CircuitState() if delivered else CircuitState(1, at, reason=answer)
        state = DELIVERED if delivered else PENDING
        attempt = Attempt(outcome, answer)
        awake = self.database.awake.now()
        result = AttemptResult(state, at, awake, attempt, circuit, at + 300, seconds=0.25)
        await outbox.record(message, result)

    async def digest(self, receiver: str, at: float) -> None:
        """Put all unsent events of a receiver into one message."""
        outbox = Outbox(self.database, receiver)
        items = await outbox.unsent()
        numbers = tuple(each.number for each in items)
        await outbox.create_messages([NewMessage("digest-of-all", b"{}", numbers)], at)

    async def mute(self, **fields: Any) -> str:
        """Add a mute by alice, of an hour and of the dataset `calls` unless fields say otherwise.

        Mute what is queued for all receivers; return the mute's id.
        """
        defaults: dict[str, Any] = (
            {"match": {"dataset": "calls"}} if "fine_tune" not in fields else {}
        )
        defaults |= {"seconds": 3600.0, "author": "alice", "reason": "new recordings"}
        request = MuteRequest(**{**defaults, **fields})
        mute_id = await self.database.run(add_mute, self.database, request, self.now)
        await self.apply_mutes()
        return mute_id

    async def apply_mutes(self) -> None:
        """Do to all receivers what the deliverer does at each turn, without what is released."""
        for receiver in self.receivers:
            await Outbox(self.database, receiver.name).apply_mutes({}, self.now)

    def context(self) -> WebContext:
        """Return the context of the application as it is now."""
        settings = ViewSettings(
            tuple(WatchedAccount(name, BASE_URL, (("team", "voices"),)) for name in self.accounts),
            tuple(self.receivers),
            playground="https://play.cartesia.ai/{id}",
        )
        names = frozenset(each.name for each in self.receivers)
        actions = Actions(
            self.database, self.database.form_key, lambda: names, self.time, self.wake
        )
        pages = PagesContext(
            self.reader,
            lambda: settings,
            lambda: list(self.statuses.values()),
            lambda: "accounts: []\n",
            self.time,
            lambda: 0.0,
            actions=actions if self.with_actions else None,
        )
        page = Page(Renderer(CollectorRegistry(), tuple, lambda: 0.0))
        return WebContext(page, lambda: Readiness(1, 1), lambda: pages)

    def time(self) -> float:
        return self.now

    def wake(self) -> None:
        self.woken += 1

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request to the application."""
        transport = httpx.ASGITransport(Application(self.context()))
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            return await client.request(method, path, **options)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.request("GET", path, headers=headers)

    async def json(self, path: str) -> Any:
        answer = await self.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def stored_pages(folder: Path, **fields: Any) -> AsyncIterator[StoredPages]:
    """Yield the pages of an empty store."""
    async with Database(folder / "state.db") as database, database.reader() as reader:
        yield StoredPages(database, reader, **fields)


@asynccontextmanager
async def after_a_failure(folder: Path, **fields: Any) -> AsyncIterator[StoredPages]:
    """Yield the pages after a failure of `ada`: slack has it, ops answered 503.

    `ada` trained from 07:00 to 07:50; `old` completed before the baseline of 06:00, `bea` was
    completed at 07:30 after half an hour.
    """
    async with stored_pages(folder, **fields) as pages:
        old, base = fine_tune("old", "completed"), NOW - 7200
        await pages.poll(old, at=base)
        training = [fine_tune("ada", "training"), fine_tune("bea", "training")]
        await pages.poll(old, *training, at=NOW - 3600)
        bea = fine_tune("bea", "completed")
        await pages.poll(old, training[0], bea, at=NOW - 1800)
        await pages.poll(old, fine_tune("ada", "failed"), bea, at=NOW - 600)
        await pages.attempt("slack", "answered 200", Outcome.DELIVERED, NOW - 598)
        await pages.attempt("ops", "answered 503", Outcome.TRANSIENT, NOW - 590)
        await pages.poll(old, fine_tune("ada", "failed"), bea, at=NOW - 18)
        yield pages
