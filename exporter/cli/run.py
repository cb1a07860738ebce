"""`run` and `check-config`: start the agent, or only check its configuration."""

import asyncio
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource
from msgspec.structs import replace

from exporter import __version__
from exporter.cli.exits import CONFIGURATION_ERROR, RUNTIME_ERROR, fail, reason
from exporter.cli.options import (
    Address,
    check_external_url,
    config_file_option,
    external_url_option,
    load_both,
    version_option,
    web_config_file_option,
)
from exporter.imports import without_rich

if TYPE_CHECKING:
    from exporter.agent.agent import RunOptions
    from exporter.config import Config
    from exporter.web.live_config import ReloadingWebConfig

_TELEMETRY_PATH: Final = re.compile(
    r"(?!/(-|api|config|fine-tunes|notifications|static)(/|$))(/[\w.~-]+)+", re.ASCII
)


@click.command()
@config_file_option
@click.option(
    "--web.listen-address",
    "addresses",
    type=Address(),
    multiple=True,
    default=(":10060",),
    show_default=True,
    help="Address to listen on; repeatable.",
)
@click.option(
    "--web.systemd-socket",
    "activated",
    is_flag=True,
    help="Listen on the sockets that systemd passes instead of --web.listen-address.",
)
@web_config_file_option
@click.option(
    "--web.telemetry-path",
    "telemetry_path",
    default="/metrics",
    show_default=True,
    metavar="PATH",
    help="Path of the metrics.",
)
@external_url_option
@click.option(
    "--web.enable-lifecycle",
    "lifecycle",
    is_flag=True,
    help="Allow changes by HTTP POST: reload, retry or discard deliveries, add or end mutes.",
)
@click.option(
    "--log.level",
    "level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Log messages of this level and above.",
)
@click.option(
    "--log.format",
    "style",
    type=click.Choice(["logfmt", "json"]),
    default="logfmt",
    show_default=True,
    help="Format of the log on standard error.",
)
@click.option(
    "--storage.init",
    "init",
    is_flag=True,
    help="Accept a database whose tables were emptied: begin with a new baseline.",
)
@click.option("--config.check", "check", is_flag=True, help="Check the configuration and exit.")
@version_option
def run(
    config_file: Path | None, level: str, style: Any, *, init: bool, check: bool, **web: Any
) -> None:
    """Poll the accounts, serve metrics and pages, and send alerts, until SIGTERM or SIGINT."""
    with without_rich():
        from exporter import logs
    from exporter.cli import process

    hangup = asyncio.Event()
    process.exit_on_signal(hangup)  # before the slow imports: a signal may come during them
    from exporter.agent.reload import Reloading
    from exporter.config import load

    web_file, lifecycle, activated = (web.pop(x) for x in ("web_file", "lifecycle", "activated"))
    if activated:
        source = click.get_current_context().get_parameter_source("addresses")
        if source is not ParameterSource.DEFAULT:
            raise click.UsageError(
                "--web.systemd-socket and --web.listen-address exclude each other"
            )
    options = _run_options(**web)
    config, web_config = load_both(config_file, web_file)
    if check:
        _report_valid(config, web_config)
        return
    logs.set_up(level, style)
    options = _with_systemd(replace(options, web=web_config), activated=activated)
    read = partial(load, config_file, os.environ)
    reloading = Reloading(read, hangup, lifecycle, options.manager)
    options = replace(options, reloading=reloading, init=init)
    process.run_until_signal(partial(_run, config_file, config, options), hangup)


@click.command("check-config")
@config_file_option
@web_config_file_option
def check_config(config_file: Path | None, web_file: Path | None) -> None:
    """Check the configuration, list every mistake, and exit."""
    _report_valid(*load_both(config_file, web_file))


def _report_valid(config: "Config", web: "ReloadingWebConfig | None") -> None:
    """Print that the configuration is valid, with the warnings about it."""
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    counts = f"{len(config.accounts)} accounts, {len(config.receivers)} receivers"
    click.echo(f"The configuration is valid: {counts}.")
    if web is not None:
        for note in web.first.notes:
            click.echo(f"warning: {note}", err=True)
        tls = "plain HTTP" if web.first.tls is None else "TLS"
        click.echo(f"The web configuration is valid: {tls}, {len(web.first.users)} users.")


def _run_options(
    addresses: tuple[tuple[str, int], ...], telemetry_path: str, external_url: str | None
) -> "RunOptions":
    from exporter.agent.agent import RunOptions

    if _TELEMETRY_PATH.fullmatch(telemetry_path) is None:
        raise click.UsageError(
            "--web.telemetry-path must be a path like /metrics: no slash at its end, and not /-,"
            " /api, /config, /fine-tunes, /notifications, /static or a path below one of them"
        )
    check_external_url(external_url)
    return RunOptions(addresses, telemetry_path, external_url)


def _with_systemd(options: "RunOptions", *, activated: bool) -> "RunOptions":
    """Add systemd's notification socket and, if ``activated``, the sockets that it passed.

    Ends the process if ``activated`` and no usable socket was passed. Removes systemd's variables
    from the environment in any case.
    """
    import structlog

    from exporter.agent import systemd

    manager = systemd.notifier(os.environ, os.getpid())
    passed = systemd.passed_descriptors(os.environ, os.getpid())
    if not activated:
        if passed:
            log = structlog.get_logger()
            log.warning(
                "passed sockets are ignored; --web.systemd-socket uses them", number=len(passed)
            )
        return replace(options, manager=manager)
    try:
        listeners = systemd.passed_listeners(passed)
    except systemd.PassedError as error:
        fail(CONFIGURATION_ERROR, f"--web.systemd-socket cannot be used: {error}")
    return replace(options, manager=manager, passed=listeners)


async def _run(
    path: Path | None, config: "Config", options: "RunOptions", stop: asyncio.Event
) -> int:
    import structlog

    from exporter.agent import agent
    from exporter.cli import process
    from exporter.store.errors import StoreError, StoreLostError, StoreRefusedError

    log = structlog.get_logger()
    log.info(
        "starting",
        version=__version__,
        config="environment" if path is None else str(path),
        accounts=" ".join(account.name for account in config.accounts),
        receivers=" ".join(receiver.name for receiver in config.receivers) or "none",
        state=str(config.storage.location),
    )
    process.raise_open_files_limit()
    process.return_freed_memory()
    process.keep_loop_responsive()
    try:
        await agent.run(config, replace(options, on_loaded=process.enable_collector), stop)
    except StoreLostError:
        return RUNTIME_ERROR  # the agent has logged it
    except (StoreError, OSError) as error:
        log.error("cannot start", error=reason(error))  # noqa: TRY400 - no bug, no traceback
        refused = isinstance(error, StoreRefusedError)
        return CONFIGURATION_ERROR if refused else RUNTIME_ERROR
    return 0
