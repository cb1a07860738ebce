"""Paths of deploy/, the tools that check its files, and a parser of our own command lines."""

import os
import subprocess
from pathlib import Path
from typing import Any

import click

from exporter.cli.commands import main
from tests.programs import required

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def run_tool(
    program: str, *arguments: str | Path, package: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a tool in the top folder and return its result, also a failure."""
    # Coverage would also measure tools written in Python, which takes twice as long.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env["GOGC"] = "400"  # tools written in Go take a quarter less time
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


def assert_tool_passes(program: str, *arguments: str | Path, package: str = "") -> None:
    """Run a tool and assert that it exits with 0."""
    done = run_tool(program, *arguments, package=package)
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(*arguments: str | Path) -> None:
    """Assert that promtool accepts its arguments."""
    assert_tool_passes("promtool", *arguments, package="prometheus")


def amtool(*arguments: str | Path) -> None:
    """Assert that amtool accepts its arguments."""
    assert_tool_passes("amtool", *arguments, package="prometheus-alertmanager")


def parse_flags(command: str, *flags: str) -> dict[str, Any]:
    """Return the parsed flags of one of our commands, without running it; raises UsageError."""
    # In its group: a command keeps the names of its help option from its first context.
    group = click.Context(main, **main.context_settings)
    return main.commands[command].make_context(command, list(flags), parent=group).params
