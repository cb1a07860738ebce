"""What the tests of deploy/ share: where it is, and the tools that judge it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import click

from exporter.cli.main import main
from tests.programs import required

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def judged(
    program: str, *arguments: str | Path, package: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a tool to its end in the top folder; what came of it is the caller's to look at."""
    # Those written in Python would be measured, too, and take twice as long.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [
            required(program, package=package, otherwise="" if package else "make .venv/dev"),
            *arguments,
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def assert_clean(program: str, *arguments: str | Path, package: str = "") -> None:
    """The tool has nothing to complain about."""
    found = judged(program, *arguments, package=package)
    assert found.returncode == 0, found.stdout + found.stderr


def promtool(*arguments: str | Path) -> None:
    """Prometheus's own judge has nothing to complain about."""
    assert_clean("promtool", *arguments, package="prometheus")


def amtool(*arguments: str | Path) -> None:
    """Alertmanager's own judge has nothing to complain about."""
    assert_clean("amtool", *arguments, package="prometheus-alertmanager")


def understood(command: str, *flags: str) -> dict[str, Any]:
    """What a command of ours makes of its flags, which it does not act on; raises UsageError."""
    # Below its group: a command remembers the names of its help from the first context it gets.
    group = click.Context(main, **main.context_settings)
    return main.commands[command].make_context(command, list(flags), parent=group).params
