"""The flags that several commands take, and the configuration that they all need."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from exporter.exits import CONFIGURATION, fail

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.web.live_settings import LiveSettings

config_file_option: Final = click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The configuration; without it CARTESIA_API_KEY is enough.",
)

web_config_file_option: Final = click.option(
    "--web.config.file",
    "web_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="TLS, users and limits of the web server, as for Prometheus and its exporters.",
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
    return load_both(path, None)[0]


def load_both(path: Path | None, web_path: Path | None) -> tuple["Config", "LiveSettings | None"]:
    """Return the configuration and the web configuration, or end with every mistake in both."""
    from exporter.config import ConfigError
    from exporter.config import load as read

    refused = []
    try:
        config = read(path, os.environ)
    except ConfigError as error:
        refused.append(_refusal("configuration", path or "the environment", error.problems))
    try:
        web = None if web_path is None else _load_web(web_path)
    except ConfigError as error:
        refused.append(_refusal("web configuration", web_path, error.problems))
    if refused:
        fail(CONFIGURATION, "\n".join(refused))
    return config, web


def _load_web(path: Path) -> "LiveSettings":
    from exporter.config.web_file import WebFile
    from exporter.web.live_settings import LiveSettings

    file = WebFile(path)
    return LiveSettings(file.read(), file.newest)


def _refusal(what: str, where: object, problems: list[str]) -> str:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"the {what} in {where} cannot be used:{lines}"


def report_check(config: "Config", web: "LiveSettings | None") -> None:
    """Say that the configuration is valid, and what in the web configuration has no effect."""
    counts = f"{len(config.accounts)} accounts, {len(config.receivers)} receivers"
    click.echo(f"The configuration is valid: {counts}.")
    if web is not None:
        for note in web.first.notes:
            click.echo(f"warning: {note}", err=True)
        tls = "plain HTTP" if web.first.tls is None else "TLS"
        click.echo(f"The web configuration is valid: {tls}, {len(web.first.users)} users.")
