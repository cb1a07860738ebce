"""`demo`: a simulated API, the agent and a receiver in one process, to see an alert arrive."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from exporter import http_server as asgi
from exporter.agent import agent as app
from exporter.agent.agent import RunOptions
from exporter.config import load
from exporter.core.model import STATUSES
from exporter.core.view import AccountStatus
from exporter.simulator.api import Simulation, create_app
from exporter.simulator.receiver import Inbox, Message, create_receiver, describe
from exporter.simulator.serve import keep_ticking, serving
from exporter.simulator.world import Population, World

_PORT: Final = 10060
_TICK_SECONDS: Final = 2.0
_FIRST_FAILURE_SECONDS: Final = 8.0
_KEY: Final = "sk_car_demo.only_for_the_simulator"
_POPULATION: Final = Population(fine_tunes=25, fail_rate=0.3, churn=0.3, seed=7)

_CONFIG: Final = """
accounts:
  - {{name: demo, api_key: {key}, base_url: "{api}"}}
poll: {{interval: 1s}}
alerts: {{group_wait: 0s}}
receivers:
  - {{name: slack, type: slack, url: "{inbox}/slack"}}
  - {{name: webhook, type: webhook, url: "{inbox}/webhook", secret: {secret}}}
storage: {{path: "{state}"}}
"""
_SECRET: Final = "whsec_ZGVtbyBzZWNyZXQgb2YgdGhlIGRlbW8gcmVjZWl2ZXI="  # noqa: S105 - shown on purpose

Say = Callable[[str], None]


async def demo(stop: asyncio.Event, say: Say) -> None:
    """Run the demo until ``stop`` is set, telling what happens line by line through ``say``.

    Nothing is left behind: its state is in a folder of its own that goes with it.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cartesia-exporter-"))
        world = World(_POPULATION)
        api = await stack.enter_async_context(
            serving(create_app(Simulation(world)), "127.0.0.1", 0)
        )
        inbox = Inbox(on_message=lambda message: say(_arrived(message)))
        receiver = await stack.enter_async_context(serving(create_receiver(inbox), "127.0.0.1", 0))
        say(f"Simulated Cartesia API   {api}/fine-tunes/")
        path = Path(folder) / "config.yaml"
        state = Path(folder) / "state.db"
        text = _CONFIG.format(key=_KEY, api=api, inbox=receiver, secret=_SECRET, state=state)
        path.write_text(text, encoding="utf-8")
        surface = RunOptions(
            addresses=(("127.0.0.1", await _free_port()),),
            on_listening=lambda urls: _announce(urls, say),
            on_status=_Counts(say).show,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_ticking(world, _TICK_SECONDS, stop))
            group.create_task(_fail_one(world, stop))
            group.create_task(app.run(load(path, {}), surface, stop))
    say("Ended; nothing was left behind.")


def _announce(urls: Sequence[str], say: Say) -> None:
    for url in urls:
        say(f"Agent                    {url}/")
        say(f"Metrics                  {url}/metrics")
    say("A fine-tune fails in a few seconds; watch the alert arrive. Ctrl-C ends the demo.")
    say("")


async def _free_port() -> int:
    """Return the usual port, or 0 for any, when another program has it."""
    try:
        listener = await asgi.listen("127.0.0.1", _PORT)
    except OSError:
        return 0
    listener.close()
    return _PORT


async def _fail_one(world: World, stop: asyncio.Event) -> None:
    """Have a fine-tune fail soon: left to chance, the first failure may be long in coming."""
    voice = world.add(name="Ada for the audiobook", status="training")
    try:
        async with asyncio.timeout(_FIRST_FAILURE_SECONDS):
            await stop.wait()
    except TimeoutError:
        world.set_status(voice.id, "failed")


class _Counts:
    """Tells the counts of a view when they are not what was told last."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told: dict[str, int] = {}

    def show(self, view: AccountStatus) -> None:
        counts: Counter[str] = Counter()
        for (*_, status), number in (view.counts or {}).items():
            counts[status] += number
        if counts and counts != self._told:
            self._told = counts
            text = ", ".join(f"{status} {counts[status]}" for status in STATUSES if counts[status])
            self._say(f"{_time()}  counts   {text}")


def _arrived(message: Message) -> str:
    return f"{_time()}  ALERT    {describe(message)}"


def _time() -> str:
    return time.strftime("%H:%M:%S")
