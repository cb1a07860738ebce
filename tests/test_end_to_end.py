"""The whole agent on real sockets: a simulated API before it, receivers behind it, its own page."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from exporter import app
from exporter.agent import Surface
from exporter.config import load
from exporter.core.view import AccountView
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.receiver import Inbox, Message, create_receiver
from exporter.simulator.serve import serving
from exporter.simulator.world import Population, World
from tests.delivery.bench import until

KEY = "sk_car_test.the_key"
CONFIG = """
accounts:
  - {{name: main, api_key: {key}, base_url: "{api}"}}
{more}
poll: {{interval: 1s}}
alerts: {{group_wait: 0s}}
receivers:
  - {{name: slack, type: slack, url: "{inbox}/slack"}}
  - {{name: webhook, type: webhook, url: "{inbox}/webhook"}}
storage: {{path: "{state}"}}
"""
ODD_MODELS = ('quoted "model" \\ with\nlines', "modèle 模型 \U0001f3a4", "{a=1,b=2}", " ")


@dataclass
class Agent:
    """A running agent: where its pages are, and what it showed."""

    url: str = ""
    views: list[AccountView] = field(default_factory=list)

    def polls(self, account: str = "main", *, up: bool) -> list[AccountView]:
        return [v for v in self.views if v.account == account and v.polled_at and v.up is up]

    async def polled(self, times: int = 1, *, up: bool = True) -> None:
        """Wait for so many more polls with this end."""
        number = len(self.polls(up=up)) + times
        await until(lambda: len(self.polls(up=up)) >= number)

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

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        agent, stop = Agent(), asyncio.Event()
        urls: list[str] = []
        surface = Surface(
            addresses=(("127.0.0.1", 0),),
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
        return Counter(_subject(each) for each in self.inbox.messages if each.kind == kind)

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
    if message.kind == "webhook":
        fine_tune = message.payload["data"].get("fine_tune")
        return str(fine_tune["name"]) if fine_tune else str(message.payload["type"])
    text = str(message.payload["text"])
    return text.partition("failed: ")[2] or "agent.baseline"


@asynccontextmanager
async def place(tmp_path: Path, fine_tunes: int = 5, more: str = "") -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        world = World(Population(fine_tunes=fine_tunes))
        simulation, inbox = Simulation(world), Inbox()
        api = await stack.enter_async_context(serving(create_app(simulation), "127.0.0.1", 0))
        receiver = await stack.enter_async_context(serving(create_receiver(inbox), "127.0.0.1", 0))
        config = tmp_path / "config.yaml"
        state = tmp_path / "state.db"
        text = CONFIG.format(
            key=KEY, api=api, inbox=receiver, state=state, more=more.format(api=api)
        )
        config.write_text(text, encoding="utf-8")
        yield Place(world, simulation, inbox, config)


def test_1237_fine_tunes_on_13_pages_are_counted_exactly(tmp_path):
    async def run() -> None:
        async with place(tmp_path, 1231) as here:
            for model in ODD_MODELS:
                here.world.add(model_id=model, status="training")
            here.world.add(model_id="sonic-2", status="paused by the moon")
            here.world.add(model_id="sonic-2", status="")
            known = ("created", "training", "completed", "failed")
            expected = Counter(
                ("main", each.model_id, each.status if each.status in known else "unknown")
                for each in here.world
            )
            assert expected.total() == 1237
            async with here.agent() as agent:
                await agent.polled()
                assert await agent.metric("cartesia_fine_tunes") == expected
                assert await agent.metric("cartesia_poll_pages") == {("main",): 13}
                assert await agent.metric("cartesia_up") == {("main",): 1}

    asyncio.run(run())


def test_the_first_run_tells_each_receiver_one_summary_and_no_old_failure(tmp_path):
    async def run() -> None:
        async with place(tmp_path, 200) as here:
            assert any(each.status == "failed" for each in here.world)
            async with here.agent() as agent:
                await agent.polled(3)
                await here.told({"agent.baseline": 1})

    asyncio.run(run())


def test_a_failure_is_told_once_to_each_receiver_and_no_restart_repeats_it(tmp_path):
    async def run() -> None:
        async with place(tmp_path) as here:
            first = here.world.add(name="first", status="training")
            second = here.world.add(name="second", status="training")
            async with here.agent() as agent:
                await agent.polled()
                here.world.set_status(first.id, "failed")
                await here.told({"agent.baseline": 1, "first": 1})
                await agent.polled(2)
            here.world.set_status(second.id, "failed")  # while the agent is down
            for _ in range(2):
                async with here.agent() as agent:
                    await agent.polled(2)
                    await here.told({"agent.baseline": 1, "first": 1, "second": 1})
                    moved = await agent.metric("cartesia_fine_tune_transitions_total")
                    assert sum(moved.values()) == 2

    asyncio.run(run())


def test_an_outage_keeps_the_counts_says_so_and_what_it_hid_is_told_once(tmp_path):
    async def run() -> None:
        async with place(tmp_path) as here:
            hidden = here.world.add(name="hidden", status="training")
            async with here.agent() as agent:
                await agent.polled()
                counts = await agent.metric("cartesia_fine_tunes")
                here.simulation.faults = Faults(error_rate=1)
                here.world.set_status(hidden.id, "failed")
                await until(lambda: any(v.failure == "server_error" for v in agent.views))
                assert await agent.metric("cartesia_fine_tunes") == counts
                assert await agent.metric("cartesia_up") == {}
                failures = await agent.metric("cartesia_exporter_poll_failures_total")
                assert ("main", "server_error") in failures
                assert here.arrived("webhook") == {"agent.baseline": 1}
                here.simulation.faults = Faults()
                await agent.polled()
                assert await agent.metric("cartesia_up") == {("main",): 1}
                await here.told({"agent.baseline": 1, "hidden": 1})
                assert await agent.metric("cartesia_fine_tunes") != counts

    asyncio.run(run())


def test_an_account_whose_key_is_refused_does_not_disturb_another(tmp_path):
    async def run() -> None:
        more = '  - {{name: other, api_key: refused, base_url: "{api}"}}'
        async with place(tmp_path, more=more) as here, here.agent() as agent:
            await agent.polled(3)
            assert len(agent.polls("other", up=False)) == 1  # the others are skipped turns
            assert agent.polls("other", up=True) == []
            assert await agent.metric("cartesia_up") == {("main",): 1}
            failures = await agent.metric("cartesia_exporter_poll_failures_total")
            assert failures == {("other", "unauthorized"): 1}
            counted = await agent.metric("cartesia_fine_tunes")
            assert {labels[0] for labels in counted} == {"main"}
            await here.told({"agent.baseline": 1})

    asyncio.run(run())


def test_no_secret_is_on_the_page_in_the_log_or_in_the_state(tmp_path):
    async def run() -> list[str]:
        async with place(tmp_path) as here:
            with capture_logs() as logs:
                async with here.agent() as agent:
                    await here.told({"agent.baseline": 1})
                    here.simulation.faults = Faults(error_rate=1)
                    await agent.polled(up=False)
                    page = await agent.page()
            state = (tmp_path / "state.db").read_bytes().decode(errors="replace")
            return [page, repr(logs), state]

    for text in asyncio.run(run()):
        assert "sk_car" not in text
        assert "/slack" not in text
        assert "/webhook" not in text
