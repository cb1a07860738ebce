"""An agent on real sockets, between a simulated API and simulated receivers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from exporter.agent import agent
from exporter.agent.agent import RunOptions
from exporter.agent.reload import Reloading
from exporter.config import Config, load
from exporter.core.view import AccountStatus
from exporter.simulator.api import Simulation, create_app
from exporter.simulator.receiver import Inbox, Message, create_receiver
from exporter.simulator.serve import serving
from exporter.simulator.world import Population, World
from tests.delivery.delivery_fixture import until
from tests.process.agent_process import NO_AUTHORITIES

KEY = "sk_car_test.the_key"


@dataclass
class RunningAgent:
    """A running agent: the URL of its pages, and the statuses that it published."""

    url: str = ""
    statuses: list[AccountStatus] = field(default_factory=list)

    def polls(self, account: str = "main", *, up: bool) -> list[AccountStatus]:
        return [s for s in self.statuses if s.account == account and s.polled_at and s.up is up]

    async def polled(self, times: int = 1, *, up: bool = True) -> None:
        """Wait for this many more polls of `main` with this result."""
        number = len(self.polls(up=up)) + times
        await until(lambda: len(self.polls(up=up)) >= number)

    async def reload(self, method: str = "POST") -> httpx.Response:
        async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, timeout=20) as http:
            return await http.request(method, f"{self.url}/-/reload")

    async def shows(self, name: str, expected: Mapping[tuple[str, ...], float]) -> None:
        """Wait until the page shows this: a counter on it may be a quarter of a second old."""
        async with asyncio.timeout(10):
            while await self.metric(name) != expected:  # noqa: ASYNC110 - as a scraper would
                await asyncio.sleep(0.05)

    async def accounts(self) -> set[str]:
        """The values of the label `account` on the page."""
        lines = (await self.page()).splitlines()
        return {line.partition('account="')[2].partition('"')[0] for line in lines} - {""}

    async def page(self) -> str:
        async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as http:
            answer = await http.get(f"{self.url}/metrics")
        assert answer.status_code == 200
        return answer.text

    async def metric(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a name that are not 0, by label values."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(await self.page())
            for sample in family.samples
            if sample.name == name and sample.value
        }


@dataclass
class AgentFixture:
    """What outlives an agent: the API, the receivers' inbox, the configuration and the state."""

    world: World
    simulation: Simulation
    inbox: Inbox
    config: Path
    api_url: str
    inbox_url: str
    settings: dict[str, Any] = field(default_factory=dict)

    def account(self, name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "api_key": KEY, "base_url": self.api_url, **more}

    def receiver(self, name: str, receiver_type: str, **more: Any) -> dict[str, Any]:
        url = f"{self.inbox_url}/{receiver_type}"
        at_once = {"name": name, "type": receiver_type, "url": url, "group_interval": "0s"}
        return at_once | more

    def write(self) -> None:
        """Write the settings to the configuration file."""
        self.config.write_text(json.dumps(self.settings), encoding="utf-8")

    async def reload(self, running: RunningAgent) -> None:
        """Write the configuration file and reload it."""
        self.write()
        answer = await running.reload()
        assert (answer.status_code, answer.text) == (200, "The configuration is in force.\n")

    @asynccontextmanager
    async def run(self, read: Callable[..., Config] = load) -> AsyncIterator[RunningAgent]:
        """Run an agent; ``read`` reads the configuration on reload."""
        running, stop, loaded = RunningAgent(), asyncio.Event(), asyncio.Event()
        urls: list[str] = []
        options = RunOptions(
            addresses=(("127.0.0.1", 0),),
            reloading=Reloading(partial(read, self.config, {}), over_http=True),
            on_listening=urls.extend,
            on_loaded=loaded.set,
            on_status=running.statuses.append,
        )
        task = asyncio.create_task(agent.run(load(self.config, {}), options, stop))
        try:
            await until(lambda: loaded.is_set() or task.done())
            if not task.done():
                running.url = urls[0]
                yield running
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task

    def received(self, receiver_type: str) -> Counter[str]:
        """The number of messages to receivers of a type, by subject."""
        messages = self.inbox.messages
        return Counter(_subject(each) for each in messages if each.receiver_type == receiver_type)

    async def notified(self, expected: dict[str, int]) -> None:
        """Wait until both receivers have received exactly these messages."""
        types = ("slack", "webhook")
        with suppress(TimeoutError):
            await until(lambda: all(self.received(each) == expected for each in types), 30)
        assert {each: self.received(each) for each in types} == dict.fromkeys(types, expected)


def _subject(message: Message) -> str:
    """`agent.baseline`, or the name of the fine-tune."""
    if message.receiver_type == "webhook":
        fine_tune = message.payload["data"].get("fine_tune")
        return str(fine_tune["name"]) if fine_tune else str(message.payload["type"])
    text = str(message.payload["text"]).partition("\n")[0]
    return text.partition("failed: ")[2] or "agent.baseline"


@asynccontextmanager
async def agent_fixture(tmp_path: Path, fine_tunes: int = 5) -> AsyncIterator[AgentFixture]:
    """Serve the API and the receivers, and write a configuration of one account."""
    async with AsyncExitStack() as stack:
        world = World(Population(fine_tunes=fine_tunes))
        simulation, inbox = Simulation(world), Inbox()
        api = await stack.enter_async_context(serving(create_app(simulation), "127.0.0.1", 0))
        receivers = await stack.enter_async_context(serving(create_receiver(inbox), "127.0.0.1", 0))
        fixture = AgentFixture(world, simulation, inbox, tmp_path / "config.yaml", api, receivers)
        fixture.settings |= {
            "accounts": [fixture.account("main")],
            "poll": {"interval": "1s"},
            "alerts": {"group_wait": "0s"},
            "receivers": [fixture.receiver(each, each) for each in ("slack", "webhook")],
            "storage": {"path": str(tmp_path / "state.db")},
        }
        fixture.write()
        yield fixture


@asynccontextmanager
async def running_agent(tmp_path: Path) -> AsyncIterator[tuple[AgentFixture, RunningAgent]]:
    """Run an agent that has polled once."""
    async with agent_fixture(tmp_path) as fixture, fixture.run() as agent:
        await agent.polled()
        yield fixture, agent
