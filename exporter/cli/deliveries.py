"""`deliveries`: the deliveries in the store, and repairs of them beside a running agent."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from msgspec.structs import replace

from exporter.cli.exits import RUNTIME_ERROR, fail, standard_output
from exporter.cli.options import (
    config_file_option,
    limit_option,
    login_name,
    output_option,
    storage_path_option,
)
from exporter.cli.output import Layout, Record, body_lines, cell_text, write_records
from exporter.cli.source import filter_options, query_of, read_list, report_age, source_options
from exporter.cli.state import LIST_HINT, run_in_state, state_of
from exporter.core.text import one_line, timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from exporter.core.events import Event
    from exporter.core.records import DeliveryRecord
    from exporter.store.database import Database
    from exporter.store.queries import DeliveryDetails, DeliverySummary

# As in exporter.store.queries, which --help must not import.
_RETRYABLE: Final = ("pending", "dead")
_UNSETTLED: Final = ("pending", "muted", "dead", "orphaned")
_STATES: Final = (*_UNSETTLED, "delivered", "discarded")

_LAYOUT: Final = Layout(
    "deliveries",
    ("age", "event", "fine-tune", "receiver", "state", "answer", "id"),
    uncut=frozenset({"age", "event", "state"}),
    least={"fine-tune": 12, "receiver": 8, "answer": 12, "id": 8},
    cut_first="id",
    wide=("account", "attempts", "queued_at"),
    styled_by="state",
    styles={"dead": "red", "orphaned": "yellow", "delivered": "green", "discarded": "dim"},
)

_receiver_option: Final = click.option("--receiver", metavar="NAME", help="Only of this receiver.")


@click.group()
def deliveries() -> None:
    """Show, retry, discard and reassign deliveries; the agent may be running.

    A delivery is an event queued for a receiver. Its state is pending, muted, dead (refused for
    good, or expired), delivered or discarded. Unfinished deliveries of a receiver that is not in
    the configuration are orphaned. A command that changes a delivery changes all deliveries of the
    same message. The beginning of an ID is enough if it is unique.
    """


@deliveries.command("list")
@source_options
@filter_options("account", "status", "receiver", "since", "type")
@click.option(
    "--state",
    type=click.Choice([*_STATES, "all"]),
    help="Only in this state; default: pending, muted, dead and orphaned.",
)
@limit_option
@output_option
def list_command(state: str | None, limit: int, output: Any, **given: Any) -> None:
    """Print deliveries, one line for each event and receiver, newest last."""
    stream = standard_output("list the deliveries")
    states = {None: _UNSETTLED, "all": ()}.get(state, (str(state),))
    found = read_list("deliveries", query_of({**given, "state": states}), limit, given)
    now = report_age(found)
    write_records(found.records[::-1], lambda each: _row(each, now), _LAYOUT, output, stream)


def _row(delivery: "DeliveryRecord", now: "datetime") -> Record:
    from exporter.web.times import age, iso_time

    acted = delivery.settled_at or delivery.last_attempt_at or delivery.queued_at
    return {
        "age": age((now - acted).total_seconds()),
        "receiver": delivery.receiver,
        "state": delivery.state,
        "fine-tune": delivery.name or delivery.fine_tune,
        "event": delivery.type.rpartition(".")[2].replace("_", " "),
        "answer": _answer(delivery, now),
        "account": delivery.account,
        "attempts": delivery.attempts,
        "queued_at": iso_time(delivery.queued_at),
        "id": delivery.id,
    }


def _answer(delivery: "DeliveryRecord", now: "datetime") -> str:
    """Return the last answer, and what the delivery waits for or who settled it."""
    from exporter.web.times import short_time

    words = [delivery.answer.removeprefix("answered ")]
    if delivery.next_attempt_at is not None:
        words.append(f"next attempt {short_time(delivery.next_attempt_at, now)}")
    if delivery.held_until is not None:
        words.append(f"held until {short_time(delivery.held_until, now)}")
    if delivery.muted_until is not None:
        end = short_time(delivery.muted_until, now)
        if delivery.muted_until_recovered:
            end = "it recovers"
        words.append(f"until {end}, by {delivery.muted_by}")
    if delivery.discarded_by:
        words.append(f"by {delivery.discarded_by}")
    return "; ".join(filter(None, words))


@deliveries.command()
@config_file_option
@storage_path_option
@click.argument("delivery", metavar="ID")
@_receiver_option
def show(
    config_file: Path | None, storage_path: Path | None, delivery: str, receiver: str | None
) -> None:
    """Print all about delivery ID: its fields, its events and the body that is sent."""
    state = state_of(config_file, storage_path)
    terminal = standard_output("show the delivery").isatty()
    from exporter.store.queries import DeliveryFilter, load_details

    ids, named = _split_id(delivery)

    def work(database: "Database") -> "list[DeliveryDetails]":
        criteria = DeliveryFilter(state.receivers(database), ids, named or receiver)
        return load_details(database, criteria)

    found = run_in_state(state, "show the delivery", work)
    click.echo("\n\n".join("\n".join(_describe(detail, terminal=terminal)) for detail in found))


def _selection_options(
    states: tuple[str, ...], all_help: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a command that repairs deliveries in ``states``."""
    options = (
        config_file_option,
        storage_path_option,
        click.argument("ids", metavar="[ID]...", nargs=-1),
        _receiver_option,
        click.option("--state", type=click.Choice(states), help="Only in this state."),
        click.option("--all", "everything", is_flag=True, help=all_help),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for add_option in reversed(options):
            command = add_option(command)
        return command

    return decorate


@deliveries.command()
@_selection_options(_RETRYABLE, "All that are pending or dead.")
def retry(**arguments: Any) -> None:
    """Retry pending or dead deliveries now, with the same ids.

    Select them by ID, --receiver, --state or --all.
    """
    click.echo(f"{_repair('retry', _RETRYABLE, arguments)} will be tried at once")


@deliveries.command()
@_selection_options(_UNSETTLED, "All that are pending, muted, dead or orphaned.")
def discard(**arguments: Any) -> None:
    """Discard deliveries: they are not sent any more, but stay in the store.

    Select them by ID, --receiver, --state or --all.
    """
    discarded = _repair("discard", _UNSETTLED, arguments)
    click.echo(f"{discarded} discarded; see `cartesia-exporter deliveries list --state discarded`")


@deliveries.command()
@config_file_option
@storage_path_option
@click.option(
    "--from", "source", metavar="NAME", required=True, help="Receiver that has the deliveries."
)
@click.option("--to", "target", metavar="NAME", required=True, help="Receiver that gets them.")
def reassign(config_file: Path | None, storage_path: Path | None, source: str, target: str) -> None:
    """Move all pending and dead deliveries of one receiver to another, in new messages."""
    if source == target:
        raise click.UsageError("--from and --to are the same receiver")
    state = state_of(config_file, storage_path)
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store import repairs

    def work(database: "Database") -> repairs.ReassignCounts:
        state.check_configured(database, target)
        state.check_receiver(database, source)
        return repairs.reassign(database, source, target, SYSTEM_CLOCK.now())

    result = run_in_state(state, "reassign the deliveries", work)
    if not result.moved and not result.discarded:
        fail(RUNTIME_ERROR, f"{source} has no pending or dead deliveries; {LIST_HINT}")
    noun = "event" if result.moved == 1 else "events"
    text = f"{result.moved} {noun} of {source} will be sent to {target} at once"
    if result.discarded:
        text += f"; {result.discarded} discarded because {target} has them already"
    click.echo(text)


def _repair(
    task: Literal["retry", "discard"], repairable: tuple[str, ...], arguments: Mapping[str, Any]
) -> str:
    """Repair the deliveries that the arguments of the command select; return their numbers as text.

    Ends the process if there is nothing to repair.
    """
    ids, receiver, in_state = (arguments[name] for name in ("ids", "receiver", "state"))
    if not (ids or receiver or in_state or arguments["everything"]):
        raise click.UsageError("select deliveries by ID, --receiver, --state or --all")
    if arguments["everything"] and (ids or receiver or in_state):
        raise click.UsageError("--all excludes IDs, --receiver and --state")
    state = state_of(arguments["config_file"], arguments["storage_path"])
    from exporter.agent.build import SYSTEM_CLOCK
    from exporter.store import repairs
    from exporter.store.queries import DeliveryFilter, list_deliveries

    states = (in_state,) if in_state else repairable
    repair = repairs.retry
    if task == "discard":
        repair = partial(repairs.discard, by=login_name())

    def work(database: "Database") -> "tuple[Mapping[str, int], list[DeliverySummary]]":
        state.check_receiver(database, receiver)
        configured, counts = state.receivers(database), Counter[str]()
        orphans: list[DeliverySummary] = []
        for chosen, named in _by_receiver(ids):
            criteria = DeliveryFilter(configured, chosen, named or receiver, states)
            orphans += list_deliveries(database, replace(criteria, states=("orphaned",)), 1)[0]
            counts.update(repair(database, criteria, SYSTEM_CLOCK.now()))
        return counts, orphans

    counts, orphans = run_in_state(state, f"{task} deliveries", work)
    if not counts and orphans:
        receiver = orphans[0].receiver
        fail(
            RUNTIME_ERROR,
            f"receiver {receiver} is not in the configuration; move its deliveries with "
            f"`cartesia-exporter deliveries reassign --from {receiver} --to NAME`",
        )
    if not counts:
        fail(RUNTIME_ERROR, f"found no delivery to {task}; {LIST_HINT}")
    return ", ".join(
        f"{number} {'delivery' if number == 1 else 'deliveries'} of {name}"
        for name, number in counts.items()
    )


def _split_id(given: str) -> tuple[tuple[str, ...], str | None]:
    """Return the id of an event or message, and the receiver that stands behind a colon."""
    identifier, _, receiver = given.partition(":")
    # As copied from a table that has cut it.
    return (identifier.removesuffix("…"),), receiver or None


def _by_receiver(given: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield ids with the receiver that is given with them; once without ids if there are none."""
    ids: dict[str | None, tuple[str, ...]] = {}
    for each in given:
        identifier, receiver = _split_id(each)
        ids[receiver] = (*ids.get(receiver, ()), *identifier)
    for receiver, chosen in ids.items():
        yield chosen, receiver
    if not ids:
        yield (), None


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
        yield "(none: it could not be rendered, see the log of the agent)"
    else:
        yield from body_lines(detail.body, terminal=terminal)


def _event_text(event: "Event") -> str:
    if event.fine_tune is None:
        about = [event.account, event.subject, str(event.facts.get("text", ""))]
    else:
        status = f"{event.previous_status or 'none'} → {event.fine_tune.status}"
        about = [event.account, event.fine_tune.id, event.fine_tune.name, status]
    return "  ".join(filter(None, map(one_line, (event.type, *about, event.id))))
