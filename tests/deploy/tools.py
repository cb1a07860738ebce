"""Debian's promtool and amtool: what they say of files of Prometheus and of Alertmanager."""

import subprocess
from pathlib import Path

from tests.programs import required


def promtool(*arguments: str | Path) -> None:
    """Run it, and fail with what it says if it finds a fault."""
    _run(required("promtool", package="prometheus"), *arguments)


def amtool(*arguments: str | Path) -> None:
    """Run it, and fail with what it says if it finds a fault."""
    _run(required("amtool", package="prometheus-alertmanager"), *arguments)


def _run(program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
