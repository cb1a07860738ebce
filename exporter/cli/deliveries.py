"""`deliveries`: what is owed to whom, and what a person does about it beside a running agent."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import RUNTIME, fail, standard_output
from exporter.cli.options import config_file_option, limit_option, load, output_option
from exporter.cli.state import (
    HOW_TO_LIST,
    check_configured,
    check_receiver,
    in_state,
    receiver_names,
    say_cut,
)

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.store.database import Database
    from exporter.store.queries import DeliveryFilter, DeliverySummary

_UNSETTLED: Final = ("pending", "dead", "orphaned")
_STATES: Final = (*_UNSETTLED, "delivered", "discarded")

_receiver_option: Final = click.option("--receiver", metavar="NAME", help="Of this receiver alone.")
_ids_argument: Final = click.argument("ids", metavar="[ID]...", nargs=-1)


@click.group()
def deliveries() -> None:
    """Look into what receivers are owed and were sent, and mend it, while the agent runs.

    A delivery is a message of one receiver; or an event that no message carries yet. It is pending,
    dead (given up), delivered or discarded, and orphaned when it is pending or dead for a receiver
    that left the configuration. The beginning of an ID is enough where it is the only one.
    """


@deliveries.command("list")
@config_file_option
@_receiver_option
@click.option(
    "--state",
    type=click.Choice([*_STATES, "all"]),
    help="In this state alone; without it what is not settled: pending, dead and orphaned.",
)
@limit_option
@output_option
def list_command(
    config_file: Path | None, receiver: str | None, state: str | None, limit: int, output: Any
) -> None:
    """Print deliveries, the newest last."""
    config = load(config_file)
    stream = standard_output("list the deliveries")
    from exporter.cli.output import DELIVERIES, delivery_record, write
    from exporter.store.queries import list_deliveries

    states = {None: _UNSETTLED, "all": _STATES}.get(state, (str(state),))
    selection = _selection(config, (), receiver, states)

    def work(database: "Database") -> Any:
        check_receiver(config, database, receiver)
        return list_deliveries(database, selection, limit)

    found, total = in_state(config, "list the deliveries", work)
    write([delivery_record(entry) for entry in found], DELIVERIES, output, stream)
    say_cut(len(found), total)


@deliveries.command()
@config_file_option
@click.argument("delivery", metavar="ID")
@_receiver_option
def show(config_file: Path | None, delivery: str, receiver: str | None) -> None:
    """Print all about the delivery ID: each field, its events, the body as it is sent."""
    config = load(config_file)
    stream = standard_output("show the delivery")
    from exporter.cli.output import delivery_lines
    from exporter.store.queries import load_details

    selection = _selection(config, (delivery,), receiver, _STATES)
    found = in_state(
        config, "show the delivery", lambda database: load_details(database, selection)
    )
    terminal = stream.isatty()
    click.echo("\n\n".join("\n".join(delivery_lines(each, terminal=terminal)) for each in found))


@deliveries.command()
@config_file_option
@_ids_argument
@_receiver_option
@click.option("--state", type=click.Choice(_UNSETTLED[:2]), help="In this state alone.")
@click.option("--all", "everything", is_flag=True, help="Everything that is pending or dead.")
def retry(
    config_file: Path | None,
    ids: tuple[str, ...],
    receiver: str | None,
    state: str | None,
    *,
    everything: bool,
) -> None:
    """Have deliveries that are pending or dead tried at once, under the same ids.

    Say which: by ID, --receiver, --state or --all.
    """
    _check_chosen(ids, receiver, state, everything=everything)
    config = load(config_file)
    from exporter.store.repairs import retry as act

    selection = _selection(config, ids, receiver, (state,) if state else _UNSETTLED[:2])
    counts = _intervene(config, "retry", selection, act)
    click.echo(f"{_counted(counts)} will be tried at once")


@deliveries.command()
@config_file_option
@_ids_argument
@_receiver_option
@click.option("--state", type=click.Choice(_UNSETTLED), help="In this state alone.")
@click.option("--all", "everything", is_flag=True, help="Everything that is not settled.")
def discard(
    config_file: Path | None,
    ids: tuple[str, ...],
    receiver: str | None,
    state: str | None,
    *,
    everything: bool,
) -> None:
    """Give up deliveries for good; they stay in the store, and are not sent.

    Say which: by ID, --receiver, --state or --all.
    """
    _check_chosen(ids, receiver, state, everything=everything)
    config = load(config_file)
    from exporter.store.repairs import discard as act

    selection = _selection(config, ids, receiver, (state,) if state else _UNSETTLED)
    counts = _intervene(config, "discard", selection, act)
    click.echo(f"{_counted(counts)} discarded; --state discarded lists what was")


@deliveries.command()
@config_file_option
@click.option("--from", "source", metavar="NAME", required=True, help="Who was to be told.")
@click.option("--to", "target", metavar="NAME", required=True, help="Who is to be told instead.")
def reassign(config_file: Path | None, source: str, target: str) -> None:
    """Make all that is pending or dead for one receiver owed to another one, in new messages."""
    if source == target:
        raise click.UsageError("--from and --to are the same receiver")
    config = load(config_file)
    check_configured(config, target)
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store import repairs as interventions

    def work(database: "Database") -> interventions.ReassignCounts:
        check_receiver(config, database, source)
        return interventions.reassign(database, source, target, SYSTEM_CLOCK.now())

    done = in_state(config, "reassign the deliveries", work)
    if not done.moved and not done.discarded:
        fail(RUNTIME, f"nothing is pending or dead for {source}; {HOW_TO_LIST}")
    text = f"{_number(done.moved, 'event')} of {source} will be told to {target} at once"
    if done.discarded:
        text += f"; {done.discarded} discarded, {target} was to be told anyway"
    click.echo(text)


def _check_chosen(
    ids: tuple[str, ...], receiver: str | None, state: str | None, *, everything: bool
) -> None:
    if not (ids or receiver or state or everything):
        raise click.UsageError("say which deliveries: by ID, --receiver, --state or --all")
    if everything and (ids or receiver or state):
        raise click.UsageError("--all leaves no choice: give it without IDs, --receiver, --state")


def _selection(
    config: "Config", ids: tuple[str, ...], receiver: str | None, states: tuple[str, ...]
) -> "DeliveryFilter":
    from exporter.store.queries import DeliveryFilter

    return DeliveryFilter(receiver_names(config), ids, receiver, states)


def _intervene(
    config: "Config", task: str, selection: "DeliveryFilter", act: Any
) -> Mapping[str, int]:
    """Return of how many deliveries of whom something was made, or end if there are none."""
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store.queries import list_deliveries

    def checked(database: "Database") -> "tuple[Mapping[str, int], list[DeliverySummary]]":
        check_receiver(config, database, selection.receiver)
        orphans, _ = list_deliveries(database, replace(selection, states=("orphaned",)), 1)
        return act(database, selection, SYSTEM_CLOCK.now()), orphans

    counts, orphans = in_state(config, f"{task} deliveries", checked)
    if not counts:
        fail(RUNTIME, _nothing(task, orphans))
    return counts


def _nothing(task: str, orphans: list["DeliverySummary"]) -> str:
    if not orphans:
        return f"no delivery to {task} is among them; {HOW_TO_LIST}"
    receiver = orphans[0].receiver
    return (
        f"receiver {receiver} is not in the configuration any more: "
        f"`cartesia-exporter deliveries reassign --from {receiver} --to NAME` hands it on"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{_number(number, 'delivery')} of {receiver}" for receiver, number in counts.items()
    )


def _number(number: int, noun: str) -> str:
    plural = {"delivery": "deliveries", "event": "events"}
    return f"{number} {noun if number == 1 else plural[noun]}"
