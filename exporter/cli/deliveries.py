"""`deliveries`: the deliveries in the store, and repairs of them beside a running agent."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from exporter.cli.exits import RUNTIME_ERROR, fail, standard_output
from exporter.cli.options import config_file_option, limit_option, load, output_option
from exporter.cli.output import Layout, Record, body_lines, cell_text, write
from exporter.cli.state import (
    LIST_HINT,
    check_configured,
    check_receiver,
    configured_receivers,
    report_omitted,
    run_in_state,
)
from exporter.core.text import one_line, timestamp

if TYPE_CHECKING:
    from exporter.core.events import Event
    from exporter.store.database import Database
    from exporter.store.queries import DeliveryDetails, DeliverySummary

# As in exporter.store.queries, which --help must not import.
_RETRYABLE: Final = ("pending", "dead")
_UNSETTLED: Final = (*_RETRYABLE, "orphaned")
_STATES: Final = (*_UNSETTLED, "delivered", "discarded")

_LAYOUT: Final = Layout(
    "deliveries",
    (
        *("receiver", "id", "state", "types", "events", "owed_since"),
        *("attempts", "last_attempt_at", "last_result"),
    ),
    uncut=frozenset({"receiver", "id", "state", "owed_since", "last_attempt_at"}),
    hidden=("minimal", "in_flight"),
    styled_by="state",
    styles={"dead": "red", "orphaned": "yellow", "delivered": "green", "discarded": "dim"},
)

_receiver_option: Final = click.option("--receiver", metavar="NAME", help="Of this receiver alone.")


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
    from exporter.store.queries import DeliveryFilter, list_deliveries

    states = {None: _UNSETTLED, "all": _STATES}.get(state, (str(state),))
    criteria = DeliveryFilter(configured_receivers(config), (), receiver, states)

    def query(database: "Database") -> Any:
        check_receiver(config, database, receiver)
        return list_deliveries(database, criteria, limit)

    found, total = run_in_state(config, "list the deliveries", query)
    write([_record(entry) for entry in found], _LAYOUT, output, stream)
    report_omitted(len(found), total)


@deliveries.command()
@config_file_option
@click.argument("delivery", metavar="ID")
@_receiver_option
def show(config_file: Path | None, delivery: str, receiver: str | None) -> None:
    """Print all about the delivery ID: each field, its events, the body as it is sent."""
    config = load(config_file)
    terminal = standard_output("show the delivery").isatty()
    from exporter.store.queries import DeliveryFilter, load_details

    criteria = DeliveryFilter(configured_receivers(config), (delivery,), receiver)
    found = run_in_state(
        config, "show the delivery", lambda database: load_details(database, criteria)
    )
    click.echo("\n\n".join("\n".join(_describe(detail, terminal=terminal)) for detail in found))


def _selection_options(
    states: tuple[str, ...], all_help: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a command that repairs deliveries in ``states``."""
    options = (
        config_file_option,
        click.argument("ids", metavar="[ID]...", nargs=-1),
        _receiver_option,
        click.option("--state", type=click.Choice(states), help="In this state alone."),
        click.option("--all", "everything", is_flag=True, help=all_help),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for add_option in reversed(options):
            command = add_option(command)
        return command

    return decorate


@deliveries.command()
@_selection_options(_RETRYABLE, "Everything that is pending or dead.")
def retry(**arguments: Any) -> None:
    """Have deliveries that are pending or dead tried at once, under the same ids.

    Say which: by ID, --receiver, --state or --all.
    """
    click.echo(f"{_repair('retry', _RETRYABLE, arguments)} will be tried at once")


@deliveries.command()
@_selection_options(_UNSETTLED, "Everything that is not settled.")
def discard(**arguments: Any) -> None:
    """Give up deliveries for good; they stay in the store, and are not sent.

    Say which: by ID, --receiver, --state or --all.
    """
    discarded = _repair("discard", _UNSETTLED, arguments)
    click.echo(f"{discarded} discarded; --state discarded lists what was")


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
    from exporter.store import repairs

    def work(database: "Database") -> repairs.ReassignCounts:
        check_receiver(config, database, source)
        return repairs.reassign(database, source, target, SYSTEM_CLOCK.now())

    result = run_in_state(config, "reassign the deliveries", work)
    if not result.moved and not result.discarded:
        fail(RUNTIME_ERROR, f"nothing is pending or dead for {source}; {LIST_HINT}")
    noun = "event" if result.moved == 1 else "events"
    text = f"{result.moved} {noun} of {source} will be told to {target} at once"
    if result.discarded:
        text += f"; {result.discarded} discarded, {target} has them already"
    click.echo(text)


def _repair(
    task: Literal["retry", "discard"], repairable: tuple[str, ...], arguments: Mapping[str, Any]
) -> str:
    """Repair the deliveries that the arguments of the command select; return their numbers as text.

    Ends the process if there is nothing to repair.
    """
    ids, receiver, state = (arguments[name] for name in ("ids", "receiver", "state"))
    if not (ids or receiver or state or arguments["everything"]):
        raise click.UsageError("say which deliveries: by ID, --receiver, --state or --all")
    if arguments["everything"] and (ids or receiver or state):
        raise click.UsageError("--all leaves no choice: give it without IDs, --receiver, --state")
    config = load(arguments["config_file"])
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store import repairs
    from exporter.store.queries import DeliveryFilter, list_deliveries

    states = (state,) if state else repairable
    criteria = DeliveryFilter(configured_receivers(config), ids, receiver, states)
    repair = {"retry": repairs.retry, "discard": repairs.discard}[task]

    def work(database: "Database") -> "tuple[Mapping[str, int], list[DeliverySummary]]":
        check_receiver(config, database, receiver)
        orphans, _ = list_deliveries(database, replace(criteria, states=("orphaned",)), 1)
        return repair(database, criteria, SYSTEM_CLOCK.now()), orphans

    counts, orphans = run_in_state(config, f"{task} deliveries", work)
    if not counts and orphans:
        receiver = orphans[0].receiver
        fail(
            RUNTIME_ERROR,
            f"receiver {receiver} is not in the configuration any more: "
            f"`cartesia-exporter deliveries reassign --from {receiver} --to NAME` hands it on",
        )
    if not counts:
        fail(RUNTIME_ERROR, f"no delivery to {task} is among them; {LIST_HINT}")
    return ", ".join(
        f"{number} {'delivery' if number == 1 else 'deliveries'} of {name}"
        for name, number in counts.items()
    )


def _record(entry: "DeliverySummary") -> Record:
    return {
        "receiver": entry.receiver,
        "id": entry.id,
        "state": entry.state,
        "types": list(entry.types),
        "events": entry.events,
        "owed_since": timestamp(entry.queued_at),
        "attempts": entry.attempts,
        "last_attempt_at": None
        if entry.last_attempt_at is None
        else timestamp(entry.last_attempt_at),
        "last_result": entry.last_result,
        "minimal": entry.minimal,
        "in_flight": entry.in_flight,
    }


def _describe(detail: "DeliveryDetails", *, terminal: bool) -> Iterator[str]:
    """Yield the output of `deliveries show` line by line."""
    for name, value in _record(detail.summary).items():
        text = ("no", "yes")[value] if isinstance(value, bool) else cell_text(value)
        yield f"{name}: {one_line(text)}".rstrip()
    yield "contents:"
    for event in detail.events:
        yield f"  {_event_text(event)}"
    yield "body:"
    if detail.body is None:
        yield "(no message carries it yet)"
    elif not detail.body:
        yield "(none: it could not be rendered, the agent's log says why)"
    else:
        yield from body_lines(detail.body, terminal=terminal)


def _event_text(event: "Event") -> str:
    if event.fine_tune is None:
        about = [event.account, event.subject, str(event.facts.get("text", ""))]
    else:
        status = f"{event.previous_status or 'none'} → {event.fine_tune.status}"
        about = [event.account, event.fine_tune.id, event.fine_tune.name, status]
    return "  ".join(filter(None, map(one_line, (event.type, *about, event.id))))
