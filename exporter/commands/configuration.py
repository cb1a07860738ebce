"""The flags that several commands take, and the configuration that they all need."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from exporter.exits import CONFIGURATION, fail

if TYPE_CHECKING:
    from exporter.config import Config

config_file_option: Final = click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The configuration; without it CARTESIA_API_KEY is enough.",
)

output_option: Final = click.option(
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, JSON or CSV for programs.",
)

limit_option: Final = click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="How many to show at most, the newest.",
)


def load(path: Path | None) -> "Config":
    """Return the configuration, or end with every mistake in it."""
    from exporter.config import ConfigError
    from exporter.config import load as read

    try:
        return read(path, os.environ)
    except ConfigError as error:
        where = path or "the environment"
        problems = "".join(f"\n  {problem}" for problem in error.problems)
        fail(CONFIGURATION, f"the configuration in {where} cannot be used:{problems}")
