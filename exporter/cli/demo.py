"""`simulate` and `demo`: the commands that run the simulator instead of using a real account."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME_ERROR, reason
from exporter.cli.options import Address, Duration, Number

if TYPE_CHECKING:
    import socket

    from exporter.simulator.receiver import Message
    from exporter.simulator.world import World

_STANDARD_OUTPUT: Final = 1
_FLUSH_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.2
_PORT: Final = 10060
_TICK_SECONDS: Final = 20.0
_FIRST_FAILURE_SECONDS: Final = 8.0
_KEY: Final = "sk_car_demo.only_for_the_simulator"
_SECRET: Final = "whsec_ZGVtbyBzZWNyZXQgb2YgdGhlIGRlbW8gcmVjZWl2ZXI="  # noqa: S105 - not secret
_CONFIG: Final = """
accounts:
  - {{name: demo, api_key: {key}, base_url: "{api}", labels: {{simulated: "true"}}}}
poll: {{interval: 1s}}
alerts: {{group_wait: 0s}}
receivers:
  - {{name: slack, type: slack, url: "{inbox}/slack", group_interval: 1m}}
  - {{name: webhook, type: webhook, url: "{inbox}/webhook", secret: {secret}}}
storage: {{path: "{state}"}}
"""


def _number_option(
    flag: str, number_type: Any, default: object, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=number_type, default=default, show_default=True, help=text)


@click.command()
@click.option(
    "--listen",
    "address",
    type=Address(),
    default="127.0.0.1:10061",
    show_default=True,
    help="Address of the simulated API.",
)
@_number_option("--fine-tunes", click.IntRange(0), 25, "Number of fine-tunes.")
@_number_option("--tick", Duration(), "2s", "Interval of status changes; 0s for none.")
@_number_option("--fail-rate", Number(0, 1), 0.1, "Share of the fine-tunes that fail.")
@_number_option("--churn", Number(0), 0.0, "Fine-tunes that are created, and deleted, per tick.")
@_number_option(
    "--seed", int, 0, "Seed of the random numbers; the same seed gives the same fine-tunes."
)
@_number_option("--latency", Duration(), "0s", "Delay of each response.")
@_number_option(
    "--error-rate", Number(0, 1), 0.0, "Share of the requests that are answered with 5xx."
)
@_number_option(
    "--rate-limit",
    Number(0),
    0.0,
    "Requests per second; more are answered with 429. 0 for no limit.",
)
def simulate(address: tuple[str, int], **options: Any) -> None:
    """Serve a simulated Cartesia API. It accepts any key that begins with sk_car_."""
    _run_until_signal(partial(_simulate, address, options))


def _run_until_signal(main: Callable[[asyncio.Event], Awaitable[int]]) -> None:
    from exporter import logs
    from exporter.cli import process

    process.exit_on_signal()  # before the slow imports: a signal may come during them
    logs.set_up("warning", "logfmt")
    process.run_until_signal(main)


async def _simulate(address: tuple[str, int], options: dict[str, Any], stop: asyncio.Event) -> int:
    from exporter.simulator.api import Faults
    from exporter.simulator.serve import SimulateOptions
    from exporter.simulator.serve import simulate as serve
    from exporter.simulator.world import Population

    names = ("fine_tunes", "fail_rate", "churn", "seed")
    population = Population(**{name: options[name] for name in names})
    faults = Faults(options["latency"], options["error_rate"], options["rate_limit"])
    given = SimulateOptions(*address, options["tick"], population, faults)
    try:
        await serve(given, stop, lambda url: click.echo(f"Simulated Cartesia API: {url}"))
    except OSError as error:
        click.echo(f"cartesia-exporter: {reason(error)}", err=True)
        return RUNTIME_ERROR
    return 0


@click.command()
def demo() -> None:
    """Run a simulated API, the agent and a receiver in one process; no API key is needed."""
    _run_until_signal(_demo)


async def _demo(stop: asyncio.Event) -> int:
    from exporter.cli.process import isolated_from_make

    status = 0
    try:
        with isolated_from_make(os.environ):
            await _run_demo(stop)
    except* BrokenPipeError:
        status = RUNTIME_ERROR  # without a message, as click does it
    except* OSError as errors:
        click.echo(f"cartesia-exporter: no demo: {reason(errors)}", err=True)
        status = RUNTIME_ERROR
    return status


async def _run_demo(stop: asyncio.Event) -> None:
    """Run the demo until ``stop`` is set; its state is in a temporary folder."""
    from exporter.agent.agent import RunOptions
    from exporter.agent.agent import run as run_agent
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.config import load
    from exporter.core.model import AccountKey
    from exporter.http_server import base_url
    from exporter.simulator.api import Simulation, create_app
    from exporter.simulator.past import write_past
    from exporter.simulator.receiver import Inbox, Message, create_receiver
    from exporter.simulator.serve import keep_ticking, serving
    from exporter.simulator.world import Population, World

    output = _Output()
    messages: asyncio.Queue[Message] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cartesia-exporter-"))
        world = World(Population(fine_tunes=14, fail_rate=0.15, churn=0.2, seed=7))
        api_app = create_app(Simulation(world))
        inbox_app = create_receiver(Inbox(on_message=messages.put_nowait))
        api = await stack.enter_async_context(serving(api_app, "127.0.0.1", 0))
        inbox = await stack.enter_async_context(serving(inbox_app, "127.0.0.1", 0))
        output.print(f"Simulated Cartesia API   {api}/fine-tunes/")
        path = Path(folder) / "config.yaml"
        state = Path(folder) / "state.db"
        text = _CONFIG.format(key=_KEY, api=api, inbox=inbox, secret=_SECRET, state=state)
        path.write_text(text, encoding="utf-8")
        past = write_past(state, AccountKey("demo", api), world, SYSTEM_CLOCK.now())
        if not await _finished(past, stop):
            return
        listener = stack.enter_context(await _listen())
        options = RunOptions(
            passed=(listener,),
            external_url=base_url(listener),
            on_listening=partial(_print_addresses, output),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_ticking(world, _TICK_SECONDS, stop))
            group.create_task(_fail_one(world, stop))
            group.create_task(output.check(stop))
            printing = group.create_task(_print_alerts(output, messages))
            await run_agent(load(path, {}), options, stop)
            printing.cancel()
    output.print("Ended; all files were removed.")
    output.print("Next, watch your own account: CARTESIA_API_KEY=sk_car_... make run")
    output.flush()


async def _finished(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Return whether ``work`` ended before ``stop`` was set, which cancels it."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait((working,))
    return False


async def _listen() -> "socket.socket":
    """Listen on the default port, or on any free one if another program uses it."""
    from exporter import http_server

    with suppress(OSError):
        return await http_server.listen("127.0.0.1", _PORT)
    return await http_server.listen("127.0.0.1", 0)


async def _fail_one(world: "World", stop: asyncio.Event) -> None:
    """Let one fine-tune fail early: a random failure may take long."""
    from exporter.simulator.past import NEXT_FAILURE

    voice = next(each for each in world if each.name == NEXT_FAILURE)
    try:
        async with asyncio.timeout(_FIRST_FAILURE_SECONDS):
            await stop.wait()
    except TimeoutError:
        world.set_status(voice.id, "failed")


class _Output:
    """Standard output, for which the event loop never waits."""

    def __init__(self) -> None:
        from exporter.logs import LineWriter

        is_open = sys.__stdout__ is not None
        descriptor = _STANDARD_OUTPUT if is_open else os.open(os.devnull, os.O_WRONLY)
        self._writer = LineWriter(descriptor, "{} lines were dropped".format)

    def print(self, line: str) -> None:
        """Queue a line."""
        self._writer.write(line)

    async def check(self, stop: asyncio.Event) -> None:
        """Raise OSError when a line could not be written; return when ``stop`` is set."""
        from exporter.supervisor import pause

        while not stop.is_set():
            if self._writer.error is not None:
                raise self._writer.error
            await pause(stop, _CHECK_SECONDS)

    def flush(self) -> None:
        """Wait until the lines are written, for a second at most."""
        self._writer.flush(_FLUSH_SECONDS)


def _print_addresses(output: _Output, urls: Sequence[str]) -> None:
    for url in urls:
        output.print(f"Agent                    {url}/")
        output.print(f"Metrics                  {url}/metrics")
        output.print("")
        output.print(f"Open {url}/ in a browser.")
    output.print(
        "The last 7 days are simulated; from now on, training takes minutes instead of hours."
    )
    output.print(
        "A fine-tune fails in a few seconds: watch the alert arrive. Ctrl-C ends the demo."
    )
    output.print("")


async def _print_alerts(output: _Output, messages: "asyncio.Queue[Message]") -> None:
    """Print one line per message, and the first one for Slack in full."""
    from exporter.simulator.receiver import describe, slack_text

    is_printed = False
    while True:
        message = await messages.get()
        output.print(f"{time.strftime('%H:%M:%S')}  ALERT    {describe(message)}")
        if message.receiver_type == "slack" and not is_printed:
            is_printed = True
            for line in slack_text(message):
                output.print(f"          │ {line}".rstrip())
            output.print("")
