"""`events`: what happened, and how each receiver stands to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import standard_output
from exporter.cli.options import config_file_option, limit_option, load, output_option
from exporter.cli.state import in_state, receiver_names, say_cut
from exporter.core.events import EVENT_TYPES, SUBSCRIPTIONS

if TYPE_CHECKING:
    from exporter.store.database import Database

# No receiver asks for a change to another status, but people who follow a fine-tune do.
_KINDS: Final[dict[str, frozenset[str]]] = {
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
@click.option("--type", "kind", type=click.Choice(sorted(_KINDS)), help="Of this type alone.")
@click.option("--fine-tune", "fine_tune", metavar="ID", help="About this fine-tune alone.")
@limit_option
@output_option
def list_command(config_file: Path | None, limit: int, output: Any, **given: str | None) -> None:
    """Print events and who was told of them, the newest last."""
    config = load(config_file)
    stream = standard_output("list the events")
    from exporter.cli.output import EVENTS, event_record, write
    from exporter.store.queries import EventFilter, list_events

    kind = given["kind"]
    types = _KINDS[kind] if kind else frozenset()
    wanted = EventFilter(given["account"], given["fine_tune"], types)

    def work(database: "Database") -> Any:
        return list_events(database, wanted, receiver_names(config), limit)

    found, total = in_state(config, "list the events", work)
    write([event_record(each) for each in found], EVENTS, output, stream)
    say_cut(len(found), total)
