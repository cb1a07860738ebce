"""Entry point: handles signals before it imports the commands, which takes a while."""

import gc
import os
import sys

from exporter.cli import early_signals


def main(prog_name: str | None = None) -> None:
    """Run the command line and end the process."""
    # None of pydantic's plugins is used; to look for them reads the metadata of every distribution.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if early_signals.runs_agent(sys.argv[1:]):
        early_signals.handle()
        # What is imported stays. To look for garbage in it takes a sixth of the start; the agent
        # enables the collector again when everything is imported.
        gc.disable()
    from exporter.cli import commands

    commands.main(prog_name=prog_name)
