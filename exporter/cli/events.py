"""`events`: what the agent saw happen, and who was notified of it."""

from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import standard_output
from exporter.cli.options import limit_option, output_option
from exporter.cli.output import Layout, Record, write_records
from exporter.cli.source import filter_options, query_of, read_list, report_age, source_options

if TYPE_CHECKING:
    from datetime import datetime

    from exporter.core.records import DeliveryRecord, EventRecord

_LAYOUT: Final = Layout(
    "events",
    ("age", "event", "fine-tune", "account", "notified", "id"),
    uncut=frozenset({"age", "event"}),
    least={"fine-tune": 12, "account": 6, "notified": 22, "id": 8},
    cut_first="id",
    wide=("answers", "model", "dataset", "observed_at"),
    styled_by="event",
    styles={"failed": "red", "completed": "green"},
)


@click.group()
def events() -> None:
    """Show events and who was notified of them; the agent may be running."""


@events.command("list")
@source_options
@filter_options("account", "status", "receiver", "since", "type")
@click.option(
    "--fine-tune",
    "fine_tune",
    metavar="ID",
    help="Only of this fine-tune; the beginning of its ID is enough.",
)
@limit_option
@output_option
def list_command(limit: int, output: Any, **given: Any) -> None:
    """Print events and which receivers were notified of each, newest last."""
    stream = standard_output("list the events")
    found = read_list("events", query_of(given), limit, given)
    now = report_age(found)
    write_records(found.records[::-1], lambda each: _row(each, now), _LAYOUT, output, stream)


def _row(event: "EventRecord", now: "datetime") -> Record:
    from exporter.web.times import age, iso_time

    return {
        "age": age((now - event.observed_at).total_seconds()),
        "event": event.type.rpartition(".")[2].replace("_", " "),
        "fine-tune": event.name or event.fine_tune or event.title,
        "account": event.account,
        "notified": _notified(event.deliveries, now),
        "id": event.id,
        "answers": _answers(event.deliveries),
        "model": event.model_id,
        "dataset": event.dataset,
        "observed_at": iso_time(event.observed_at),
    }


def _notified(deliveries: "list[DeliveryRecord]", now: "datetime") -> str:
    """Return the receivers and when they were notified, those that were not first."""
    ordered = sorted(deliveries, key=lambda each: each.state == "delivered")
    return ", ".join(f"{each.receiver} {_state(each, now)}" for each in ordered)


def _state(delivery: "DeliveryRecord", now: "datetime") -> str:
    from exporter.web.times import short_time

    if delivery.state == "delivered" and delivery.settled_at is not None:
        return short_time(delivery.settled_at, now)
    if delivery.held_until is not None:
        return f"held until {short_time(delivery.held_until, now)}"
    if delivery.muted_until_recovered:
        return "muted until it recovers"
    if delivery.muted_until is not None:
        return f"muted until {short_time(delivery.muted_until, now)}"
    return delivery.state


def _answers(deliveries: "list[DeliveryRecord]") -> str:
    """Return the answers of the receivers that were not notified."""
    return ", ".join(
        f"{each.receiver}: {each.answer}"
        for each in deliveries
        if each.state != "delivered" and each.answer
    )
