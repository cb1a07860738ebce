"""`simulate` and `demo`: the commands that run the simulator instead of using a real account."""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME_ERROR, reason
from exporter.cli.options import Address, Duration, Number

if TYPE_CHECKING:
    from exporter.core.view import AccountStatus
    from exporter.simulator.world import World

_STANDARD_OUTPUT: Final = 1
_FLUSH_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.2
_PORT: Final = 10060
_TICK_SECONDS: Final = 2.0
_FIRST_FAILURE_SECONDS: Final = 8.0
_KEY: Final = "sk_car_demo.only_for_the_simulator"
_SECRET: Final = "whsec_ZGVtbyBzZWNyZXQgb2YgdGhlIGRlbW8gcmVjZWl2ZXI="  # noqa: S105 - not secret
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
    help="Where the simulated API listens.",
)
@_number_option("--fine-tunes", click.IntRange(0), 25, "How many there are, exactly.")
@_number_option(
    "--tick", Duration(), "2s", "From one change of the world to the next; 0s stops it."
)
@_number_option("--fail-rate", Number(0, 1), 0.1, "The share of fine-tunes that fails.")
@_number_option("--churn", Number(0), 0.0, "New, and deleted, fine-tunes a tick.")
@_number_option("--seed", int, 0, "The same seed, the same world.")
@_number_option("--latency", Duration(), "0s", "The time before each answer.")
@_number_option("--error-rate", Number(0, 1), 0.0, "The share of requests answered 5xx.")
@_number_option("--rate-limit", Number(0), 0.0, "Requests a second before 429; 0 is none.")
def simulate(address: tuple[str, int], **options: Any) -> None:
    """Serve a simulated Cartesia API, for any key that begins with sk_car_."""
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
    """Run simulator, agent and a receiver in one process; no key, no server needed."""
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
    from exporter.config import load
    from exporter.simulator.api import Simulation, create_app
    from exporter.simulator.receiver import Inbox, Message, create_receiver, describe
    from exporter.simulator.serve import keep_ticking, serving
    from exporter.simulator.world import Population, World

    output = _Output()

    def print_alert(message: Message) -> None:
        output.print(f"{time.strftime('%H:%M:%S')}  ALERT    {describe(message)}")

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cartesia-exporter-"))
        world = World(Population(fine_tunes=25, fail_rate=0.3, churn=0.3, seed=7))
        api_app = create_app(Simulation(world))
        inbox_app = create_receiver(Inbox(on_message=print_alert))
        api = await stack.enter_async_context(serving(api_app, "127.0.0.1", 0))
        inbox = await stack.enter_async_context(serving(inbox_app, "127.0.0.1", 0))
        output.print(f"Simulated Cartesia API   {api}/fine-tunes/")
        path = Path(folder) / "config.yaml"
        state = Path(folder) / "state.db"
        text = _CONFIG.format(key=_KEY, api=api, inbox=inbox, secret=_SECRET, state=state)
        path.write_text(text, encoding="utf-8")
        options = RunOptions(
            addresses=(("127.0.0.1", await _free_port()),),
            on_listening=partial(_print_addresses, output),
            on_status=_CountsPrinter(output).on_status,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_ticking(world, _TICK_SECONDS, stop))
            group.create_task(_fail_one(world, stop))
            group.create_task(output.check(stop))
            group.create_task(run_agent(load(path, {}), options, stop))
    output.print("Ended; nothing was left behind.")
    output.flush()


async def _free_port() -> int:
    """Return the default port, or 0 (any free port) if another program uses it."""
    from exporter import http_server

    try:
        listener = await http_server.listen("127.0.0.1", _PORT)
    except OSError:
        return 0
    listener.close()
    return _PORT


async def _fail_one(world: "World", stop: asyncio.Event) -> None:
    """Let one fine-tune fail early: a random failure may take long."""
    voice = world.add(name="Ada for the audiobook", status="training")
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
    output.print(
        "A fine-tune fails in a few seconds; watch the alert arrive. Ctrl-C ends the demo."
    )
    output.print("")


class _CountsPrinter:
    """Prints the counts per status when they change."""

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._printed: dict[str, int] = {}

    def on_status(self, status: "AccountStatus") -> None:
        from exporter.core.model import STATUSES

        counts: Counter[str] = Counter()
        for (*_, fine_tune_status), number in (status.counts or {}).items():
            counts[fine_tune_status] += number
        if counts and counts != self._printed:
            self._printed = counts
            text = ", ".join(f"{name} {counts[name]}" for name in STATUSES if counts[name])
            self._output.print(f"{time.strftime('%H:%M:%S')}  counts   {text}")
