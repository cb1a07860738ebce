"""`run`, the command that is meant: its flags, and the agent from its start to its end."""

import asyncio
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from exporter import __version__
from exporter.cli.exits import CONFIGURATION, RUNTIME, fail, reason
from exporter.cli.options import (
    Address,
    config_file_option,
    load_both,
    report_check,
    web_config_file_option,
)

# The rest is imported by the command when it runs: --help has to answer at once.
if TYPE_CHECKING:
    from exporter.agent.agent import RunOptions
    from exporter.agent.reload import Reloading
    from exporter.agent.systemd import Notifier
    from exporter.config import Config

_TELEMETRY_PATH: Final = re.compile(r"(?!/-/|/config$)(/[\w.~-]+)+", re.ASCII)


@click.command()
@config_file_option
@click.option(
    "--web.listen-address",
    "addresses",
    type=Address(),
    multiple=True,
    default=(":10060",),
    show_default=True,
    help="Where to listen; repeatable.",
)
@click.option(
    "--web.systemd-socket",
    "activated",
    is_flag=True,
    help="Listen on the sockets that systemd passes, in place of addresses.",
)
@web_config_file_option
@click.option(
    "--web.telemetry-path",
    "telemetry_path",
    default="/metrics",
    show_default=True,
    metavar="PATH",
    help="Where the metrics are.",
)
@click.option(
    "--web.external-url",
    "external_url",
    metavar="URL",
    help="Where people reach this agent; messages link to it.",
)
@click.option(
    "--web.enable-lifecycle",
    "lifecycle",
    is_flag=True,
    help="Let a POST to /-/reload reload the configuration.",
)
@click.option(
    "--log.level",
    "level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least level that is logged.",
)
@click.option(
    "--log.format",
    "style",
    type=click.Choice(["logfmt", "json"]),
    default="logfmt",
    show_default=True,
    help="The form of the log, on standard error.",
)
@click.option("--config.check", "check", is_flag=True, help="Check the configuration and exit.")
@click.version_option(__version__, prog_name="cartesia-exporter")
def run(config_file: Path | None, level: str, style: Any, *, check: bool, **web: Any) -> None:
    """Poll the accounts, serve the metrics, send the alerts, until SIGTERM or SIGINT."""
    from exporter import logs
    from exporter.cli import process

    hangup = asyncio.Event()
    process.end_at_once_on_signal(hangup)
    web_file, lifecycle, activated = (web.pop(x) for x in ("web_file", "lifecycle", "activated"))
    if activated:
        _refuse_addresses(click.get_current_context())
    surface = _surface(**web)
    config, web_config = load_both(config_file, web_file)
    if check:
        report_check(config, web_config)
        return
    logs.set_up(level, style)
    surface = _with_what_systemd_gave(replace(surface, web=web_config), activated=activated)
    reloading = _reloading(config_file, hangup, surface.manager, over_http=lifecycle)
    surface = replace(surface, reloading=reloading)
    process.run_until_signal(partial(_run, config_file, config, surface), hangup)


def _reloading(
    path: Path | None, hangup: asyncio.Event, manager: "Notifier", *, over_http: bool
) -> "Reloading":
    from exporter.agent.reload import Reloading
    from exporter.config import load as read

    return Reloading(partial(read, path, os.environ), hangup, over_http, manager)


def _surface(
    addresses: tuple[tuple[str, int], ...], telemetry_path: str, external_url: str | None
) -> "RunOptions":
    from exporter.agent.agent import RunOptions
    from exporter.config.types import check_web_url, check_without_userinfo

    if _TELEMETRY_PATH.fullmatch(telemetry_path) is None:
        raise click.UsageError(
            "--web.telemetry-path must be a path like /metrics: no slash at its end, not below /-/,"
            " not /config"
        )
    try:
        if external_url is not None:
            check_web_url(external_url)
            check_without_userinfo(external_url)
    except ValueError as error:
        raise click.UsageError(f"--web.external-url {error}") from None
    return RunOptions(addresses, telemetry_path, external_url)


def _refuse_addresses(context: click.Context) -> None:
    if context.get_parameter_source("addresses") is not ParameterSource.DEFAULT:
        raise click.UsageError("--web.systemd-socket and --web.listen-address exclude each other")


def _with_what_systemd_gave(surface: "RunOptions", *, activated: bool) -> "RunOptions":
    """Return the surface with what the service manager passed, or end when it had to and did not.

    All of it is taken out of the environment, whether it is used or not.
    """
    import structlog

    from exporter.agent import systemd

    manager = systemd.notifier(os.environ, os.getpid())
    passed = systemd.passed_descriptors(os.environ, os.getpid())
    if not activated:
        if passed:
            log = structlog.get_logger()
            log.warning(
                "sockets were passed, --web.systemd-socket would use them", number=len(passed)
            )
        return replace(surface, manager=manager)
    try:
        listeners = systemd.passed_listeners(passed)
    except systemd.PassedError as error:
        fail(CONFIGURATION, f"--web.systemd-socket cannot be used: {error}")
    return replace(surface, manager=manager, passed=listeners)


async def _run(
    path: Path | None, config: "Config", surface: "RunOptions", stop: asyncio.Event
) -> int:
    import structlog

    from exporter.agent import agent as app
    from exporter.cli import process as resources
    from exporter.store.errors import StoreError, StoreRefusedError

    log = structlog.get_logger()
    log.info(
        "starting",
        version=__version__,
        config="environment" if path is None else str(path),
        accounts=" ".join(account.name for account in config.accounts),
        receivers=" ".join(receiver.name for receiver in config.receivers) or "none",
        state=str(config.storage.path),
    )
    resources.allow_many_files()
    resources.give_memory_back()
    resources.keep_loop_free()
    try:
        await app.run(config, surface, stop)
    except (StoreError, OSError) as error:
        log.error("cannot start", error=reason(error))  # noqa: TRY400 - no bug, no traceback
        return CONFIGURATION if isinstance(error, StoreRefusedError) else RUNTIME
    return 0
