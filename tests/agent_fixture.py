"""Where a whole agent lives in a test: a simulated API, receivers, a configuration, a state."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from exporter.agent import agent as app
from exporter.agent.agent import RunOptions
from exporter.agent.reload import Reloading
from exporter.config import Config, load
from exporter.core.view import AccountStatus
from exporter.simulator.api import Simulation, create_app
from exporter.simulator.receiver import Inbox, Message, create_receiver
from exporter.simulator.serve import serving
from exporter.simulator.world import Population, World
from tests.delivery.delivery_fixture import until

KEY = "sk_car_test.the_key"


@dataclass
class Agent:
    """A running agent: where its pages are, and what it showed."""

    url: str = ""
    views: list[AccountStatus] = field(default_factory=list)

    def polls(self, account: str = "main", *, up: bool) -> list[AccountStatus]:
        return [v for v in self.views if v.account == account and v.polled_at and v.up is up]

    async def polled(self, times: int = 1, *, up: bool = True) -> None:
        """Wait for so many more polls with this end."""
        number = len(self.polls(up=up)) + times
        await until(lambda: len(self.polls(up=up)) >= number)

    async def reload(self, method: str = "POST") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            return await http.request(method, f"{self.url}/-/reload")

    async def shown(self, name: str, expected: Mapping[tuple[str, ...], float]) -> None:
        """Wait until the page shows this: a counter on it may be a quarter of a second old."""
        async with asyncio.timeout(10):
            while await self.metric(name) != expected:  # noqa: ASYNC110 - as a scraper would
                await asyncio.sleep(0.05)

    async def accounts(self) -> set[str]:
        """The accounts that the page names."""
        lines = (await self.page()).splitlines()
        return {line.partition('account="')[2].partition('"')[0] for line in lines} - {""}

    async def page(self) -> str:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self.url}/metrics")
        assert answer.status_code == 200
        return answer.text

    async def metric(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a name that are not 0, by the values of their labels."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(await self.page())
            for sample in family.samples
            if sample.name == name and sample.value
        }


@dataclass
class Place:
    """Where an agent lives: an API, an inbox and a state file that outlive it."""

    world: World
    simulation: Simulation
    inbox: Inbox
    config: Path
    api: str
    receivers: str
    settings: dict[str, Any] = field(default_factory=dict)

    def account(self, name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "api_key": KEY, "base_url": self.api, **more}

    def receiver(self, name: str, kind: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "type": kind, "url": f"{self.receivers}/{kind}", **more}

    def write(self) -> None:
        """Write the configuration as the settings are now."""
        self.config.write_text(json.dumps(self.settings), encoding="utf-8")

    async def reloaded(self, agent: Agent) -> None:
        """Write the configuration, and have an agent take it."""
        self.write()
        answer = await agent.reload()
        assert (answer.status_code, answer.text) == (200, "The configuration is in force.\n")

    @asynccontextmanager
    async def agent(self, reading: Callable[..., Config] = load) -> AsyncIterator[Agent]:
        agent, stop = Agent(), asyncio.Event()
        urls: list[str] = []
        surface = RunOptions(
            addresses=(("127.0.0.1", 0),),
            reloading=Reloading(partial(reading, self.config, {}), over_http=True),
            on_listening=urls.extend,
            on_view=agent.views.append,
        )
        running = asyncio.create_task(app.run(load(self.config, {}), surface, stop))
        try:
            await until(lambda: bool(urls) or running.done())
            if not running.done():
                agent.url = urls[0]
                yield agent
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await running

    def arrived(self, kind: str) -> Counter[str]:
        """The subjects of the messages of a kind."""
        return Counter(_subject(each) for each in self.inbox.messages if each.receiver_type == kind)

    async def told(self, expected: dict[str, int]) -> None:
        """Wait until both receivers have been told exactly this."""
        with suppress(TimeoutError):
            await until(lambda: all(self.arrived(k) == expected for k in ("slack", "webhook")), 10)
        assert {kind: self.arrived(kind) for kind in ("slack", "webhook")} == {
            "slack": expected,
            "webhook": expected,
        }


def _subject(message: Message) -> str:
    """`baseline`, or the name of the fine-tune that a message is about."""
    if message.receiver_type == "webhook":
        fine_tune = message.payload["data"].get("fine_tune")
        return str(fine_tune["name"]) if fine_tune else str(message.payload["type"])
    text = str(message.payload["text"])
    return text.partition("failed: ")[2] or "agent.baseline"


@asynccontextmanager
async def place(tmp_path: Path, fine_tunes: int = 5) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        world = World(Population(fine_tunes=fine_tunes))
        simulation, inbox = Simulation(world), Inbox()
        api = await stack.enter_async_context(serving(create_app(simulation), "127.0.0.1", 0))
        receiver = await stack.enter_async_context(serving(create_receiver(inbox), "127.0.0.1", 0))
        here = Place(world, simulation, inbox, tmp_path / "config.yaml", api, receiver)
        here.settings |= {
            "accounts": [here.account("main")],
            "poll": {"interval": "1s"},
            "alerts": {"group_wait": "0s"},
            "receivers": [here.receiver(kind, kind) for kind in ("slack", "webhook")],
            "storage": {"path": str(tmp_path / "state.db")},
        }
        here.write()
        yield here


def running(tmp_path: Path, test: Callable[[Place, Agent], Coroutine[None, None, None]]) -> None:
    """Run a test beside an agent that has polled."""

    async def run() -> None:
        async with place(tmp_path) as here, here.agent() as agent:
            await agent.polled()
            await test(here, agent)

    asyncio.run(run())
