"""The commands, their flags, and what they end with: 0 ok, 1 runtime, 2 usage or configuration."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from exporter import __version__
from exporter.cli.deliveries import deliveries
from exporter.cli.events import events
from exporter.cli.exits import RUNTIME, fail, reason, standard_output
from exporter.cli.health import health
from exporter.cli.options import (
    Address,
    Commands,
    Duration,
    Number,
    config_file_option,
    load,
    load_both,
    output_option,
    report_check,
    web_config_file_option,
)
from exporter.cli.run import run
from exporter.cli.send_test import send_test


def _number(
    flag: str, kind: Any, default: object, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(flag, type=kind, default=default, show_default=True, help=text)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cartesia-exporter")
def main() -> None:
    """Count the fine-tunes of Cartesia accounts for Prometheus, and alert when one fails.

    Without a command, `run` is meant: see `cartesia-exporter run --help` for its flags.
    """


for _command in (run, deliveries, events, health):
    main.add_command(_command)


@main.command("check-config")
@config_file_option
@web_config_file_option
def check_config(config_file: Path | None, web_file: Path | None) -> None:
    """Check the configuration, name every mistake, and exit."""
    report_check(*load_both(config_file, web_file))


@main.command("list")
@config_file_option
@output_option
def list_command(config_file: Path | None, output: Any) -> None:
    """Read every page of every account and print the fine-tunes."""
    config = load(config_file)
    stream = standard_output("list the fine-tunes")
    from exporter.cli import fine_tunes as listing

    try:
        rows = asyncio.run(listing.read_all(config))
    except (listing.ListingError, OSError) as error:
        fail(RUNTIME, f"cannot list the fine-tunes: {reason(error)}")
    listing.write(rows, output, stream)


main.add_command(send_test)


@main.command()
@click.option(
    "--listen",
    "address",
    type=Address(),
    default="127.0.0.1:10061",
    show_default=True,
    help="Where the simulated API listens.",
)
@_number("--fine-tunes", click.IntRange(0), 25, "How many there are, exactly.")
@_number("--tick", Duration(), "2s", "From one change of the world to the next; 0s stops it.")
@_number("--fail-rate", Number(0, 1), 0.1, "The share of fine-tunes that fails.")
@_number("--churn", Number(0), 0.0, "New, and deleted, fine-tunes a tick.")
@_number("--seed", int, 0, "The same seed, the same world.")
@_number("--latency", Duration(), "0s", "The time before each answer.")
@_number("--error-rate", Number(0, 1), 0.0, "The share of requests answered 5xx.")
@_number("--rate-limit", Number(0), 0.0, "Requests a second before 429; 0 is none.")
def simulate(address: tuple[str, int], **options: Any) -> None:
    """Serve a simulated Cartesia API, for any key that begins with sk_car_."""
    from exporter import logs
    from exporter.cli import process

    process.end_at_once_on_signal()
    logs.set_up("warning", "logfmt")
    process.run_until_signal(partial(_simulate, address, options))


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
        return RUNTIME
    return 0


@main.command()
def demo() -> None:
    """Run simulator, agent and a receiver in one process; no key, no server needed."""
    from exporter import logs
    from exporter.cli import process

    process.end_at_once_on_signal()
    logs.set_up("warning", "logfmt")
    process.run_until_signal(_demo)


async def _demo(stop: asyncio.Event) -> int:
    from exporter.cli.demo import demo as show
    from exporter.cli.process import kept_from_make

    status = 0
    try:
        with kept_from_make(os.environ):
            await show(stop, click.echo)
    except* BrokenPipeError:
        status = RUNTIME  # as click does it: whoever closed the pipe knows
    except* OSError as errors:
        click.echo(f"cartesia-exporter: no demo: {reason(errors)}", err=True)
        status = RUNTIME
    return status
