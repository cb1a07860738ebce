"""`events`: the events in the store and the delivery states of each."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import standard_output
from exporter.cli.options import config_file_option, limit_option, load, output_option
from exporter.cli.output import Layout, Record, write
from exporter.cli.state import configured_receivers, report_omitted, run_in_state
from exporter.core.events import EVENT_TYPES, SUBSCRIPTIONS
from exporter.core.text import timestamp

if TYPE_CHECKING:
    from exporter.store.database import Database
    from exporter.store.queries import RecordedEvent

_LAYOUT: Final = Layout(
    "events",
    (
        *("observed_at", "type", "account", "subject", "name"),
        *("previous_status", "status", "receivers"),
    ),
    uncut=frozenset({"observed_at", "type", "subject"}),
    hidden=("id",),
    styled_by="status",
    styles={"failed": "red", "completed": "green"},
)

# Receivers cannot subscribe to other status changes, but this command can show them.
_TYPES_BY_WORD: Final[dict[str, frozenset[str]]] = {
    **{word: frozenset[str](types) for word, types in SUBSCRIPTIONS.items()},
    **{
        event_type.removeprefix("fine_tune."): frozenset({event_type})
        for event_type, traits in EVENT_TYPES.items()
        if traits.subscription is None and event_type.startswith("fine_tune.")
    },
}


@click.group()
def events() -> None:
    """Look into what the agent saw happen, while it runs."""


@events.command("list")
@config_file_option
@click.option("--account", metavar="NAME", help="Of this account alone.")
@click.option(
    "--type", "word", type=click.Choice(sorted(_TYPES_BY_WORD)), help="Of this type alone."
)
@click.option("--fine-tune", "fine_tune", metavar="ID", help="About this fine-tune alone.")
@limit_option
@output_option
def list_command(config_file: Path | None, limit: int, output: Any, **given: str | None) -> None:
    """Print events and who was told of them, the newest last."""
    config = load(config_file)
    stream = standard_output("list the events")
    from exporter.store.queries import EventFilter, list_events

    word = given["word"]
    types = _TYPES_BY_WORD[word] if word else frozenset()
    event_filter = EventFilter(given["account"], given["fine_tune"], types)

    def query(database: "Database") -> Any:
        return list_events(database, event_filter, configured_receivers(config), limit)

    found, total = run_in_state(config, "list the events", query)
    write([_record(each) for each in found], _LAYOUT, output, stream)
    report_omitted(len(found), total)


def _record(recorded: "RecordedEvent") -> Record:
    event = recorded.event
    return {
        "observed_at": timestamp(event.observed_at),
        "type": event.type,
        "account": event.account,
        "subject": event.subject,
        "name": event.fine_tune.name if event.fine_tune else "",
        "previous_status": event.previous_status,
        "status": event.fine_tune.status if event.fine_tune else None,
        "receivers": dict(recorded.states),
        "id": event.id,
    }
