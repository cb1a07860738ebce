"""The flags that several commands take, and the configuration that they all need."""

import errno
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporter.cli.exits import CONFIGURATION, fail
from exporter.core.text import os_error_text, parse_duration

_MAX_PORT: Final = 65535


class Commands(click.Group):
    """Commands of which `run` is the one that is meant when only flags are given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front of flags that are not the group's own."""
        # A word that is no flag is left to click: it may be a command, or one misspelt.
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help", "--version"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; output that cannot be written is an error of one line.

        A pipe that nobody reads any more is left to click, which ends quietly.
        """
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(f"cannot write the output: {os_error_text(error)}") from None


class Number(click.FloatRange):
    """A number within bounds; `nan` and `inf` are none."""

    def convert(self, value: Any, *context: Any) -> float:
        """Return the number."""
        number: float = super().convert(value, *context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number")
        return number


class Address(click.ParamType[tuple[str, int]]):
    """`:10060`, `127.0.0.1:10060`, `[::1]:10060`; port 0 is a free one."""

    name = "[host]:port"

    def convert(self, value: Any, *_: Any) -> tuple[str, int]:
        """Return host and port; an empty host is every address."""
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        known = bool(colon) and port.isdecimal() and int(port) <= _MAX_PORT
        if not known or (":" in bare) != bracketed or {*bare} & {*"[]/@ "}:
            self.fail(f"{value!r} is not an address; write :10060, 127.0.0.1:10060 or [::1]:10060")
        return bare, int(port)


class Duration(click.ParamType[float]):
    """A duration as Prometheus writes it: 500ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, *_: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}")


if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.web.live_config import ReloadingWebConfig

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


def load_both(
    path: Path | None, web_path: Path | None
) -> tuple["Config", "ReloadingWebConfig | None"]:
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


def _load_web(path: Path) -> "ReloadingWebConfig":
    from exporter.config.web_file import WebFile
    from exporter.web.live_config import ReloadingWebConfig

    file = WebFile(path)
    return ReloadingWebConfig(file.read(), file.read_if_changed)


def _refusal(what: str, where: object, problems: list[str]) -> str:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"the {what} in {where} cannot be used:{lines}"


def report_check(config: "Config", web: "ReloadingWebConfig | None") -> None:
    """Say that the configuration is valid, and what in the web configuration has no effect."""
    counts = f"{len(config.accounts)} accounts, {len(config.receivers)} receivers"
    click.echo(f"The configuration is valid: {counts}.")
    if web is not None:
        for note in web.first.notes:
            click.echo(f"warning: {note}", err=True)
        tls = "plain HTTP" if web.first.tls is None else "TLS"
        click.echo(f"The web configuration is valid: {tls}, {len(web.first.users)} users.")
