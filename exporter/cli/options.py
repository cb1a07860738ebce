"""Flags and parameter types that several commands share, and the loading of the configuration."""

import getpass
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from exporter import __version__
from exporter.cli.exits import CONFIGURATION_ERROR, fail
from exporter.core.text import parse_duration

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.web.live_config import ReloadingWebConfig

_MAX_PORT: Final = 65535


class Number(click.FloatRange):
    """A finite number within bounds."""

    def convert(self, value: Any, *context: Any) -> float:
        """Return the number; refuse `nan` and `inf`, which click accepts."""
        number: float = super().convert(value, *context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number")
        return number


class Address(click.ParamType[tuple[str, int]]):
    """A listen address: `:10060`, `127.0.0.1:10060` or `[::1]:10060`; port 0 is any free port."""

    name = "[host]:port"

    def convert(self, value: Any, *_: Any) -> tuple[str, int]:
        """Return host and port; an empty host means every address of the machine."""
        host, colon, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        has_port = bool(colon) and port.isdecimal() and int(port) <= _MAX_PORT
        if not has_port or (":" in bare) != bracketed or {*bare} & {*"[]/@ "}:
            self.fail(f"{value!r} is not an address; write :10060, 127.0.0.1:10060 or [::1]:10060")
        return bare, int(port)


class AgentUrl(click.ParamType[str]):
    """The URL of a running agent."""

    name = "url"

    def convert(self, value: Any, *_: Any) -> str:
        """Return the URL; refuse userinfo, which every user of the machine could see."""
        url = str(value)
        try:
            split = urlsplit(url)
            usable = (
                split.scheme in {"http", "https"} and split.hostname and "@" not in split.netloc
            )
            split.port  # noqa: B018 - raises ValueError for an invalid port
        except ValueError:
            usable = False
        if not (usable and url.isascii() and url.isprintable() and " " not in url):
            self.fail("write http://host:port/path or https://host:port/path, without a user")
        return url


class Duration(click.ParamType[float]):
    """A duration in the syntax of Prometheus: 500ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, *_: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}")


config_file_option: Final = click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Configuration file; not needed if CARTESIA_API_KEY is set.",
)

web_config_file_option: Final = click.option(
    "--web.config.file",
    "web_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File with TLS, users and limits of the web server, in the format of Prometheus.",
)

external_url_option: Final = click.option(
    "--web.external-url",
    "external_url",
    metavar="URL",
    help="URL under which people reach the pages; messages link to it.",
)

storage_path_option: Final = click.option(
    "--storage.path",
    "storage_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="State file; needs neither the configuration nor a secret.",
)

output_option: Final = click.option(
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="Output format.",
)


def _print_version(context: click.Context, _parameter: click.Parameter, value: object) -> None:
    from exporter.cli.version import version_text

    if value and not context.resilient_parsing:
        click.echo(f"cartesia-exporter {version_text(__version__)}")
        context.exit()


version_option: Final = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)

limit_option: Final = click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Show at most this number, the newest.",
)


def login_name() -> str:
    """Return the name under which the user of the process is logged in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name
        return f"uid {os.getuid()}"


def check_external_url(url: str | None) -> None:
    """Refuse a value of --web.external-url that is no URL, or has a user name or a password."""
    from exporter.config.types import check_web_url, check_without_userinfo

    if url is None:
        return
    try:
        check_web_url(url)
        check_without_userinfo(url)
    except ValueError as error:
        raise click.UsageError(f"--web.external-url {error}") from None


def check_account(config: "Config", name: str) -> None:
    """End the process if an account is not configured."""
    names = [account.name for account in config.accounts]
    if name not in names:
        fail(
            CONFIGURATION_ERROR,
            f"there is no account {name} in the configuration; accounts: {', '.join(names)}",
        )


def load(path: Path | None) -> "Config":
    """Return the configuration, or end the process with every mistake in it."""
    return load_both(path, None)[0]


def load_without_secrets(path: Path | None) -> "Config":
    """Return the configuration without reading any secret, or end the process with its mistakes."""
    from exporter.config import ConfigError
    from exporter.config import load as read

    try:
        return read(path, os.environ, read_secrets=False)
    except ConfigError as error:
        source = path or "the environment"
        fail(CONFIGURATION_ERROR, _error_text("configuration", source, error.problems))


def load_both(
    path: Path | None, web_path: Path | None
) -> tuple["Config", "ReloadingWebConfig | None"]:
    """Return both configurations, or end the process with every mistake in them."""
    from exporter.config import ConfigError
    from exporter.config import load as read

    errors = []
    try:
        config = read(path, os.environ)
    except ConfigError as error:
        errors.append(_error_text("configuration", path or "the environment", error.problems))
    try:
        web = None
        if web_path is not None:
            from exporter.config.web_file import WebFile
            from exporter.web.live_config import ReloadingWebConfig

            file = WebFile(web_path)
            web = ReloadingWebConfig(file.read(), file.read_if_changed)
    except ConfigError as error:
        errors.append(_error_text("web configuration", web_path, error.problems))
    if errors:
        fail(CONFIGURATION_ERROR, "\n".join(errors))
    return config, web


def _error_text(subject: str, source: object, problems: list[str]) -> str:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"the {subject} in {source} cannot be used:{lines}"
