"""The command group `cartesia-exporter`."""

import errno
from typing import Any

import click
from click.shell_completion import CompletionItem

from exporter.cli.deliveries import deliveries
from exporter.cli.demo import demo, simulate
from exporter.cli.early_signals import runs_agent
from exporter.cli.events import events
from exporter.cli.fine_tunes import list_command
from exporter.cli.health import health
from exporter.cli.maintenance import state
from exporter.cli.mutes import mutes
from exporter.cli.options import version_option
from exporter.cli.run import check_config, run
from exporter.cli.send_test import send_test
from exporter.core.text import os_error_text


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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and flags that begin with ``incomplete``, those of `run` included."""
        found = super().shell_complete(ctx, incomplete)
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


@click.group(cls=_RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def main() -> None:
    """Export the status of Cartesia fine-tunes to Prometheus, and notify when one fails.

    Without a command, `run` is executed; see `cartesia-exporter run --help` for its flags.
    """


# docs/flags.md lists the commands in this order.
for _command in (
    *(run, deliveries, events, mutes, state, health, check_config, list_command),
    *(send_test, simulate, demo),
):
    main.add_command(_command)
