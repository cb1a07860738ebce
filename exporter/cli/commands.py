"""The command group `cartesia-exporter`."""

import errno
from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.early_signals import runs_agent
from exporter.cli.options import version_option
from exporter.core.text import os_error_text

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# docs/flags.md lists the commands in this order.
_PLACES: Final = {
    "run": "run:run",
    "deliveries": "deliveries:deliveries",
    "events": "events:events",
    "mutes": "mutes:mutes",
    "state": "maintenance:state",
    "health": "health:health",
    "check-config": "run:check_config",
    "list": "fine_tunes:list_command",
    "send-test": "send_test:send_test",
    "simulate": "demo:simulate",
    "demo": "demo:demo",
}
"""Module in this package, and object there, of each command."""


class _Commands(UserDict[str, Any]):
    """Commands by name; the module of a command is imported when the command is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        place = super().__getitem__(name)
        if isinstance(place, str):
            module, _, attribute = place.partition(":")
            self[name] = getattr(import_module(f"exporter.cli.{module}"), attribute)
        command: click.Command = super().__getitem__(name)
        return command


class _RunByDefault(click.Group):
    """A group whose command is `run` when the command line has flags but no command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` before flags that are not flags of the group."""
        # Completion of the first word looks for commands, too.
        is_completed = not args and ctx.resilient_parsing
        # A first word that is no flag may be a misspelt command: click reports it.
        if runs_agent(args) and args[:1] != ["run"] and not is_completed:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands and flags that begin with ``incomplete``, those of `run` included."""
        found = super().shell_complete(ctx, incomplete)
        run = self.commands["run"]
        with run.make_context("run", [], ctx, resilient_parsing=True) as context:
            of_run = run.shell_complete(context, incomplete)
        names = {item.value for item in found}
        return found + [item for item in of_run if item.value not in names]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report output that cannot be written as an error of one line.

        Click itself handles a pipe that was closed by its reader, and ends without a message.
        """
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(f"cannot write the output: {os_error_text(error)}") from None


@click.group(
    cls=_RunByDefault,
    commands=_Commands(_PLACES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@version_option
def main() -> None:
    """Export the status of Cartesia fine-tunes to Prometheus, and notify when one fails.

    Without a command, `run` is executed; see `cartesia-exporter run --help` for its flags.
    """
